"""The commands for other programs: quoted, with the rank that the saved adapter has, none where none would work."""

import shlex
from typing import Any

import pytest

from ftapp.contract.config import RunConfig, parse_run_config
from ftapp.contract.elsewhere import short_name, with_ollama, with_vllm
from ftapp.contract.publication import PublishConfig, parse_publish_config


def run(base: str = "owner/base", **method: Any) -> RunConfig:
    return parse_run_config({"model": {"id": base}, "data": {"dataset": "x"}, "method": {"type": "lora", **method}})


def publication(**fields: Any) -> PublishConfig:
    return parse_publish_config({"run": "2026-a-run", **fields})


@pytest.mark.parametrize(
    ("method", "rank"),
    [({"rank": 4}, "8"), ({"rank": 16}, "16"), ({"rank": 17}, "32"), ({"rank": 16, "init": "pissa"}, "32")],
)
def test_vllm_is_told_the_rank_of_the_saved_adapter(method: dict[str, Any], rank: str) -> None:
    words = shlex.split(with_vllm(run(**method), publication(destination="me/Tuned_1")))
    assert words[:3] == ["vllm", "serve", "owner/base"]
    assert words[words.index("--max-lora-rank") + 1] == rank
    assert words[-1] == "tuned-1=me/Tuned_1"


@pytest.mark.parametrize("method", [{"dora": True}, {"rank": 513}])
def test_what_vllm_does_not_take_is_not_offered(method: dict[str, Any]) -> None:
    assert with_vllm(run(**method), publication(destination="me/tuned")) == ""


def test_a_folder_with_spaces_is_one_word() -> None:
    folder = "/home/me/my models/it's here"
    merged = publication(artifact="merged")
    assert shlex.split(with_vllm(run(), merged, folder)) == ["vllm", "serve", folder]
    convert = next(
        line for line in with_ollama(merged, folder).splitlines() if "convert" in line and "python l" in line
    )
    assert folder in shlex.split(convert)
    beside = shlex.split(with_vllm(run("/some/base"), publication(with_base=True), folder))
    assert beside[2] == f"{folder}/base"


def test_a_merged_model_on_a_branch_is_served_from_there() -> None:
    pushed = publication(artifact="merged", destination="me/tuned", mode="branch", branch="v2")
    assert with_vllm(run(), pushed) == "vllm serve me/tuned --revision v2"


def test_names_are_plain() -> None:
    assert short_name(publication(destination="me/A_Model.v2-x")) == "a-model.v2-x"
    assert short_name(publication()) == "2026-a-run"
