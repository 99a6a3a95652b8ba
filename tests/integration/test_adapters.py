"""Kinds of adapters, with real processes: each is right on the base as it was, merges, and can be gone on from."""

from pathlib import Path
from typing import Any

import pytest

from ftapp.contract.config import RunConfig, parse_run_config
from ftapp.contract.errors import ConfigError, JobError
from ftapp.contract.publication import PublishConfig
from ftapp.store.datasets import DatasetStore
from ftapp.studio import Studio
from ftapp.views import RunView
from ftapp.workers.tokens import IGNORED, Encoder, load_tokenizer
from tests.integration.conftest import Trained
from tests.running import config_for, finish, wait_for

SHORT = {"duration": {"epochs": 1}, "evaluation": {"steps": 4}}


def made(studio: Studio, base: Path, folder: Path, changed: dict[str, Any], **changes: Any) -> RunConfig:
    """A quick config whose method has these values besides."""
    plain = config_for(studio, base, folder, **changes).model_dump()
    return parse_run_config({**plain, "method": {**plain["method"], **changed}})


def loss_of(model: Any, view: RunView, base: Path) -> float:
    """The held-out loss, token-weighted, of the rows that the run measured on."""
    import torch

    encoder = Encoder(load_tokenizer(base), "base")
    store = DatasetStore(view.folder.parents[1] / "datasets")
    total, tokens = 0.0, 0
    for example in store.sides(view.config.data, view.config.seed)[1]:
        for row in encoder.encode(example):
            learned = sum(label != IGNORED for label in row.labels[1:])
            with torch.no_grad():
                out = model(input_ids=torch.tensor([row.input_ids]), labels=torch.tensor([row.labels]))
            total, tokens = total + float(out.loss) * learned, tokens + learned
    return total / tokens


def load(base: Path, adapter: Path) -> Any:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter).eval()


def best(view: RunView) -> float:
    return min(evaluation.loss for evaluation in view.state.evaluations)


@pytest.mark.parametrize(
    "method",
    [{"init": "pissa", "rslora": True}, {"init": "olora"}, {"dora": True, "init": "gaussian"}],
    ids=["pissa-rslora", "olora", "dora"],
)
def test_each_kind_is_right_on_the_base_as_it_was_and_merges(
    studio: Studio, tiny_llama: Path, tmp_path: Path, method: dict[str, Any]
) -> None:
    import torch
    from safetensors.torch import load_file

    from ftapp.workers.merge import NotStreamable, merge

    method = {"rank": 8, "alpha": 8, **method}
    view = finish(studio, studio.start_training(made(studio, tiny_llama, tmp_path, method, **SHORT)))
    assert view.status == "finished", (view.message, view.hint)
    assert view.state.resolved is not None
    if method.get("init") not in ("pissa", "olora"):
        counted = studio.parameters(view.config.model, view.config.method).trainable
        assert view.state.resolved.trainable_parameters == counted
    adapted = load(tiny_llama, view.folder / "adapter")
    assert loss_of(adapted, view, tiny_llama) == pytest.approx(best(view), rel=1e-4)
    with adapted.disable_adapter():
        assert loss_of(adapted, view, tiny_llama) > 1.05 * best(view), "the adapter is what learned"
    assert not (view.folder / "initial").exists()

    merged = tmp_path / "merged"
    if "dora" not in method:
        merge(tiny_llama, view.folder / "adapter", merged, lambda done, total: None)
    else:
        with pytest.raises(NotStreamable, match="use_dora"):
            merge(tiny_llama, view.folder / "adapter", merged, lambda done, total: None)
        number = studio.publish(PublishConfig(run=view.name, artifact="merged", folder=str(merged)))
        wait_for(lambda: not studio.publication(view.name, number).active, "the publication")
        publication = studio.publication(view.name, number)
        assert publication.status == "finished", publication.message
        assert "Merged in memory by PEFT, since the adapter uses use_dora" in publication.state.notes[0].message
        assert publication.state.verified
        assert publication.state.verified.passed
    tensors = {name: tensor for path in merged.glob("*.safetensors") for name, tensor in load_file(path).items()}
    for name, expected in adapted.merge_and_unload().named_parameters():
        assert torch.allclose(tensors[name].float(), expected, rtol=2**-7, atol=2**-9), name


