"""Publishing with real processes against a local Hub, by LFS and by xet: what arrives loads again and says the same."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from ftapp.contract.errors import HubError, JobError
from ftapp.contract.publication import PublishConfig
from ftapp.settings import Settings
from ftapp.studio import Studio
from ftapp.views import PublicationView
from tests.hub.fixture import Hub, running_hub
from tests.integration.conftest import Trained
from tests.running import config_for, finish, wait_for

TOKEN = "hf_AliceWritesHere0123456789"
PROMPT = "What is 2 plus 3?"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    with running_hub(tmp_path_factory.mktemp("hub")) as hub:
        hub.add_user("alice", TOKEN, orgs=["lab", "club:read"])
        hub.add_user("bob", "hf_BobOnlyReads0123456789", role="read")
        yield hub


def push(
    trained: Trained, hub: Hub, home: Path, *arguments: str, token: str = TOKEN, xet: bool = False
) -> subprocess.CompletedProcess[str]:
    """`python -m ftapp push` as a person would, in an environment that knows only the local Hub."""
    env = hub.env(home, token, xet=xet) | {"FTAPP_HOME": str(trained.studio.settings.home)}
    return subprocess.run(
        [sys.executable, "-m", "ftapp", "push", trained.run, *arguments], env=env, capture_output=True, text=True
    )


def say(model: object, folder: Path) -> list[int]:
    """Greedy answer as token ids."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": PROMPT}]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        out = model.generate(
            input_ids=ids["input_ids"], attention_mask=ids["attention_mask"], do_sample=False, max_new_tokens=24
        )  # type: ignore[attr-defined]
    return list(out[0, ids["input_ids"].shape[1] :].tolist())


def load_tuned(trained: Trained, adapter: Path) -> object:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    beside = adapter / "base"
    base = AutoModelForCausalLM.from_pretrained(beside if beside.is_dir() else trained.base, dtype=torch.float32)
    return PeftModel.from_pretrained(base, adapter)


