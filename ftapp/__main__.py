"""The terminal's face: python -m ftapp VERB calls the same Studio as the page; the only place that prints."""

import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from typer.exceptions import TyperException

from ftapp.contract import events as ev
from ftapp.contract.config import RunConfig, parse_publish_config, parse_run_config
from ftapp.contract.errors import ConfigError, FtappError, JobError
from ftapp.contract.examples import ADVICE
from ftapp.contract.report import Reading, Report
from ftapp.settings import read_settings
from ftapp.store.eventlog import tail
from ftapp.studio import JobView, RunView, Studio

FAILED, BAD_CONFIG, STOPPED, LEFT_RUNNING = 1, 2, 3, 130
PROBLEMS_SHOWN = 20
POLL_SECONDS = 0.3
ENDING = """Exit codes: 0 done, 1 failed, 2 the command or the config is not valid, 3 stopped before the end,
130 left running in the background."""

app = typer.Typer(
    help="Fine-tune language models: the page's verbs in the terminal.",
    epilog=ENDING,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RunName = Annotated[str, typer.Argument(metavar="RUN", help="The run's name, as `runs` lists it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print only JSON on stdout.")]
EventsAsJson = Annotated[bool, typer.Option("--json", help="Print the events as JSON lines, as they come.")]


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    json: AsJson = False,
    mapping: Annotated[
        list[str] | None,
        typer.Option("--mapping", metavar="PART=COLUMN", help="prompt, answer, system, messages or text; repeatable."),
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="cp1252, utf-16-le or utf-16-be, if the file is that.")] = None,
) -> None:
    """Check every row of a dataset file; the exit code is 1 if no row can be used."""
    reading = _reading(mapping or [], encoding)
    with Console(stderr=True).status("checking") as status:
        report = _studio().check_file(
            file.expanduser(), lambda done, total: status.update(f"checking: {done / max(1, total):.0%}"), reading
        )
    if json:
        _print_json(report.model_dump(mode="json"))
    else:
        _tell_report(_console(), file.name, report)
    if not report.valid:
        raise typer.Exit(FAILED)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.json")],
    json: EventsAsJson = False,
    leave_out_invalid: Annotated[
        bool, typer.Option("--leave-out-invalid", help="Train without the rows that cannot be used.")
    ] = False,
) -> None:
    """Train what the config says and watch it; `data.dataset` and `data.eval_dataset` may be files' paths here."""
    studio, request = _studio(), _read_config(config.expanduser())
    data = {
        name: _stored(studio, value, leave_out_invalid)
        for name in ("dataset", "eval_dataset")
        if (value := getattr(request.data, name)) is not None
    }
    request = request.model_copy(update={"data": request.data.model_copy(update=data)})
    _watch_run(studio, studio.start_training(request), json)


@app.command()
def runs(json: AsJson = False) -> None:
    """List the runs, newest first."""
    found = [_summary(view) for view in _studio().runs()]
    if json:
        _print_json(found)
    elif found:
        shown = ["name", "status", "model", "dataset", "step", "loss", "eval_loss"]
        _console().print(_table(shown, [["" if run[key] is None else str(run[key]) for key in shown] for run in found]))
    else:
        _console().print("There are no runs yet.")


@app.command()
def stop(run: RunName, now: Annotated[bool, typer.Option("--now", help="End it without saving.")] = False) -> None:
    """Ask a run to save what it has and end."""
    studio = _studio()
    if not (view := studio.run(run)).active:
        raise JobError(f"{run} is not at work: it is {view.status}.", "Only a queued or running run can be stopped.")
    if now:
        studio.kill(run)
    else:
        studio.stop(run)
    _console().print(f"{run} was ended." if now else f"{run} saves what it has and ends.")


@app.command()
def resume(run: RunName, json: EventsAsJson = False) -> None:
    """Take an interrupted run up again from its last checkpoint and watch it."""
    studio = _studio()
    events = studio.run(run).folder / "events.jsonl"
    said = events.stat().st_size if events.exists() else 0
    studio.resume(run)
    _watch_run(studio, run, json, said)


@app.command()
def merge(
    run: RunName,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Where the merged model is written.")],
    json: EventsAsJson = False,
) -> None:
    """Merge a run's adapter into its base model and write the result, checked, to a folder."""
    _publish({"run": run, "artifact": "merged", "folder": str(to.expanduser().absolute())}, json)


@app.command()
def push(
    run: RunName,
    destination: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository on the Hub.")],
    merged: Annotated[bool, typer.Option("--merged", help="The whole model instead of the adapter alone.")] = False,
    public: Annotated[bool, typer.Option("--public", help="Everybody can see the repository.")] = False,
    json: EventsAsJson = False,
) -> None:
    """Publish a run's result on the Hub, with the write token in HF_TOKEN."""
    artifact = "merged" if merged else "adapter"
    _publish({"run": run, "artifact": artifact, "destination": destination, "private": not public}, json)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the training config."""
    _print_json(RunConfig.model_json_schema())


def _stored(studio: Studio, dataset: str, leave_out_invalid: bool) -> str:
    """A dataset's name; a file is stored first."""
    if set(dataset) & set("./\\"):  # no dataset's name has these
        path = Path(dataset).expanduser()
        return studio.add_dataset(path, path.name, edits=("drop_problems",) if leave_out_invalid else ()).id
    if leave_out_invalid and studio.dataset(dataset).unresolved:
        studio.leave_out_problems(dataset)
    return dataset


