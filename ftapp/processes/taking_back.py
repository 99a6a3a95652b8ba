"""From the volume to an empty disk: each dataset and run whole or not at all, and only for the account whose it is."""

import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path

from ftapp.contract.errors import StorageError
from ftapp.store.files import workplace
from ftapp.store.jobs import Job
from ftapp.store.notices import Notices
from ftapp.store.parts import LINKS, account_part, keep_part
from ftapp.store.pieces import Pulse
from ftapp.store.volume import KINDS, Kind, Volume

log = logging.getLogger(__name__)

ACCOUNT = "account"
"""The file in a user's folder that says whose it is, by an id that lasts longer than a name."""
BACK = ".back"
"""How the folder of what is being taken back ends, until it is whole."""


class TakingBack:
    """Brings back what the disk lacks; the keeper asks."""

    def __init__(self, home: Path, volume: Volume, notices: Notices, pulse: Pulse) -> None:
        self._home, self._volume, self._notices, self._pulse = home, volume, notices, pulse
        self._accounts: dict[str, bytes] = {}
        """Whose is what is kept of a user."""

    def take_back(self) -> int:
        """Bring back every dataset and run that is missing; how many pieces could not be. Raises OSError."""
        volume, failed = self._volume, 0
        wanted = [
            (user, kind, name)
            for user in volume.users()
            if self.is_theirs(user)
            for kind in KINDS
            for name in volume.names(user, kind)
            if not (self._home / user / kind / name).exists()
        ]
        if wanted:
            told = f"{len(wanted)} datasets and runs are being taken back from {volume.mount}; look again in a while."
            self._notices.say("volume", told)
        waiting: list[tuple[Path, Path]] = []
        for user, kind, name in wanted:
            self._pulse()
            try:
                failed += len(self._take_back_one(user, kind, name, waiting))
            except (OSError, StorageError) as error:
                log.warning("%s (%s): %s", name, user, error)
                failed += 1
        for draft, place in waiting:
            draft.rename(place)
        if wanted:
            log.info("Taken back from %s: %d datasets and runs; damaged: %d", volume.mount, len(wanted), failed)
        return failed

    def is_theirs(self, user: str) -> bool:
        """Whether the folder here and what is kept under that name are one account's, which then is known to both."""
        item, here = self._volume.item(user, "account", ACCOUNT), self._home / user / ACCOUNT
        if ACCOUNT not in item.parts:
            if here.exists():
                keep_part(item, account_part(here), self._home, self._pulse)
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
            elif place.exists():
                shutil.rmtree(draft)  # somebody uploaded the same meanwhile
            else:
                draft.rename(place)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        return damaged
