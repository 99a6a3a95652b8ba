"""The Hub seen from the web, against a local Hub and against none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub.fixture import Hub, running_hub

ASK = (
    "import sys\n"
    "from ftapp.hub import Hub\n"
    "from ftapp.contract.errors import FtappError\n"
    "try:\n"
    "    print(Hub(sys.argv[1] or None).model(sys.argv[2], None).model_dump_json())\n"
    "except FtappError as error:\n"
    "    print(type(error).__name__, error.message, '|', error.hint)\n"
)
FETCH = """
import os
from ftapp.contract.config import ModelConfig
from ftapp.workers import sources
sources.TOLD_SECONDS = 0.0
told = lambda phase: print(phase.name, phase.done, phase.total, phase.unit, flush=True)
sources.find_files(ModelConfig(id="alice/tiny"), os.environ["HF_TOKEN"], told)
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    with running_hub(tmp_path_factory.mktemp("hub")) as hub:
        hub.add_user("alice", "hf_alice")
        hub.add_user("bob", "hf_bob")
        hub.add_user("carol", "hf_carol", orgs=["lab", "club:read"])
        hub.add_user("carol", "hf_carolRead", role="read")
        hub.add_user("carol", "hf_carolLab", role="fine:lab")
        yield hub


def ask(env: dict[str, str], token: str, model: str) -> str:
    done = subprocess.run([sys.executable, "-c", ASK, token, model], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_model_is_known_by_its_headers(hub: Hub, tiny_llama: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom huggingface_hub import HfApi\napi = HfApi()\napi.create_repo('alice/tiny', private=True)\n"
        "api.upload_folder(repo_id='alice/tiny', folder_path=sys.argv[1])\n"
    )
    env = hub.env(tmp_path / "hf", "hf_alice", xet=False)
    subprocess.run([sys.executable, "-c", code, str(tiny_llama)], env=env, check=True, capture_output=True)
    told = ask(hub.env(tmp_path / "hf2"), "hf_alice", "alice/tiny")
    assert '"model.layers.0.self_attn.q_proj.weight":[64,64]' in told
    assert '"licence":null' in told
    code = (
        "import sys\nfrom ftapp.settings import read_settings\nfrom ftapp.studio import Studio\n"
        "config = Studio(read_settings()).demo_config()\n"
        "for id in sys.argv[1:]:\n"
        "    model = config.model.model_copy(update={'id': id})\n"
        "    view = Studio(read_settings()).memory(config.model_copy(update={'model': model}), 64)\n"
        "    print(view.estimate.model_dump_json())\n"
    )
    env = hub.env(tmp_path / "hf4", "hf_alice")
    done = subprocess.run(
        [sys.executable, "-c", code, "alice/tiny", str(tiny_llama)], env=env, capture_output=True, text=True
    )
    remote, local = done.stdout.splitlines() or [done.stderr]
    assert remote == local, "the estimate is the same from the Hub's headers and from the files"
    assert not list((tmp_path / "hf4").rglob("*.safetensors")), "no weights are downloaded"
    done = subprocess.run(
        [sys.executable, "-c", FETCH], env=hub.env(tmp_path / "hf5", "hf_alice"), capture_output=True, text=True
    )
    said = [line.split() for line in done.stdout.splitlines()]
    assert said[0] == ["downloading", "None", "None", "rows"], done.stderr
    size = sum(path.stat().st_size for path in tiny_llama.glob("*.safetensors"))
    assert max(int(of) for _, _, of, _ in said[1:]) >= size
    assert all(0 < int(bytes_) <= int(of) and unit == "bytes" for _, bytes_, of, unit in said[1:])
    assert "Fetching" not in done.stderr, "no bar is drawn into the log"
    hidden = ask(hub.env(tmp_path / "hf3"), "hf_bob", "alice/tiny")
    assert hidden.startswith("HubError There is no model or repository 'alice/tiny' that this token can see")


@pytest.mark.parametrize(
    ("token", "model", "words"),
    [
        ("", "alice/nothing", "There is no model or repository 'alice/nothing'"),
        ("hf_alice", "not a name", "is not the name of a Hub repository"),
    ],
)
def test_a_model_that_is_not_there_is_told(hub: Hub, tmp_path: Path, token: str, model: str, words: str) -> None:
    assert words in ask(hub.env(tmp_path / "hf"), token, model)


def test_no_hub_at_all_is_told(tmp_path: Path) -> None:
    env = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    assert ask(env, "", "alice/tiny").startswith("HubUnreachable The Hub could not be reached for alice/tiny")


@pytest.mark.parametrize(
    ("token", "can_write", "owners"),
    [("hf_carol", True, ["carol", "lab"]), ("hf_carolRead", False, []), ("hf_carolLab", True, ["lab"])],
)
def test_where_a_token_may_write(hub: Hub, tmp_path: Path, token: str, can_write: bool, owners: list[str]) -> None:
    code = "import sys\nfrom ftapp.hub import Hub\nprint(Hub(sys.argv[1]).whoami().model_dump_json())"
    env = hub.env(tmp_path / "hf")
    done = subprocess.run([sys.executable, "-c", code, token], env=env, capture_output=True, text=True, check=True)
    account = json.loads(done.stdout)
    assert (account["can_write"], account["owners"]) == (can_write, owners)
    assert account["organisations"] == ["lab", "club"]


def test_a_repository_is_free_ones_own_or_somebody_elses(hub: Hub, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom huggingface_hub import HfApi\nfrom ftapp.hub import Hub\n"
        "HfApi(token='hf_bob').create_repo('bob/mine', private=False)\n"
        "for token in ('hf_bob', 'hf_alice'):\n"
        "    print(Hub(token).repository('bob/mine'), Hub(token).repository('bob/free'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=hub.env(tmp_path / "hf"), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["private=False writable=True None", "private=False writable=False None"]


FIND = (
    "import sys\nfrom ftapp.contract.config import ModelConfig\nfrom ftapp.contract.errors import FtappError\n"
    "from ftapp.workers.sources import find_files\n"
    "try:\n    print(find_files(ModelConfig(id=sys.argv[1]), sys.argv[2] or None, lambda: None, weights=False)[0])\n"
    "except FtappError as error:\n    print(error.message)\n"
)
MAKE = (
    "import sys\nfrom huggingface_hub import HfApi\napi = HfApi()\n"
    "for name, private in (('alice/own', True), ('alice/gated', False)):\n"
    "    api.create_repo(name, private=private)\n"
    "    api.upload_folder(repo_id=name, folder_path=sys.argv[1], ignore_patterns='*.safetensors')\n"
)


def test_a_cache_for_all_gives_nobody_what_the_hub_refuses_them(hub: Hub, tiny_llama: Path, tmp_path: Path) -> None:
    env = hub.env(tmp_path / "hf", "hf_alice", xet=False)
    subprocess.run([sys.executable, "-c", MAKE, str(tiny_llama)], env=env, check=True, capture_output=True)
    hub.gate("alice/gated")
    env = hub.env(tmp_path / "hf")

    def find(model: str, token: str, env: dict[str, str] = env) -> str:
        done = subprocess.run([sys.executable, "-c", FIND, model, token], env=env, capture_output=True, text=True)
        return done.stdout.strip() or done.stderr

    for model, words in (("alice/own", "There is no model or repository"), ("alice/gated", "alice/gated is gated")):
        assert (Path(find(model, "hf_alice")) / "config.json").is_file()
        assert words in find(model, "hf_bob")
    away = env | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    assert (Path(find("alice/own", "hf_alice", away)) / "config.json").is_file(), "without the Hub, what is there does"
