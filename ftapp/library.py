"""What a user can do with datasets, one short method per verb; a Studio is one of these."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from ftapp.contract.config import DataConfig
from ftapp.contract.errors import DatasetError, JobError
from ftapp.contract.examples import Example
from ftapp.contract.report import CheckRequest, DatasetInfo, Edit, HubSource, Overlap, Reading, Report, SourceFile
from ftapp.hub import Hub, HubDataset
from ftapp.processes.checking import Checker
from ftapp.settings import Settings
from ftapp.store.building import Progress
from ftapp.store.datasets import DatasetStore
from ftapp.store.exports import Kind
from ftapp.store.previews import Preview, preview

DEMO = "demo"
DEMO_FOLDER = Path(__file__).parent / "demo"
AS_IT_IS = Reading()


def _quiet(_: int, __: int) -> None:
    """No progress."""


class Library:
    """The datasets of one user; `progress` is always called with bytes read and bytes in all."""

    def __init__(self, settings: Settings, user: str) -> None:
        self.settings = settings
        self.user = user
        self.folder = settings.home / user
        self._checker = Checker(self.folder / "datasets")
        self._datasets = DatasetStore(self.folder / "datasets", settings.max_unpacked_bytes, self._checker.build)

    def check_file(
        self, path: Path, progress: Progress = _quiet, reading: Reading = AS_IT_IS, edits: Sequence[Edit] = ()
    ) -> Report:
        """Check every row of a file without storing it; raises DatasetError."""
        self._refuse_missing(path)
        request = CheckRequest(
            files=[SourceFile(path=str(path.absolute()), name=path.name)],
            reading=reading,
            edits=list(edits),
            unpacked_limit=self.settings.max_unpacked_bytes,
        )
        return self._checker.build(request, None, progress)

    def add_dataset(
        self,
        path: Path,
        filename: str,
        progress: Progress = _quiet,
        reading: Reading = AS_IT_IS,
        edits: Sequence[Edit] = (),
    ) -> DatasetInfo:
        """Store an upload: see `add_files`."""
        return self.add_files([(path, filename)], progress, reading, edits)

    def add_files(
        self,
        files: Sequence[tuple[Path, str]],
        progress: Progress = _quiet,
        reading: Reading = AS_IT_IS,
        edits: Sequence[Edit] = (),
    ) -> DatasetInfo:
        """Store uploads (where each is, and its name) as one dataset; if it raises, nothing is stored.

        Raises EncodingNeeded or MappingNeeded when a person has to say more, other DatasetErrors, StorageError.
        """
        for path, _ in files:
            self._refuse_missing(path)
        name = files[0][1] if len(files) == 1 else f"{len(files)} files"
        self._refuse_large(name, sum(path.stat().st_size for path, _ in files))
        return self._datasets.add_all(files, "", progress, reading, edits)

    def add_pasted(self, text: str, name: str = "pasted", reading: Reading = AS_IT_IS) -> DatasetInfo:
        """Store pasted rows: JSON if they begin like it, a table if their first line has tabs or commas, else text."""
        start = text.lstrip()[:1]
        first = text.strip().split("\n", 1)[0]
        suffix = ".json" if start == "[" else ".jsonl" if start == "{" else ".tsv" if "\t" in first else ".txt"
        if suffix == ".txt" and "," in first and "\n" in text.strip():
            suffix = ".csv"
        if not start:
            raise DatasetError("Nothing was pasted.", "Paste rows: JSON lines, a JSON array, a table or plain text.")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"pasted{suffix}"
            path.write_bytes(text.encode("utf-8", "replace"))
            return self.add_dataset(path, f"{name}{suffix}", reading=reading)

    def preview_file(self, path: Path, filename: str, reading: Reading = AS_IT_IS, count: int = 5) -> Preview:
        """The first rows of a file as a reading would make them, nothing stored; raises DatasetError."""
        self._refuse_missing(path)
        return preview(path, filename, reading, self.settings.max_unpacked_bytes, count)

    def cancel_checks(self) -> None:
        """End every check of this user that is under way: where it was started it raises DatasetError."""
        self._checker.cancel()

    def hub_dataset(self, id: str, revision: str | None = None) -> HubDataset:
        """A Hub dataset's configs and splits with their sizes, its revision pinned; raises HubError."""
        return Hub(self.settings.hub_token).dataset(id, revision)

    def add_hub_dataset(
        self, source: HubSource, progress: Progress = _quiet, reading: Reading = AS_IT_IS
    ) -> DatasetInfo:
        """Download a split, as `hub_dataset` offers it, and store it; raises HubError and what `add_files` does."""
        self._refuse_large(source.id, source.bytes)
        with tempfile.TemporaryDirectory(prefix=".hub-", dir=self._home()) as folder:
            files = Hub(self.settings.hub_token).download(source, Path(folder), progress)
            return self._datasets.add_all(files, "", progress, reading, (), source)

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

    def apply_fix(self, id: str, edit: Edit, progress: Progress = _quiet) -> DatasetInfo:
        """Apply a fix to a dataset and check it anew; raises DatasetError if no row would be left."""
        info = self._changeable(id)
        return self._datasets.read_again(id, info.reading, [*info.edits, edit], progress)

    def undo_fix(self, id: str, edit: Edit, progress: Progress = _quiet) -> DatasetInfo:
        """Take a fix back; the rows are as they were."""
        info = self._changeable(id)
        return self._datasets.read_again(id, info.reading, [e for e in info.edits if e != edit], progress)

    def leave_out_problems(self, id: str, progress: Progress = _quiet) -> DatasetInfo:
        """Say that the rows with problems are to be left out; `undo_fix(id, "drop_problems")` takes it back."""
        return self.apply_fix(id, "drop_problems", progress)

    def read_again(self, id: str, reading: Reading, progress: Progress = _quiet) -> DatasetInfo:
        """Read a dataset's files another way: with another mapping or encoding; its fixes stay."""
        info = self._changeable(id)
        return self._datasets.read_again(id, reading, info.edits, progress)

    def overlap(self, data: DataConfig, seed: int = 42) -> Overlap:
        """How many rows would train and measure, and how many training rows share a prompt with the measuring ones."""
        for id in filter(None, (data.dataset, data.eval_dataset)):
            self.dataset(id)
        return self._datasets.overlap(data, seed)

    def export_dataset(self, id: str, kind: Kind) -> Path:
        """The canonical rows as a file, OpenAI chat JSONL or Parquet; raises StorageError."""
        self.dataset(id)
        return self._datasets.export(id, kind, self.folder / "exports" / f"{id}.{kind}")

    def problems_csv(self, id: str) -> Path | None:
        """Every row of a dataset that cannot be used, as a CSV file; None if there is none."""
        self.dataset(id)
        return self._datasets.problems_csv(id)

    def delete_dataset(self, id: str) -> None:
        """Remove a dataset that no run is using right now; raises JobError while one is."""
        if id == DEMO:
            raise DatasetError("The demo dataset cannot be deleted.", "It ships with the app.")
        self._changeable(id)
        self._datasets.delete(id)

    def _changeable(self, id: str) -> DatasetInfo:
        if run := self._run_using(id):
            raise JobError(f"The run {run} is using '{id}'.", "Wait for it or stop it first.")
        return self.dataset(id)

    def _run_using(self, id: str) -> str | None:
        """The name of a run that needs this dataset as it is."""
        raise NotImplementedError

    def _ensure_demo(self) -> None:
        self._datasets.add(DEMO_FOLDER / "dataset.jsonl", "demo.jsonl", id=DEMO)

    def _home(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder

    def _refuse_missing(self, path: Path) -> None:
        if not path.is_file():
            raise DatasetError(f"There is no file {path}.", "Check the path.")

    def _refuse_large(self, name: str, size: int) -> None:
        limit = self.settings.max_upload_bytes
        if size > limit:
            raise DatasetError(
                f"{name} has {size / 2**20:.0f} MiB, the limit is {limit / 2**20:.0f} MiB.",
                "Set FTAPP_MAX_UPLOAD_MB higher, or split the file.",
            )
