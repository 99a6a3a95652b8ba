"""The verb `check`: all that can be known of a dataset before it is stored or trained on."""

import csv
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.status import Status

from ftapp.contract.chat import Loading
from ftapp.contract.config import DataConfig, ModelConfig
from ftapp.contract.errors import ConfigError, DatasetError, StorageError
from ftapp.contract.preview import Lengths, Reply, Rows
from ftapp.contract.refusals import config_error
from ftapp.contract.report import EDITS, DatasetInfo, Edit, Encoding, HubSource, Reading
from ftapp.hub import HubDataset
from ftapp.settings import read_settings
from ftapp.store.exports import Kind
from ftapp.store.tally import PROBLEM_COLUMNS
from ftapp.studio import Studio
from ftapp.terminal.output import FAILED, console, print_json
from ftapp.terminal.report import tell_examples, tell_lengths, tell_report, tell_rows, tell_source, tell_split

HUB = "hub:"
PARTS = ("prompt", "answer", "system", "messages", "text")
KINDS: dict[str, Kind] = {".jsonl": "jsonl", ".parquet": "parquet"}
FIXES = "; ".join(f"{name}: {words[:1].lower()}{words[1:]}" for name, words in EDITS.items())
Files = Sequence[tuple[Path, str]]


def check(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE", help="Read one after another as one dataset; or hub:OWNER/NAME, hub:OWNER/NAME@REVISION."
        ),
    ],
    json: Annotated[bool, typer.Option("--json", help="Print only JSON on stdout.")] = False,
    mapping: Annotated[
        list[str] | None,
        typer.Option("--mapping", metavar="PART=COLUMN,...", help=f"Which columns hold what: {', '.join(PARTS)}."),
    ] = None,
    encoding: Annotated[Encoding | None, typer.Option(help="What the text is, if it is not UTF-8.")] = None,
    fix: Annotated[list[str] | None, typer.Option("--fix", metavar="NAME", help=f"Repeatable. {FIXES}.")] = None,
    problems: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Write every row that cannot be used there.")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the usable rows to this .jsonl or .parquet.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="ID", help="Measure the rows in tokens of demo, a Hub model or a folder.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(metavar="TOKENS", min=16, help="What this limit would do; with --model.")
    ] = None,
    show: Annotated[
        int, typer.Option(metavar="ROWS", min=0, max=50, help="Show rows: as conversations, with --model as tokens.")
    ] = 0,
    start: Annotated[int, typer.Option("--from", metavar="ROW", min=1, help="Which of them to show first.")] = 1,
    search: Annotated[str, typer.Option(metavar="WORDS", help="Show only rows with these words.")] = "",
    eval_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rows to measure on; tells how many share their prompt with it.")
    ] = None,
    eval_fraction: Annotated[
        float | None, typer.Option(min=0, max=0.5, help="Tells how many rows would train and how many measure.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of --eval-fraction's choice.")] = 42,
    config: Annotated[str | None, typer.Option(help="Of a Hub dataset.")] = None,
    split: Annotated[str | None, typer.Option(help="Of a Hub dataset.")] = None,
) -> None:
    """Check every row of a dataset and store nothing; the exit code is 1 if no row can be used."""
    reading = _reading(mapping or [], encoding)
    edits = _edits(fix or [])
    base = _base(model, max_length)
    split_asked = eval_file is not None or eval_fraction is not None
    if eval_file and eval_fraction is not None:
        raise ConfigError("Rows to measure on are a file or a share.", "Give --eval-file or --eval-fraction.")
    if (search or start > 1) and not show:
        raise ConfigError("--search and --from choose rows to show.", "Add --show ROWS.")
    paths, wanted = _sources(sources, config, split)
    problems, export = _target(problems, [".csv"], paths), _target(export, list(KINDS), paths)
    with tempfile.TemporaryDirectory(prefix="ftapp-check-") as home, Console(stderr=True).status("checking") as status:
        studio = Studio(replace(read_settings(), home=Path(home)))
        source = None
        files: Files = [(path, path.name) for path in paths]
        if wanted:
            source = _chosen(studio.hub_dataset(*wanted), config, split)
            tell_source(console(stderr=True), source)
            files = studio.download(source, Path(home) / "hub", _progress(status, "downloading"))
        told: dict[str, Any] = {"source": source.model_dump(mode="json")} if source else {}
        said = _progress(status, "checking")
        if problems or export or base or show or split_asked:
            info = studio.look_at_files(files, said, reading, edits)
            report = info.report
            data = _data(studio, info.id, eval_file, eval_fraction, reading, said)
            _write(studio, info, problems, export)
        else:
            report = studio.check_files(files, said, reading, edits)
        if json:
            told = report.model_dump(mode="json") | told
        else:
            tell_report(console(), _shown(files), report, edits)
        if split_asked and report.valid:
            overlap = studio.overlap(data, seed)
            told["split"] = overlap.model_dump(mode="json")
            if not json:
                tell_split(console(), overlap)
        if report.valid and base:
            told |= _tokens(studio, info.id, base, max_length, (start - 1, show, search), status, json)
        elif report.valid and show:
            found = studio.search_examples(info.id, search, 0, start - 1 + show)[start - 1 :]
            told["shown"] = [{"row": number + 1, **row.model_dump(mode="json")} for number, row in found]
            if not json:
                tell_examples(console(), found)
        if json:
            print_json(told)
    if not report.valid:
        raise typer.Exit(FAILED)


