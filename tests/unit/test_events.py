"""Events round-trip through a file, whatever happens to the file."""

import json
import math
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from ftapp.contract import events as ev
from ftapp.contract.errors import StorageError
from ftapp.store import eventlog
from ftapp.store.eventlog import EventLog, tail, tail_text

EVERY = [
    ev.Started(pid=1, process_created=2.5, versions={"torch": "2"}),
    ev.Phase(name="loading", done=1, total=2, unit="bytes"),
    ev.Resolved(values={"batch.micro_size": 4}, train_rows=9, eval_rows=1),
    ev.Metrics(step=1, total_steps=2, epoch=0.5, loss=1.25, learning_rate=2e-4),
    ev.Evaluation(step=1, loss=1.0, perplexity=2.7, tokens=10),
    ev.Sample(step=1, prompt="a\nb", answer="ü\u2028", reference="\x00"),
    ev.Checkpoint(step=1, name="checkpoint-1"),
    ev.Note(level="warning", message="careful"),
    ev.Verified(
        passed=True,
        rows=2,
        held_out=True,
        positions=9,
        top1=1.0,
        divergence=0.001,
        change=0.2,
        answers=2,
        same_answers=2,
        precision="float32",
    ),
    ev.Finished(artifact="adapter"),
    ev.Stopped(step=1),
    ev.Failed(message="no", hint="try", traceback="..."),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def test_every_event_round_trips_to_the_same_line(path: Path) -> None:
    log = EventLog(path)
    for event in EVERY:
        log.append(event)
    events, offset = tail(path, 0)
    assert events == EVERY
    assert offset == path.stat().st_size
    assert [event.model_dump_json().encode() for event in events] == path.read_bytes().split(b"\n")[:-1]
    assert {type(event) for event in EVERY} == set(ev.Event.__origin__.__args__)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_news(path: Path, loss: float) -> None:
    EventLog(path).append(ev.Metrics(step=1, total_steps=1, epoch=1, loss=loss, grad_norm=loss))
    json.loads(path.read_bytes(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    [event], _ = tail(path, 0)
    assert isinstance(event, ev.Metrics)
    assert str(event.loss) == str(loss)
    assert str(event.grad_norm) == str(loss)


def test_time_is_utc() -> None:
    event = ev.Note(message="x")
    assert event.time.tzinfo is UTC
    assert abs((datetime.now(UTC) - event.time).total_seconds()) < 60


def test_unknown_events_and_fields_are_refused() -> None:
    with pytest.raises(ValidationError):
        ev.parse_event('{"type":"party"}')
    with pytest.raises(ValidationError):
        ev.parse_event('{"type":"note","message":"x","extra":1}')


def test_what_earlier_versions_said_at_the_start_is_still_read() -> None:
    event = ev.parse_event('{"type":"started","pid":1,"process_created":2.5,"device":""}')
    assert isinstance(event, ev.Started)
    assert "device" not in event.model_dump_json()


def test_no_file_has_no_events(path: Path) -> None:
    assert tail(path, 0) == ([], 0)


def test_a_line_without_its_newline_is_not_read_yet(path: Path) -> None:
    line = ev.Note(message="whole").model_dump_json().encode()
    path.write_bytes(line + b"\n" + line[:20])
    events, offset = tail(path, 0)
    assert (len(events), offset) == (1, len(line) + 1)
    with path.open("ab") as file:
        file.write(line[20:] + b"\n")
    events, offset = tail(path, offset)
    assert (len(events), offset) == (1, path.stat().st_size)
    assert tail(path, offset) == ([], offset)


def test_a_writer_that_died_in_its_line_costs_that_line_alone(path: Path) -> None:
    EventLog(path).append(ev.Note(message="before"))
    with path.open("ab") as file:
        file.write(b'{"type":"note","mess')
    log = EventLog(path)
    log.append(ev.Note(message="after"))
    log.append(ev.Note(message="and on"))
    assert [event.message for event in tail(path, 0)[0] if isinstance(event, ev.Note)] == ["before", "after", "and on"]


def test_garbage_between_lines_is_passed_over(path: Path) -> None:
    line = ev.Note(message="x").model_dump_json().encode() + b"\n"
    path.write_bytes(line + b"\0" * 500 + b"\n" + b"\xff\xfe\n" + b"[]\n\n" + line)
    assert len(tail(path, 0)[0]) == 2


def test_a_line_longer_than_a_chunk_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "CHUNK", 64)
    log = EventLog(path)
    for size in (1, 1000, 64, 3):
        log.append(ev.Note(message="x" * size))
    seen, offset = 0, 0
    while (read := tail(path, offset))[1] != offset:
        seen, offset = seen + len(read[0]), read[1]
    assert (seen, offset) == (4, path.stat().st_size)


def test_a_full_disk_is_told_and_the_next_line_stands_alone(tmp_path: Path) -> None:
    script = """
import os, resource, signal, sys
from pathlib import Path
from ftapp.contract.errors import StorageError
from ftapp.contract.events import Note
from ftapp.store.eventlog import EventLog
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = EventLog(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    while True:
        log.append(Note(message="x" * 50))
except StorageError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.append(Note(message="last words"))
"""
    path = tmp_path / "events.jsonl"
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Cannot write events: ")
    assert "disk space" in done.stdout
    events, _ = tail(path, 0)
    assert len(events) > 5
    assert isinstance(events[-1], ev.Note)
    assert events[-1].message == "last words"


def test_a_log_that_cannot_be_opened_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="Cannot write"):
        EventLog(tmp_path / "missing" / "events.jsonl")


def test_the_tail_of_a_log_starts_with_a_whole_line(path: Path) -> None:
    assert tail_text(path) == ""
    path.write_bytes(b"first\n" + b"y" * 100 + b"\nlast \xff line\n")
    assert tail_text(path, 60) == "last \ufffd line\n"
    assert tail_text(path).startswith("first\n")


def test_a_progress_bar_shows_its_last_state(path: Path) -> None:
    path.write_bytes(b"10%\r50%\r100%\ndone\n")
    assert tail_text(path) == "100%\ndone\n"


def test_the_writer_is_alone_with_its_file(path: Path) -> None:
    EventLog(path)
    assert path.stat().st_mode & 0o077 == 0
