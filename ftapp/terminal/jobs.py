"""The verbs on runs: train, list, stop, resume, merge, push."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from ftapp.contract.config import RunConfig, parse_run_config
from ftapp.contract.duration import DurationEstimate, tokens_per_epoch
from ftapp.contract.errors import ConfigError, FtappError, JobError
from ftapp.contract.publication import parse_publish_config
from ftapp.settings import read_settings
from ftapp.studio import Studio
from ftapp.terminal.output import console, print_json, table
from ftapp.terminal.watch import watch, watch_run
from ftapp.views import RunView

RunName = Annotated[str, typer.Argument(metavar="RUN", help="The run's name, as `runs` lists it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print only JSON on stdout.")]
EventsAsJson = Annotated[bool, typer.Option("--json", help="Print the events as JSON lines, as they come.")]


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.json")],
    json: EventsAsJson = False,
    leave_out_invalid: Annotated[
        bool, typer.Option("--leave-out-invalid", help="Train without the rows that cannot be used.")
    ] = False,
    two_steps: Annotated[
        bool, typer.Option("--two-steps", help="Only two steps: whether it fits, and how long the whole would take.")
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
    memory = "" if json else _memory(studio, request)
    name = studio.try_two_steps(request) if two_steps else studio.start_training(request)
    if memory:
        console().print(memory, soft_wrap=True)
    watch_run(studio, name, json)
    told = studio.run(name).state.resolved
    if two_steps and told and not json and (found := studio.duration(request, tokens_per_epoch(told, request))):
        console().print(f"The whole run: {_span(found)}, {found.basis}.", soft_wrap=True)


def runs(json: AsJson = False) -> None:
    """List the runs, newest first."""
    found = [_summary(view) for view in _studio().runs()]
    if json:
        print_json(found)
    elif found:
        shown = ["name", "status", "model", "dataset", "step", "loss", "eval_loss"]
        console().print(table(shown, [["" if run[key] is None else str(run[key]) for key in shown] for run in found]))
    else:
        console().print("There are no runs yet.")


def stop(run: RunName, now: Annotated[bool, typer.Option("--now", help="End it without saving.")] = False) -> None:
    """Ask a run to save what it has and end."""
    studio = _studio()
    if not (view := studio.run(run)).active:
        raise JobError(f"{run} is not at work: it is {view.status}.", "Only a queued or running run can be stopped.")
    if now:
        studio.kill(run)
    else:
        studio.stop(run)
    console().print(f"{run} was ended." if now else f"{run} saves what it has and ends.")


def resume(run: RunName, json: EventsAsJson = False) -> None:
    """Take an interrupted run up again from its last checkpoint and watch it."""
    studio = _studio()
    events = studio.run(run).folder / "events.jsonl"
    said = events.stat().st_size if events.exists() else 0
    studio.resume(run)
    watch_run(studio, run, json, said)


def merge(
    run: RunName,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Where the merged model is written.")],
    gguf: Annotated[
        str | None, typer.Option("--gguf", metavar="TYPE", help="As a GGUF file: q8_0, bf16 or f16.")
    ] = None,
    json: EventsAsJson = False,
) -> None:
    """Merge a run's adapter into its base model and write the result, checked, to a folder."""
    kind = {"artifact": "gguf", "gguf_type": gguf} if gguf else {"artifact": "merged"}
    _publish({"run": run, **kind, "folder": str(to.expanduser().absolute())}, json)


def push(
    run: RunName,
    destination: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository on the Hub.")],
    merged: Annotated[bool, typer.Option("--merged", help="The whole model instead of the adapter alone.")] = False,
    public: Annotated[bool, typer.Option("--public", help="Everybody can see the repository.")] = False,
    with_base: Annotated[bool, typer.Option("--with-base", help="Put the base model beside the adapter.")] = False,
    branch: Annotated[str | None, typer.Option("--branch", metavar="NAME", help="Push to this branch.")] = None,
    pull_request: Annotated[bool, typer.Option("--pull-request", help="Open a pull request instead.")] = False,
    card: Annotated[Path | None, typer.Option("--card", metavar="FILE.md", help="A model card of your own.")] = None,
    json: EventsAsJson = False,
) -> None:
    """Publish a run's result on the Hub, with the write token in HF_TOKEN; again after a failure goes on from there."""
    request = {
        "run": run,
        "artifact": "merged" if merged else "adapter",
        "with_base": with_base,
        "destination": destination,
        "private": not public,
        "mode": "pull_request" if pull_request else "branch" if branch else "commit",
        "branch": branch,
        "card": _text(card) if card else None,
    }
    _publish(request, json)


def _text(path: Path) -> str:
    try:
        return path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.", "Give the path of a Markdown file.") from None


def _stored(studio: Studio, dataset: str, leave_out_invalid: bool) -> str:
    """A dataset's name; a file is stored first."""
    if set(dataset) & set("./\\"):  # no dataset's name has these
        path = Path(dataset).expanduser()
        return studio.add_dataset(path, path.name, edits=("drop_problems",) if leave_out_invalid else ()).id
    if leave_out_invalid and studio.dataset(dataset).unresolved:
        studio.leave_out_problems(dataset)
    return dataset


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
    config = None if view.unreadable else view.config
    return {
        "name": view.name,
        "status": view.status,
        "created": datetime.fromtimestamp(view.created, UTC).isoformat(timespec="seconds"),
        "model": config.model.id if config else None,
        "dataset": config.data.dataset if config else None,
        "method": config.method.type if config else None,
        "step": metrics[-1].step if metrics else None,
        "total_steps": metrics[-1].total_steps if metrics else None,
        "loss": round(metrics[-1].loss, 4) if metrics else None,
        "eval_loss": round(evaluations[-1].loss, 4) if evaluations else None,
        "message": view.message,
        "hint": view.hint,
        "folder": str(view.folder),
    }


def _memory(studio: Studio, config: RunConfig) -> str:
    """What the run would need, in a line; empty if the model's headers cannot be read."""
    try:
        view = studio.memory(config)
    except FtappError:
        return ""
    free = f", {view.machine.free / 2**30:.1f} GiB free" if view.machine.free is not None else ""
    full = ""
    if view.disk_free is not None and view.disk > view.disk_free:
        full = f" Its checkpoints need {view.disk / 2**30:.1f} GiB of disk, {view.disk_free / 2**30:.1f} GiB are free."
    enough = f" Enough would be: {view.changes[0].words}." if view.changes else ""
    notes = "".join(f" {note}" for note in view.notes)
    return (
        f"Memory, estimated with rows of {view.estimate.plan.row_tokens} tokens: {view.estimate.peak / 2**30:.1f} GiB"
        f" on {view.machine.name}{free}: {view.verdict}.{enough}{notes}{full}"
    )


def _span(found: DurationEstimate) -> str:
    low, high = (str(timedelta(seconds=round(seconds))) for seconds in (found.low, found.high))
    cost = f", ${found.dollars_low:.2f} to ${found.dollars_high:.2f}" if found.dollars_high is not None else ""
    return f"{low} to {high}{cost}"


def _publish(config: dict[str, Any], json: bool) -> None:
    studio, request = _studio(), parse_publish_config(config)
    number = studio.publish(request)
    name = f"{request.run}, publication {number}"
    watch(name, lambda: studio.publication(request.run, number), lambda: studio.stop(request.run, number), json)
