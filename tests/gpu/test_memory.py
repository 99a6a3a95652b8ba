"""On a GPU: what a run allocates is what was predicted before it; skipped without one."""

from pathlib import Path

import pytest

from ftapp.processes.gpus import gpus
from ftapp.settings import read_settings
from ftapp.studio import Studio
from tests.bench.memory import build, run

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not gpus(), reason="there is no GPU")]

SHAPE = {
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 32_000,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("models") / "qwen", SHAPE)


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
@pytest.mark.parametrize("checkpointing", [True, False])
def test_a_run_allocates_what_was_predicted(home: Path, base: Path, method: str, checkpointing: bool) -> None:
    (predicted, peak), allocated, whole = run(Studio(read_settings()), base, method, checkpointing, 1024)
    assert 0.85 < predicted / allocated < 1.3
    assert peak > 0.9 * whole
