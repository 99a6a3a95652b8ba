"""The losses over the steps as a PNG, for the model card."""

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ftapp.contract.state import JobState

WIDTH, HEIGHT = 1440, 720
LEFT, TOP, RIGHT, BOTTOM = 130, 90, 1400, 630
TRAIN, HELD_OUT, INK, GRID = "#6366f1", "#ea580c", "#334155", "#e2e8f0"
MOST = 1200
"""Points of a curve; of more, each stretch's mean."""

Point = tuple[float, float]


def draw_losses(state: JobState, path: Path) -> bool:
    """Write the picture; False if there are not two points to join."""
    train = _thinned([(one.step, one.loss) for one in state.metrics if math.isfinite(one.loss)])
    held = [(one.step, one.loss) for one in state.evaluations if math.isfinite(one.loss)]
    if len(train) < 2:
        return False
    every = [*train, *held]
    last = max(x for x, _ in every)
    high = max(y for _, y in every)
    low = min(0.0, min(y for _, y in every))
    step = _step((high - low) / 5 or 1.0)
    top = low + math.ceil((high - low) / step + 1e-9) * step
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=26)

    def at(point: Point) -> Point:
        x = LEFT + (RIGHT - LEFT) * point[0] / last
        return x, BOTTOM - (BOTTOM - TOP) * (point[1] - low) / (top - low)

    for number in range(round((top - low) / step) + 1):
        y = at((0, low + number * step))[1]
        draw.line([(LEFT, y), (RIGHT, y)], fill=GRID, width=2)
        draw.text((LEFT - 16, y), f"{low + number * step:.4g}", fill=INK, font=font, anchor="rm")
    for tick in range(0, int(last) + 1, max(1, round(_step(last / 6)))):
        draw.text((at((tick, low))[0], BOTTOM + 16), f"{tick:,}", fill=INK, font=font, anchor="mt")
    draw.text(((LEFT + RIGHT) / 2, HEIGHT - 12), "step", fill=INK, font=font, anchor="mb")
    draw.line([at(point) for point in train], fill=TRAIN, width=4, joint="curve")
    if held:
        draw.line([at(point) for point in held], fill=HELD_OUT, width=4, joint="curve")
        for across, y in map(at, held):
            draw.ellipse([across - 7, y - 7, across + 7, y + 7], fill=HELD_OUT)
    x = float(LEFT)
    for name, colour, shown in (("training loss", TRAIN, True), ("held-out loss", HELD_OUT, bool(held))):
        if shown:
            draw.line([(x, 45), (x + 50, 45)], fill=colour, width=6)
            draw.text((x + 62, 45), name, fill=INK, font=font, anchor="lm")
            x += 300
    image.save(path, optimize=True)
    return True


def _step(wanted: float) -> float:
    """1, 2 or 5 times a power of ten, at least as large."""
    power = 10.0 ** math.floor(math.log10(wanted))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= wanted * (1 - 1e-9))


def _thinned(points: Sequence[Point]) -> list[Point]:
    if len(points) <= MOST:
        return list(points)
    size = math.ceil(len(points) / MOST)
    stretches = [points[first : first + size] for first in range(0, len(points), size)]
    return [(s[-1][0], sum(y for _, y in s) / len(s)) for s in stretches]