def test_a_run_goes_on_from_the_adapter_of_another(trained: Trained, tmp_path: Path) -> None:
    studio, first = trained.studio, trained.studio.run(trained.run)
    config = config_for(studio, trained.base, tmp_path, model={"adapter": trained.run}, duration={"max_steps": 4})
    view = finish(studio, studio.start_training(config))
    assert view.status == "finished", view.message
    before, after = first.state.metrics, view.state.metrics
    assert abs(after[0].loss - before[-1].loss) < 0.3 * (before[0].loss - before[-1].loss)
    assert view.state.evaluations[-1].loss < first.state.evaluations[0].loss
    assert studio.measured_before(config) == "", "the same seed and share hold the same rows out"
    other = config.model_copy(update={"seed": 7})
    assert "trained on " in (told := studio.measured_before(other))
    assert "seed (42) and held-out share (0.1)" in told
    further = other.model_copy(update={"model": config.model.model_copy(update={"adapter": view.name})})
    assert studio.measured_before(further) == told, "what the run before it was trained on counts, too"
    data = config.data.model_copy(update={"eval_dataset": config.data.dataset})
    apart = studio.measured_before(config.model_copy(update={"data": data}))
    assert apart.endswith("Choose a held-out dataset of other rows.")
    assert "seed" not in apart
    adapted = load(trained.base, view.folder / "adapter")
    assert loss_of(adapted, view, trained.base) == pytest.approx(best(view), rel=1e-4)


def test_qlora_goes_on_from_the_adapter_to_the_last_bit(studio: Studio, tiny_llama: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    def weights(view: RunView) -> dict[str, torch.Tensor]:
        return load_file(view.folder / "adapter" / "adapter_model.safetensors")

    first = finish(studio, studio.start_training(config_for(studio, tiny_llama, tmp_path, "qlora", **SHORT)))
    assert first.status == "finished", first.message
    # the first step of a warm-up has a learning rate of 0
    one = {"duration": {"max_steps": 1}, "optim": {"warmup_fraction": 0.5}, "model": {"adapter": first.name}}
    second = finish(studio, studio.start_training(config_for(studio, tiny_llama, tmp_path, "qlora", **one)))
    assert second.status == "finished", second.message
    before, after = weights(first), weights(second)
    assert any(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in before.values())
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ({"method": {"rank": 8}}, {"method.rank": "must be 16"}),
        ({"method": {"alpha": 16, "rslora": True}}, {"method.alpha": "must be 32", "method.rslora": "must be false"}),
        ({"method": {"target_modules": "q_proj"}}, {"method.target_modules": "must be all-linear"}),
        ({"model": {"id": "demo"}}, {"model.id": "choose that model"}),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_field_by_field(
    trained: Trained, tmp_path: Path, changes: dict[str, Any], problems: dict[str, str]
) -> None:
    model = {"adapter": trained.run, **changes.get("model", {})}
    config = made(trained.studio, trained.base, tmp_path, changes.get("method", {}), model=model)
    with pytest.raises(ConfigError) as caught:
        trained.studio.start_training(config)
    assert list(caught.value.problems) == list(problems)
    for field, words in problems.items():
        assert words in caught.value.problems[field]


def test_going_on_needs_a_run_with_an_adapter(studio: Studio, tiny_llama: Path, tmp_path: Path) -> None:
    config = config_for(studio, tiny_llama, tmp_path, model={"adapter": "no-such-run"})
    with pytest.raises(JobError, match="no-such-run"):
        studio.start_training(config)
    (studio.folder / "runs" / "empty").mkdir(parents=True)
    (studio.folder / "runs" / "empty" / "config.json").write_text(config.model_dump_json())
    with pytest.raises(JobError, match="empty has no adapter"):
        studio.start_training(config_for(studio, tiny_llama, tmp_path, model={"adapter": "empty"}))
