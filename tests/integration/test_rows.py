"""The rows as the trainer reads them: what is cut is told, what ends an answer must be left, what is shown fits."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftapp.contract import events as ev
from ftapp.contract.config import parse_run_config
from ftapp.contract.errors import DatasetError
from ftapp.studio import Studio
from ftapp.workers.rows import SHOWN_TOKENS, TokenRows
from ftapp.workers.tokens import Encoder
from tests.models import CHATML, tokenizer

CONTEXT = 256
Read = Callable[..., tuple[TokenRows, list[str]]]


def chat(answer: str, question: str = "?", **more: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns, **more}


@pytest.fixture
def read(studio: Studio, tmp_path: Path) -> Read:
    def read(rows: list[dict[str, Any]], template: str = CHATML, **data: Any) -> tuple[TokenRows, list[str]]:
        file = tmp_path / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        config = parse_run_config({"data": {"dataset": studio.add_dataset(file, file.name).id, **data}})
        told: list[ev.Event] = []
        made = TokenRows(
            studio._jobs.create(config), config, Encoder(tokenizer(template), "tiny"), CONTEXT, told.append
        )
        return made, [event.message for event in told if isinstance(event, ev.Note)]

    return read


def test_answers_that_lose_their_end_are_counted_and_told(read: Read) -> None:
    rows = [*[chat("y", f"{n}") for n in range(10)], chat("long " * 40, "a"), chat("longer " * 40, "b")]
    made, told = read(rows, max_length=100, over_length="truncate", eval_fraction=0)
    assert max(made.lengths) == made.longest == 100
    assert made.longest_row > 200, "what a higher limit would let in"
    assert len(made.lengths) == 12
    assert [note for note in told if "2 of 12 rows are cut at 100 tokens; 2 of them lose the end of an answer" in note]


def test_a_training_in_which_no_answer_ends_is_refused(read: Read) -> None:
    rows = [chat("long " * 40, f"{n}") for n in range(10)]
    with pytest.raises(DatasetError, match=r"<\|im_end\|>, which ends an answer.*never learn to stop") as refused:
        read(rows, max_length=100, over_length="truncate")
    assert "100 now" in refused.value.hint
    made, _ = read([{"text": "long " * 40} for _ in range(10)], max_length=100, over_length="truncate")
    assert set(made.lengths) == {100}, "a plain text may go on"


def test_only_prompts_that_leave_room_for_an_answer_are_shown(read: Read) -> None:
    """The first held-out rows are too long for the model: answering them would go past its positions."""
    tool = {"type": "function", "function": {"name": "add_up", "description": "Adds", "parameters": {}}}
    rows = [chat("y", f"{n} " + "long " * 80) for n in range(40)]
    rows += [chat("yes", f"fits {n}", tools=[tool]) for n in range(40)] + [chat("no", "n" * 200) for _ in range(20)]
    with_tools = CHATML.replace("{% for", "{{ tools | tojson if tools else '' }}{% for", 1)
    made, _ = read(rows, with_tools, eval_fraction=0.5)
    assert 0 < len(made.shown) <= 3
    for shown in made.shown:
        assert 0 < shown.room <= SHOWN_TOKENS
        assert len(shown.ids) + shown.room <= CONTEXT
    answered = [shown for shown in made.shown if shown.reference == "yes"]
    assert answered
    assert "add_up" in tokenizer().decode(answered[0].ids)


def test_a_template_that_cannot_ask_alone_still_trains(read: Read) -> None:
    """Its marks say what is learned; a conversation without an answer it refuses."""
    turn = "{{ '<|im_start|>' + m['role'] + '\n' }}"
    marked = (
        "{% if messages[-1]['role'] != 'assistant' %}{{ raise_exception('no answer') }}{% endif %}"
        "{% for m in messages %}"
        + turn
        + "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}"
        "{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}{% endfor %}"
    )
    made, told = read([chat("y", f"{n}") for n in range(20)], marked)
    assert len(made.lengths) == 18
    assert made.shown == []
    assert len([note for note in told if "no answer" in note]) == 1
