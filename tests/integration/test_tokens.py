"""What is learned, for real chat templates; and that the preview, the training and the trainer's batch agree on it."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import trl

from ftapp.contract.chat import THINKING
from ftapp.contract.config import ModelConfig
from ftapp.contract.errors import ModelError
from ftapp.contract.evaluation import EvaluateConfig
from ftapp.contract.examples import Example, Message
from ftapp.contract.preview import Lengths, Measure, Page, Rows
from ftapp.studio import Studio
from ftapp.workers import preview
from ftapp.workers.questions import longest_answer, questions, show_examples, think
from ftapp.workers.tokens import IGNORED, Encoder
from tests.integration.conftest import Trained
from tests.models import CHATML, tokenizer
from tests.running import write_rows

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
TURNS = [("user", "What is 1 plus 1?"), ("assistant", "It is 2."), ("user", "And 2 plus 2?"), ("assistant", "It is 4.")]
TWO = Example(messages=[Message(role=role, content=text) for role, text in TURNS])  # type: ignore[arg-type]
ONE = Example(messages=TWO.messages[:2])
THOUGHT = "<think>\n\n</think>\n\n"


def encoder(name: str, stop: str) -> Encoder:
    """A template as it is published, on a tokenizer of bytes and the template's own special tokens."""
    text = (TEMPLATES / f"{name}.jinja").read_text()
    fast = tokenizer(text)
    special = sorted(set(re.findall(r"<[|｜]?[A-Za-z_▁]+[|｜]?>", text)))
    fast.add_special_tokens({"additional_special_tokens": special})
    fast.add_special_tokens({"eos_token": stop, "bos_token": "<bos>"})
    return Encoder(fast, name)


def learned(encoder: Encoder, example: Example) -> list[str]:
    """The text that the loss sees, a string for each row."""
    return [
        encoder.tokenizer.decode([label for label in row.labels if label != IGNORED]) for row in encoder.encode(example)
    ]


@pytest.mark.parametrize(
    ("name", "stop", "one", "two"),
    [
        ("qwen3", "<|im_end|>", [f"{THOUGHT}It is 2.@"], [f"{THOUGHT}It is 2.@", f"{THOUGHT}It is 4.@"]),
        ("qwen2_5", "<|im_end|>", ["It is 2.@"], ["It is 2.@It is 4.@"]),
        ("llama3", "<|eot_id|>", ["It is 2.@"], ["It is 2.@It is 4.@"]),
        ("llama3_1", "<|eot_id|>", ["It is 2.@"], ["It is 2.@It is 4.@"]),
        ("gemma", "<end_of_turn>", ["It is 2.@"], ["It is 2.@It is 4.@"]),
        ("gemma3", "<end_of_turn>", ["It is 2.@"], ["It is 2.@It is 4.@"]),
        ("lfm2", "<|im_end|>", ["It is 2.@"], ["It is 2.@It is 4.@"]),
        ("cohere", "<|END_OF_TURN_TOKEN|>", ["It is 2.@"], ["It is 2.@It is 4.@"]),
    ],
)
def test_answers_and_their_stop_token_are_learned(name: str, stop: str, one: list[str], two: list[str]) -> None:
    made = encoder(name, stop)
    assert learned(made, ONE) == [text.replace("@", stop) for text in one]
    assert learned(made, TWO) == [text.replace("@", stop) for text in two]
    assert made.tokenizer.eos_token == stop


@pytest.mark.parametrize("marked", [True, False])
def test_an_answer_of_weight_0_is_read_but_not_learned(marked: bool) -> None:
    made = Encoder(tokenizer(None), "base") if marked else encoder("llama3", "<|eot_id|>")
    unlearned = TWO.messages[1].model_copy(update={"weight": 0})
    row = Example(messages=[TWO.messages[0], unlearned, *TWO.messages[2:]])
    stop = made.tokenizer.eos_token
    assert learned(made, row) == [f"It is 4.{stop}"]
    assert [r.input_ids for r in made.encode(row)] == [r.input_ids for r in made.encode(TWO)]


