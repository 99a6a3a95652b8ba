"""make bench: figures as ratios against a named opponent, each taken in one run; prints one table."""

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from tests.bench import chat, datasets, history, load, memory, merge, page, speed, steps
from tests.bench.table import HEAD, INTRODUCTION, Row, machine


def main() -> None:
    """Run the parts named on the command line, or all."""
    parts: dict[str, Callable[[int], list[Row]]] = {
        "page": page.measure,
        "steps": steps.measure,
        "speed": speed.measure,
        "datasets": datasets.measure,
        "history": history.measure,
        "memory": memory.measure,
        "chat": chat.measure,
        "merge": merge.measure,
        "load": load.measure,
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *parts], default=[], help=f"of {', '.join(parts)}")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of runs; medians are printed")
    parser.add_argument("--rows", type=int, default=datasets.ROWS, help="of the datasets part")
    parser.add_argument("--into", type=Path, help="a file that the table is written to as well: docs/figures.md")
    options = parser.parse_args()
    parts["datasets"] = partial(datasets.measure, rows=options.rows)
    lines = [f"Measured on {machine()}, {datetime.now(UTC):%Y-%m-%d}.", "", *HEAD]
    print("\n".join(lines))
    missed = False
    for name in options.parts or parts:
        for row in parts[name](options.rounds):
            lines.append(row.text())
            print(row.text(), flush=True)
            missed |= not row.reached
    if options.into:
        options.into.write_text("\n".join([*INTRODUCTION, *lines, ""]))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
