"""What a user can do with datasets, one short method per verb; a Studio is one of these."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ftapp.contract.config import DataConfig
from ftapp.contract.errors import DatasetError, JobError, LimitReached, StorageError
from ftapp.contract.examples import Example
from ftapp.contract.report import CheckRequest, DatasetInfo, Edit, Overlap, Reading, Report, SourceFile
from ftapp.contract.turns import is_whole
from ftapp.people import Person, acts
from ftapp.processes.checking import Checker
from ftapp.processes.scheduler import Scheduler
from ftapp.settings import Settings
from ftapp.store.building import Progress
from ftapp.store.datasets import DatasetStore
from ftapp.store.exports import Kind
from ftapp.store.files import bytes_in
from ftapp.store.previews import Preview, preview
from ftapp.store.readers import shown_name
from ftapp.store.volume import Kind as KeptKind
from ftapp.store.volume import mark_deleted

DEMO = "demo"
DEMO_FOLDER = Path(__file__).parent / "demo"
AS_IT_IS = Reading()


def quiet(_: int, __: int) -> None:
    """No progress."""


class Library:
    """The datasets of one user; `progress` is always called with bytes read and bytes in all."""

    def __init__(self, settings: Settings, person: Person, scheduler: Scheduler) -> None:
        self.settings = settings
        self.person = person
        self.scheduler = scheduler
        self.folder = settings.home / person.name
        self.turn = threading.RLock()
        """Held by the verbs that are `in_turn`."""
        self._checker = Checker(self.folder / "datasets")
        self._datasets = DatasetStore(
            self.folder / "datasets", settings.max_unpacked_bytes, self._checker.build, settings.max_rows
        )

    @acts
    def check_files(
        self,
        files: Sequence[tuple[Path, str]],
        progress: Progress = quiet,
        reading: Reading = AS_IT_IS,
        edits: Sequence[Edit] = (),
    ) -> Report:
        """Check every row of files (where each is, its name) as one dataset, storing nothing; raises DatasetError."""
        for path, _ in files:
            self._refuse_missing(path)
        request = CheckRequest(
            files=[SourceFile(path=str(path.absolute()), name=name) for path, name in files],
            reading=reading,
            edits=list(edits),
            unpacked_limit=self.settings.max_unpacked_bytes,
            rows_limit=self.settings.max_rows,
        )
        return self._checker.build(request, None, progress)

    @acts
    def look_at_files(
        self,
        files: Sequence[tuple[Path, str]],
        progress: Progress = quiet,
        reading: Reading = AS_IT_IS,
        edits: Sequence[Edit] = (),
        id: str = "looked-at",
    ) -> DatasetInfo:
        """Check files as `check_files` does, and have them as a dataset: for a Studio whose home is thrown away."""
        for path, _ in files:
            self._refuse_missing(path)
        return self._datasets.look(files, id, progress, reading, edits)

    @acts
    def add_dataset(
        self,
        path: Path,
        filename: str,
        progress: Progress = quiet,
        reading: Reading = AS_IT_IS,
        edits: Sequence[Edit] = (),
    ) -> DatasetInfo:
        """Store an upload: see `add_files`."""
        return self.add_files([(path, filename)], progress, reading, edits)

    @acts
    def add_files(
        self,
        files: Sequence[tuple[Path, str]],
        progress: Progress = quiet,
        reading: Reading = AS_IT_IS,
        edits: Sequence[Edit] = (),
    ) -> DatasetInfo:
        """Store uploads (where each is, and its name) as one dataset; if it raises, nothing is stored.

        Raises EncodingNeeded or MappingNeeded when a person has to say more, other DatasetErrors, StorageError.
        """
        for path, _ in files:
            self._refuse_missing(path)
        name = files[0][1] if len(files) == 1 else f"{len(files)} files"
        self._refuse_large(name, size := sum(path.stat().st_size for path, _ in files))
        self._refuse_full(size)
        return self._datasets.add_all(files, "", progress, reading, edits)

    @acts
    def preview_dataset(self, id: str, reading: Reading, count: int = 5) -> Preview:
        """The first rows of a stored dataset's file as another reading would make them; raises DatasetError."""
        self.dataset(id)
        path, name = self._datasets.originals(id)[0]
        return preview(path, name, reading, self.settings.max_unpacked_bytes, count)

    def checking(self) -> bool:
        """Whether a check of this user is under way, from whichever page."""
        return self._checker.busy

    @acts
    def cancel_checks(self) -> None:
        """End every check and download of this user; each raises DatasetError where it was started."""
        self._checker.cancel()

    def use_token(self, token: str | None) -> None:
        """Act on the Hub with this token from now on: whose Studio this is has signed in."""
        self.settings = replace(self.settings, hub_token=token)

    def sweep(self) -> None:
        """Take away what processes that died left half done; call it when the app starts."""
        self._checker.sweep()
        self._datasets.sweep()

    def datasets(self) -> list[DatasetInfo]:
        """The user's datasets, newest first; the demo's is always there."""
        self._ensure_demo()
        return self._datasets.all()

    def dataset(self, id: str) -> DatasetInfo:
        """One dataset; raises DatasetError."""
        if id == DEMO:
            self._ensure_demo()
        return self._datasets.get(id)

    def examples(self, id: str, start: int = 0, count: int = 10) -> list[Example]:
        """A page of a dataset's canonical rows."""
        self.dataset(id)
        return list(self._datasets.examples(id, start, count))

    def search_examples(self, id: str, words: str, start: int = 0, count: int = 10) -> list[tuple[int, Example]]:
        """The next canonical rows, from number `start` on, that contain these words; each with its number."""
        self.dataset(id)
        return self._datasets.search(id, words, start, count)

    @acts
    def apply_fix(self, id: str, edit: Edit, progress: Progress = quiet) -> DatasetInfo:
        """Apply a fix to a dataset and check it anew; raises DatasetError if no row would be left."""
        info = self._changeable(id)
        return self._datasets.read_again(id, info.reading, [*info.edits, edit], progress)

    @acts
    def undo_fix(self, id: str, edit: Edit, progress: Progress = quiet) -> DatasetInfo:
        """Take a fix back; the rows are as they were."""
        info = self._changeable(id)
        return self._datasets.read_again(id, info.reading, [e for e in info.edits if e != edit], progress)

    @acts
    def leave_out_problems(self, id: str, progress: Progress = quiet) -> DatasetInfo:
        """Say that the rows with problems are to be left out; `undo_fix(id, "drop_problems")` takes it back."""
        return self.apply_fix(id, "drop_problems", progress)

    @acts
    def read_again(self, id: str, reading: Reading, progress: Progress = quiet) -> DatasetInfo:
        """Read a dataset's files another way: with another mapping or encoding; its fixes stay."""
        info = self._changeable(id)
        return self._datasets.read_again(id, reading, info.edits, progress)

    def overlap(self, data: DataConfig, seed: int = 42) -> Overlap:
        """How many rows would train and measure, and how many training rows share a prompt with the measuring ones."""
        for id in filter(None, (data.dataset, data.eval_dataset)):
            self.dataset(id)
        return self._datasets.overlap(data, seed)

    @acts
    def export_dataset(self, id: str, kind: Kind, target: Path | None = None) -> Path:
        """The canonical rows as a file, OpenAI chat JSONL or Parquet; raises StorageError."""
        self.dataset(id)
        return self._datasets.export(id, kind, target or self.folder / "exports" / f"{id}.{kind}")

    @acts
    def export_sides(self, data: DataConfig, seed: int = 42) -> list[Path]:
        """The rows of a run as OpenAI chat JSONL: train.jsonl and, if any are held out, held_out.jsonl.

        Raises DatasetError, StorageError.
        """
        for id in filter(None, (data.dataset, data.eval_dataset)):
            self.dataset(id)
        return self._datasets.export_sides(data, seed, self.folder / "exports" / f"{data.dataset}-split")

    def problems_csv(self, id: str) -> Path | None:
        """Every row of a dataset that cannot be used, as a CSV file; None if there is none."""
        self.dataset(id)
        return self._datasets.problems_csv(id)

    @acts
    def delete_dataset(self, id: str) -> None:
        """Remove a dataset that no run is using right now; raises JobError while one is."""
        if id == DEMO:
            raise DatasetError("The demo dataset cannot be deleted.", "It ships with the app.")
        self._changeable(id)
        self._mark_deleted("datasets", id)
        self._datasets.delete(id)

    def _mark_deleted(self, kind: KeptKind, name: str) -> None:
        """Have it taken off the volume too."""
        if self.settings.volume:
            try:
                mark_deleted(self.folder, kind, name)
            except OSError as error:
                raise StorageError(f"Cannot delete {name}: {error.strerror}.", "Free some disk space.") from error

    def _changeable(self, id: str) -> DatasetInfo:
        if run := self._run_using(id):
            raise JobError(f"The run {run} is using '{id}'.", "Wait for it or stop it first.")
        return self.dataset(id)

    def _run_using(self, id: str) -> str | None:
        """The name of a run that needs this dataset as it is."""
        raise NotImplementedError

    def _ensure_demo(self) -> None:
        self._datasets.add(DEMO_FOLDER / "dataset.jsonl", "demo.jsonl", id=DEMO)

    def _refuse_missing(self, path: Path) -> None:
        if not is_whole(str(path)):
            raise DatasetError(f"The path of {shown_name(path.name)} is not UTF-8 text.", "Rename the file or folder.")
        if not path.is_file():
            raise DatasetError(f"There is no file {path}.", "Check the path.")

    def _refuse_full(self, more: int = 0) -> None:
        """Raise LimitReached if this person's folder, and so many bytes more, are more than may be."""
        limit = self.settings.max_disk_bytes
        if limit and (used := bytes_in(self.folder)) + more > limit:
            raise LimitReached(
                f"Your datasets and runs take {used / 2**20:,.0f} MiB"
                + (f", and this needs {more / 2**20:,.0f} MiB" if more else "")
                + f"; {limit / 2**20:,.0f} MiB is the most that is allowed here.",
                "Delete datasets or runs that you need no more.",
            )

    def _refuse_large(self, name: str, size: int) -> None:
        limit = self.settings.max_upload_bytes
        if size > limit:
            raise DatasetError(
                f"{name} has {size / 2**20:.0f} MiB, the limit is {limit / 2**20:.0f} MiB.",
                "Set FTAPP_MAX_UPLOAD_MB higher, or split the file.",
            )
