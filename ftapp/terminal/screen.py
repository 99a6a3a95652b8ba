"""A job's events as a person or a machine wants to see them go by."""

import sys
from typing import Any

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ftapp.contract import events as ev
from ftapp.terminal.output import console
from ftapp.views import JobView


class Screen:
    """A job's events: JSON lines on stdout, or for a person one moving line and the news above it."""

    def __init__(self, json: bool) -> None:
        self._json = json
        self._console = console(stderr=json)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[news]}", markup=False),
            TimeRemainingColumn(),
            console=self._console,
            disable=json or not self._console.is_terminal,
        )
        self._task = self._progress.add_task("starting", total=None, news="")
        self._doing = "starting"
        self._steps = False

    def __enter__(self) -> "Screen":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """One line for a person."""
        self._console.print(text, soft_wrap=True)

    def wait(self, view: JobView[Any]) -> None:
        """Nothing was said: show why."""
        if view.status in ("queued", "starting", "stopping") and self._doing != view.status:
            self._now(view.status)
            if view.status == "queued":
                self.say(f"{view.name}: {view.message}.")

    def tell(self, event: ev.Event) -> None:
        """One event."""
        if self._json:
            sys.stdout.write(event.model_dump_json() + "\n")
            sys.stdout.flush()
            return
        match event:
            case ev.Phase(name="training" | "evaluating") if self._steps:
                self._progress.update(self._task, description=event.name)  # the bar stays that of the steps
            case ev.Phase():
                self._now(event.name, event.done, event.total)
            case ev.Resolved():
                values = "".join(f", {name} = {value}" for name, value in event.values.items() if value is not None)
                self.say(f"{event.train_rows} rows to train on, {event.eval_rows} held out{values}.")
            case ev.Metrics(step=step, total_steps=total):
                self._steps = True
                self._now("training", step, total, f"loss {event.loss:.4f}")
                if not self._console.is_terminal and step * 10 // total > (step - 1) * 10 // total:
                    self.say(f"step {step} of {total}: loss {event.loss:.4f}")
            case ev.Evaluation():
                self.say(f"step {event.step}: held-out loss {event.loss:.4f}")
            case ev.Verified():
                same = f"the same likeliest token at {100 * event.top1:.2f} % of {event.positions} places"
                apart = f"{event.divergence:.1e} nats a token apart, where the training changed {event.change:.1e}"
                self.say(f"Merged model against base + adapter: {same}, {apart}.")
            case ev.Note():
                self.say(f"{event.level}: {event.message}" if event.level == "warning" else event.message)

    def _now(self, doing: str, done: int | None = None, total: int | None = None, news: str = "") -> None:
        if doing != self._doing:
            self._doing = doing
            self._progress.remove_task(self._task)
            self._task = self._progress.add_task(doing, total=None, news="")
            if not self._console.is_terminal:
                self.say(doing)
        self._progress.update(self._task, description=doing, total=total, completed=done or 0, news=news)
