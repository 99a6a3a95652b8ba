"""Files that wait for a person's word (which encoding, which columns) before they become a dataset."""

import re
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from ftapp.contract.base import Contract
from ftapp.contract.errors import DatasetError
from ftapp.contract.report import HubSource
from ftapp.store.files import write_whole
from ftapp.store.readers import shown_name

KEPT_SECONDS = 24 * 3600
"""An upload that nobody has come back to for so long is removed."""


class Upload(Contract):
    """Files as they came, whole, on their way to becoming one dataset."""

    id: str
    names: list[str]
    """What the person calls the files, in their order."""
    source: HubSource | None = None
    """Where they came from, if from the Hub."""
    started: float = Field(default_factory=time.time)
    """Seconds since the epoch."""


class Uploads:
    """The waiting uploads of one user, a folder each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def hold(
        self,
        files: Sequence[tuple[Path, str]],
        source: HubSource | None = None,
        place: Callable[[Path, Path], Any] = shutil.move,
    ) -> Upload:
        """Take files (where each is, and its name) into a new upload; raises OSError, and then keeps nothing."""
        upload = Upload(id=uuid.uuid4().hex, names=[shown_name(name) for _, name in files], source=source)
        folder = self.folder / upload.id
        folder.mkdir(parents=True)
        try:
            for number, (path, _) in enumerate(files):
                place(path, folder / str(number))
            write_whole(folder / "upload.json", upload.model_dump_json().encode())
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return upload

    def get(self, id: str) -> Upload:
        """The upload of that id; raises DatasetError if it is gone."""
        try:
            if not re.fullmatch("[0-9a-f]{32}", id):
                raise ValueError(id)
            return Upload.model_validate_json((self.folder / id / "upload.json").read_bytes())
        except (OSError, ValueError):
            raise DatasetError("That upload is no longer here.", "Upload the file again.") from None

    def files(self, id: str) -> list[tuple[Path, str]]:
        """Where each file of an upload is, and its name; raises DatasetError."""
        return [(self.folder / id / str(number), name) for number, name in enumerate(self.get(id).names)]

    def discard(self, id: str) -> None:
        """Remove an upload and its files; raises DatasetError if it is gone."""
        shutil.rmtree(self.folder / self.get(id).id)

    def sweep(self, seconds: float = KEPT_SECONDS) -> None:
        """Remove what has waited longer than this."""
        for folder in self.folder.glob("*"):
            if time.time() - folder.stat().st_mtime > seconds:
                shutil.rmtree(folder, ignore_errors=True)
