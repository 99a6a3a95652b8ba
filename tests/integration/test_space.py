"""The app put on a Space by the terminal, against a local Hub; nothing is built there."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.fixture import Hub, running_hub

ROOT = Path(__file__).parents[2]
TOKEN = "hf_OwnerOfTheSpace0123456789"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with running_hub(tmp_path_factory.mktemp("hub")) as hub:
        hub.add_user("alice", TOKEN)
        hub.watch("token", TOKEN)
        yield hub


def deploy(hub: Hub, home: Path, *arguments: str, **variables: str) -> tuple[int, str]:
    """Exit code, and what was printed."""
    done = subprocess.run(
        [sys.executable, "-m", "ftapp", "deploy", *arguments],
        env=hub.env(home / "hf", TOKEN) | {"FTAPP_HOME": str(home)} | variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert TOKEN not in done.stdout + done.stderr
    return done.returncode, done.stdout + done.stderr


def run(hub: Hub, home: Path, code: str) -> None:
    head = "from huggingface_hub import HfApi\napi = HfApi()\n"
    subprocess.run([sys.executable, "-c", head + code], env=hub.env(home / "hf", TOKEN), check=True)


def test_a_space_is_made_and_brought_up_to_date(hub: Hub, tmp_path: Path) -> None:
    code, told = deploy(hub, tmp_path, "alice/tuner", "--secret", "GATED", GATED="hf_ReadsGated99")
    assert code == 0, told
    assert "alice/tuner: made, private" in told
    assert told.rstrip().endswith("https://alice-tuner.hf.space")
    assert {"kind": "space", "id": "alice/tuner", "private": True} in hub.repos()
    files = hub.repo_files("alice/tuner", kind="space")
    assert {"app.py", "Dockerfile", ".dockerignore", "requirements.txt", "ftapp/ui/style.css"} <= set(files)
    assert {"ftapp/demo/model/model.safetensors", "LICENSE"} <= set(files)
    assert not [name for name in files if name.startswith(("tests/", ".git/", ".venv/")) or "__pycache__" in name]
    page = hub.read("alice/tuner", "README.md", kind="space").decode()
    assert page == (ROOT / "spaces" / "README.md").read_text().replace("OWNER/NAME", "alice/tuner")
    assert "https://huggingface.co/spaces/alice/tuner?duplicate=true" in page
    known = hub.space("alice/tuner")
    assert (known["sdk"], known["hardware"], known["sleepTimeSeconds"]) == ("docker", "l4x1", 3600)
    assert known["secrets"] == ["GATED"]
    assert known["variables"] == {"FTAPP_SLEEP": "3600"}
    for remark in ("It has no secret HF_TOKEN", "It has no bucket"):
        assert remark in told
    assert "hf_ReadsGated99" not in told
    asked = [entry["path"] for entry in hub.requests("POST")]
    assert asked[-1].endswith("/hardware"), "nothing costs before all is there"

    run(
        hub,
        tmp_path,
        "api.upload_file(path_or_fileobj=b'x', path_in_repo='old.py', repo_id='alice/tuner', repo_type='space')",
    )
    hub.space(
        "alice/tuner", stages=["RUNNING", "RUNNING_BUILDING", "RUNNING_BUILDING", "RUNNING_APP_STARTING", "RUNNING"]
    )
    code, told = deploy(hub, tmp_path, "alice/tuner", "--hardware", "t4-small")
    assert code == 0, told
    assert "alice/tuner: is there already" in told
    assert "running building\nrunning app starting\nrunning\n" in told
    assert "old.py" not in hub.repo_files("alice/tuner", kind="space")
    assert hub.space("alice/tuner")["hardware"] == "t4-small"
    assert hub.leaks() == []


def test_a_bucket_is_made_private_and_mounted_and_the_settings_of_the_app_are_said(hub: Hub, tmp_path: Path) -> None:
    arguments = ("alice/shared", "--bucket", "kept", "--sleep", "900", "--allow", "bob", "--allow", "lab", "--public")
    code, told = deploy(hub, tmp_path, *arguments, "--secret", "HF_TOKEN=FOR_IT", FOR_IT="hf_OfTheSpaceAlone")
    assert code == 0, told
    assert "alice/kept: made, private, at /data" in told
    assert "It has no" not in told
    known = hub.space("alice/shared")
    ours = {"type": "bucket", "source": "alice/kept", "mountPath": "/data"}
    assert known["volumes"] == [ours]
    said = {"FTAPP_SLEEP": "900", "FTAPP_VOLUME": "/data", "FTAPP_ALLOWED": "bob,lab"}
    assert (known["variables"], known["secrets"], known["sleepTimeSeconds"]) == (said, ["HF_TOKEN"], 900)
    assert {"kind": "space", "id": "alice/shared", "private": False} in hub.repos()
    paths = [entry["path"] for entry in hub.requests() if entry["method"] in ("POST", "PUT")]
    shown = max(place for place, path in enumerate(paths) if path.endswith("/shared/settings"))
    assert max(place for place, path in enumerate(paths) if "/shared/commit/" in path) < shown, "not before its files"

    other = {"type": "model", "source": "a/b", "mountPath": "/models", "readOnly": True}
    hub.space("alice/shared", volumes=[other, ours | {"source": "alice/old"}])
    hub.clear_requests()
    code, told = deploy(hub, tmp_path, *arguments[:5], "--public")
    assert code == 0, told
    assert "alice/kept: is there already, at /data" in told
    assert hub.space("alice/shared")["volumes"] == [other, ours], "nobody else's is taken away"
    assert hub.space("alice/shared")["variables"] == said
    assert not hub.requests("POST", "/variables"), "each change would restart it"

    run(hub, tmp_path, "api.create_bucket('alice/open', private=False)")
    code, told = deploy(hub, tmp_path, "alice/shared", "--public", "--bucket", "open")
    assert code == 1
    assert "The bucket alice/open is public" in told
    code, told = deploy(hub, tmp_path, "alice/shared", "--public", "--bucket", "bob/kept")
    assert code == 1
    assert "bob/kept" in told
    assert hub.space("alice/shared")["volumes"] == [other, ours]


def test_a_space_where_a_run_is_at_work_is_not_restarted_by_the_way(hub: Hub, tmp_path: Path) -> None:
    assert deploy(hub, tmp_path, "alice/busy")[0] == 0
    hub.space("alice/busy", sleepTimeSeconds=-1)
    hub.clear_requests()
    code, told = deploy(hub, tmp_path, "alice/busy")
    assert code == 1
    assert "A run seems to be at work in alice/busy" in told
    assert not hub.requests("POST")
    code, told = deploy(hub, tmp_path, "alice/busy", "--restart")
    assert code == 0, told
    assert hub.space("alice/busy")["sleepTimeSeconds"] == 3600


def test_a_build_that_fails_shows_the_end_of_its_log(hub: Hub, tmp_path: Path) -> None:
    deploy(hub, tmp_path, "alice/broken")
    hub.space("alice/broken", stages=["BUILDING", "BUILD_ERROR"], logs={"build": ["Step 1", "no space left on device"]})
    code, told = deploy(hub, tmp_path, "alice/broken")
    assert code == 1
    assert "alice/broken does not start: BUILD_ERROR" in told
    assert "Step 1 | no space left on device" in told


def test_what_cannot_be_deployed_is_refused_before_it_costs(hub: Hub, tmp_path: Path) -> None:
    run(
        hub,
        tmp_path,
        "api.create_repo('alice/open', repo_type='space', space_sdk='docker')\n"
        "api.create_repo('alice/gradio', repo_type='space', space_sdk='gradio', private=True)",
    )
    hub.clear_requests()
    for arguments, words in (
        (("alice/open",), "alice/open exists and is public"),
        (("alice/gradio",), "is a Space of another kind (gradio)"),
        (("nobody",), "'nobody' is not the name of a Space"),
        (("bob/tuner",), "bob/tuner"),
        (("alice/tuner", "--secret", "UNSET"), "There is no variable in this shell for the secret UNSET"),
        (("alice/tuner", "--secret", "GATED=hf_TypedByMistake"), "for the secret GATED"),
        (("alice/tuner", "--bucket", "a/b/c"), "'a/b/c' is not the name of a bucket"),
        (("alice/tuner", "--allow", "bob,eve"), "'bob,eve' is not the name of a user"),
    ):
        code, told = deploy(hub, tmp_path, *arguments)
        assert code == 1, told
        assert words in told
        assert "Traceback" not in told
        assert "hf_TypedByMistake" not in told
    assert not [entry for entry in hub.requests("POST") if entry["path"].endswith(("/hardware", "/secrets"))]
    code, told = deploy(hub, tmp_path, "alice/late", "--hardware", "warp-drive")
    assert code == 1
    code, told = deploy(hub, tmp_path, "alice/late", HF_TOKEN="")
    assert code == 1
    assert "There is no token" in told
