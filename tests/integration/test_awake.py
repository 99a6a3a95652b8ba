"""A Space's sleep is suspended while a job is at work, and comes back, against a local Hub."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ftapp.contract import events as ev
from ftapp.contract.config import parse_run_config
from ftapp.contract.errors import HubError
from ftapp.contract.publication import PublishConfig
from ftapp.processes import awake
from ftapp.processes.awake import NIGHT, Awake
from ftapp.processes.child import identify
from ftapp.processes.watching import start_watching
from ftapp.settings import read_settings
from ftapp.store.jobs import Job
from ftapp.store.notices import Notices
from ftapp.studio import Studio
from tests.hub.fixture import Hub, running_hub
from tests.running import wait_for
from tests.unit.test_jobs import started, tell

SPACE = "alice/tuner"
TOKEN, READS = "hf_OfTheSpaceAlone0123456789", "hf_OnlyReads0123456789012345"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("hub")
    with running_hub(folder) as hub:
        hub.add_user("alice", TOKEN)
        hub.add_user("alice", READS, role="read")
        code = (
            "from huggingface_hub import HfApi; api = HfApi()\n"
            f"api.create_repo({SPACE!r}, repo_type='space', space_sdk='docker', private=True, space_hardware='l4x1')"
        )
        subprocess.run([sys.executable, "-c", code], env=hub.env(folder / "hf", TOKEN), check=True)
        yield hub


@pytest.fixture
def hub(shared: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The Hub that this process knows, with a Space that sleeps after an hour."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", shared.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    shared.space(SPACE, sleepTimeSeconds=3600, hardware="l4x1")
    shared.clear_requests()
    return shared


@pytest.fixture
def studio(home: Path) -> Studio:
    return Studio(read_settings())


def watch(studio: Studio, token: str | None = TOKEN, usual: int | None = None, kept: bool = True) -> Awake:
    return Awake(SPACE, token, studio.settings.home, studio.scheduler, usual, lambda: kept)


def sleep_time(hub: Hub) -> int:
    return int(hub.space(SPACE)["sleepTimeSeconds"])


def at_work(studio: Studio) -> Job:
    """A run that this process works on."""
    job, me = studio._jobs.create(parse_run_config({"data": {"dataset": "sums"}})), identify(os.getpid())
    job.record_process(me)
    tell(job, started(me))
    return job


def finish(job: Job) -> None:
    tell(job, ev.Finished(artifact="adapter"))


def test_the_sleep_is_suspended_for_a_run_and_comes_back(hub: Hub, studio: Studio) -> None:
    one = watch(studio)
    one.tick(0)
    assert hub.requests() == [], "there is nothing to do"
    run = at_work(studio)
    one.tick(0)
    assert sleep_time(hub) == -1
    asked = len(hub.requests())
    one.tick(0)
    assert len(hub.requests()) == asked, "once is enough"
    finish(run)
    one.tick()
    assert sleep_time(hub) == -1, "another job may follow in a moment"
    one.tick(0)
    assert sleep_time(hub) == 3600
    assert studio.notices() == []
    assert not list(studio.settings.home.glob(".sleep*"))
    assert hub.leaks() == []


def test_a_publication_keeps_it_awake_too(hub: Hub, studio: Studio) -> None:
    run, one = at_work(studio), watch(studio)
    finish(run)
    job = studio._jobs.create_publication(run, PublishConfig(run=run.name))
    me = identify(os.getpid())
    job.record_process(me)
    tell(job, started(me))
    one.tick(0)
    assert sleep_time(hub) == -1
    finish(job)
    one.tick(0)
    assert sleep_time(hub) == 3600


def test_the_former_time_outlives_the_web_process_and_what_its_owner_sets_meanwhile_stays(
    hub: Hub, studio: Studio
) -> None:
    run = at_work(studio)
    watch(studio).tick(0)
    watch(studio).tick(0)  # a new process while the run goes on
    finish(run)
    after = watch(studio)
    after.tick(0)
    assert sleep_time(hub) == 3600
    again = at_work(studio)
    after.tick(0)
    assert sleep_time(hub) == -1
    hub.space(SPACE, sleepTimeSeconds=300)
    finish(again)
    after.tick(0)
    assert sleep_time(hub) == 300


def test_a_lost_disk_does_not_leave_the_space_awake_for_good(hub: Hub, studio: Studio) -> None:
    hub.space(SPACE, sleepTimeSeconds=-1)
    watch(studio, usual=1800).tick()
    assert sleep_time(hub) == 1800
    hub.space(SPACE, sleepTimeSeconds=-1)
    watch(studio, usual=-1).tick()
    watch(studio, usual=None).tick()
    assert sleep_time(hub) == -1, "its owner wants it so, or nobody knows better"


def test_results_that_are_on_no_volume_are_not_lost_by_a_sleep_in_the_same_night(
    hub: Hub, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0 + NIGHT]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    run, one = at_work(studio), watch(studio, kept=False)
    one.tick()
    finish(run)
    for hours, seconds in ((1, -1), (11.9, -1), (12.1, 3600)):
        now[0] = 1000.0 + NIGHT + hours * 3600
        one.tick()
        assert sleep_time(hub) == seconds


def test_a_space_that_never_sleeps_or_costs_nothing_is_left_alone(hub: Hub, studio: Studio) -> None:
    at_work(studio)
    hub.space(SPACE, sleepTimeSeconds=-1)
    watch(studio).tick(0)
    hub.space(SPACE, sleepTimeSeconds=172_800, hardware="cpu-basic")
    watch(studio).tick(0)
    assert not hub.requests("POST")
    assert "after 48 hours without a visitor" in studio.notices()[0]


def test_without_a_token_that_may_it_is_said_once_where_people_see_it(
    hub: Hub, studio: Studio, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watch(studio, token=None, usual=-1).tick()
    assert studio.notices() == [], "it never sleeps anyhow"
    one = watch(studio, token=None)
    one.tick()
    one.tick()
    assert "Give it a secret HF_TOKEN" in studio.notices()[0]
    assert caplog.text.count("HF_TOKEN") == 1
    assert hub.requests() == []

    at_work(studio)
    with pytest.raises(HubError, match="may not do that"):
        watch(studio, token=READS).tick()
    monkeypatch.setattr(awake, "SECONDS", 0.05)
    monkeypatch.setattr(awake, "PATIENCE", 0.1)
    closing = threading.Event()
    hub.inject("GET", "/runtime", times=2, status=503)
    settings = replace(studio.settings, space_id=SPACE, hub_token=TOKEN)
    start_watching(settings, studio.scheduler, closing)
    try:
        wait_for(lambda: any("(503)" in notice for notice in studio.notices()), "that the Hub failed", 20)
        wait_for(lambda: sleep_time(hub) == -1, "the sleep is suspended", 20)
        wait_for(lambda: studio.notices() == [], "nothing is said any more", 20)
    finally:
        closing.set()
    Notices(studio.settings.home).say("sleep", "of a time when this was a Space")
    start_watching(studio.settings, studio.scheduler, closing)
    assert studio.notices() == []
    assert TOKEN not in caplog.text
