"""Uploaded datasets: the files as they came, their canonical rows, the report; one folder each, named by content."""

import hashlib
import os
import re
import shutil
import unicodedata
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ftapp.contract.errors import DatasetError, MappingNeeded, StorageError
from ftapp.contract.examples import ADVICE
from ftapp.contract.report import CheckRequest, DatasetInfo, Edit, HubSource, Reading, Report, SourceFile
from ftapp.store.building import Progress, build
from ftapp.store.files import alone, write_whole
from ftapp.store.readers import UNPACKED_LIMIT, shown_name, suffix_of
from ftapp.store.stored import Files, StoredDatasets

Builder = Callable[[CheckRequest, Path | None, Progress], Report]
"""Checks files and writes their rows into a folder: here, or in a process of its own."""


def _quiet(_: int, __: int) -> None:
    """No progress."""


class DatasetStore(StoredDatasets):
    """The datasets of one user: how they come to be, change and go."""

    def __init__(
        self,
        folder: Path,
        unpacked_limit: int = UNPACKED_LIMIT,
        builder: Builder = build,
        rows_limit: int | None = None,
    ) -> None:
        super().__init__(folder)
        self._unpacked_limit = unpacked_limit
        self._rows_limit = rows_limit
        self._build = builder

    def add(
        self,
        path: Path,
        filename: str,
        id: str = "",
        progress: Progress = _quiet,
        reading: Reading = Reading(),  # noqa: B008 - frozen
        edits: Sequence[Edit] = (),
    ) -> DatasetInfo:
        """Store one file: see `add_all`."""
        return self.add_all([(path, filename)], id, progress, reading, edits)

    def add_all(
        self,
        files: Files,
        id: str = "",
        progress: Progress = _quiet,
        reading: Reading = Reading(),  # noqa: B008 - frozen
        edits: Sequence[Edit] = (),
        source: HubSource | None = None,
        place: Callable[[Path, Path], Any] = shutil.copyfile,
    ) -> DatasetInfo:
        """Store files as one dataset, with its canonical rows, whole or not at all; the same content is stored once.

        `place` brings each file to its own place.

        Raises DatasetError when no row is usable (EncodingNeeded, MappingNeeded where a person can say more),
        StorageError when the disk is full.
        """
        files = _named(files)
        try:
            digest = _sha256(files)
            id = id or f"{_slug(files[0][1])}-{digest[:8]}"
            if (found := self._same(id, digest, reading, edits)) is not None:
                return found
            self.folder.mkdir(parents=True, exist_ok=True)
            with alone(self.folder / f".{id}.lock"):
                if (found := self._same(id, digest, reading, edits)) is not None:
                    return found  # somebody else was adding it
                return self._write(_asked(id, files, digest, reading, edits, source), files, progress, place)
        except OSError as error:
            raise StorageError(f"Cannot store {_shown(files)}: {error.strerror}.", "Free some disk space.") from error

    def look(
        self,
        files: Files,
        id: str,
        progress: Progress = _quiet,
        reading: Reading = Reading(),  # noqa: B008 - frozen
        edits: Sequence[Edit] = (),
    ) -> DatasetInfo:
        """Check files where they are, not copied, for a store that is thrown away; all that is said of a dataset
        can be asked, also if no row is usable. Raises DatasetError if a file is unusable as a whole, StorageError.
        """
        files = _named([(path.absolute(), name) for path, name in files])
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            asked = _asked(id, files, "", reading, edits)
            return self._write(asked, files, progress, place=os.symlink, useless_too=True)
        except OSError as error:
            raise StorageError(f"Cannot check {_shown(files)}: {error.strerror}.", "Free some disk space.") from error

    def read_again(self, id: str, reading: Reading, edits: Sequence[Edit], progress: Progress = _quiet) -> DatasetInfo:
        """The same files read another way or with other fixes: the rows and the report are made anew.

        Raises DatasetError when no row would be left; then all stays as it was.
        """
        info = self.get(id)
        changed = info.model_copy(update={"reading": reading, "edits": list(dict.fromkeys(edits))})
        try:
            with alone(self.folder / f".{id}.lock"):
                return self._write(changed, self.originals(id), progress, os.link)
        except OSError as error:
            raise StorageError(f"Cannot store {info.filename}: {error.strerror}.", "Free some disk space.") from error

    def sweep(self) -> None:
        """Take away what writers that died left; a dataset that one had put aside is put back."""
        left = [*self.folder.glob(".*.old"), *self.folder.glob(".*.new")]
        for id in {path.name[1 : -len(path.suffix)] for path in left}:
            with alone(self.folder / f".{id}.lock", wait=False) as mine:
                if mine:
                    self._clear(id)

    def _clear(self, id: str) -> None:
        """Take away a dataset's draft and the one put aside for it, or put that back if there is no other."""
        old = self.folder / f".{id}.old"
        if old.exists() and not (self.folder / id).exists():
            old.rename(self.folder / id)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(self.folder / f".{id}.new", ignore_errors=True)

    def _same(self, id: str, digest: str, reading: Reading, edits: Sequence[Edit]) -> DatasetInfo | None:
        found = self._find(id)
        if found and not (self.folder / id / "places.npy").is_file():
            return None  # stored by an earlier version
        same = found and found.sha256 == digest and found.reading == reading and set(edits) <= set(found.edits)
        return found if same else None

    def _write(
        self,
        info: DatasetInfo,
        files: Files,
        progress: Progress,
        place: Callable[[Path, Path], Any],
        useless_too: bool = False,
    ) -> DatasetInfo:
        draft, old = self.folder / f".{info.id}.new", self.folder / f".{info.id}.old"
        self._clear(info.id)  # what a crash left
        try:
            draft.mkdir()
            copies = []
            for number, (path, name) in enumerate(files, 1):
                copy = draft / f"original{f'-{number:03}' if len(files) > 1 else ''}{_suffixes(name)}"
                place(path, copy)
                copies.append(SourceFile(path=str(copy), name=name))
            request = CheckRequest(
                files=copies,
                reading=info.reading,
                edits=info.edits,
                unpacked_limit=self._unpacked_limit,
                rows_limit=self._rows_limit,
            )
            report = self._build(request, draft, progress)
            if not report.valid and not useless_too:
                raise _nothing_usable(info, report)
            info = info.model_copy(update={"report": report})
            write_whole(draft / "report.json", info.model_dump_json().encode())
            if (self.folder / info.id).exists():
                (self.folder / info.id).rename(old)
            draft.rename(self.folder / info.id)
            return info
        finally:
            self._clear(info.id)

    def delete(self, id: str) -> None:
        """Remove a dataset; runs keep their own record of it."""
        self.get(id)
        shutil.rmtree(self.folder / id)