def read_back(hub: Hub, home: Path, repo: str, xet: bool) -> Path:
    """The repository as a stranger with the token gets it, by the unmodified client."""
    code = f"from huggingface_hub import snapshot_download as s; print(s({repo!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=hub.env(home, TOKEN, xet=xet), capture_output=True, text=True, check=True
    )
    return Path(done.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("xet", [False, True], ids=["lfs", "xet"])
def test_the_pushed_adapter_loads_and_says_the_same(trained: Trained, hub: Hub, tmp_path: Path, xet: bool) -> None:
    repo = f"alice/adapter-{'xet' if xet else 'lfs'}"
    done = push(trained, hub, tmp_path / "hf", repo, "--with-base", xet=xet)
    assert done.returncode == 0, done.stderr
    assert f"{hub.url}/{repo}" in done.stdout + done.stderr
    assert {item["id"]: item["private"] for item in hub.repos()}[repo] is True
    there = read_back(hub, tmp_path / "other", repo, xet)
    assert say(load_tuned(trained, there), there) == say(
        load_tuned(trained, trained.folder / "adapter"), trained.folder / "adapter"
    )
    assert hub.leaks() == []


def test_the_pushed_merged_model_loads_alone_and_says_the_same(trained: Trained, hub: Hub, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    done = push(trained, hub, tmp_path / "hf", "alice/merged", "--merged", "--public")
    assert done.returncode == 0, done.stderr
    assert {item["id"]: item["private"] for item in hub.repos()}["alice/merged"] is False
    there = read_back(hub, tmp_path / "other", "alice/merged", xet=False)
    assert len(list(there.glob("model-*.safetensors"))) > 1, "the base's shards stay shards"
    merged = AutoModelForCausalLM.from_pretrained(there, dtype=torch.float32)
    reference = load_tuned(trained, trained.folder / "adapter").merge_and_unload().to(torch.bfloat16)  # type: ignore[attr-defined]
    for (name, mine), (_, peft) in zip(merged.named_parameters(), reference.named_parameters(), strict=True):
        assert torch.equal(mine.to(torch.bfloat16), peft), name
    assert say(merged, there) == say(reference.float(), there)


def test_the_merged_model_arrives_by_xet_byte_for_byte(trained: Trained, hub: Hub, tmp_path: Path) -> None:
    done = push(trained, hub, tmp_path / "hf", "alice/merged-xet", "--merged", xet=True)
    assert done.returncode == 0, done.stderr
    there = read_back(hub, tmp_path / "other", "alice/merged-xet", xet=True)
    here = trained.studio.artifact_folder(trained.run, trained.studio.publications(trained.run)[0].name)
    names = sorted(path.name for path in here.iterdir())
    assert [name for name in names if name.endswith(".safetensors")]
    assert {name: (there / name).read_bytes() == (here / name).read_bytes() for name in names} == dict.fromkeys(
        names, True
    )
    assert all(hub.repo_files("alice/merged-xet")[name]["xet"] for name in names if name.endswith(".safetensors"))


def test_a_gated_bases_licence_must_have_been_accepted(trained: Trained, hub: Hub, tmp_path: Path) -> None:
    """A copy of the run, as if its base were a gated model of the Hub's."""
    create = (
        "import huggingface_hub as h; h.create_repo('eve/gated');"
        "h.upload_file(path_or_fileobj=b'{}', path_in_repo='config.json', repo_id='eve/gated')"
    )
    hub.add_user("eve", "hf_EveOwnsTheGatedBase01234")
    env = hub.env(tmp_path / "eve", "hf_EveOwnsTheGatedBase01234", xet=False)
    subprocess.run([sys.executable, "-c", create], env=env, check=True, capture_output=True)
    hub.gate("eve/gated")
    copy = trained.folder.with_name("2026-01-01-gated")
    shutil.copytree(trained.folder, copy, ignore=shutil.ignore_patterns("publications", "checkpoints"))
    try:
        config = json.loads((copy / "config.json").read_text())
        config["model"] |= {"id": "eve/gated"}
        (copy / "config.json").write_text(json.dumps(config))
        done = push(replace(trained, run=copy.name), hub, tmp_path / "hf", "alice/from-gated")
        assert done.returncode == 1
        assert "eve/gated is gated, and its licence was not accepted by this token's account" in done.stderr
        assert not (copy / "publications").exists(), "told before any work"
        hub.gate("eve/gated", granted=["alice"])
        done = push(replace(trained, run=copy.name), hub, tmp_path / "hf", "alice/from-gated")
        assert done.returncode == 0, done.stderr
        assert b"base_model: eve/gated" in hub.read("alice/from-gated", "README.md")
    finally:
        shutil.rmtree(copy)


def test_the_card_tells_the_truth(trained: Trained, hub: Hub) -> None:
    from huggingface_hub import ModelCard

    if "alice/merged" not in [item["id"] for item in hub.repos()]:
        pytest.fail("needs the test before")
    text = hub.read("alice/merged", "README.md").decode()
    card = ModelCard(text)
    view = trained.studio.run(trained.run)
    assert card.data.library_name == "transformers"
    assert card.data.license is None, "the base names no licence, so the card must not"
    assert "names no licence" in text
    assert f"{view.state.metrics[-1].loss:.4f}" in text
    assert f"{view.state.evaluations[-1].loss:.4f}" in text
    assert str(trained.base.parent) not in text
    assert "tiny-llama" in text


def test_no_pushed_file_names_a_local_path(trained: Trained, hub: Hub) -> None:
    for repo in [item["id"] for item in hub.repos()]:
        for name in hub.repo_files(repo):
            if not name.endswith(".safetensors"):
                assert str(trained.base.parent).encode() not in hub.read(repo, name), (repo, name)


def test_the_token_is_nowhere_on_disk(trained: Trained, hub: Hub) -> None:
    for path in trained.studio.settings.home.rglob("*"):
        if path.is_file():
            assert TOKEN.encode() not in path.read_bytes(), path


def test_a_traceback_in_the_log_holds_no_token(tmp_path: Path) -> None:
    folder = tmp_path / f"named-{TOKEN}"  # so that what goes wrong names it
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "ftapp.workers", "publish", str(folder)],
        env=os.environ | {"HF_TOKEN": TOKEN},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "(token)" in done.stderr
    assert TOKEN not in done.stderr + (folder / "events.jsonl").read_text()


@pytest.mark.parametrize(
    ("token", "repo", "words"),
    [
        ("hf_nobodys", "alice/x", "token is not valid"),
        ("hf_BobOnlyReads0123456789", "bob/x", "can only read"),
        (TOKEN, "bob/x", "cannot write to bob"),
        (TOKEN, "club/x", "cannot write to club"),
        (TOKEN, "no-slash", "owner/name"),
        (TOKEN, "alice/nothing --pull-request", "no alice/nothing to open a pull request to"),
        (TOKEN, "alice/x --branch bad..name", "not the name of a branch"),
        ("", "alice/x", "no Hub token"),
    ],
)
def test_a_wrong_token_or_name_is_told_before_any_work(
    trained: Trained, hub: Hub, tmp_path: Path, token: str, repo: str, words: str
) -> None:
    before = len(trained.studio.publications(trained.run))
    done = push(trained, hub, tmp_path / "hf", *repo.split(), "--merged", token=token)
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not token or token not in done.stderr
    assert len(trained.studio.publications(trained.run)) == before


def test_a_hub_that_is_unwell_for_a_moment_does_not_fail_the_push(trained: Trained, hub: Hub, tmp_path: Path) -> None:
    hub.inject("POST", "/commit/main", status=503, times=2)
    done = push(trained, hub, tmp_path / "hf", "alice/patient", "--with-base")
    assert done.returncode == 0, done.stderr
    assert hub.faults() == []


def test_a_hub_that_stays_unwell_fails_the_push_and_keeps_the_artifact(
    trained: Trained, hub: Hub, tmp_path: Path
) -> None:
    hub.inject("POST", "/commit/main", status=403, times=1)
    done = push(trained, hub, tmp_path / "hf", "alice/refused", "--merged")
    assert done.returncode == 1
    assert "403" in done.stderr
    view = trained.studio.publications(trained.run)[0]
    assert view.status == "failed"
    assert list(hub.repo_files("alice/refused")) in ([], [".gitattributes"])
    folder = trained.studio.artifact_folder(trained.run, view.name)
    assert (folder / "model.safetensors.index.json").is_file()


def test_merge_to_a_folder_of_ones_own(trained: Trained, tmp_path: Path) -> None:
    out = tmp_path / "merged here"
    env = os.environ | {"FTAPP_HOME": str(trained.studio.settings.home)}
    command = [sys.executable, "-m", "ftapp", "merge", trained.run, "--to", str(out)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (out / "config.json").is_file()
    assert (out / "README.md").is_file()
    again = subprocess.run(command, env=env, capture_output=True, text=True)
    assert again.returncode == 1
    assert "not empty" in again.stderr
    assert not re.search("Traceback", again.stderr)


def test_a_public_repository_is_not_pushed_to_as_if_it_were_private(trained: Trained, hub: Hub, tmp_path: Path) -> None:
    assert push(trained, hub, tmp_path / "hf", "alice/open", "--merged", "--public").returncode == 0
    done = push(trained, hub, tmp_path / "hf", "alice/open", "--merged")
    assert done.returncode == 1
    assert "is public" in done.stderr


def finished(trained: Trained, number: str) -> PublicationView:
    return wait_for(
        lambda: (view := trained.studio.publication(trained.run, number)) and not view.active and view,
        "the publication",
    )


def test_publications_are_refused_for_runs_without_a_result(trained: Trained) -> None:
    with pytest.raises(JobError, match="no run called"):
        trained.studio.publish(PublishConfig(run="nothing"))
    with pytest.raises(HubError, match="no Hub token"):
        trained.studio.publish(PublishConfig(run=trained.run, artifact="merged", destination="alice/x"))
    with pytest.raises(JobError, match="could be used by nobody"):
        trained.studio.publish(PublishConfig(run=trained.run, destination="alice/x"))
    number = trained.studio.publish(PublishConfig(run=trained.run))
    assert finished(trained, number).status == "finished"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run on a base in one file of half a megabyte, for what happens in the middle of a merge."""
    import torch

    from tests.models import make

    folder = tmp_path_factory.mktemp("whole")
    base = make("llama", folder / "one-file", dtype=torch.float32)
    studio = Studio(Settings(folder / "home", "127.0.0.1", 0, 2**30, 600.0, 600.0, None))
    run = studio.start_training(config_for(studio, base, folder, duration={"max_steps": 12}))
    view = finish(studio, run)
    assert view.status == "finished", view.message
    return Trained(studio, run, base)


def at(trained: Trained, number: str, phase: str) -> PublicationView:
    """Wait until the publication does that."""

    def there() -> PublicationView | None:
        view = trained.studio.publication(trained.run, number)
        assert view.active, f"{view.status} {view.message}"
        return view if view.state.phase and view.state.phase.name == phase else None

    return wait_for(there, phase)


def left_in(view: PublicationView) -> list[str]:
    """What lies in a publication's folder besides its papers."""
    papers = {"config.json", "events.jsonl", "output.log", "process.json", "stop"}
    return sorted({path.name for path in view.folder.iterdir()} - papers)


def test_a_merge_that_went_wrong_is_not_kept_and_not_pushed(whole: Trained) -> None:
    number = whole.studio.publish(PublishConfig(run=whole.run, artifact="merged"))
    weights = at(whole, number, "verifying").folder / ".merged.new" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    half = len(data) // 2
    data[half:] = bytes(len(data) - half)
    weights.write_bytes(data)
    view = finished(whole, number)
    assert view.status == "failed"
    assert "is not what was trained" in view.message
    assert view.state.verified is not None
    assert not view.state.verified.passed
    assert left_in(view) == []


def test_the_disk_is_looked_at_before_the_merge(whole: Trained) -> None:
    weights = whole.base / "model.safetensors"
    size = weights.stat().st_size
    os.truncate(weights, shutil.disk_usage(whole.base).free + 2**20)  # what is added takes no space itself
    try:
        view = finished(whole, whole.studio.publish(PublishConfig(run=whole.run, artifact="merged")))
    finally:
        os.truncate(weights, size)
    assert view.status == "failed"
    assert re.search(r"The artifact needs [\d.]+ GiB, the disk has [\d.]+ GiB left", view.message)
    assert view.state.phase is None or view.state.phase.name != "merging"
    assert left_in(view) == []


def test_a_full_disk_leaves_nothing_half_written(whole: Trained) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        number = whole.studio.publish(PublishConfig(run=whole.run, artifact="merged"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    view = finished(whole, number)
    assert view.kind == "disk", view.message
    assert "nothing half-written" in view.hint
    assert left_in(view) == []


def test_stopped_in_the_middle_leaves_nothing_half_written(whole: Trained) -> None:
    number = whole.studio.publish(PublishConfig(run=whole.run, artifact="merged"))
    at(whole, number, "verifying")
    whole.studio.stop(whole.run, number)
    view = finished(whole, number)
    assert view.status == "stopped"
    assert left_in(view) == []


def test_killed_in_the_middle_of_a_push_it_goes_on_with_what_was_made(whole: Trained, hub: Hub, tmp_path: Path) -> None:
    env = hub.env(tmp_path / "hf", TOKEN, xet=False) | {"FTAPP_HOME": str(whole.studio.settings.home)}
    command = [sys.executable, "-m", "ftapp", "push", whole.run, "alice/killed", "--merged"]
    hub.inject("POST", "/commit/main", delay=60)
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        wait_for(lambda: hub.faults() == [], "the commit on its way")
        killed = whole.studio.publications(whole.run)[0]
        process = killed.job.process()
        assert process is not None
        psutil.Process(process.pid).kill()
        assert first.wait(60) == 1
    assert finished(whole, killed.name).status == "lost"
    assert list(hub.repo_files("alice/killed")) in ([], [".gitattributes"]), "no half model"
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    again = whole.studio.publications(whole.run)[0]
    assert f"What publication {killed.name} made is still whole" in again.state.notes[0].message
    assert again.state.verified, "the card still has the figures"
    assert "model.safetensors" in hub.repo_files("alice/killed")
    assert b"Checked before publishing" in hub.read("alice/killed", "README.md")
    # one byte of what was made changes: it is made and checked anew
    weights = whole.studio.artifact_folder(whole.run, again.name) / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    third = finished(whole, whole.studio.publish(PublishConfig(run=whole.run, artifact="merged")))
    assert third.status == "finished", third.message
    assert "made again" in third.state.notes[0].message


CONVERTER = """
import argparse, os, time
from pathlib import Path
parser = argparse.ArgumentParser()
parser.add_argument("model", type=Path)
for name in ("--outfile", "--outtype", "--model-name"):
    parser.add_argument(name)
given = parser.parse_args()
weights = b"".join(path.read_bytes() for path in sorted(given.model.glob("*.safetensors")))
assert (given.model / "config.json").is_file() and weights and "HF_TOKEN" not in os.environ
if (wait := Path(__file__).with_name("wait")).exists():
    Path(given.outfile).write_bytes(b"GGUF half")
    wait.rename(wait.with_name("waits"))
    time.sleep(60)
if (broken := Path(__file__).with_name("broken")).exists():
    raise SystemExit(broken.read_text())
Path(given.outfile).write_bytes(b"GGUF" + given.outtype.encode() + weights[-1000:])
"""


def test_a_gguf_file_by_ones_own_llama_cpp(whole: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in for llama.cpp takes its arguments; it is the user's, and no part of the app."""
    asked = PublishConfig(run=whole.run, artifact="gguf")
    with pytest.raises(JobError, match="FTAPP_LLAMA_CPP names none"):
        whole.studio.publish(asked)
    llama_cpp = tmp_path / "llama.cpp"
    llama_cpp.mkdir()
    (llama_cpp / "convert_hf_to_gguf.py").write_text(CONVERTER)
    monkeypatch.setenv("FTAPP_LLAMA_CPP", str(llama_cpp))
    studio = Studio(replace(whole.studio.settings, llama_cpp=llama_cpp))
    with_gguf = Trained(studio, whole.run, whole.base)

    (llama_cpp / "broken").write_text("BPE pre-tokenizer was not recognized")
    view = finished(with_gguf, studio.publish(asked))
    assert view.status == "failed"
    assert "could not convert the model: BPE pre-tokenizer was not recognized" in view.message
    assert left_in(view) == []
    (llama_cpp / "broken").unlink()

    (llama_cpp / "wait").touch()
    number = studio.publish(asked)
    wait_for((llama_cpp / "waits").exists, "half a file")
    studio.stop(whole.run, number)
    view = finished(with_gguf, number)
    assert view.status == "stopped"
    assert left_in(view) == []
    running = [one.info["cmdline"] or [] for one in psutil.process_iter(["cmdline"])]
    assert not [words for words in running if str(llama_cpp) in " ".join(words)]

    view = finished(with_gguf, studio.publish(asked))
    assert view.status == "finished", view.message
    assert view.state.verified, "it is made of a model that was checked"
    assert view.state.verified.passed
    assert left_in(view) == ["artifact.json", "gguf"]
    (file,) = studio.artifact_folder(whole.run, view.name).iterdir()
    assert file.name == f"{whole.run}-q8_0.gguf"
    assert file.read_bytes().startswith(b"GGUFq8_0")
    again = finished(with_gguf, studio.publish(asked.model_copy(update={"gguf_type": "f16"})))
    assert studio.artifact_folder(whole.run, again.name) != file.parent, "another type is another file"


def test_the_zip_has_every_byte(trained: Trained, tmp_path: Path) -> None:
    view = finished(trained, trained.studio.publish(PublishConfig(run=trained.run, artifact="merged")))
    name, pieces = trained.studio.archive(trained.run, view.name)
    (tmp_path / name).write_bytes(b"".join(pieces))
    with zipfile.ZipFile(tmp_path / name) as archive:
        assert archive.testzip() is None
        inside = {info.filename.split("/", 1)[1]: archive.read(info) for info in archive.infolist()}
    folder = trained.studio.artifact_folder(trained.run, view.name)
    assert inside == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_edited_card_is_pushed_as_it_was_edited(trained: Trained, hub: Hub, tmp_path: Path) -> None:
    card = trained.studio.card(PublishConfig(run=trained.run, artifact="merged", destination="alice/edited"))
    (tmp_path / "card.md").write_text(card.replace("## Data", "A sentence of mine.\n\n## Data"))
    done = push(trained, hub, tmp_path / "hf", "alice/edited", "--merged", "--card", str(tmp_path / "card.md"))
    assert done.returncode == 0, done.stderr
    pushed = hub.read("alice/edited", "README.md").decode()
    assert "A sentence of mine." in pushed
    assert "same likeliest token" in pushed
    assert hub.read("alice/edited", "loss.png").startswith(b"\x89PNG")
    for text, words in (
        (card.replace("---", "", 1), "must begin with metadata"),
        (f"{card}{TOKEN}", "holds the Hub token"),
    ):
        (tmp_path / "card.md").write_text(text)
        done = push(trained, hub, tmp_path / "hf", "alice/edited", "--merged", "--card", str(tmp_path / "card.md"))
        assert done.returncode == 2
        assert words in done.stderr
        assert TOKEN not in done.stderr
