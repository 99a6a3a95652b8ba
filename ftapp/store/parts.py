"""What is kept of a dataset and of a run, part by part: of which files, and their copying. The keeper asks."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ftapp.store.files import workplace
from ftapp.store.jobs import Job
from ftapp.store.pieces import Pulse
from ftapp.store.volume import Item, fingerprint

LINKS = ".keeping-"
"""How a folder in the home begins in which files wait to be copied."""

RESULTS = ("adapter", "model")
GROWING = ("events.jsonl", "output.log")
INNER = ("evaluations", "publications")
PUBLICATION = ("config.json", "events.jsonl", "output.log", "process.json", "artifact.json", "stop")
"""What is kept of a publication; what it made can be made again."""


@dataclass(frozen=True)
class Part:
    """Files that are kept and come back together."""

    name: str
    files: list[tuple[Path, str]]
    """Where each is, and its name inside the run or dataset."""
    fingerprint: str
    """Another one when the part has to be kept anew."""
    grows: bool = False
    """Whether files may be appended to while they are copied."""


def account_part(file: Path) -> Part:
    """Whose a user's folder is."""
    return _part("account", [(file, file.name)])


def dataset_part(folder: Path) -> Part:
    """A whole dataset: its originals, its rows, its report. Raises FileNotFoundError if it goes meanwhile."""
    return _part("dataset", _files(folder, folder))


def record_part(run: Path, newest: Path | None, at_work: bool) -> Part:
    """Config, events, dataset record, log and what else lies in a run's folder itself.

    Of a run at work it is another one when there is another `newest` checkpoint, not with each event.
    """
    files = [(path, path.name) for path in sorted(run.iterdir()) if _is_kept(path, run)]
    if not at_work:
        return _part("record", files, grows=True)
    decisive = [(path, name) for path, name in files if name not in GROWING]
    decisive += [(newest / "trainer_state.json", newest.name)] if newest else []
    return Part("record", files, fingerprint(decisive), grows=True)


def checkpoint_part(run: Path, checkpoint: Path) -> Part:
    """A checkpoint."""
    return _part(checkpoint.name, _files(checkpoint, run))


def result_parts(run: Path) -> list[Part]:
    """What the run trained; nothing if it has not come so far."""
    return [_part("result", _files(run / name, run)) for name in RESULTS if (run / name).is_dir()]


def inner_jobs(run: Path) -> list[Job]:
    """A run's evaluations and publications."""
    configs = [path for kind in INNER for path in sorted((run / kind).glob("*/config.json"))]
    return [Job(path.parent) for path in configs if path.parent.name.isdecimal()]


def inner_part(run: Path, job: Job) -> Part:
    """An evaluation, or the record of a publication."""
    kind, files = job.folder.parent.name, _files(job.folder, run)
    if kind == "publications":
        files = [(path, name) for path, name in files if path.parent == job.folder and path.name in PUBLICATION]
    return _part(f"{kind.removesuffix('s')}-{job.name}", files)


def keep_part(item: Item, part: Part, home: Path, pulse: Pulse) -> None:
    """Copy a part unless it is there; raises FileNotFoundError if its files change meanwhile, OSError, StorageError."""
    if item.has(part.name, part.fingerprint):
        return
    with workplace(home, LINKS) as links:
        linked = [(links / str(number), name) for number, (_, name) in enumerate(part.files)]
        for (path, _), (link, _) in zip(part.files, linked, strict=True):
            os.link(path, link)  # stays when the trainer takes its checkpoint away
        before = fingerprint(linked)
        item.put(part.name, part.fingerprint, linked, pulse, lambda: part.grows or fingerprint(linked) == before)


def times_of(run: Path) -> tuple[int, ...]:
    """What changes when something is written in a run that has ended, without a look at every file."""
    inner = [path for kind in INNER for path in sorted((run / kind).glob("*"))]
    looked = [run, run / "checkpoints", *(run / name for name in GROWING), *inner]
    looked += [path / name for path in inner for name in (*GROWING, "votes.jsonl")]
    return tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in looked)


def _part(name: str, files: list[tuple[Path, str]], grows: bool = False) -> Part:
    return Part(name, files, fingerprint(files), grows)


def _files(folder: Path, base: Path) -> list[tuple[Path, str]]:
    found: Iterable[Path] = (path for path in sorted(folder.rglob("*")) if _is_kept(path, folder))
    return [(path, path.relative_to(base).as_posix()) for path in found]


def _is_kept(path: Path, folder: Path) -> bool:
    """Whether it is a file, no link that may lead elsewhere, and no draft."""
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and path.is_file() and not path.is_symlink()
