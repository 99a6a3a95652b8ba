"""Copies finished pieces of every user's work to the volume while the app runs, and takes them back on an empty disk.

One thread, started by app.py. It only reads what trainings write, through hard links, so it never holds one up; a
volume that is full or fails is told and tried again.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ftapp.contract.errors import StorageError
from ftapp.processes.child import alive
from ftapp.processes.scheduler import Scheduler
from ftapp.processes.taking_back import TakingBack
from ftapp.store.checkpoints import all_checkpoints, is_whole
from ftapp.store.files import abandoned, alone
from ftapp.store.jobs import ACTIVE
from ftapp.store.notices import Notices
from ftapp.store.parts import (
    LINKS,
    Part,
    checkpoint_part,
    dataset_part,
    inner_jobs,
    inner_part,
    keep_part,
    record_part,
    result_parts,
    times_of,
)
from ftapp.store.runs import is_run_name
from ftapp.store.volume import KINDS, Item, Kind, Volume, is_user, marked_deleted

log = logging.getLogger(__name__)

SECONDS = 5.0
"""Between two looks at what is there to keep."""
PATIENCE = 60.0
"""Seconds until a volume that failed is tried again."""


def reason(error: OSError | StorageError) -> str:
    """What went wrong, in words without a file's name."""
    told = error.message if isinstance(error, StorageError) else error.strerror or type(error).__name__
    return told.rstrip(".")


class Closing(Exception):
    """The app closes: what is half done is left."""