def _named(files: Files) -> Files:
    """The files under names that are safe to show; raises DatasetError for kinds that cannot be read."""
    named = [(path, shown_name(name)) for path, name in files]
    for _, name in named:
        suffix_of(name)
    return named


def _shown(files: Files) -> str:
    return files[0][1] if len(files) == 1 else f"{files[0][1]} and {len(files) - 1} more"


def _asked(
    id: str, files: Files, digest: str, reading: Reading, edits: Sequence[Edit], source: HubSource | None = None
) -> DatasetInfo:
    """What is known before the check."""
    return DatasetInfo(
        id=id,
        filename=_shown(files),
        sha256=digest,
        bytes=sum(path.stat().st_size for path, _ in files),
        added=datetime.now(UTC),
        files=[name for _, name in files] if len(files) > 1 else [],
        reading=reading,
        edits=list(dict.fromkeys(edits)),
        source=source,
        report=Report(format="unknown", rows=0, valid=0),
    )


def _nothing_usable(info: DatasetInfo, report: Report) -> DatasetError:
    if report.left_out and report.problem_count < report.rows:
        return DatasetError(f"No row of {info.filename} would be left.", "Choose other fixes.")
    first = report.problems[0]
    message = f"No row of {info.filename} can be used: row {first.row}: {first.message}."
    if first.kind in ("unknown_format", "preference"):
        mapping = report.suggestion.model_dump(exclude_none=True) if report.suggestion else None
        hint = "Say which columns hold the prompt and the answer, the turns or the text."
        if first.kind == "preference":
            hint = "To train on the better answers, choose `chosen` as the answer."
        return MappingNeeded(message, hint, report.columns, mapping)
    return DatasetError(message, ADVICE[first.kind])


def _sha256(files: Files) -> str:
    digests = []
    for path, _ in files:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _suffixes(filename: str) -> str:
    return suffix_of(filename) + (".gz" if filename.lower().endswith(".gz") else "")


def _slug(filename: str) -> str:
    name = re.sub(r"\.gz$", "", filename, flags=re.IGNORECASE)
    stem = unicodedata.normalize("NFKD", Path(name).stem).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[:40] or "dataset"