def _reading(mapping: list[str], encoding: Encoding | None) -> Reading:
    columns: dict[str, str] = {}
    for part in (part for given in mapping for part in re.split(rf",(?=(?:{'|'.join(PARTS)})=)", given)):
        name, equals, column = part.partition("=")
        if name not in PARTS or not equals or not column or name in columns:
            why = "stands there twice" if name in columns else "is not PART=COLUMN"
            raise ConfigError(f"--mapping: {part!r} {why}.", f"Parts are {', '.join(PARTS)}.")
        columns[name] = column
    reading = Reading.model_validate({"encoding": encoding, "mapping": columns or None})
    if reading.mapping and not reading.mapping.whole:
        raise ConfigError(
            f"--mapping {','.join(mapping)} does not say enough to read a row, or too much.",
            "Give the columns of prompt and answer, or of messages, or of text.",
        )
    return reading


def _edits(names: list[str]) -> list[Edit]:
    for name in names:
        if name not in EDITS:
            raise ConfigError(f"--fix: there is no fix {name!r}.", f"There are {', '.join(EDITS)}.")
    return [edit for edit in EDITS if edit in names]


def _data(
    studio: Studio, id: str, file: Path | None, fraction: float | None, reading: Reading, progress: Any
) -> DataConfig:
    """What a run would be told: a file of its own to measure on, or a share of the rows."""
    if file is None:
        return DataConfig(dataset=id, eval_fraction=fraction or 0)
    path = file.expanduser()
    other = studio.look_at_files([(path, path.name)], progress, reading, id="measured-on")
    if not other.report.valid:
        first = other.report.problems[0]
        raise DatasetError(f"No row of {other.filename} can be used: row {first.row}: {first.message}.", first.advice)
    return DataConfig(dataset=id, eval_dataset=other.id)


def _base(model: str | None, max_length: int | None) -> ModelConfig | None:
    if model is None:
        if max_length:
            raise ConfigError("--max-length counts in tokens.", "Add --model ID.")
        return None
    path = Path(model).expanduser()
    try:
        return ModelConfig(id=str(path.absolute()) if model[:1] in ("/", ".", "~") else model)
    except ValidationError as error:
        raise config_error(error) from None


def _sources(
    sources: list[str], config: str | None, split: str | None
) -> tuple[list[Path], tuple[str, str | None] | None]:
    """The files, or a Hub dataset's name and revision."""
    named = [source for source in sources if source.startswith(HUB)]
    if not named:
        if config or split:
            raise ConfigError("--config and --split speak of a Hub dataset.", "Name one: hub:OWNER/NAME.")
        return [Path(source).expanduser() for source in sources], None
    if len(sources) > 1:
        raise ConfigError("A Hub dataset is checked alone.", "Name it or files, not both.")
    name, _, revision = named[0].removeprefix(HUB).partition("@")
    return [], (name, revision or None)


def _chosen(dataset: HubDataset, config: str | None, split: str | None) -> HubSource:
    found = [each for each in dataset.sources if config in (None, each.config) and split in (None, each.split)]
    if len(found) == 1:
        return found[0]
    there = ", ".join(f"{each.config}/{each.split} ({each.bytes / 2**20:,.1f} MiB)" for each in dataset.sources)
    raise ConfigError(f"{dataset.id} has these configs and splits: {there}.", "Choose one with --config and --split.")


def _target(path: Path | None, suffixes: list[str], sources: list[Path]) -> Path | None:
    """Where to write; raises ConfigError for another kind of file, and for one that is read."""
    if path is None:
        return None
    target = path.expanduser()
    if target.suffix.lower() not in suffixes:
        raise ConfigError(f"{target} is not a {' or '.join(suffixes)} file.", "Give it such a name.")
    if any(target.exists() and source.exists() and target.samefile(source) for source in sources):
        raise ConfigError(f"{target} is the file to check.", "Write to another one.")
    return target


def _write(studio: Studio, info: DatasetInfo, problems: Path | None, export: Path | None) -> None:
    try:
        if problems:
            if found := studio.problems_csv(info.id):
                shutil.copyfile(found, problems)
            else:
                with problems.open("w", encoding="utf-8", newline="") as file:
                    csv.writer(file).writerow(PROBLEM_COLUMNS)
    except OSError as error:
        raise StorageError(f"Cannot write {problems}: {error.strerror}.", "Choose another file.") from error
    if export and info.report.valid:
        studio.export_dataset(info.id, KINDS[export.suffix.lower()], export)


def _tokens(
    studio: Studio,
    id: str,
    base: ModelConfig,
    max_length: int | None,
    page: tuple[int, int, str],
    status: Status,
    json: bool,
) -> dict[str, Any]:
    """Tell how long the rows are, and what some look like to the model; or give it for machines."""
    told: dict[str, Any] = {}
    try:
        lengths = _last(studio.measure(id, base, max_length), status)
        assert isinstance(lengths, Lengths)
        told["lengths"] = lengths.model_dump(mode="json")
        if not json:
            tell_lengths(console(), base.id, lengths)
        start, count, search = page
        if count:
            rows = _last(studio.token_rows(id, base, start, count, search), status)
            assert isinstance(rows, Rows)
            told["token_rows"] = [row.model_dump(mode="json") for row in rows.rows]
            if not json:
                tell_rows(console(), rows)
    finally:
        studio.close_preview()
    return told


def _last(replies: Iterator[Reply], status: Status) -> Reply:
    reply: Reply
    for reply in replies:
        if isinstance(reply, Loading):
            status.update(reply.name)
    return reply


def _progress(status: Status, doing: str) -> Any:
    return lambda done, total: status.update(f"{doing}: {done / max(1, total):.0%}")


def _shown(files: Files) -> str:
    return files[0][1] if len(files) == 1 else f"{len(files)} files"
