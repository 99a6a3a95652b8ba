"""What is known of a base model before the start: models in folders, and on a local Hub."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ftapp.contract.config import ModelConfig, parse_run_config
from ftapp.contract.errors import ModelError
from ftapp.contract.models import ModelFacts
from ftapp.settings import read_settings
from ftapp.studio import DEMO, Studio
from tests.hub.fixture import Hub, running_hub

NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ENDLESS = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}assistant: "
ASK = """
import json, sys
from ftapp.contract.config import ModelConfig
from ftapp.contract.errors import FtappError
from ftapp.settings import read_settings
from ftapp.studio import Studio
studio = Studio(read_settings())
for line in sys.stdin.read().splitlines():
    verb, _, words = line.partition(" ")
    try:
        if verb == "facts":
            print(studio.model_facts(ModelConfig(id=words)).model_dump_json())
        else:
            print(json.dumps([hit.model_dump() for hit in studio.search_models(words)]))
    except FtappError as error:
        print(type(error).__name__, error)
studio.close_examiner()
"""


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """One for all, so that the process that looks at models is started once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTAPP_HOME", str(tmp_path_factory.mktemp("home")))
        made = Studio(read_settings())
    yield made
    made.close_examiner()


Look = Callable[..., ModelFacts]


@pytest.fixture
def look(studio: Studio, tiny_llama: Path, tmp_path: Path) -> Look:
    """The facts of a copy of the tiny model, its files changed: None takes one away, a dict adds to a JSON file."""

    def facts(**changes: Any) -> ModelFacts:
        folder = tmp_path / "copy"
        shutil.copytree(tiny_llama, folder)
        for name, change in changes.items():
            path = folder / name.replace("__", ".")
            if change is None:
                path.unlink()
            elif isinstance(change, dict):
                path.write_text(json.dumps(json.loads(path.read_text()) | change))
            else:
                path.write_text(change)
        return studio.model_facts(ModelConfig(id=str(folder)))

    return facts


def test_all_that_is_known_of_a_usable_model(look: Look, tiny_llama: Path) -> None:
    facts = look(README__md="---\nlicense: other\nlicense_name: tiny-1\n---\n")
    assert (facts.refusal, facts.architecture, facts.licence) == ("", "LlamaForCausalLM", "tiny-1")
    assert facts.weight_bytes == sum(path.stat().st_size for path in tiny_llama.glob("*.safetensors"))
    assert facts.parameters == (facts.weight_bytes - _headers(tiny_llama)) // 2
    assert (facts.context, facts.vocabulary, facts.gated, facts.revision) == (256, 259, False, None)
    assert (facts.template, facts.stop_tokens) == ("spans", ["<|im_end|>", "<|endoftext|>"])
    assert "found by rendering" in facts.template_words
    assert any("<|im_end|>" in note for note in facts.notes)


def _headers(folder: Path) -> int:
    return sum(8 + int.from_bytes(path.read_bytes()[:8], "little") for path in folder.glob("*.safetensors"))


def test_the_demo_is_known(studio: Studio) -> None:
    facts = studio.model_facts(ModelConfig(id=DEMO))
    assert (facts.refusal, facts.template) == ("", "marks")
    assert facts.parameters


def test_a_template_that_refuses_some_rows_is_told(look: Look) -> None:
    facts = look(chat_template__jinja=NO_SYSTEM)
    assert facts.refusal == ""
    assert any("a system message cannot be used" in note and "no system role" in note for note in facts.notes)


def test_a_model_without_a_template_gets_the_plain_one(look: Look) -> None:
    facts = look(chat_template__jinja=None)
    assert (facts.template, facts.stop_tokens) == ("plain", ["<|endoftext|>"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"chat_template__jinja": ENDLESS}, "would never learn to stop"),
        ({"config__json": {"model_type": "zephon9"}}, "is a zephon9 model, which transformers 5"),
        (
            {"config__json": {"model_type": "zephon9", "auto_map": {"AutoConfig": "x.Y"}}},
            "needs code of its own from the Hub, which is never run",
        ),
        ({"config__json": {"architectures": ["BertForMaskedLM"], "model_type": "bert"}}, "no causal language model"),
        ({"config__json": {"architectures": ["T5Model"], "model_type": "t5"}}, "(T5Model) is no causal language"),
        ({"config__json": "{"}, "no readable config.json"),
        ({"config__json": None}, "has no config.json"),
        ({"tokenizer__json": None}, "tokenizer"),
    ],
)
def test_why_a_model_cannot_be_trained_is_told(look: Look, changes: dict[str, Any], words: str) -> None:
    try:
        facts = look(**changes)
        assert facts.hint
        told = facts.refusal
    except ModelError as error:
        told = error.message
    assert words in told


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("pytorch_model.bin", "only pickled weights (pytorch_model.bin), which can run code"),
        ("model.gguf", "only GGUF files"),
        ("adapter_config.json", "is an adapter, not a model"),
        ("notes.txt", "no safetensors weights"),
    ],
)
def test_a_folder_without_weights_is_refused_by_what_is_in_it(
    studio: Studio, tmp_path: Path, file: str, words: str
) -> None:
    (tmp_path / file).write_text("{}")
    if not file.startswith("adapter"):
        (tmp_path / "config.json").write_text("{}")
    assert words in studio.model_facts(ModelConfig(id=str(tmp_path))).refusal


def test_a_model_that_is_known_to_be_refused_is_not_started(
    studio: Studio, look: Look, tmp_path: Path, tiny_llama: Path
) -> None:
    facts = look(config__json={"model_type": "zephon9"})
    config = parse_run_config({"model": {"id": facts.id}, "data": {"dataset": DEMO}})
    with pytest.raises(ModelError, match="zephon9"):
        studio.start_training(config)
    assert studio.history() == []


