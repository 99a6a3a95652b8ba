"""One file on its way to the Hub: how much of it is sent, and an end in the middle of it; for workers/push.py."""

import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any, BinaryIO

from huggingface_hub import CommitOperationAdd
from huggingface_hub.utils import _xet_progress_reporting

LOOK_SECONDS = 0.2


class Upload(CommitOperationAdd):
    """A file of a commit that knows how many of its bytes were sent."""

    sent = 0

    @contextmanager
    def as_file(self, with_tqdm: bool = False) -> Iterator[BinaryIO]:  # noqa: ARG002
        """What the client reads from when it sends by LFS."""
        with _Counted(self) as file:
            yield file

    def update_progress(self, group: Any, files: dict[Any, Any]) -> None:  # noqa: ARG002
        """What xet says while it sends; in the place of the client's progress bars."""
        self.sent = sum(file.bytes_completed for file in files.values())

    def close(self) -> None:
        """Xet says no more."""


class _Counted(io.BufferedReader):
    def __init__(self, upload: Upload) -> None:
        super().__init__(io.FileIO(str(upload.path_or_fileobj)))
        self._upload = upload

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._upload.sent = self.tell()  # a part that is sent again is not counted twice
        return data


def watched(send: Callable[[], None], upload: Upload, tell: Callable[[int], None]) -> None:
    """Send in a thread; `tell` hears the bytes sent, and may raise: the thread then ends with the process."""
    # the client asks for it by this name, with each file; there is no other way to hear of xet's bytes
    _xet_progress_reporting.XetUploadProgressReporter = lambda: upload  # type: ignore[assignment,misc]
    done: Future[None] = Future()

    def work() -> None:
        try:
            send()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=work, daemon=True).start()
    while wait([done], LOOK_SECONDS).not_done:
        tell(upload.sent)
    done.result()
