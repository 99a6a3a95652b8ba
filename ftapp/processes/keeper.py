"""Copies finished pieces of every user's work to the volume while the app runs, and takes them back on an empty disk.

One thread, started by app.py. It only reads what trainings write, through hard links, so it never holds one up; a
volume that is full or fails is told and tried again.
"""

import logging
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ftapp.contract.errors import StorageError
from ftapp.processes.child import alive
from ftapp.processes.scheduler import Scheduler
from ftapp.store.checkpoints import all_checkpoints, is_whole
from ftapp.store.files import abandoned, alone, workplace
from ftapp.store.jobs import ACTIVE, Job, is_run_name
from ftapp.store.notices import Notices
from ftapp.store.parts import (
    Part,
    account_part,
    checkpoint_part,
    dataset_part,
    inner_jobs,
    inner_part,
    record_part,
    result_parts,
    times_of,
)
from ftapp.store.volume import KINDS, Item, Kind, Volume, fingerprint, is_user, marked_deleted

log = logging.getLogger(__name__)

SECONDS = 5.0
"""Between two looks at what is there to keep."""
PATIENCE = 60.0
"""Seconds until a volume that failed is tried again."""
LINKS = ".keeping-"
ACCOUNT = "account"
"""The file in a user's folder that says whose it is, by an id that lasts longer than a name."""
BACK = ".back"
"""How the folder of what is being taken back ends, until it is whole."""


class Closing(Exception):
    """The app closes: what is half done is left."""


class Keeper:
    """What is kept on one volume for all users of one home."""

    def __init__(self, home: Path, mount: Path, scheduler: Scheduler) -> None:
        self._home, self._scheduler = home, scheduler
        self._volume = Volume(mount)
        self._notices = Notices(home)
        self._closing = threading.Event()
        self._accounts: dict[str, bytes] = {}
        """Whose is what is kept of a user."""
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

    # Taking back

    def take_back(self) -> bool:
        """Bring back every dataset and run that the disk lacks; whether the volume could be read at all."""
        volume, failed = self._volume, []
        if not volume.mounted:
            self._notices.say(
                "volume",
                f"FTAPP_VOLUME is {volume.mount}, and there is no such folder: nothing outlives this disk. "
                "Mount a volume there, or take the variable away.",
            )
            return False
        try:
            self._delete_marked()
            wanted = [
                (user, kind, name)
                for user in volume.users()
                if self._is_theirs(user)
                for kind in KINDS
                for name in volume.names(user, kind)
                if not (self._home / user / kind / name).exists()
            ]
            waiting: list[tuple[Path, Path]] = []
            for done, (user, kind, name) in enumerate(wanted):
                self._pulse()
                told = f"{len(wanted) - done} datasets and runs are being taken back from {volume.mount}."
                self._notices.say("volume", told)
                try:
                    failed += self._take_back_one(user, kind, name, waiting)
                except (OSError, StorageError) as error:
                    log.warning("%s (%s): %s", name, user, error)
                    failed.append(name)
            for draft, place in waiting:
                draft.rename(place)
        except (OSError, StorageError) as error:
            self._notices.say("volume", f"{volume.mount} cannot be read: {_reason(error)}. It is tried again.")
            return False
        if wanted:
            log.info("Taken back from %s: %d datasets and runs; damaged: %d", volume.mount, len(wanted), len(failed))
        self._notices.say("volume", "")
        self._notices.say("damaged", _told_of_damaged(len(failed)))
        return True

    def _is_theirs(self, user: str) -> bool:
        """Whether the folder here and what is kept under that name are one account's, which then is known to both."""
        item, here = self._volume.item(user, "account", ACCOUNT), self._home / user / ACCOUNT
        if ACCOUNT not in item.parts:
            if here.exists():
                self._put(item, account_part(here))
            return True
        if user not in self._accounts:
            try:
                with workplace(self._home, LINKS) as place:
                    item.take_back(ACCOUNT, place, self._pulse)
                    self._accounts[user] = (place / ACCOUNT).read_bytes()
                    here.parent.mkdir(parents=True, exist_ok=True)
                    with suppress(FileExistsError):
                        os.link(place / ACCOUNT, here)
            except StorageError as error:
                log.warning("Whose the things of %s are cannot be read (%s): they are left.", user, error)
                self._accounts[user] = b""
            if here.exists() and here.read_bytes() != self._accounts[user] != b"":
                log.warning("What is kept of %s is of another account, called so before: it is left.", user)
        return here.exists() and here.read_bytes() == self._accounts[user]

    def _take_back_one(self, user: str, kind: Kind, name: str, waiting: list[tuple[Path, Path]]) -> list[str]:
        """Bring one back, whole, at once for whoever looks; what of it was damaged.

        A run that waits for its turn would begin as soon as it is there: it is added to `waiting` instead.
        """
        item, place = self._volume.item(user, kind, name), self._home / user / kind / name
        first = "record" if kind == "runs" else "dataset"
        if first not in item.parts:
            return []  # a crash came before anything of it was kept
        draft, damaged = place.with_name(f".{name}{BACK}"), []
        shutil.rmtree(draft, ignore_errors=True)
        try:
            draft.mkdir(parents=True)
            item.take_back(first, draft, self._pulse)
            for part in item.parts:
                if part != first:
                    try:
                        item.take_back(part, draft, self._pulse)
                    except StorageError as error:
                        log.warning("%s of %s (%s): %s", part, name, user, error)
                        damaged.append(part)
            if kind == "runs" and Job(draft).status(False) == "queued":
                waiting.append((draft, place))
            else:
                draft.rename(place)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        return damaged

    # Keeping

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
                    failed = failed or _reason(error)  # what is smaller may still find room
        except (OSError, StorageError) as error:
            failed = _reason(error)
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
            if not self._is_theirs(user.name):
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
        """Copy a part unless it is there; raises FileNotFoundError if its files change meanwhile."""
        if item.has(part.name, part.fingerprint):
            return
        with workplace(self._home, LINKS) as links:
            linked = [(links / str(number), name) for number, (_, name) in enumerate(part.files)]
            for (path, _), (link, _) in zip(part.files, linked, strict=True):
                os.link(path, link)  # stays when the trainer takes its checkpoint away
            before = fingerprint(linked)
            item.put(
                part.name, part.fingerprint, linked, self._pulse, lambda: part.grows or fingerprint(linked) == before
            )


def _reason(error: OSError | StorageError) -> str:
    told = error.message if isinstance(error, StorageError) else error.strerror or type(error).__name__
    return told.rstrip(".")


def _told_of_damaged(count: int) -> str:
    """For everybody to read, so without a name of anybody's."""
    if not count:
        return ""
    return f"{count} pieces of datasets and runs could not be taken back from the volume: the log says which and why."