def test_models_are_looked_at_once(studio: Studio, tiny_llama: Path) -> None:
    model = ModelConfig(id=str(tiny_llama))
    first = studio.model_facts(model)
    studio.close_examiner()
    assert studio.model_facts(model) == first
    assert studio._examiner is None


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Iterator[Hub]:
    code = (
        "import json, sys\nfrom pathlib import Path\nfrom huggingface_hub import HfApi\napi = HfApi()\n"
        "card = b'---\\nlicense: apache-2.0\\n---\\n'\n"
        "for name in ('tiny-1', 'tiny-2', 'tiny-gated', 'tiny-let-in', 'tiny-pickled', 'other'):\n"
        "    api.create_repo(f'alice/{name}')\n"
        "    kept = None if name != 'tiny-pickled' else ['*.json']\n"
        "    api.upload_folder(repo_id=f'alice/{name}', folder_path=sys.argv[1], allow_patterns=kept)\n"
        "    api.upload_file(repo_id=f'alice/{name}', path_or_fileobj=card, path_in_repo='README.md')\n"
        "api.create_repo('alice/trainer', repo_type='space', space_sdk='docker', space_hardware='t4-small')\n"
        "api.upload_file(repo_id='alice/tiny-pickled', path_or_fileobj=b'x', path_in_repo='pytorch_model.bin')\n"
    )
    with running_hub(tmp_path_factory.mktemp("hub")) as hub:
        hub.add_user("alice", "hf_alice")
        hub.add_user("bob", "hf_bob")
        env = hub.env(tmp_path_factory.mktemp("hf"), "hf_alice", xet=False)
        subprocess.run([sys.executable, "-c", code, str(tiny_llama)], env=env, check=True, capture_output=True)
        hub.gate("alice/tiny-gated")
        hub.gate("alice/tiny-let-in", granted=["bob"])
        for count, name in enumerate(("tiny-1", "other", "tiny-let-in", "tiny-gated", "tiny-2"), 1):
            hub.set_downloads(f"alice/{name}", count)
        yield hub


def ask(env: dict[str, str], home: Path, *lines: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        input="\n".join(lines),
        env=env | {"FTAPP_HOME": str(home)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_hub_is_searched_and_known_before_the_start(hub: Hub, home: Path, tmp_path: Path, tiny_llama: Path) -> None:
    own = Studio(read_settings())
    for id in ("alice/tiny-1", "elsewhere/tiny-9"):
        own._jobs.create(parse_run_config({"model": {"id": id}, "data": {"dataset": DEMO}}))
    env = hub.env(tmp_path / "hf", "hf_bob")
    found, gated, let_in, pickled, usable, missing = ask(
        env,
        home,
        "search TINY",
        "facts alice/tiny-gated",
        "facts alice/tiny-let-in",
        "facts alice/tiny-pickled",
        "facts alice/tiny-2",
        "facts alice/nothing",
    )
    hits = {hit["id"]: hit for hit in json.loads(found)}
    assert set(list(hits)[:2]) == {"alice/tiny-1", "elsewhere/tiny-9"}
    # the most downloaded first, only with safetensors
    assert list(hits)[2:] == ["alice/tiny-2", "alice/tiny-gated", "alice/tiny-let-in"], (
        "the most downloaded first, only with safetensors"
    )
    assert [hit["used"] for hit in hits.values()] == [True, True, False, False, False]
    assert hits["alice/tiny-2"] | {"parameters": 0} == {
        "id": "alice/tiny-2",
        "parameters": 0,
        "licence": "apache-2.0",
        "downloads": 5,
        "gated": False,
        "used": False,
    }
    assert hits["alice/tiny-gated"]["gated"]

    facts = ModelFacts.model_validate_json(gated)
    assert "is gated" in facts.refusal
    assert (facts.gated, facts.architecture, facts.licence) == (True, "LlamaForCausalLM", "apache-2.0")
    facts = ModelFacts.model_validate_json(let_in)
    assert (facts.refusal, facts.gated, facts.template) == ("", True, "spans")
    assert "only pickled weights (pytorch_model.bin)" in ModelFacts.model_validate_json(pickled).refusal
    facts = ModelFacts.model_validate_json(usable)
    assert (facts.refusal, facts.template, facts.context) == ("", "spans", 256)
    assert facts.revision == hub.commits("alice/tiny-2")[0]["oid"]
    assert facts.parameters == hits["alice/tiny-2"]["parameters"]
    assert facts.weight_bytes == sum(path.stat().st_size for path in tiny_llama.glob("*.safetensors"))
    assert "HubError There is no model or repository 'alice/nothing'" in missing
    assert hub.leaks() == []


def test_a_search_without_a_hub_or_with_a_bad_token_is_told(hub: Hub, home: Path, tmp_path: Path) -> None:
    nowhere = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    assert "HubUnreachable The Hub could not be reached for the search for models" in ask(nowhere, home, "search x")[0]
    [told] = ask(hub.env(tmp_path / "hf", "hf_revoked"), home, "search x")
    assert "HubError The Hub refused the search for models: the token is not valid" in told


def test_a_space_knows_what_an_hour_costs(hub: Hub, tmp_path: Path) -> None:
    code = "from ftapp.hub import Hub; print([Hub(None).space_price(f'alice/{name}') for name in ('trainer', 'x')])"
    env = hub.env(tmp_path / "hf")
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert "There is no Space 'alice/x'" in done.stderr
    done = subprocess.run([sys.executable, "-c", code.replace(", 'x'", ",")], env=env, capture_output=True, text=True)
    assert "hardware='Nvidia T4 - small', dollars_per_hour=0.40" in done.stdout
