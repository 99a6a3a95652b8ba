"""What a publication made: which files, made from what, and whether they are still so; a record beside the folder."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic import Field, ValidationError

from ftapp.contract.base import Contract
from ftapp.contract.events import Verified
from ftapp.contract.publication import PublishConfig
from ftapp.store.files import write_whole

RECORD = "artifact.json"
CARD = ("README.md", "loss.png")
"""Written anew for each publication, so no part of the record."""

Progress = Callable[[int, int], None]
"""Bytes done, bytes in all; may raise."""


class Artifact(Contract):
    """A whole artifact: it was made, checked, and not changed since it was written down."""

    kind: str
    """`adapter`, `merged` or `gguf`; a whole trained model is `merged`."""
    gguf_type: str = ""
    """Of a GGUF file."""
    with_base: bool
    source: str
    """What it was made from: a run's result as it was then."""
    files: dict[str, str] = Field(default_factory=dict)
    """Path inside the folder → SHA-256."""
    sizes: dict[str, int] = Field(default_factory=dict)
    verified: Verified | None = None
    """Of a merged model."""


def result_of(run: Path) -> Path:
    """The folder of what a run trained: its adapter, or its model."""
    return next((folder for name in ("adapter", "model") if (folder := run / name).is_dir()), run / "adapter")


def source_of(run: Path) -> str:
    """A run's result as it is now: another one after the run was taken up again."""
    digest = hashlib.sha256()
    for path in files_in(result_of(run)):
        about = path.stat()
        digest.update(f"{path.name} {about.st_size} {about.st_mtime_ns}\\n".encode())
    return digest.hexdigest()


def files_in(folder: Path) -> list[Path]:
    """All files of an artifact but its card, in order."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.relative_to(folder).as_posix() not in CARD)


def record(
    publication: Path, folder: Path, config: PublishConfig, source: str, verified: Verified | None, progress: Progress
) -> Artifact:
    """Write down what is in an artifact's folder; raises StorageError, OSError."""
    hashes, sizes = _hashes(folder, files_in(folder), progress)
    made = Artifact(
        kind=config.artifact,
        gguf_type=_gguf_type(config),
        with_base=config.with_base,
        source=source,
        files=hashes,
        sizes=sizes,
        verified=verified,
    )
    write_whole(publication / RECORD, made.model_dump_json(indent=2).encode())
    return made


def read(publication: Path) -> Artifact | None:
    """What a publication made, if it came so far and all files are there with their sizes."""
    try:
        made = Artifact.model_validate_json((publication / RECORD).read_bytes())
        folder = publication / made.kind
        now = {p.relative_to(folder).as_posix(): p.stat().st_size for p in files_in(folder)}
    except (OSError, ValidationError):
        return None
    return made if now == made.sizes else None


def find(publications: Iterable[Path], config: PublishConfig, source: str) -> tuple[Path, Artifact] | None:
    """The folder of the first publication whose artifact would do for this one, too."""
    wanted = (config.artifact, _gguf_type(config), config.with_base, source)
    for publication in publications:
        made = read(publication)
        if made and (made.kind, made.gguf_type, made.with_base, made.source) == wanted:
            return publication / made.kind, made
    return None


def unchanged(folder: Path, made: Artifact, progress: Progress) -> bool:
    """Whether every byte is as it was written down."""
    return _hashes(folder, [folder / name for name in made.files], progress)[0] == made.files


def _gguf_type(config: PublishConfig) -> str:
    return config.gguf_type if config.artifact == "gguf" else ""


def _hashes(folder: Path, paths: list[Path], progress: Progress) -> tuple[dict[str, str], dict[str, int]]:
    hashes: dict[str, str] = {}
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
    done, total = 0, sum(sizes.values())
    for path in paths:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while data := file.read(4 * 2**20):
                digest.update(data)
                done += len(data)
                progress(done, total)
        hashes[path.relative_to(folder).as_posix()] = digest.hexdigest()
    return hashes, sizes
