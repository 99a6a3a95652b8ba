"""A job in HTML: where it runs, how long it worked; and several runs side by side, each with a name of its own."""

from datetime import timedelta

import pytest

from ftapp.contract import events as ev
from ftapp.contract.config import parse_run_config
from ftapp.settings import read_settings
from ftapp.store.eventlog import EventLog
from ftapp.store.jobs import Job
from ftapp.studio import Studio
from ftapp.ui import history, markup, status, train_tab
from tests.running import BEGUN, WORKER, end


@pytest.fixture
def studio(home: object) -> Studio:
    return Studio(read_settings())


def add_run(studio: Studio) -> Job:
    return studio._jobs.create(parse_run_config({"data": {"dataset": "sums"}}))


def test_the_pause_before_a_resume_is_no_time_at_work(studio: Studio) -> None:
    job = end(add_run(studio))
    log = EventLog(job.folder / "events.jsonl")
    later = BEGUN + timedelta(hours=72)
    log.append(ev.Started(pid=WORKER.pid, process_created=WORKER.created, time=later))
    log.append(ev.Metrics(step=3, total_steps=3, epoch=1, loss=1, time=later + timedelta(seconds=8)))
    log.append(ev.Finished(artifact="adapter", time=later + timedelta(seconds=9)))
    [row] = studio.history()
    assert row.seconds == 12 + 9
    assert markup.duration(21) in status.training(studio.run(job.name))


def test_the_headline_says_where_it_runs(studio: Studio) -> None:
    job = end(add_run(studio))
    log = EventLog(job.folder / "events.jsonl")
    assert ">CPU</span>" in status.headline(studio.run(job.name))
    log.append(ev.Started(pid=WORKER.pid, process_created=WORKER.created, world_size=2))
    assert ">CPU · 2 processes</span>" in status.headline(studio.run(job.name))
    fresh = add_run(studio)
    EventLog(fresh.folder / "events.jsonl").append(ev.Started(pid=1, process_created=1.0, world_size=2))
    assert ">2 processes</span>" in status.headline(studio.run(fresh.name))


def test_runs_of_one_title_are_told_apart_in_a_comparison(studio: Studio) -> None:
    jobs = [end(add_run(studio), losses=(number, number)) for number in (1.0, 2.0, 3.0)]
    for job in jobs[:2]:
        studio.describe_run(job.name, title="Two steps")
    studio.describe_run(jobs[2].name, title="Long")
    _, _, chart, differences = history._compare(studio, [job.name for job in jobs], False)
    names = [f"Two steps ({jobs[0].name})", f"Two steps ({jobs[1].name})", "Long"]
    drawn = [trace.name for trace in chart["value"].data]
    assert drawn == [shown for name in names for shown in (name, f"{name}, held-out")]
    assert all(name in differences for name in names)


def test_a_run_that_cannot_be_read_is_shown_with_no_way_on_but_to_delete_it(studio: Studio) -> None:
    job = add_run(studio)
    (job.folder / "config.json").write_text("{")
    assert train_tab.choices(studio) == [(f"{job.name} · failed", job.name)]
    shown = train_tab.show(studio, job.name, False, False, 0.0, "learning_rate")
    assert "cannot be read: it is not JSON" in shown[0]
    buttons = shown[11:19]
    assert not any(button["visible"] for button in buttons)
    assert "config cannot be read" in history.show(studio, "", None)[0]
