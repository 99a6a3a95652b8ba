"""Real child processes: they outlive, are told apart from strangers with their pid, and end with all their children."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pynvml
import pytest

from ftapp.contract import events as ev
from ftapp.contract.config import BatchConfig, RunConfig, parse_run_config
from ftapp.contract.evaluation import EvaluateConfig
from ftapp.processes.child import alive, identify, lacked_memory, oom_kills, start_detached, stop_tree
from ftapp.processes.gpus import Gpu, gpus, processes_for, visible
from ftapp.processes.launch import launch, worker_argv, worker_env
from ftapp.processes.scheduler import Scheduler
from ftapp.settings import read_settings
from ftapp.store.eventlog import EventLog
from ftapp.store.jobs import Job, ProcessId
from ftapp.store.runs import JobStore

CONFIG: RunConfig = parse_run_config({"data": {"dataset": "no-such-dataset"}})

FAMILY = """
import subprocess, sys, time, signal
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("child", child.pid, flush=True)
time.sleep(60)
"""


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"not within 20 s: {what}"
        time.sleep(0.02)


def start(tmp_path: Path, script: str, *arguments: str) -> ProcessId:
    return start_detached([sys.executable, "-c", script, *arguments], os.environ, tmp_path / "output.log")


def test_a_detached_process_has_its_own_session_and_writes_to_its_file(tmp_path: Path) -> None:
    output = tmp_path / "output.log"
    output.write_text("before\n")
    script = "import os, sys; print(os.getsid(0) == os.getpid(), flush=True); sys.stderr.write('error\\n')"
    process = start(tmp_path, script)
    wait_for(lambda: not alive(process), "it ends")
    assert output.read_text() == "before\nTrue\nerror\n"


def test_it_outlives_whoever_started_it(tmp_path: Path) -> None:
    starter = (
        "import os, sys; from pathlib import Path; from ftapp.processes.child import start_detached\n"
        "one = start_detached([sys.executable, '-c', 'import time; time.sleep(60)'], os.environ, Path(sys.argv[1]))\n"
        "print(one.model_dump_json())"
    )
    told = subprocess.run([sys.executable, "-c", starter, tmp_path / "log"], capture_output=True, text=True, check=True)
    process = ProcessId.model_validate_json(told.stdout)
    assert alive(process)
    stop_tree(process)
    assert not alive(process)


def test_a_stranger_with_the_same_pid_is_not_it(tmp_path: Path) -> None:
    process = start(tmp_path, "import time; time.sleep(60)")
    assert alive(process)
    stranger = ProcessId(pid=process.pid, created=process.created - 60)
    assert not alive(stranger)
    stop_tree(stranger)
    assert alive(process)
    stop_tree(process)
    assert not alive(process)
    assert not alive(None)
    stop_tree(None)


def test_a_zombie_is_not_alive() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    id = identify(process.pid)
    wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE, "it is a zombie")
    assert not alive(id)
    process.wait()
    assert not alive(id)


@pytest.mark.parametrize("kind", ["polite", "deaf"])
def test_the_whole_tree_is_ended(tmp_path: Path, kind: str) -> None:
    process = start(tmp_path, FAMILY, kind)
    output = tmp_path / "output.log"
    wait_for(lambda: output.read_text().endswith("\n"), "the child was started")
    grandchild = identify(int(output.read_text().split()[1]))
    assert alive(grandchild)
    stop_tree(process, grace_seconds=0.5)
    wait_for(lambda: not alive(process) and not alive(grandchild), "both ended")


def test_a_worker_knows_no_token_but_the_one_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_environment")
    assert "HF_TOKEN" not in worker_env(None)
    assert worker_env("hf_given")["HF_TOKEN"] == "hf_given"
    assert worker_env(None)["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert worker_argv("train", "/x") == [sys.executable, "-m", "ftapp.workers", "train", "/x"]


def scheduler_of(home: Path, **limits: Any) -> Scheduler:
    return Scheduler(replace(read_settings(), home=home, **limits), lambda _: None)


@pytest.fixture
def stores(tmp_path: Path) -> list[JobStore]:
    return [JobStore(tmp_path / user / "runs") for user in ("ann", "bob")]


def created(store: JobStore, second: int) -> Job:
    job = store.create(CONFIG)
    os.utime(job.folder / "config.json", (second, second))
    return job


def test_the_queue_is_oldest_first_and_nobodys_second_run_before_anybodys_first(
    tmp_path: Path, stores: list[JobStore]
) -> None:
    ann, bob = stores
    first, second, third, last = created(ann, 100), created(ann, 200), created(ann, 300), created(bob, 400)
    created(bob, 50).request_stop()
    scheduler = scheduler_of(tmp_path)

    def order() -> list[str]:
        return [waiting.job.name for waiting in scheduler.queue()]

    assert order() == [first.name, last.name, second.name, third.name]
    assert scheduler.running() == []
    process = start(tmp_path, "import time; time.sleep(60)")
    first.record_process(process)
    assert order() == [last.name, second.name, third.name], "whose run is at work has had a turn"
    scheduler.move("ann", third.name, -1)
    assert order() == [last.name, third.name, second.name]
    stop_tree(process)


def test_a_run_at_work_for_longer_than_may_be_is_stopped_and_says_why(tmp_path: Path, stores: list[JobStore]) -> None:
    busy = created(stores[0], 100)
    busy.record_process(start(tmp_path, "import time; time.sleep(60)"))
    scheduler_of(tmp_path, max_run_seconds=3600.0).tick()
    assert not busy.stop_requested
    scheduler_of(tmp_path, max_run_seconds=0.0001).tick()
    assert busy.stop_requested
    assert busy.stop_reason.startswith("It was at work for")
    impatient = scheduler_of(tmp_path, max_run_seconds=0.0001, stop_grace_seconds=0.0)
    impatient.tick()
    assert not alive(busy.process())


def frozen(job: Job, tmp_path: Path) -> Job:
    """Let a process work on it that hears nothing."""
    job.record_process(process := start(tmp_path, "import time; time.sleep(60)"))
    psutil.Process(process.pid).suspend()
    return job


def test_a_run_that_does_not_stop_is_ended_though_nobody_looks(tmp_path: Path, stores: list[JobStore]) -> None:
    hung, behind = frozen(created(stores[0], 100), tmp_path), created(stores[1], 200)
    hung.request_stop()
    scheduler_of(tmp_path, stop_grace_seconds=60.0).tick()
    assert alive(hung.process())
    os.utime(hung.folder / "stop", (1000, 1000))
    scheduler_of(tmp_path).tick()  # another process: the app was started anew
    assert not alive(hung.process())
    scheduler_of(tmp_path).tick()
    assert behind.process()
    stop_tree(behind.process())


def test_so_is_one_that_has_ended_and_does_not_go_though_it_is_to_be_resumed(
    tmp_path: Path, stores: list[JobStore]
) -> None:
    hung = frozen(created(stores[0], 100), tmp_path)
    process = hung.process()
    assert process
    log = EventLog(hung.folder / "events.jsonl")
    log.append(ev.Started(pid=process.pid, process_created=process.created))
    log.append(ev.Stopped(step=3))
    hung.request_resume()
    scheduler_of(tmp_path, max_run_seconds=0.0001).tick()
    assert not hung.stop_requested, "the time limit is for what is at work, not for what is over"
    os.utime(hung.folder / "resume", (1000, 1000))
    assert hung.status(True) == "stopping"
    scheduler_of(tmp_path).tick()
    assert not alive(process)
    assert hung.status(False) == "queued"


def test_so_is_an_evaluation(tmp_path: Path, stores: list[JobStore]) -> None:
    evaluation = frozen(stores[0].create_evaluation(created(stores[0], 100), EvaluateConfig(run="x")), tmp_path)
    scheduler = scheduler_of(tmp_path, stop_grace_seconds=0.0)
    scheduler.enqueue(evaluation)
    scheduler.tick()
    assert alive(evaluation.process()), "nobody asked it to stop"
    evaluation.request_stop()
    os.utime(evaluation.folder / "stop", (1000, 1000))
    scheduler.tick()
    assert not alive(evaluation.process())


def test_a_running_run_keeps_the_others_waiting(tmp_path: Path, stores: list[JobStore]) -> None:
    busy, waiting = created(stores[0], 100), created(stores[1], 200)
    process = start(tmp_path, "import time; time.sleep(60)")
    busy.record_process(process)
    scheduler = scheduler_of(tmp_path)
    scheduler.tick()
    assert [job.name for job in scheduler.running()] == [busy.name]
    assert waiting.process() is None
    stop_tree(process)
    assert scheduler.running() == []


def test_only_one_of_many_tickers_starts_the_next_run(tmp_path: Path, stores: list[JobStore]) -> None:
    jobs = [created(stores[0], 100), created(stores[1], 200)]
    tickers = [threading.Thread(target=scheduler_of(tmp_path).tick) for _ in range(6)]
    for ticker in tickers:
        ticker.start()
    for ticker in tickers:
        ticker.join()
    assert [job.process() is not None for job in jobs] == [True, False]
    stop_tree(jobs[0].process())


def test_a_run_that_cannot_be_launched_is_tried_again_and_told_once(
    tmp_path: Path, stores: list[JobStore], caplog: pytest.LogCaptureFixture
) -> None:
    job = created(stores[0], 100)
    job.output.mkdir()  # no worker can write there
    tries, stopped, told = [0], threading.Event(), "cannot start the next run: The worker could not be started"
    scheduler = Scheduler(replace(read_settings(), home=tmp_path), lambda _: None, lambda: tries.append(0))
    thread = threading.Thread(target=scheduler.keep_ticking, args=(stopped, 0.01))
    thread.start()
    wait_for(lambda: len(tries) > 5, "several tries")
    assert caplog.text.count(told) == 1
    job.output.rmdir()
    wait_for(job.process, "its start")
    stopped.set()
    thread.join()
    stop_tree(job.process())


def test_a_scheduler_that_is_told_to_stop_stops(tmp_path: Path) -> None:
    stopped = threading.Event()
    thread = threading.Thread(target=scheduler_of(tmp_path).keep_ticking, args=(stopped, 0.01))
    thread.start()
    stopped.set()
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_ranks_end_when_what_started_them_is_killed(tmp_path: Path, stores: list[JobStore]) -> None:
    job = stores[0].create(CONFIG)
    launch(job, "train", None, processes=2)
    process = job.process()
    assert process
    launcher = psutil.Process(process.pid)
    wait_for(lambda: len(launcher.children()) == 2, "both ranks were started")
    ranks = [identify(rank.pid) for rank in launcher.children()]
    launcher.kill()
    wait_for(lambda: not any(alive(rank) for rank in ranks), "the ranks have ended too")
    assert job.status(alive(process)) == "lost"


def test_when_the_first_rank_is_killed_the_run_says_so(tmp_path: Path, stores: list[JobStore]) -> None:
    job = stores[0].create(CONFIG)
    launch(job, "train", None, processes=2)
    wait_for(lambda: job.refresh().started, "the first rank was started")
    assert job.state.started
    psutil.Process(job.state.started.pid).kill()
    wait_for(lambda: job.status(alive(job.process())) == "failed", "the run has failed")
    end = job.refresh().end
    assert isinstance(end, ev.Failed)
    assert (end.kind, end.message.split(",")[0]) == (
        "process",
        "Process 1 of the 2 that train together was ended by SIGKILL",
    )
    wait_for(lambda: not alive(job.process()), "the launcher has ended")


@pytest.mark.parametrize(
    ("effective", "micro", "available", "processes"),
    [(16, "auto", 4, 4), (16, 8, 4, 2), (16, 16, 4, 1), (6, "auto", 4, 3), (1, "auto", 8, 1), (5, "auto", 0, 1)],
)
def test_a_batch_is_shared_by_as_many_processes_as_it_divides_into(
    effective: int, micro: Any, available: int, processes: int
) -> None:
    batch = BatchConfig(effective_size=effective, micro_size=micro)
    assert processes_for(batch, available) == processes


def test_processes_that_the_kernel_ended_for_want_of_memory_are_counted(tmp_path: Path) -> None:
    assert oom_kills(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "vmstat").write_text("nr_free_pages 20\noom_kill 3\n")
    assert oom_kills(tmp_path) == 3
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.events").write_text("low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\n")
    assert oom_kills(tmp_path) == 1
    assert isinstance(oom_kills(), int)
    now = identify(os.getpid())
    assert not lacked_memory(now)
    assert not lacked_memory(None)
    assert lacked_memory(now.model_copy(update={"oom_kills": -1}))


@pytest.mark.parametrize(
    ("chosen", "seen"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("1", [1]),
        ("2, 0", [2, 0]),
        ("1,7,0", [1]),
        ("0,-1,2", [0]),
        ("1,1", []),
        ("GPU-cd01,GPU-ab12cd", [2, 0]),
        ("GPU-ab", []),
        ("MIG-ab12cd,MIG-cd01", [0]),
    ],
)
def test_gpus_are_seen_as_cuda_sees_them(chosen: str | None, seen: list[int]) -> None:
    assert visible(["GPU-ab12cd-34", "GPU-ab56", "GPU-cd01"], chosen) == seen


def test_only_gpus_that_may_be_seen_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "Init": None,
        "Shutdown": None,
        "DeviceGetCount": 2,
        "DeviceGetMemoryInfo": SimpleNamespace(total=2, free=1),
        "DeviceGetCudaComputeCapability": (8, 0),
        "DeviceGetName": "A100",
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, f"nvml{name}", lambda *_, answer=answer: answer)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUUID", lambda handle: f"GPU-{handle}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [gpu.index for gpu in gpus()] == [0, 1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert gpus() == [Gpu(1, "A100", 2, 1, (8, 0))]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus() == []
