"""python -m ftapp.processes.ranks COUNT VERB JOB_DIR: workers that train together begin together and end together.

They get the variables that `accelerate launch` sets, so that accelerate works in them unchanged. That launcher itself
is not used: here a stop must reach each of them with time to save, none may outlive the others or this process, and
the run has to say which of them ended and by what.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

from ftapp.contract import events as ev
from ftapp.store.eventlog import EventLog, tail

GRACE_SECONDS = 5.0
"""How long the others may take to end when one has failed: some wait for it in a collective and hear nothing."""
PDEATHSIG = 1
"""PR_SET_PDEATHSIG of prctl(2): a signal for when the parent has died."""


class Ranks:
    """One worker per device, told apart by torch's environment variables."""

    def __init__(self, count: int, arguments: list[str]) -> None:
        self._folder = Path(arguments[-1])
        self._libc = ctypes.CDLL(None)
        self._forget_last_words()
        common = {
            **os.environ,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_free_port()),
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
        }
        common.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
        argv = [sys.executable, "-m", "ftapp.workers", *arguments]
        self._processes = [
            psutil.Popen(
                argv,
                env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdin=subprocess.DEVNULL,
                preexec_fn=self._end_with_parent,
            )
            for rank in range(count)
        ]
        self._asked_to_end = False
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def _end_with_parent(self) -> None:
        self._libc.prctl(PDEATHSIG, signal.SIGKILL)

    def _on_sigterm(self, *_: object) -> None:
        self._asked_to_end = True
        self._terminate()

    def _terminate(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.terminate()

    def wait(self) -> int:
        """Until all have ended; the first that fails ends the others. Exit code: 1 if one failed, else 0."""
        failed = self._first_failure()
        if failed is not None:
            self._terminate()
            _, left = psutil.wait_procs(self._processes, timeout=GRACE_SECONDS)
            for process in left:
                process.kill()
            psutil.wait_procs(left)
            if not self._asked_to_end:
                self._tell(failed)
        self._forget_last_words()
        return int(failed is not None)

    def _first_failure(self) -> int | None:
        while True:
            codes = [process.poll() for process in self._processes]
            for rank, code in enumerate(codes):
                if code:
                    return rank
            if all(code == 0 for code in codes):
                return None
            time.sleep(0.1)

    def _tell(self, rank: int) -> None:
        """Why the run ended, in the place of a rank that could not say so; the writer of the events has ended."""
        path = self._folder / "events.jsonl"
        code = self._processes[rank].returncode
        if rank == 0 and code > 0:
            return  # it has said so
        words, _ = tail(self._last_words(rank), 0) if rank else ([], 0)
        told = next((event for event in reversed(words) if isinstance(event, ev.Failed)), None)
        which = f"Process {rank + 1} of the {len(self._processes)} that train together"
        if told is None:
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            told = ev.Failed(
                kind="process",
                message=f"{which} {how}, so the others ended too.",
                hint="Resume it from its last checkpoint, or start it again; the log may say more.",
            )
        else:
            told = told.model_copy(update={"message": f"{which}: {told.message}"})
        EventLog(path).append(told)

    def _forget_last_words(self) -> None:
        for path in self._folder.glob(".rank-*.jsonl"):
            path.unlink()

    def _last_words(self, rank: int) -> Path:
        return self._folder / f".rank-{rank}.jsonl"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(Ranks(int(sys.argv[1]), sys.argv[2:]).wait())
