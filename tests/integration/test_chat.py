"""The chat, in real processes on tiny models: answers side by side are those given alone; what goes wrong is told."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from ftapp.contract.chat import Answered, Loading, Text
from ftapp.contract.config import RunConfig, parse_run_config
from ftapp.contract.errors import DatasetError, JobError, ModelError
from ftapp.contract.events import Finished
from ftapp.contract.examples import Message
from ftapp.settings import Settings
from ftapp.studio import Studio
from tests.asking import Heard, ask, question
from tests.integration.conftest import Trained
from tests.models import make
from tests.running import config_for, end, finish, wait_for

ASKED = "What is 3 plus 4?"
LONG = {"max_new_tokens": 200}


@dataclass(frozen=True)
class Runs:
    """One finished run of each kind on one base."""

    studio: Studio
    names: dict[str, str]

    def __getitem__(self, kind: str) -> str:
        return self.names[kind]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("chats")
    studio = Studio(Settings(folder / "home", "127.0.0.1", 0, 2**30, 600.0, 600.0, None))
    methods: dict[str, dict[str, Any]] = {
        "lora": {"type": "lora"},
        "dora": {"type": "lora", "dora": True, "rank": 4, "target_modules": "q_proj,v_proj"},
        "qlora": {"type": "qlora"},
        "full": {"type": "full"},
    }
    names = {}
    for kind, method in methods.items():
        values = config_for(studio, tiny_llama, folder, duration={"epochs": 1}).model_dump()
        names[kind] = studio.start_training(parse_run_config({**values, "method": method}))
        view = finish(studio, names[kind])
        assert view.status == "finished", (kind, view.message)
    yield Runs(studio, names)
    studio.close_chat()


@pytest.fixture(scope="module", autouse=True)
def _put_away(trained: Trained) -> Iterator[None]:
    """The model of the shared run stays for the next test; in the end it goes."""
    yield
    trained.studio.close_chat()


def worker(studio: Studio) -> psutil.Process:
    """The chat's process."""
    [found] = [
        child
        for child in psutil.Process().children(recursive=True)
        if child.is_running() and child.status() != psutil.STATUS_ZOMBIE and "chat" in child.cmdline()[3:4]
        and str(studio.folder) in child.cmdline()[4]
    ]  # fmt: skip
    return found