class Keeper:
    """What is kept on one volume for all users of one home."""

    def __init__(self, home: Path, mount: Path, scheduler: Scheduler) -> None:
        self._home, self._scheduler = home, scheduler
        self._volume = Volume(mount)
        self._notices = Notices(home)
        self._closing = threading.Event()
        self._back = TakingBack(home, self._volume, self._notices, lambda: self._pulse())
        self._quiet: dict[Path, tuple[int, ...]] = {}
        """Datasets and runs of which all is kept, each with the times of its files then."""
        self._whole: dict[Path, str] = {}
        """Checkpoints that were found whole, each with the fingerprint of its files."""
        self.kept = False
        """Whether the last look found nothing left to copy."""

    def run(self, closing: threading.Event) -> None:
        """Take back what the disk lacks, then keep what is new, until `closing` is set; meant for a thread."""
        self._closing = closing
        back = False
        while not closing.is_set():
            failed = False
            try:
                with self._alone() as mine:
                    if mine:
                        back = back or self.take_back()
                        failed = not (back and self.keep())
            except Closing:
                return
            except Exception:
                failed = True
                log.exception("cannot keep what is new")
            closing.wait(PATIENCE if failed else SECONDS)

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        self._home.mkdir(parents=True, exist_ok=True)
        with alone(self._home / ".keeper.lock", wait=False) as mine:
            yield mine

    def _pulse(self) -> None:
        if self._closing.is_set():
            raise Closing

    def take_back(self) -> bool:
        """Bring back every dataset and run that the disk lacks; whether the volume could be read at all."""
        if not self._volume.mounted:
            self._notices.say(
                "volume",
                f"FTAPP_VOLUME is {self._volume.mount}, and there is no such folder: nothing outlives this disk. "
                "Mount a volume there, or take the variable away.",
            )
            return False
        try:
            self._delete_marked()
            damaged = self._back.take_back()
        except (OSError, StorageError) as error:
            told = f"{self._volume.mount} cannot be read: {reason(error)}. It is tried again."
            self._notices.say("volume", told)
            return False
        self._notices.say("volume", "")
        self._notices.say(
            "damaged",
            f"{damaged} pieces of datasets and runs could not be taken back: the log says which and why."
            if damaged
            else "",
        )
        return True

    def keep(self) -> bool:
        """Copy what is new, take away what was deleted; whether nothing failed."""
        if not self._volume.mounted:
            self._notices.say("volume", f"{self._volume.mount} is gone: nothing new outlives this disk.")
            return False
        self.kept, left, failed = False, False, ""
        try:
            self._delete_marked()
            for _ in abandoned(self._home, LINKS):
                pass
            for user, kind, folder, at_work in self._there():
                try:
                    if kind == "datasets":
                        self._keep_dataset(user, folder)
                    else:
                        left = not self._keep_run(user, folder, at_work) or left
                except (OSError, StorageError) as error:
                    failed = failed or reason(error)  # what is smaller may still find room
        except (OSError, StorageError) as error:
            failed = reason(error)
        self._notices.say(
            "volume",
            failed
            and f"{self._volume.mount} does not take what is new: {failed}. Until it does, a restart would lose it; "
            "trainings go on.",
        )
        self.kept = not (left or failed)
        return not failed

    def _there(self) -> Iterator[tuple[Path, Kind, Path, bool]]:
        """Every dataset and run on the disk: its user's folder, its own, and whether it waits or is at work."""
        for user in self._users():
            if not self._back.is_theirs(user.name):
                continue
            for report in sorted((user / "datasets").glob("*/report.json")):
                if not report.parent.name.startswith("."):
                    yield user, "datasets", report.parent, False
            active = {job.name for job, _ in self._scheduler.runs(user / "runs").active()}
            for config in sorted((user / "runs").glob("*/config.json")):
                if is_run_name(config.parent.name):
                    yield user, "runs", config.parent, config.parent.name in active

    def _users(self) -> list[Path]:
        found = {path.parent for kind in KINDS for path in self._home.glob(f"*/{kind}")}
        return sorted(path for path in found if is_user(path.name))

    def _delete_marked(self) -> None:
        for user in self._home.iterdir():
            for kind, mark in marked_deleted(user):
                if (user / kind / mark.name).exists():
                    continue  # it is about to go, or there is another one of that name
                self._volume.delete(user.name, kind, mark.name)
                self._quiet.pop(user / kind / mark.name, None)
                mark.unlink()

    def _keep_dataset(self, user: Path, folder: Path) -> None:
        try:
            about = folder.stat()
            times = about.st_ino, about.st_mtime_ns  # a dataset that changes becomes another folder
            if self._quiet.get(folder) != times:
                self._put(self._volume.item(user.name, "datasets", folder.name), dataset_part(folder))
                self._quiet[folder] = times
        except FileNotFoundError:
            return  # deleted or read again while we looked: the next look sees what came of it

    def _keep_run(self, user: Path, run: Path, at_work: bool) -> bool:
        """Copy what is new of a run; whether all of it is finished and kept."""
        times = times_of(run)
        if not at_work and self._quiet.get(run) == times:
            return True
        item, finished = self._volume.item(user.name, "runs", run.name), not at_work
        checkpoints = [path for path in all_checkpoints(run / "checkpoints") if self._is_whole(run, path)]
        try:
            # before the checkpoints, so that the events of the steps up to one are there when it is
            self._put(item, record_part(run, checkpoints[0] if checkpoints else None, at_work))
            for checkpoint in checkpoints:
                self._put(item, checkpoint_part(run, checkpoint))
            for result in result_parts(run) if not at_work else ():
                self._put(item, result)
            for job in inner_jobs(run):
                if job.status(alive(job.process())) in ACTIVE:
                    finished = False
                else:
                    self._put(item, inner_part(run, job))
        except FileNotFoundError:
            return False  # the trainer took a checkpoint away, or the run was deleted: the next look sees
        gone = {part for part in item.parts if part.startswith("checkpoint-")} - {path.name for path in checkpoints}
        for part in gone if checkpoints else ():
            item.drop(part)
        if finished:
            self._quiet[run] = times
        return finished

    def _is_whole(self, run: Path, checkpoint: Path) -> bool:
        try:
            now = checkpoint_part(run, checkpoint).fingerprint
        except FileNotFoundError:
            return False
        if self._whole.get(checkpoint) != now and is_whole(checkpoint):
            self._whole[checkpoint] = now
        return self._whole.get(checkpoint) == now

    def _put(self, item: Item, part: Part) -> None:
        keep_part(item, part, self._home, self._pulse)
