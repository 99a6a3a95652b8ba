"""Pushes against a local Hub that fails in every way: what passes is waited for, what fails leaves no half model."""

import hashlib
import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.hub.fixture import Hub, running_hub
from tests.running import wait_for

TOKEN = "hf_AliceWritesHere0123456789"
BOB = "hf_BobWritesElsewhere0123456"

PUSH = (
    "import json, os, sys\n"
    "from pathlib import Path\n"
    "from ftapp.contract.publication import parse_publish_config\n"
    "from ftapp.contract.errors import FtappError\n"
    "from ftapp.store.artifacts import files_in\n"
    "from ftapp.workers import push\n"
    "from ftapp.workers.publish import _sha256\n"
    "push.FIRST_WAIT = 0.02\n"
    "folder, config = Path(sys.argv[2]), parse_publish_config(json.loads(sys.argv[1]))\n"
    "hashes = {path.relative_to(folder).as_posix(): _sha256(path) for path in files_in(folder)}\n"
    "if sys.argv[3:]: (folder / sys.argv[3]).write_bytes(b'{}')\n"
    "def progress(name, done, total):\n"
    "    print(name, done, total, file=sys.stderr, flush=True)\n"
    "    if (folder.parent / 'stop').exists(): raise FtappError('it was stopped', '')\n"
    "try:\n"
    "    print(push.Push(config, os.environ['HF_TOKEN'], folder, hashes).run(progress))\n"
    "except FtappError as error:\n"
    "    sys.exit(f'{type(error).__name__}: {error}')\n"
)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    with running_hub(tmp_path_factory.mktemp("hub"), part_size=100_000) as hub:
        hub.add_user("alice", TOKEN, orgs=["lab", "club:read"])
        hub.add_user("bob", BOB)
        yield hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What looks like a model of two shards, each uploaded in parts; no other test has the same bytes."""
    place = tmp_path / "merged"
    place.mkdir()
    (place / "config.json").write_text('{"model_type": "llama"}')
    for number in (1, 2):
        (place / f"model-0000{number}-of-00002.safetensors").write_bytes(
            f"{tmp_path.name} {number}\n".encode() * 10_000
        )
    return place


def push(
    hub: Hub, folder: Path, repo: str, *change: str, token: str = TOKEN, xet: bool = False, **config: Any
) -> "subprocess.CompletedProcess[str]":
    request = json.dumps({"run": "r", "artifact": "merged", "destination": repo, **config})
    env = hub.env(folder.parent / "hf", token, xet=xet)
    command = [sys.executable, "-c", PUSH, request, str(folder), *change]
    return subprocess.run(command, env=env, capture_output=True, text=True)


def files(hub: Hub, repo: str, revision: str = "main") -> dict[str, str]:
    if repo not in [item["id"] for item in hub.repos()]:
        return {}
    found = hub.repo_files(repo, revision)
    return {name: about["sha256"] for name, about in found.items() if name != ".gitattributes"}


def local(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


PASSING: dict[str, dict[str, Any]] = {
    "busy": {"method": "POST", "path": "/commit/main", "status": 429, "retry_after": 1},
    "broken": {"method": "POST", "path": "/commit/main", "status": 500, "times": 2},
    "unwell": {"method": "POST", "path": "/preupload/", "status": 503, "times": 2},
    "unwell-storage": {"method": "PUT", "path": "/_lfs/", "status": 503},
    "cut-upload": {"method": "PUT", "path": "/_lfs/.*/2", "cut_request": 20_000},
    "cut-commit": {"method": "POST", "path": "/commit/main", "cut_request": 1},
    "lost-answer": {"method": "POST", "path": "/commit/main", "cut_response": 0},
    "unwell-after": {"method": "GET", "path": "/tree/", "status": 503, "times": 2},
    "cut-read-back": {"method": "GET", "path": "/resolve/", "cut_response": 5},
}


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_waited_for(hub: Hub, folder: Path, name: str) -> None:
    hub.inject(**PASSING[name])
    done = push(hub, folder, f"alice/{name}")
    assert done.returncode == 0, done.stderr
    assert hub.faults() == [], "it happened"
    assert files(hub, f"alice/{name}") == local(folder)
    titles = [commit["title"] for commit in hub.commits(f"alice/{name}")]
    assert titles.count("Fine-tuned with ftapp (merged)") == 1, "never twice"


LASTING: dict[str, tuple[dict[str, Any], str]] = {
    "no-token": ({"method": "POST", "path": "/preupload/", "status": 401}, "token is not valid (401)"),
    "no-right": ({"method": "POST", "path": "/commit/", "status": 403}, "may not do that (403)"),
    "conflict": ({"method": "POST", "path": "/commit/", "status": 409}, "changed meanwhile (409)"),
    "raced": ({"method": "POST", "path": "/commit/", "status": 412}, "somebody else changed it meanwhile (412)"),
    "always-busy": ({"method": "POST", "path": "/commit/", "status": 429, "times": 99}, "too many requests (429)"),
    "always-broken": ({"method": "POST", "path": "/commit/", "status": 500, "times": 99}, "failed on"),
    "always-cut": ({"method": "POST", "path": "/commit/", "cut_request": 1, "times": 99}, "could not be reached"),
}


@pytest.mark.parametrize("name", LASTING)
def test_what_lasts_is_told_and_leaves_no_half_model(hub: Hub, folder: Path, name: str) -> None:
    fault, words = LASTING[name]
    hub.inject(**fault)
    done = push(hub, folder, f"alice/{name}")
    hub.clear_faults()
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert TOKEN not in done.stderr + done.stdout
    assert files(hub, f"alice/{name}") == {}, "all or nothing"
    again = push(hub, folder, f"alice/{name}")
    assert again.returncode == 0, again.stderr
    assert files(hub, f"alice/{name}") == local(folder)


def test_by_xet_the_same_faults_pass(hub: Hub, folder: Path) -> None:
    hub.inject("POST", "/commit/main", status=503)
    hub.inject("POST", "/commit/main", status=429, retry_after=1)
    hub.inject("GET", "/xet-write-token/", status=503)
    hub.inject("POST", "/_cas/v1/xorbs", status=500)
    hub.inject("POST", "/_cas/v1/xorbs", cut_request=1000)
    hub.inject("POST", "/_cas/v2/shards", cut_response=0)
    done = push(hub, folder, "alice/by-xet", xet=True)
    assert done.returncode == 0, done.stderr
    assert hub.faults() == [], "it happened"
    assert files(hub, "alice/by-xet") == local(folder)
    assert any(about["xet"] for about in hub.repo_files("alice/by-xet").values())


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/xet-write-token/", 401, "token is not valid (401)"),
        ("/_cas/v1/xorb", 403, "may not do that (403)"),
        ("/commit/", 403, "may not do that (403)"),
        ("/commit/", 409, "changed meanwhile (409)"),
        ("/commit/", 412, "somebody else changed it meanwhile (412)"),
    ],
)
def test_by_xet_a_refusal_leaves_no_half_model(hub: Hub, folder: Path, path: str, status: int, words: str) -> None:
    repo = f"alice/xet-{re.sub('[^a-z]', '', path)}-{status}"
    hub.inject(path=path, status=status, times=99)
    done = push(hub, folder, repo, xet=True)
    hub.clear_faults()
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert TOKEN not in done.stderr + done.stdout
    assert files(hub, repo) == {}


@pytest.mark.parametrize(("xet", "path"), [(False, "/_lfs/.*/20"), (True, "/_cas/v2/shards")], ids=["lfs", "xet"])
def test_a_large_file_can_be_followed_and_stopped_in_its_middle(hub: Hub, folder: Path, xet: bool, path: str) -> None:
    large = folder / "model-00001-of-00002.safetensors"
    large.write_bytes(random.Random(str(folder)).randbytes(3_000_000))
    hub.inject(path=path, delay=60)
    request = json.dumps({"run": "r", "artifact": "merged", "destination": f"alice/stopped-{xet}".lower()})
    env = hub.env(folder.parent / "hf", TOKEN, xet=xet) | {"HF_HUB_DISABLE_PROGRESS_BARS": "0"}
    log = folder.parent / "log"
    with log.open("wb") as told:
        process = subprocess.Popen([sys.executable, "-c", PUSH, request, str(folder)], env=env, stderr=told)

    def sent() -> int:
        assert process.poll() is None, log.read_text()
        done = [int(line.split()[1]) for line in log.read_text().splitlines() if line.startswith("pushing ")]
        return max(done, default=0)

    edge = (folder / "config.json").stat().st_size
    wait_for(lambda: edge < sent() <= edge + 3_000_000 and hub.faults() == [], "half the file", 30)
    (folder.parent / "stop").touch()
    assert process.wait(20) == 1
    hub.clear_faults()
    assert "it was stopped" in log.read_text()
    assert files(hub, f"alice/stopped-{xet}".lower()) == {}
    (folder.parent / "stop").unlink()
    assert push(hub, folder, f"alice/stopped-{xet}".lower(), xet=xet).returncode == 0
    assert files(hub, f"alice/stopped-{xet}".lower()) == local(folder)


def test_uploads_that_arrived_are_not_sent_again(hub: Hub, folder: Path) -> None:
    hub.inject("POST", "/commit/", status=403)
    for path in folder.glob("model-*"):
        path.write_bytes(path.read_bytes() + b"of its own")
    assert push(hub, folder, "alice/again").returncode != 0
    hub.clear_requests()
    assert push(hub, folder, "alice/again").returncode == 0
    assert hub.requests("PUT", "/_lfs/") == []


def test_a_file_that_changed_after_it_was_checked_is_not_committed(hub: Hub, folder: Path) -> None:
    done = push(hub, folder, "alice/changed", "model-00001-of-00002.safetensors")
    assert "model-00001-of-00002.safetensors changed after it was checked" in done.stderr
    assert files(hub, "alice/changed") == {}


def test_a_branch_leaves_main_alone(hub: Hub, folder: Path) -> None:
    assert push(hub, folder, "alice/branches").returncode == 0
    before = files(hub, "alice/branches")
    (folder / "config.json").write_text('{"model_type": "qwen3"}')
    done = push(hub, folder, "alice/branches", mode="branch", branch="try/two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{hub.url}/alice/branches/tree/try/two"
    assert files(hub, "alice/branches") == before
    assert files(hub, "alice/branches", "try/two") == local(folder)


@pytest.mark.parametrize("lost", [False, True])
def test_a_pull_request_to_somebody_elses(hub: Hub, folder: Path, lost: bool) -> None:
    repo = f"bob/open-{lost}".lower()
    assert push(hub, folder, repo, token=BOB, private=False).returncode == 0
    before = files(hub, repo)
    (folder / "config.json").write_text('{"model_type": "gemma3"}')
    if lost:
        hub.inject("POST", "/commit/", cut_response=0)
    done = push(hub, folder, repo, mode="pull_request", private=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{hub.url}/{repo}/discussions/1", "one, even if the answer was lost"
    assert files(hub, repo) == before
    assert files(hub, repo, "refs/pr/1") == local(folder)


def test_an_organisations_repository(hub: Hub, folder: Path) -> None:
    assert push(hub, folder, "lab/shared").returncode == 0
    assert files(hub, "lab/shared") == local(folder)
    done = push(hub, folder, "club/shared")
    assert "(403)" in done.stderr


def test_a_new_model_replaces_the_old_one_whole(hub: Hub, folder: Path) -> None:
    assert push(hub, folder, "alice/replaced").returncode == 0
    for path in folder.glob("model-*"):
        path.unlink()
    (folder / "model.safetensors").write_bytes(b"\0" * 1000)
    assert push(hub, folder, "alice/replaced").returncode == 0
    assert files(hub, "alice/replaced") == local(folder), "no shard of the earlier one is left beside it"
    assert len(hub.commits("alice/replaced")) >= 2, "what was there stays in its history"


def test_no_token_is_anywhere_but_in_its_header(hub: Hub) -> None:
    assert hub.leaks() == []
