"""A Space's sleep, suspended while jobs are at work: it counts from the last request, and a run makes none.

One thread, started by app.py. The former time is on disk before it is changed, so that it comes back after a crash.
"""

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import HfApi, SpaceRuntime

from ftapp.contract.errors import HubError, StorageError
from ftapp.hub_errors import told
from ftapp.processes.child import alive
from ftapp.processes.scheduler import Scheduler
from ftapp.store.files import write_whole
from ftapp.store.jobs import ACTIVE, Job
from ftapp.store.notices import Notices

log = logging.getLogger(__name__)

SECONDS = 5.0
"""Between two looks at what is at work."""
PATIENCE = 60.0
"""Seconds until a Hub that failed is asked again; as long, nothing must have been at work before the sleep is back."""
NIGHT = 12 * 3600.0
"""Seconds after the last job for which what was not copied to a volume is kept from being lost by a sleep."""
NEVER = -1


class Awake:
    """The sleep time of the Space that this app runs in."""

    def __init__(
        self,
        space: str,
        token: str | None,
        home: Path,
        scheduler: Scheduler,
        usual: int | None = None,
        kept: Callable[[], bool] = lambda: False,
    ) -> None:
        self._space, self._token, self._home, self._scheduler = space, token, home, scheduler
        self._usual = usual
        """What the owner set, as far as the environment says: of use when the disk was lost while it was suspended."""
        self._kept = kept
        """Whether all results are on a volume."""
        self._former = home / ".sleep.json"
        self._notices = Notices(home)
        self._ended: set[Path] = set()
        self._suspended = False
        self._looked = False
        self._busy_at = time.monotonic() - (0 if self._former.exists() else NIGHT)
        """When something was at work last; that an earlier process still had something to wait for counts as such."""

    def run(self, closing: threading.Event) -> None:
        """Look until `closing` is set; meant for a thread. A suspended sleep stays so: jobs go on without the page."""
        while not closing.is_set():
            failed = False
            try:
                self.tick()
            except (HubError, StorageError) as error:
                failed = True
                self._notices.say("sleep", f"{self._warning()} {error.message} {error.hint}")
            except Exception:
                failed = True
                log.exception("cannot look after the Space's sleep")
            closing.wait(PATIENCE if failed else SECONDS)

    def tick(self, patience: float = PATIENCE) -> None:
        """Suspend the sleep if a job is at work, give it back if none is; raises HubError, StorageError."""
        if self._token is None:
            quiet = self._usual == NEVER
            self._notices.say("sleep", "" if quiet else f"{self._warning()} {ADVICE}")
            return
        if self._at_work():
            self._busy_at = time.monotonic()
            if not self._suspended:
                self._suspend()
        elif self._suspended or not self._looked:
            idle = time.monotonic() - self._busy_at
            if idle >= NIGHT or (idle >= patience and self._kept()):
                self._give_back()

    def _warning(self) -> str:
        return f"{self._space} may be put to sleep while a run is at work, which ends the run."

    def _at_work(self) -> bool:
        if self._scheduler.running():
            return True
        for folder in self._home.glob("*/runs/*/publications/[0-9]*"):
            if folder not in self._ended:
                job = Job(folder)
                if job.status(alive(job.process())) in ACTIVE:
                    return True
                self._ended.add(folder)
        return False

    def _suspend(self) -> None:
        runtime = self._runtime()
        now, free = runtime.sleep_time, runtime.hardware == "cpu-basic"
        if now is not None and now != NEVER and not free:
            write_whole(self._former, json.dumps({"space": self._space, "seconds": now}).encode())
            self._set(NEVER)
            log.info("%s does not sleep while a job is at work; before, it did after %d s", self._space, now)
        self._notices.say("sleep", FREE if free else "")
        self._suspended = True

    def _give_back(self) -> None:
        """Back to the former time, unless somebody has set another one meanwhile."""
        former = self._remembered()
        if former is None and not self._looked:
            former = self._usual  # the disk, and with it what was remembered, may have been lost while suspended
        if former is not None and former != NEVER and self._runtime().sleep_time == NEVER:
            self._set(former)
            log.info("%s sleeps again after %d s without a visitor", self._space, former)
        self._former.unlink(missing_ok=True)
        self._notices.say("sleep", "")
        self._suspended, self._looked = False, True

    def _remembered(self) -> int | None:
        try:
            known = json.loads(self._former.read_bytes())
            return int(known["seconds"]) if known["space"] == self._space else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _runtime(self) -> SpaceRuntime:
        with told(self._space, "Space"):
            return HfApi(token=self._token).get_space_runtime(self._space)

    def _set(self, seconds: int) -> None:
        with told(self._space, "Space"):
            HfApi(token=self._token).set_space_sleep_time(self._space, seconds)


ADVICE = (
    "Give it a secret HF_TOKEN that may change the Space, and this is seen to; or set its sleep time to never in its "
    "settings."
)
FREE = "Free hardware sleeps after 48 hours without a visitor, also while a run is at work: come by once a day."