def test_a_base_that_would_think_is_evaluated_on_its_answer_where_no_row_thinks() -> None:
    made = encoder("qwen3", "<|im_end|>")
    unthinking = {THINKING: False}
    [one] = questions(made, [ONE], 30, 2000, unthinking)
    assert show_examples(made, [one], [TWO], 2, 2000, unthinking, lambda _: None) == 1
    asked = {name: made.tokenizer.decode(getattr(one, name).ids) for name in ("prompt", "prompt_base", "prompt_with")}
    assert asked["prompt"].endswith("assistant\n"), "as in training"
    assert asked["prompt_base"] == asked["prompt"] + THOUGHT
    assert asked["prompt_with"].endswith(asked["prompt_base"])
    assert "It is 4." in asked["prompt_with"]
    [other] = questions(encoder("qwen2_5", "<|im_end|>"), [ONE], 30, 2000, unthinking)
    assert other.prompt == other.prompt_base, "a template without the switch"

    config = EvaluateConfig(run="any")
    assert not think([ONE, TWO])
    assert longest_answer(made, config, [ONE]) == 18  # 8 bytes, a quarter more, and 8
    thoughtful = ONE.messages[1].model_copy(update={"reasoning_content": "x" * 1000})
    rows = [ONE.model_copy(update={"messages": [ONE.messages[0], thoughtful]})]
    assert think(rows)
    assert longest_answer(made, config, rows) == 1268  # (1000 + 8) * 1.25 + 8


def test_tools_are_shown_to_the_model() -> None:
    made = encoder("qwen2_5", "<|im_end|>")
    tool = {"type": "function", "function": {"name": "add_up", "description": "Adds", "parameters": {}}}
    [row] = made.encode(ONE.model_copy(update={"tools": [tool]}))
    assert "add_up" in made.tokenizer.decode(row.input_ids)
    assert learned(made, ONE.model_copy(update={"tools": [tool]})) == ["It is 2.<|im_end|>"]


def test_the_whole_row_is_what_the_template_renders() -> None:
    made = encoder("llama3", "<|eot_id|>")
    [row] = made.encode(TWO)
    turns = [message.model_dump() for message in TWO.messages]
    assert row.input_ids == made.tokenizer.apply_chat_template(turns, tokenize=True, return_dict=True)["input_ids"]
    assert row.input_ids.count(made.tokenizer.bos_token_id) <= 1, "no double start of text"


def test_a_template_that_never_ends_an_answer_is_refused() -> None:
    endless = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    fast = tokenizer(endless + "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}")
    with pytest.raises(ModelError, match="never learn to stop"):
        Encoder(fast, "endless")


def test_a_template_that_ends_the_conversation_with_one_more_token_still_stops_after_the_answer() -> None:
    """As some do: <|im_end|> after each turn, and <|endoftext|> after the last."""
    made = Encoder(tokenizer(CHATML + "{% if not add_generation_prompt %}{{ '<|endoftext|>' }}{% endif %}"), "two ends")
    assert made.stop_token == "<|im_end|>"
    assert learned(made, ONE) == ["It is 2.<|im_end|>\n<|endoftext|>"]
    assert [text.split("<|im_end|>")[0] for text in learned(made, TWO)] == ["It is 2.", "It is 4."]


def test_a_model_without_a_template_gets_one_that_stops() -> None:
    made = Encoder(tokenizer(None), "base")
    assert learned(made, TWO) == ["It is 2.<|endoftext|>It is 4.<|endoftext|>"]
    assert "no chat template" in made.notes[0]


def test_a_plain_text_is_learned_whole_and_ends() -> None:
    made = Encoder(tokenizer(None), "base")
    assert learned(made, Example(text="Once upon a time")) == ["Once upon a time<|endoftext|>"]


@pytest.mark.parametrize(
    ("name", "stop"),
    [("qwen3", "<|im_end|>"), ("llama3_1", "<|eot_id|>"), ("gemma3", "<end_of_turn>"), ("qwen2_5", "<|im_end|>")],
)
def test_the_trainers_batch_has_the_previewed_labels(name: str, stop: str, tiny_llama: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    from ftapp.workers.rows import token_table

    made = encoder(name, stop)
    rows = [row for example in (ONE, TWO) for row in made.encode(example)]
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny_llama),
        args=SFTConfig(
            output_dir=str(tmp_path),
            dataset_kwargs={"skip_prepare_dataset": True},
            max_length=None,
            use_cpu=True,
            bf16=False,
            report_to=[],
            per_device_train_batch_size=len(rows),
        ),
        train_dataset=token_table(rows, tmp_path / "rows" / "train.arrow")[0],
        processing_class=made.tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    received = sorted(
        [label for label, seen in zip(labels, mask, strict=True) if seen]
        for labels, mask in zip(batch["labels"].tolist(), batch["attention_mask"].tolist(), strict=True)
    )
    assert received == sorted(row.labels for row in rows)
    for row in rows:
        shown = "".join(piece.text for piece in made.pieces(row) if piece.trained)
        assert shown == made.tokenizer.decode([label for label in row.labels if label != IGNORED])


@pytest.fixture
def dataset(studio: Studio, tmp_path: Path) -> Iterator[str]:
    yield studio.add_dataset(write_rows(tmp_path / "sums.jsonl"), "sums.jsonl").id
    studio.close_preview()


