"""What a user can do with rows that are on their way to become a dataset: uploaded, pasted or of the Hub."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ftapp.contract.errors import DatasetError, EncodingNeeded, MappingNeeded, StorageError
from ftapp.contract.report import DatasetInfo, HubSource, Reading
from ftapp.hub import Hub, HubDataset
from ftapp.library import AS_IT_IS, Library, quiet
from ftapp.people import Person, acts, in_turn
from ftapp.processes.scheduler import Scheduler
from ftapp.settings import Settings
from ftapp.store.building import Progress
from ftapp.store.files import abandoned, workplace
from ftapp.store.previews import Preview, preview
from ftapp.store.uploads import Upload, Uploads

DOWNLOAD = ".hub-"


class Arrivals(Library):
    """The uploads of one user that wait until it is said how they are to be read."""

    def __init__(self, settings: Settings, person: Person, scheduler: Scheduler) -> None:
        super().__init__(settings, person, scheduler)
        self._uploads = Uploads(self.folder / "uploads")

    def sweep(self) -> None:
        """Take away what processes that died left half done; call it when the app starts."""
        super().sweep()
        self._uploads.sweep()
        for _ in abandoned(self.folder, DOWNLOAD):
            pass

    @acts
    @in_turn
    def hold_files(self, files: Sequence[tuple[Path, str]], source: HubSource | None = None) -> Upload:
        """Move files (where each is, and its name) to where they wait to become a dataset; raises DatasetError."""
        names = f"{len(files)} files" if len(files) > 1 else files[0][1]
        try:
            self._refuse_large(names, size := sum(path.stat().st_size for path, _ in files))
            self._refuse_full(size)
            return self._uploads.hold(files, source)
        except OSError as error:
            raise StorageError(f"Cannot store {names}: {error.strerror}.", "Free some disk space.") from error
        finally:
            for path, _ in files:
                path.unlink(missing_ok=True)

    @acts
    def hold_pasted(self, text: str, name: str = "pasted") -> Upload:
        """Rows as text: JSON if they begin like it, a table if their first line has tabs or commas, else plain text."""
        start = text.lstrip()[:1]
        first = text.strip().split("\n", 1)[0]
        suffix = ".json" if start == "[" else ".jsonl" if start == "{" else ".tsv" if "\t" in first else ".txt"
        if suffix == ".txt" and "," in first and "\n" in text.strip():
            suffix = ".csv"
        if not start:
            raise DatasetError("Nothing was pasted.", "Paste rows: JSON lines, a JSON array, a table or plain text.")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}{suffix}"
            path.write_bytes(text.encode("utf-8", "replace"))
            return self.hold_files([(path, path.name)])

    @acts
    def hold_hub_dataset(self, source: HubSource, progress: Progress = quiet) -> Upload:
        """Download a split, as `hub_dataset` offers it; raises HubError."""
        self._refuse_full(source.bytes)
        progress = self._checker.cancellable(f"Downloading {source.id}", progress)
        with workplace(self.folder, DOWNLOAD) as folder:
            return self.hold_files(self.download(source, folder, progress), source)

    @acts
    def add_upload(self, id: str, progress: Progress = quiet, reading: Reading = AS_IT_IS) -> DatasetInfo:
        """Make a waiting upload a dataset: see `add_files`.

        After EncodingNeeded or MappingNeeded it waits on; whatever else happens, it is gone.
        """
        upload, files = self._uploads.get(id), self._uploads.files(id)
        waits = False
        try:
            return self._datasets.add_all(files, "", progress, reading, (), upload.source, place=os.link)
        except (EncodingNeeded, MappingNeeded):
            waits = True
            raise
        finally:
            if not waits:
                self._uploads.discard(id)

    @acts
    def preview_upload(self, id: str, reading: Reading = AS_IT_IS, count: int = 5) -> Preview:
        """The first rows of a waiting upload as a reading would make them; raises DatasetError."""
        path, name = self._uploads.files(id)[0]
        return preview(path, name, reading, self.settings.max_unpacked_bytes, count)

    @acts
    def discard_upload(self, id: str) -> None:
        """Remove a waiting upload."""
        self._uploads.discard(id)

    @acts
    def add_hub_dataset(
        self, source: HubSource, progress: Progress = quiet, reading: Reading = AS_IT_IS
    ) -> DatasetInfo:
        """Download a split and store it; raises HubError and what `add_files` does, and then keeps nothing."""
        upload = self.hold_hub_dataset(source, progress)
        try:
            return self.add_upload(upload.id, progress, reading)
        except (EncodingNeeded, MappingNeeded):
            self._uploads.discard(upload.id)
            raise

    @acts
    def hub_dataset(self, id: str, revision: str | None = None) -> HubDataset:
        """A Hub dataset's configs and splits with their sizes, its revision pinned; raises HubError."""
        return Hub(self.settings.hub_token).dataset(id, revision)

    @acts
    def download(self, source: HubSource, folder: Path, progress: Progress = quiet) -> Sequence[tuple[Path, str]]:
        """A split's files, as `hub_dataset` offers it, and their names; raises DatasetError, HubError."""
        self._refuse_large(source.id, source.bytes)
        return Hub(self.settings.hub_token).download(source, folder, progress)
