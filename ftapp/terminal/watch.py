"""Watching a job until it ends, from the terminal that asked for it."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import typer

from ftapp.contract.errors import JobError
from ftapp.store.eventlog import tail
from ftapp.studio import Studio
from ftapp.terminal.output import LEFT_RUNNING, STOPPED
from ftapp.terminal.screen import Screen
from ftapp.views import JobView, RunView

POLL_SECONDS = 0.3


def watch_run(studio: Studio, name: str, json: bool, offset: int = 0) -> None:
    """Tell a run's events, from this offset of its log on, until it ends."""

    def look() -> RunView:
        view = studio.run(name)
        if view.status == "queued":  # the page, which else starts the next run, may not be running
            studio.scheduler.tick()
        return view

    watch(name, look, lambda: studio.stop(name), json, offset)


def watch(
    name: str, look: Callable[[], JobView[Any]], ask_to_stop: Callable[[], None], json: bool, offset: int = 0
) -> None:
    """Tell a job's events until it ends: Ctrl-C stops it, a second one leaves it in the background."""
    asked = False
    with _interrupts() as interrupts, Screen(json) as screen:
        while True:
            view = look()  # before the events, so that they are complete when it has ended
            while (read := tail(view.folder / "events.jsonl", offset))[1] != offset:
                offset = read[1]
                for event in read[0]:
                    screen.tell(event)
            if not view.active:
                break
            screen.wait(view)
            if len(interrupts) > 1:
                screen.say(f"{name} goes on in the background: {view.folder}")
                raise typer.Exit(LEFT_RUNNING)
            if interrupts and not asked:
                asked = True
                screen.say("Stopping: it saves what it has. Ctrl-C again to leave it to that in the background.")
                ask_to_stop()
            time.sleep(POLL_SECONDS)
    if view.status in ("failed", "lost"):
        raise JobError(f"{name} {view.status}: {view.message}", view.hint)
    screen.say(f"{name}: {view.message}")
    if view.status == "stopped":
        raise typer.Exit(STOPPED)


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """The Ctrl-C's so far, counted instead of raised in the middle of something."""
    seen: list[int] = []

    def count(number: int, _: FrameType | None) -> None:
        seen.append(number)

    before = signal.signal(signal.SIGINT, count)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)