def _reading(mapping: list[str], encoding: str | None) -> Reading:
    try:
        columns = dict(part.split("=", 1) for part in mapping)
        return Reading.model_validate({"encoding": encoding, "mapping": columns or None})
    except ValueError:
        given = " ".join([*(f"--mapping {part}" for part in mapping), f"--encoding {encoding}" if encoding else ""])
        raise ConfigError(
            f"{given.strip()}: not understood.",
            "Parts are prompt, answer, system, messages and text; encodings are cp1252, utf-16-le and utf-16-be.",
        ) from None


def _tell_report(console: Console, name: str, report: Report) -> None:
    console.print(f"{name}: {report.valid} of {report.rows} rows can be used; format: {report.format}.")
    if report.problems:
        console.print(_table(["row", "line", "problem"], [_cells(p) for p in report.problems[:PROBLEMS_SHOWN]]))
    if report.problem_count > PROBLEMS_SHOWN:
        console.print(f"... and {report.problem_count - PROBLEMS_SHOWN} more; --json lists the first thousand.")
    for kind in report.problem_kinds:
        console.print(f"{kind.replace('_', ' ')}: {ADVICE[kind]}")
    if report.encoding_offer:
        offer = report.encoding_offer
        console.print(f"Line {offer.line} read as {offer.encoding}: {offer.excerpt} (--encoding {offer.encoding})")
    if report.suggestion:
        parts = report.suggestion.model_dump(exclude_none=True).items()
        console.print("Try " + " ".join(f"--mapping {part}={column}" for part, column in parts))
    for finding in report.findings:
        rows = ", ".join(str(ref.row) for ref in finding.rows[:5])
        console.print(f"{finding.message} Rows {rows}{', ...' if finding.count > 5 else ''}")
    for advice in report.advice:
        console.print(advice.message)


def _studio() -> Studio:
    return Studio(read_settings())


def _read_config(path: Path) -> RunConfig:
    try:
        value = orjson.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", "Give the path of a JSON file.") from None
    except orjson.JSONDecodeError as error:
        raise ConfigError(
            f"{path} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.", "Correct it there."
        ) from None
    return parse_run_config(value)


def _summary(view: RunView) -> dict[str, Any]:
    metrics, evaluations = view.state.metrics, view.state.evaluations
    return {
        "name": view.name,
        "status": view.status,
        "created": datetime.fromtimestamp(view.created, UTC).isoformat(timespec="seconds"),
        "model": view.config.model.id,
        "dataset": view.config.data.dataset,
        "method": view.config.method.type,
        "step": metrics[-1].step if metrics else None,
        "total_steps": metrics[-1].total_steps if metrics else None,
        "loss": round(metrics[-1].loss, 4) if metrics else None,
        "eval_loss": round(evaluations[-1].loss, 4) if evaluations else None,
        "message": view.message,
        "hint": view.hint,
        "folder": str(view.folder),
    }


def _publish(config: dict[str, Any], json: bool) -> None:
    studio, request = _studio(), parse_publish_config(config)
    number = studio.publish(request)
    name = f"{request.run}, publication {number}"
    _watch(name, lambda: studio.publication(request.run, number), lambda: studio.stop(request.run, number), json)


def _watch_run(studio: Studio, name: str, json: bool, offset: int = 0) -> None:
    def look() -> RunView:
        view = studio.run(name)
        if view.status == "queued":  # the page, which else starts the next run, may not be running
            studio.scheduler.tick()
        return view

    _watch(name, look, lambda: studio.stop(name), json, offset)


def _watch(
    name: str, look: Callable[[], JobView[Any]], ask_to_stop: Callable[[], None], json: bool, offset: int = 0
) -> None:
    """Tell a job's events until it ends: Ctrl-C stops it, a second one leaves it in the background."""
    asked = False
    with _interrupts() as interrupts, _Screen(json) as screen:
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


class _Screen:
    """A job's events: JSON lines on stdout, or for a person one moving line and the news above it."""

    def __init__(self, json: bool) -> None:
        self._json = json
        self._console = _console(stderr=json)
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

    def __enter__(self) -> "_Screen":
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


def _console(stderr: bool = False) -> Console:
    """Plain text only: what is printed comes from files and models; not cut to a width that nobody has."""
    console = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = 200
    return console


def _table(columns: list[str], rows: list[list[str]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for number, name in enumerate(columns):
        table.add_column(name.replace("_", " "), no_wrap=number == 0, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _cells(problem: Any) -> list[str]:
    return [str(problem.row), str(problem.line or ""), problem.message]


def _print_json(value: Any) -> None:
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n")
    sys.stdout.flush()


def _error(message: str, hint: str = "") -> None:
    sys.stdout.flush()
    sys.stderr.write(" ".join(f"error: {message} {hint}".split()) + "\n")


def main(arguments: list[str]) -> int:
    """Run one verb; an error is one line on stderr, a bug also a traceback in FTAPP_HOME/terminal.log."""
    try:
        command = typer.main.get_command(app)
        return int(command(arguments or ["--help"], prog_name="python -m ftapp", standalone_mode=False) or 0)
    except TyperException as error:
        _error(error.format_message(), "See python -m ftapp --help.")
        return error.exit_code
    except FtappError as error:
        _error(error.message, error.hint)
        return BAD_CONFIG if isinstance(error, ConfigError) else FAILED
    except Exception as error:
        _error(f"This is a bug in ftapp: {type(error).__name__}: {error}.", _keep(traceback.format_exc()))
        return FAILED


def _keep(text: str) -> str:
    try:
        log = read_settings().home / "terminal.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now(UTC).isoformat()} {' '.join(sys.argv[1:])}\n{text}\n")
        return f"The traceback is in {log}."
    except (OSError, FtappError):
        sys.stderr.write(text)
        return "The traceback is above: it could not be logged."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
