"""What was said in a chat: what each voice knows of it, what is a thought, and that nothing said is HTML."""

import json

from ftapp.contract.chat import Answered, Sampling
from ftapp.contract.examples import Message
from ftapp.store.generation import knows_thinking, own_sampling
from ftapp.ui.exchanges import Answer, Exchange, Growth, draw, figures, messages, tools

DONE = Answered(voice="tuned", reason="stop", tokens=11, seconds=3.0, first_token_seconds=1.0)


def turns(found: list[Message]) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in found]


def test_each_voice_knows_its_own_answers_and_the_others_where_it_has_none() -> None:
    said = [
        Exchange("One?", answers={"base": Answer("b1"), "tuned": Answer("t1")}),
        Exchange("Two?", answers={"tuned": Answer("t2")}),
        Exchange("Three?", answers={"base": Answer("b3")}),
    ]
    assert turns(messages(said, "base", "")) == [
        ("user", "One?"), ("assistant", "b1"), ("user", "Two?"), ("assistant", "t2"), ("user", "Three?"),
    ]  # fmt: skip
    assert turns(messages(said, "tuned", "Be kind."))[:3] == [
        ("system", "Be kind."), ("user", "One?"), ("assistant", "t1"),
    ]  # fmt: skip


def test_a_held_out_row_brings_its_own_system_prompt_and_earlier_turns() -> None:
    before = (Message(role="system", content="Its own."), Message(role="user", content="Hi"), Answer("Hello").message())
    assert turns(messages([Exchange("Well?", before)], "base", "Another.")) == [
        ("system", "Its own."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Well?"),
    ]  # fmt: skip


def test_thoughts_are_apart_from_what_is_said() -> None:
    assert Answer("Plain.").parts == ("", "Plain.", True)
    assert Answer("<think>\nHm").parts == ("Hm", "", False)
    whole = Answer("<think>\nHm\n</think>\n\nYes.")
    assert whole.parts == ("Hm", "Yes.", True)
    assert whole.message() == Message(role="assistant", content="Yes.", reasoning_content="Hm")
    assert whole.corrected("No.").parts == ("Hm", "No.", True)
    assert Answer("Yes.").corrected("No.").text == "No."
    assert Answer("We say <think> here").parts[1] == "We say <think> here"


def test_what_anybody_said_is_no_html() -> None:
    bad = "<script>alert(1)</script>${1}{{value}}"
    drawn = draw([Exchange(bad, reference=bad, answers={"tuned": Answer(f"<think>{bad}</think>{bad}", DONE, bad)})])
    assert "<script" not in drawn
    assert "${" not in drawn
    assert "{{" not in drawn
    assert "<details class='thought' data-key='0-tuned'>" in drawn


def test_growth_tells_each_piece_once_and_all_together_is_the_answer() -> None:
    whole = "<think>\nWell 🦊 <b>, so \n</think>\n\nIt is <script> 4."
    growth, told, parts, count = Growth(), "", dict[str, str](), 0
    assert growth.news() == ""
    names = set()
    for end in range(len(whole) + 1):
        growth.answers = {"base": Answer("Five"), "tuned": Answer(whole[:end], DONE if end == len(whole) else None)}
        news = growth.news()
        assert growth.news() == "", "told already"
        told += news
        if news:
            (name, known), *lines = map(json.loads, news.split("\n"))
            assert known == count
            names.add(name)
            count += len(lines)
            for voice, part, replaces, text in lines:
                parts[voice + part] = text if replaces else parts.get(voice + part, "") + text
        if end == 20:
            assert parts["tunedfolded"] == "Thinking … · 3 words"
    assert "<" not in told
    assert len(names) == 1
    assert parts == {
        "basesaid": "Five", "tunedfolded": "Thought · 4 words", "tunedthought": "Well 🦊 <b>, so",
        "tunedsaid": "It is <script> 4.", "tunedfigures": figures(DONE),
    } | {name: text for name, text in parts.items() if not text}  # fmt: skip


def test_what_a_tool_said_is_asked_as_such_with_the_tools_of_its_row() -> None:
    call = Message(
        role="assistant", content="", tool_calls=[{"function": {"name": "look", "arguments": {"at": "sky"}}}]
    )
    said = Message(role="tool", content="blue", name="look")
    exchange = Exchange(
        "blue", (Message(role="user", content="Colour?"), call), turn=said, tools=[{"type": "function"}]
    )
    then = [exchange.with_answer("tuned", Answer("Blue.")), Exchange("Sure?")]
    assert messages([exchange], "tuned", "")[1:] == [call, said]
    assert turns(messages(then, "tuned", ""))[2:] == [("tool", "blue"), ("assistant", "Blue."), ("user", "Sure?")]
    assert tools(then) == [{"type": "function"}]
    assert tools([Exchange("Hi")]) is None
    drawn = draw([exchange])
    assert "→ look(" in drawn
    assert "<div class='who'>Tool</div>" in drawn


def test_figures_say_how_fast_and_why_it_ended() -> None:
    assert figures(DONE) == "11 tokens · 5 tokens/s · first after 1.00 s"
    cut = DONE.model_copy(update={"reason": "length", "tokens": 1})
    assert figures(cut) == "1 token · first after 1.00 s · cut at the longest length"


def test_an_answer_that_is_being_written_has_no_buttons() -> None:
    assert "data-do='good'" not in draw([Exchange("?", answers={"tuned": Answer("…")})])
    assert "data-do='good'" in draw([Exchange("?", answers={"tuned": Answer("Yes.", DONE)})])


def test_the_models_own_sampling_is_read_from_its_files(tmp_path) -> None:  # type: ignore[no-untyped-def]
    empty, full = tmp_path / "empty", tmp_path / "full"
    for folder in (empty, full):
        folder.mkdir()
    assert own_sampling([empty]) == Sampling()
    (full / "generation_config.json").write_text('{"do_sample": true, "top_p": 0.8, "top_k": 20, "max_new_tokens": 99}')
    assert own_sampling([empty, full]) == Sampling(temperature=1.0, top_p=0.8, top_k=20, max_new_tokens=99)
    (full / "generation_config.json").write_text('{"do_sample": false, "temperature": 0.6}')
    assert own_sampling([full]) == Sampling()
    (full / "generation_config.json").write_text('{"do_sample": true, "temperature": -3}')
    assert own_sampling([full]) == Sampling()
    assert not knows_thinking([empty, full])
    (full / "chat_template.jinja").write_text("{% if enable_thinking is defined %}{% endif %}")
    assert knows_thinking([empty, full])
