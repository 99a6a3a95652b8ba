"""A check in a process of its own, seen from the web: its progress, its end, its cancelling."""

import shutil
import time
from pathlib import Path

import orjson

from ftapp.contract import events as ev
from ftapp.contract.errors import DatasetError, EncodingNeeded, JobError
from ftapp.contract.report import CheckRequest, Report
from ftapp.processes.child import alive, stop_tree
from ftapp.processes.launch import launch
from ftapp.store.building import Progress, build
from ftapp.store.files import abandoned, workplace, write_whole
from ftapp.store.jobs import Job

PREFIX = ".check-"
SMALL = 2 * 2**20
"""Bytes up to which a file is checked at once, here: starting a process takes longer."""
POLL_SECONDS = 0.1


class Checker:
    """Checks for one user; all that are under way can be cancelled."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cancelled = 0
        self._under_way = set[object]()

    @property
    def busy(self) -> bool:
        """Whether a check is under way."""
        return bool(self._under_way)

    def cancel(self) -> None:
        """End every check that is under way; each raises DatasetError where it was started."""
        self._cancelled += 1

    def sweep(self) -> None:
        """End the checks of web processes that died, and take away what is left of them."""
        for place in abandoned(self._folder, PREFIX):
            stop_tree(Job(place).process(), grace_seconds=0.5)

    def cancellable(self, what: str, progress: Progress) -> Progress:
        """The same progress, which raises DatasetError once somebody cancels."""
        began = self._cancelled

        def go_on(done: int, total: int) -> None:
            if self._cancelled != began:
                raise DatasetError(f"{what} was cancelled.", "Nothing was stored.")
            progress(done, total)

        return go_on

    def build(self, request: CheckRequest, folder: Path | None, progress: Progress) -> Report:
        """What `store.building.build` does; a large or packed file's rows are read in another process."""
        go_on = self.cancellable(f"Checking {', '.join(file.name for file in request.files)}", progress)
        small = all(Path(f.path).stat().st_size <= SMALL and f.name.lower().endswith(PLAIN) for f in request.files)
        mine = object()
        self._under_way.add(mine)
        try:
            return build(request, folder, go_on) if small else self._apart(request, folder, go_on)
        finally:
            self._under_way.remove(mine)

    def _apart(self, request: CheckRequest, folder: Path | None, go_on: Progress) -> Report:
        with workplace(self._folder, PREFIX) as place:
            job = Job(place)
            write_whole(job.folder / "config.json", request.model_dump_json().encode())
            if folder:
                (job.folder / "data").mkdir()
            launch(job, "check", None)
            try:
                _wait(job, go_on, sum(Path(file.path).stat().st_size for file in request.files))
            except BaseException:
                stop_tree(job.process(), grace_seconds=0.5)
                raise
            report = Report.model_validate_json((job.folder / "report.json").read_bytes())
            if folder:
                for path in (job.folder / "data").iterdir():
                    shutil.move(path, folder / path.name)
            return report


PLAIN = (".jsonl", ".json", ".csv", ".tsv", ".txt")


def _wait(job: Job, go_on: Progress, total: int) -> None:
    done = 0
    while True:
        lives = alive(job.process())  # before the events, so that they are complete when it has ended
        state = job.refresh()
        if state.phase and state.phase.total:
            done, total = state.phase.done or 0, state.phase.total
        go_on(done, total)  # before the end, so that a check that ends at once has been heard of, too
        match state.end:
            case ev.Finished():
                return
            case ev.Failed() as failed:
                _raise(job, failed)
        if not lives:
            raise JobError(
                "The check ended unexpectedly.", f"Was there enough memory? {job.log_tail(500)[-300:]}".strip()
            )
        time.sleep(POLL_SECONDS)


def _raise(job: Job, failed: ev.Failed) -> None:
    try:
        refusal = orjson.loads((job.folder / "refusal.json").read_bytes())
    except OSError:
        raise DatasetError(failed.message, failed.hint) from None
    raise EncodingNeeded(refusal["name"], refusal["encoding"], refusal["excerpt"])
