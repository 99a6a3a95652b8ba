"""Publishing with real processes against a local Hub, by LFS and by xet: what arrives loads again and says the same."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ftapp.contract.config import PublishConfig
from ftapp.contract.errors import HubError, JobError
from ftapp.views import PublicationView
from tests.hub.fixture import Hub, running_hub
from tests.integration.conftest import Trained
from tests.running import wait_for

TOKEN = "hf_AliceWritesHere0123456789"
PROMPT = "What is 2 plus 3?"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    with running_hub(tmp_path_factory.mktemp("hub")) as hub:
        hub.add_user("alice", TOKEN)
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

    base = AutoModelForCausalLM.from_pretrained(trained.base, dtype=torch.float32)
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


@pytest.mark.parametrize(
    ("token", "repo", "words"),
    [
        ("hf_nobodys", "alice/x", "token is not valid"),
        ("hf_BobOnlyReads0123456789", "bob/x", "can only read"),
        (TOKEN, "bob/x", "cannot write to bob"),
        (TOKEN, "no-slash", "owner/name"),
        ("", "alice/x", "no Hub token"),
    ],
)
def test_a_wrong_token_or_name_is_told_before_any_work(
    trained: Trained, hub: Hub, tmp_path: Path, token: str, repo: str, words: str
) -> None:
    before = len(trained.studio.publications(trained.run))
    done = push(trained, hub, tmp_path / "hf", repo, token=token)
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not token or token not in done.stderr
    assert len(trained.studio.publications(trained.run)) == before


def test_a_hub_that_is_unwell_for_a_moment_does_not_fail_the_push(trained: Trained, hub: Hub, tmp_path: Path) -> None:
    hub.inject("POST", "/commit/main", status=503, times=2)
    done = push(trained, hub, tmp_path / "hf", "alice/patient")
    assert done.returncode == 0, done.stderr
    assert hub.faults() == []


def test_a_hub_that_stays_unwell_fails_the_push_and_keeps_the_artifact(
    trained: Trained, hub: Hub, tmp_path: Path
) -> None:
    hub.inject("POST", "/commit/main", status=403, times=1)
    done = push(trained, hub, tmp_path / "hf", "alice/refused")
    assert done.returncode == 1
    assert "403" in done.stderr
    view = trained.studio.publications(trained.run)[0]
    assert view.status == "failed"
    assert (view.folder / "adapter" / "adapter_model.safetensors").is_file()


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
    assert push(trained, hub, tmp_path / "hf", "alice/open", "--public").returncode == 0
    done = push(trained, hub, tmp_path / "hf", "alice/open")
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
        trained.studio.publish(PublishConfig(run=trained.run, destination="alice/x"))
    number = trained.studio.publish(PublishConfig(run=trained.run))
    assert finished(trained, number).status == "finished"