def alone(studio: Studio, run: str, base: Path, kind: str, tuned: bool) -> str:
    """What the libraries say by themselves."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    folder = studio.run(run).folder / ("model" if kind == "full" else "adapter")
    four = {"quantization_config": BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )} if kind == "qlora" else {}  # fmt: skip
    source = folder if kind == "full" and tuned else base
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **four)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    if kind != "full" and tuned:
        model = PeftModel.from_pretrained(model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": ASKED}]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    stops = [tokenizer.convert_tokens_to_ids(one) for one in ("<|im_end|>", "<|endoftext|>")]
    out = model.eval().generate(
        input_ids=ids["input_ids"], attention_mask=ids["attention_mask"], do_sample=False, max_new_tokens=60,
        eos_token_id=stops, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return str(tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))


@pytest.mark.parametrize("kind", ["lora", "dora", "qlora", "full"])
def test_side_by_side_says_what_each_says_alone(runs: Runs, tiny_llama: Path, kind: str) -> None:
    studio = runs.studio
    both = ask(studio, runs[kind], ASKED, "tuned", "base", max_new_tokens=60)
    written = [reply.voice for reply in both.replies if isinstance(reply, Text)]
    assert set(written[:3]) == {"base", "tuned"}, "both are written at the same time"
    for voice in ("base", "tuned"):
        assert both[voice] == alone(studio, runs[kind], tiny_llama, kind, voice == "tuned"), voice
        single = ask(studio, runs[kind], ASKED, voice, max_new_tokens=60)
        assert single[voice] == both[voice]
        assert single.answered[voice].tokens == both.answered[voice].tokens
    assert both["tuned"] != both["base"]
    assert both.loaded.precision == ("4 bit" if kind == "qlora" else "float32")


def test_sampling_side_by_side_draws_what_each_draws_alone(runs: Runs) -> None:
    studio = runs.studio
    how = {"temperature": 1.5, "top_p": 0.95, "top_k": 40, "repetition_penalty": 1.1, "max_new_tokens": 40}
    both = ask(studio, runs["lora"], ASKED, "tuned", "base", seed=5, **how)
    for voice in ("tuned", "base"):
        assert ask(studio, runs["lora"], ASKED, voice, seed=5, **how)[voice] == both[voice]
    assert ask(studio, runs["lora"], ASKED, "base", seed=6, **how)["base"] != both["base"]
    greedy = {**how, "top_k": 1, "repetition_penalty": 1.0}
    likeliest = ask(studio, runs["lora"], ASKED, "base", max_new_tokens=40)["base"]
    assert ask(studio, runs["lora"], ASKED, "base", **greedy)["base"] == likeliest


def test_adapters_change_on_one_base_and_nothing_is_loaded_again(runs: Runs) -> None:
    studio = runs.studio
    studio.close_chat()
    first = ask(studio, runs["lora"], ASKED, max_new_tokens=40)
    process = worker(studio)
    other = ask(studio, runs["dora"], ASKED, max_new_tokens=40)
    assert other["tuned"] != first["tuned"]
    earlier = studio.chat_checkpoints(runs["lora"])
    assert earlier[0] == ""
    assert len(earlier) == 3, "the result and two checkpoints are kept"
    oldest = ask(studio, runs["lora"], ASKED, checkpoint=earlier[-1], max_new_tokens=40)
    assert oldest.loaded.checkpoint == earlier[-1]
    assert oldest["tuned"] != first["tuned"]
    again = ask(studio, runs["lora"], ASKED, "base", "tuned", max_new_tokens=40)
    assert again["tuned"] == first["tuned"]
    assert again.loaded.adapters == 3
    assert worker(studio) == process
    assert [other.loadings, oldest.loadings, again.loadings] == [[], [], []]
    with pytest.raises(JobError, match="no whole checkpoint 'checkpoint-999'"):
        studio.chat(runs["lora"], question(ASKED), "checkpoint-999")
    four = ask(studio, runs["lora"], ASKED, max_new_tokens=40, four_bit=True)
    assert four.loaded.precision == "4 bit"
    assert worker(studio) != process


def test_a_checkpoint_of_full_fine_tuning_answers(runs: Runs) -> None:
    studio = runs.studio
    name = studio.chat_checkpoints(runs["full"])[-1]
    heard = ask(studio, runs["full"], ASKED, checkpoint=name, max_new_tokens=30)
    assert heard.loaded.checkpoint == name
    assert heard.loaded.adapters == 0
    assert heard["tuned"]


def test_a_killed_worker_is_told_and_the_next_question_starts_another(trained: Trained) -> None:
    studio = trained.studio
    ask(studio, trained.run, ASKED, max_new_tokens=2)
    replies = studio.chat(trained.run, question(ASKED, "base", **LONG))
    next(reply for reply in replies if isinstance(reply, Text))
    worker(studio).send_signal(signal.SIGKILL)
    with pytest.raises(ModelError, match="The chat process was killed"):
        list(replies)
    assert "killed" in studio.chat_state().away
    assert ask(studio, trained.run, ASKED, max_new_tokens=5)["tuned"]
    worker(studio).send_signal(signal.SIGKILL)
    wait_for(lambda: studio.chat_state().away, "the death while nobody asks is seen")
    assert ask(studio, trained.run, ASKED, max_new_tokens=5)["tuned"]


def test_stopping_keeps_what_was_written_and_the_model(trained: Trained) -> None:
    studio = trained.studio
    ask(studio, trained.run, ASKED, max_new_tokens=2)
    process = worker(studio)
    heard: list[Any] = []
    for reply in studio.chat(trained.run, question(ASKED, "base", "tuned", **LONG)):
        heard.append(reply)
        if isinstance(reply, Text) and len(heard) == 4:
            studio.stop_chat()
    told = Heard(heard)
    assert told.answered["base"].reason == "stopped"
    assert 0 < told.answered["base"].tokens < 200
    replies = studio.chat(trained.run, question(ASKED, "base", **LONG))
    next(reply for reply in replies if isinstance(reply, Text))
    replies.close()  # type: ignore[attr-defined]  # whoever asked has gone
    assert ask(studio, trained.run, ASKED, max_new_tokens=3)["tuned"]
    assert worker(studio) == process


def test_a_stop_while_the_model_is_loaded_is_obeyed_at_once(trained: Trained) -> None:
    studio = trained.studio
    studio.close_chat()
    replies = studio.chat(trained.run, question(ASKED))
    assert isinstance(next(iter(replies)), Loading)
    assert studio.chat_answers()
    process = worker(studio)
    studio.stop_chat()
    with pytest.raises(ModelError, match="stopped before it was loaded"):
        list(replies)
    assert not process.is_running()
    assert not studio.chat_answers()
    assert ask(studio, trained.run, ASKED, max_new_tokens=2)["tuned"]


def test_a_training_puts_the_chat_away_and_says_so(trained: Trained, tmp_path: Path) -> None:
    studio = trained.studio
    ask(studio, trained.run, ASKED, max_new_tokens=2)
    process = worker(studio)
    replies = studio.chat(trained.run, question(ASKED, "base", **LONG))
    next(reply for reply in replies if isinstance(reply, Text))
    run = studio.start_training(config_for(studio, trained.base, tmp_path, duration={"max_steps": 1}))
    with pytest.raises(ModelError, match="a training started and needs the memory"):
        list(replies)
    assert not process.is_running()
    assert studio.chat_state().away == "a training started and needs the memory"
    assert finish(studio, run).status == "finished"
    assert ask(studio, trained.run, ASKED, max_new_tokens=2).loadings
    assert studio.chat_state().away == ""


def test_a_training_that_another_process_started_puts_it_away_too(trained: Trained, tmp_path: Path) -> None:
    studio = trained.studio
    ask(studio, trained.run, ASKED, max_new_tokens=2)
    elsewhere = Studio(studio.settings)
    run = elsewhere.start_training(config_for(elsewhere, trained.base, tmp_path, duration={"max_steps": 40}))
    wait_for(lambda: studio.scheduler.running(), "the training")
    studio.close_idle()
    assert "a training started" in studio.chat_state().away
    elsewhere.kill(run)
    finish(elsewhere, run)


def test_the_last_page_that_closes_takes_the_model_along(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftapp.conversation.LEFT_SECONDS", 0.2)
    studio = trained.studio
    for page in ("one", "two"):
        studio.open_page(page)
    ask(studio, trained.run, ASKED, max_new_tokens=2)
    process = worker(studio)
    studio.leave_page("one")
    time.sleep(0.3)
    studio.close_idle()
    assert process.is_running()
    studio.leave_page("two")
    studio.open_page("two, loaded again")
    time.sleep(0.3)
    studio.close_idle()
    assert process.is_running()
    studio.leave_page("two, loaded again")
    time.sleep(0.3)
    studio.close_idle()
    assert not process.is_running()
    assert studio.chat_state().away == "the page was closed"


def test_a_page_that_only_seemed_closed_asks_and_is_answered(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftapp.conversation.LEFT_SECONDS", 0.0)
    studio = trained.studio
    studio.open_page("one")
    studio.leave_page("one")
    replies = studio.chat(trained.run, question(ASKED, "base", **LONG))
    next(reply for reply in replies if isinstance(reply, Text))
    studio.close_idle()
    assert any(isinstance(reply, Answered) for reply in replies)


def test_an_unused_model_is_put_away_and_the_next_question_brings_it_back(trained: Trained) -> None:
    trained.studio.close_chat()
    studio = Studio(replace(trained.studio.settings, chat_idle_seconds=0.5))
    replies = studio.chat(trained.run, question(ASKED, "base", **LONG))
    next(reply for reply in replies if isinstance(reply, Text))
    process = worker(studio)
    time.sleep(0.6)
    studio.close_idle()
    assert process.is_running(), "it is answering"
    replies.close()  # type: ignore[attr-defined]
    wait_for(lambda: studio.close_idle() or not process.is_running(), "the end of what nobody uses", 10)
    assert studio.chat_state().away == "it was not used for a while"
    assert ask(studio, trained.run, ASKED, max_new_tokens=2).loadings
    studio.close_chat()


def test_the_tools_of_a_row_reach_the_models_template(runs: Runs) -> None:
    studio = runs.studio
    studio.close_chat()
    path = studio.run(runs["lora"]).folder / "adapter" / "chat_template.jinja"
    before = path.read_text()
    tools = [{"type": "function", "function": {"name": "look", "description": "word " * 60, "parameters": {}}}]
    try:
        path.write_text("{{ tools | tojson if tools }}" + before)
        assert ask(studio, runs["lora"], ASKED, max_new_tokens=2)
        with pytest.raises(ModelError, match="tokens, the model's context is 256"):
            ask(studio, runs["lora"], ASKED, max_new_tokens=2, tools=tools)
    finally:
        path.write_text(before)
        studio.close_chat()
    turns = [Message(role="user", content="Look!"), Message(role="assistant", content="Blue.")]
    kept = studio.keep_answer(runs["lora"], turns, tools)
    assert studio.examples(kept.id, kept.report.valid - 1)[0].tools == tools


def test_a_conversation_longer_than_the_context_is_refused_in_words(trained: Trained) -> None:
    studio = trained.studio
    with pytest.raises(ModelError, match=r"tokens, the model's context is 256"):
        ask(studio, trained.run, "word " * 80)
    cut = ask(studio, trained.run, "word " * 40, "base", max_new_tokens=500)
    assert cut.answered["base"].reason in ("length", "stop")
    assert cut.answered["base"].tokens < 60


def test_one_question_at_a_time(trained: Trained) -> None:
    studio = trained.studio
    replies = studio.chat(trained.run, question(ASKED, "base", **LONG))
    next(reply for reply in replies if isinstance(reply, Text))
    with pytest.raises(ModelError, match="still answering"):
        ask(studio, trained.run, ASKED)
    replies.close()  # type: ignore[attr-defined]


def test_memory_that_is_too_small_is_told_and_the_chat_goes_on(studio: Studio, tmp_path: Path) -> None:
    base = make("llama", tmp_path / "long-context")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 100_000}))
    run = finish(studio, studio.start_training(config_for(studio, base, tmp_path, duration={"max_steps": 1}))).name
    ask(studio, run, ASKED, "base", "tuned", max_new_tokens=2)
    process = worker(studio)
    limit = process.memory_info().vms + 48 * 2**20
    process.rlimit(psutil.RLIMIT_AS, (limit, limit))
    with pytest.raises(ModelError, match="Out of memory while answering"):
        ask(studio, run, "word " * 15_000, "base", "tuned", max_new_tokens=2)
    assert ask(studio, run, ASKED, max_new_tokens=2)["tuned"]
    assert worker(studio) == process
    studio.close_chat()


def test_what_a_chat_begins_with_is_the_models_own(trained: Trained, tmp_path: Path) -> None:
    studio = trained.studio
    assert studio.chat_defaults(trained.run).sampling.temperature == 0
    path = trained.folder / "adapter" / "generation_config.json"
    before = path.read_text()
    try:
        said = {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "repetition_penalty": 1.05}
        path.write_text(json.dumps({**json.loads(before), **said}))
        sampling = studio.chat_defaults(trained.run).sampling
        assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.6, 0.95, 50)
        assert sampling.repetition_penalty == 1.05
        path.write_text("not json")
        assert studio.chat_defaults(trained.run).sampling.temperature == 0
    finally:
        path.write_text(before)


def test_a_held_out_row_was_never_trained_on(trained: Trained) -> None:
    studio = trained.studio
    data = studio.run(trained.run).config.data
    kept = studio.export_sides(data, studio.run(trained.run).config.seed)
    held_out = [json.loads(line)["messages"] for line in kept[1].read_text().splitlines()]
    count = studio.held_out_row(trained.run, 0).count
    assert count == len(held_out)
    for number in (0, 1, count - 1, count):
        row = studio.held_out_row(trained.run, number)
        turns = held_out[number % count]
        assert (row.messages[-1].content, row.answer.content) == (turns[0]["content"], turns[1]["content"])
    studio.apply_fix(data.dataset, "drop_duplicates")
    with pytest.raises(DatasetError, match="has changed since"):
        studio.held_out_row(trained.run, 0)
    studio.undo_fix(data.dataset, "drop_duplicates")


def recorded(studio: Studio, config: RunConfig) -> str:
    """A run as if it had been trained: what is kept from a chat asks only for its papers."""
    return end(studio._jobs.create(config), Finished(artifact="adapter")).name


def test_kept_answers_become_a_version_that_grows_until_a_run_uses_it(
    studio: Studio, tiny_llama: Path, tmp_path: Path
) -> None:
    config = config_for(studio, tiny_llama, tmp_path)
    run = recorded(studio, config)
    before = studio.dataset(config.data.dataset)

    def turn(asked: str, answer: str) -> list[Message]:
        return [Message(role="user", content=asked), Message(role="assistant", content=answer)]

    first = studio.keep_answer(run, turn("What is 2 plus 2?", "It is 4."))
    assert first.id == f"{before.id}-v2"
    assert first.report.valid == before.report.valid + 1
    studio.keep_answer(run, turn("Who are you?", "Nobody."))
    second = studio.keep_answer(run, turn("Who are you?", "A calculator."))
    assert (second.id, second.report.valid, studio.rows_from_chat(second.id)) == (first.id, before.report.valid + 2, 2)
    assert studio.examples(second.id, second.report.valid - 1)[0].messages[-1].content == "A calculator."
    assert studio.dataset(before.id) == before
    assert second.id in [info.id for info in studio.datasets()]

    with pytest.raises(DatasetError, match="empty"):
        studio.keep_answer(run, turn("What?", " "))
    data = config.data.model_copy(update={"dataset": second.id})
    following = recorded(studio, config.model_copy(update={"data": data}))
    third = studio.keep_answer(run, turn("And now?", "Now it is late."))
    assert third.id == f"{before.id}-v3"
    assert third.report.valid == second.report.valid + 1
    assert studio.dataset(second.id) == second
    studio.delete_dataset(third.id)
    studio.delete_dataset(second.id)
    assert studio.keep_answer(following, turn("And?", "Yes.")).id == f"{before.id}-v3", (
        "a name that a run knows is not given again"
    )


def test_answers_kept_from_a_run_on_texts_stand_alone(studio: Studio, tiny_llama: Path, tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"A text about the number {n}, and so on.\n\n" for n in range(20)))
    info = studio.add_dataset(path, "texts.txt")
    assert info.report.format == "text"
    config = config_for(studio, tiny_llama, tmp_path, data={"dataset": info.id})
    run = recorded(studio, config)
    said = [Message(role="user", content="Hello?"), Message(role="assistant", content="Good day.")]
    kept = studio.keep_answer(run, said)
    assert (kept.id, kept.report.valid) == (f"{info.id}-chat-v1", 1)
    kept = studio.keep_answer(run, [Message(role="user", content="Hi?"), said[1]])
    assert (kept.id, kept.report.valid) == (f"{info.id}-chat-v1", 2)
    with pytest.raises(DatasetError, match="held no questions out"):
        studio.held_out_row(run, 0)


def test_two_tabs_that_keep_answers_at_once_lose_none(studio: Studio, tiny_llama: Path, tmp_path: Path) -> None:
    config = config_for(studio, tiny_llama, tmp_path)
    run = recorded(studio, config)

    def keep(number: int) -> None:
        turns = [Message(role="user", content=f"Question {number}?"), Message(role="assistant", content="Yes indeed.")]
        studio.keep_answer(run, turns)

    threads = [threading.Thread(target=keep, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert studio.rows_from_chat(f"{config.data.dataset}-v2") == 6