def test_the_preview_measures_and_shows_pages(studio: Studio, dataset: str, tiny_llama: Path) -> None:
    model = ModelConfig(id=str(tiny_llama))
    *_, lengths = studio.measure(dataset, model)
    assert isinstance(lengths, Lengths)
    assert lengths.rows == lengths.of_rows == sum(lengths.counts) == 96
    assert lengths.p50 <= lengths.p95 <= lengths.p99 <= lengths.longest == lengths.suggested
    assert (lengths.longer, lengths.answers_cut, lengths.answer_tokens_lost) == (0, 0, 0.0)
    *_, short = studio.measure(dataset, model, max_length=lengths.p50 - 3)
    assert isinstance(short, Lengths)
    assert short.answers_cut == 96
    assert 0 < short.answer_tokens_lost < 1
    *_, page = studio.token_rows(dataset, model, start=2, count=3, search="PLUS 5")
    assert isinstance(page, Rows)
    assert page.found == 12
    assert [row.row for row in page.rows] == [63, 64, 65]
    trained = "".join(piece.text for piece in page.rows[0].pieces if piece.trained)
    assert trained == "It is 7.<|im_end|>"
    assert page.rows[0].trained == len(trained) - len("<|im_end|>") + 1
    special = [piece.text for piece in page.rows[0].pieces if piece.special]
    assert special == ["<|im_start|>", "<|im_end|>"] * 2


def test_of_a_large_dataset_a_sample_is_measured_and_every_shape_of_row_is_rendered(
    studio: Studio, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preview, "SAMPLE", 20)
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system text') }}{% endif %}"
    base = shutil.copytree(tiny_llama, tmp_path / "strict")
    template = base / "chat_template.jinja"
    template.write_text(strict + template.read_text())
    path = write_rows(tmp_path / "x.jsonl", 96)
    rows = [json.loads(line)["messages"] for line in path.read_text().splitlines()]
    refused = [{"messages": [{"role": "system", "content": "s"}, *rows[n]]} for n in range(3)]
    path.write_text(path.read_text() + "".join(json.dumps(row) + "\n" for row in refused))
    id = studio.add_dataset(path, "x.jsonl").id
    shown = preview.Preview(studio.folder / "datasets" / id, ModelConfig(id=str(base)))
    lengths = shown.measure(Measure(), lambda reply: None)
    assert 17 <= lengths.rows <= 20
    assert (lengths.of_rows, lengths.refused) == (99, 3)
    assert [(r.row, r.line, "no system text" in r.message) for r in lengths.refusals] == [
        (row, row, True) for row in (97, 98, 99)
    ]
    page = shown.page(Page(start=1, count=2, search="PLUS 5"))
    assert (page.found, [row.row for row in page.rows]) == (12, [62, 63])
    assert [row.row for row in shown.page(Page(start=97, count=5)).rows] == [98, 99]


def test_what_the_preview_counts_is_what_the_training_saw(trained: Trained) -> None:
    view = trained.studio.run(trained.run)
    *_, lengths = trained.studio.measure(view.config.data.dataset, view.config.model)
    trained.studio.close_preview()
    assert isinstance(lengths, Lengths)
    assert view.state.resolved is not None
    assert lengths.longest == view.state.resolved.values["data.max_length"]


def test_a_preview_of_a_model_that_is_not_there_is_told(studio: Studio, dataset: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a model's folder"):
        list(studio.measure(dataset, ModelConfig(id=str(tmp_path / "nothing"))))


def test_rows_laid_end_to_end_have_the_loss_of_padded_rows(tiny_llama: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    made = encoder("llama3_1", "<|eot_id|>")
    rows = [{"input_ids": row.input_ids, "labels": row.labels} for one in (ONE, TWO) for row in made.encode(one)]
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()
    model.resize_token_embeddings(len(made.tokenizer))
    losses = []
    for packed in (False, True):
        batch = DataCollatorForLanguageModeling(pad_token_id=made.tokenizer.pad_token_id, padding_free=packed)(rows)
        assert batch["input_ids"].shape[0] == (1 if packed else len(rows))
        with torch.no_grad():
            losses.append(float(model(**batch).loss))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_model_that_carries_a_state_along_is_never_packed() -> None:
    from transformers import Lfm2Config, Lfm2ForCausalLM

    from ftapp.workers.models import attend_by_flash

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Lfm2Config(**shape, num_key_value_heads=1, vocab_size=64, layer_types=["conv", "full_attention"])
    model = Lfm2ForCausalLM(config)
    assert model._supports_flash_attn, "its attention layers alone would not be the reason"
    assert attend_by_flash(model) is False
