"""From a question to its answers on the page: asking, asking again, editing, marking; the Chat tab binds these."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import gradio as gr

from ftapp.contract.chat import Answered, Loading, Question, Sampling, Text, Voice
from ftapp.contract.errors import FtappError
from ftapp.studio import Studio
from ftapp.ui import edge, exchanges, form, markup
from ftapp.ui.exchanges import Answer, Exchange, Growth

SAMPLING = form.fields_of(Sampling)
WHO: dict[str, tuple[Voice, ...]] = {"both": ("base", "tuned"), "tuned": ("tuned",), "base": ("base",)}
THINKING = {"as trained": None, "on": True, "off": False}
RESULT = "result"
BEAT_SECONDS = 1.0
"""Between two signs of life while answers are written: by one that nobody takes, a closed page is noticed."""
SHOWN = ("box", "growth", "ticks", "text", "notice", "send", "stop", "kept", "kept_in", "watch")
"""What every handler here updates, in this order."""

History = list[Exchange]
"""A page's conversation: one list that is changed in place, as what goes on at the same time all begins with it."""
Updates = tuple[Any, ...]


def updates(**values: Any) -> Updates:
    """Those of SHOWN that change."""
    return tuple(values.get(name, gr.skip()) for name in SHOWN)


IDLE = {
    "send": gr.update(visible=True), "stop": gr.update(visible=False), "ticks": gr.Timer(active=False), "growth": None,
}  # fmt: skip
BUSY = {"send": gr.update(visible=False), "stop": gr.update(visible=True), "ticks": gr.Timer(active=True)}


def grown(_: Studio, growth: Growth | None) -> Any:
    """What the answers grew by since the page asked before.

    The page asks when it has drawn what it was told: a browser that is told more than it can draw falls ever further
    behind, and a press on Stop with it.
    """
    return (growth and growth.news()) or gr.skip()


def ask(studio: Studio, history: History, text: str, *asked: Any) -> Iterator[Updates]:
    """Answer what stands in the box."""
    if text.strip():
        yield from _answer(studio, history, [*history], Exchange(text), text, asked)


def again(studio: Studio, history: History, *asked: Any) -> Iterator[Updates]:
    """Answer the last question once more, with another seed."""
    if history:
        last = replace(history[-1], answers={}, attempt=history[-1].attempt + 1)
        yield from _answer(studio, history, history[:-1], last, "", asked)


def held_out(studio: Studio, history: History, number: int, *asked: Any) -> Iterator[Updates]:
    """Begin anew with a row that the run never trained on, beside the answer that it has."""
    if not asked[0]:
        return
    row = studio.held_out_row(asked[0], number)
    *before, asked_last = row.messages
    exchange = Exchange(
        asked_last.content,
        tuple(before),
        markup.said(row.answer),
        turn=None if asked_last.role == "user" else asked_last,
        tools=row.tools,
    )
    yield from _answer(studio, history, [], exchange, "", asked)


def edit(studio: Studio, history: History, *asked: Any, event: dict[str, Any]) -> Iterator[Updates]:
    """Ask an earlier question in other words; what came after it goes."""
    at = int(event["at"])
    if 0 <= at < len(history):
        edited = replace(history[at], question=str(event["text"]), answers={}, reference="")
        yield from _answer(studio, history, history[:at], edited, "", asked)


def keep(studio: Studio, history: History, *asked: Any, event: dict[str, Any]) -> Iterator[Updates]:
    """Make an answer, good or corrected, a row of a new version of the run's dataset."""
    at, voice, correction = int(event["at"]), event["voice"], event.get("text")
    if not 0 <= at < len(history) or voice not in history[at].answers:
        return
    run, system = asked[0], asked[4]
    exchange = history[at]
    answer = exchange.answers[voice]
    if correction is not None:
        answer = answer.corrected(correction)
    row = [*exchanges.messages(history[: at + 1], voice, system), answer.message()]
    info = studio.keep_answer(run, row, exchanges.tools(history[: at + 1]))
    exchange.answers[voice] = replace(answer, kept=info.id)
    words = f"Kept in {info.id}: {info.report.valid:,} rows, {studio.rows_from_chat(info.id):,} of them from the chat."
    told = ("success", words, "The next run can use it; the dataset of this run stays as it was.")
    if correction is None and answer.figures and answer.figures.reason != "stop":
        hint = "The answer was cut off, and what learns it learns to end there: correct it, and the row is replaced."
        told = ("warning", words, hint)
    yield updates(
        box=gr.skip() if studio.chat_answers() else exchanges.draw(history),
        kept=gr.update(visible=True),
        kept_in=info.id,
        notice=markup.notice(*told),
    )


def question(
    history: History, who: str, system: str, thinking: str, sampling: Sequence[form.Value], attempt: int = 0
) -> Question:
    """What is asked; raises ConfigError if a value of the sampling is wrong."""
    values = {field.name: value for field, value in zip(SAMPLING, sampling, strict=True)}
    chosen = form.parse(Sampling, values, SAMPLING)
    chosen = chosen.model_copy(update={"seed": (chosen.seed + attempt) % 2**32})
    voices = WHO[who]
    return Question(
        messages={voice: exchanges.messages(history, voice, system) for voice in voices},
        sampling=chosen,
        tools=exchanges.tools(history),
        thinking=THINKING[thinking],
    )


def _answer(
    studio: Studio, shown: History, before: History, exchange: Exchange, typed: str, asked: Sequence[Any]
) -> Iterator[Updates]:
    """Stream the answers to a question behind what came before.

    A failure is told in place; if nothing was written, what was shown is shown again and what was typed given back.
    """
    run, checkpoint, who, four_bit, system, thinking, *sampling = asked
    if not run:
        edge.warn("There is no trained run to chat with yet. Start one in the Configure tab.")
        return
    if still_answering(studio):
        return
    checkpoint = "" if checkpoint in (None, RESULT) else checkpoint
    try:
        wanted = question([*before, exchange], who, system, thinking, sampling, exchange.attempt)
        exchange, growth = replace(exchange, answers={voice: Answer() for voice in WHO[who]}), Growth()
        yield updates(
            box=exchanges.draw([*before, exchange], growing=True),
            growth=growth,
            text="" if typed else gr.skip(),
            notice=_waiting("Asking" if studio.chat_state().loaded else "Starting the model's process"),
            kept=gr.update(visible=False),
            watch=gr.Timer(active=True),
            **BUSY,
        )
        beat = 0.0
        with closing(studio.chat(run, wanted, checkpoint, four_bit)) as replies:  # type: ignore[type-var]
            for reply in replies:
                if isinstance(reply, Loading):
                    yield updates(notice=_waiting(reply.name))
                elif isinstance(reply, (Text, Answered)):
                    exchange = _heard(exchange, reply)
                    growth.answers = exchange.answers
                    if time.monotonic() - beat > BEAT_SECONDS:
                        beat = time.monotonic()
                        yield updates(notice="")
        shown[:] = [*before, exchange]
        yield updates(box=exchanges.draw(shown), notice="", **IDLE)
    except Exception as error:
        told = edge.in_place(error) if isinstance(error, FtappError) else ""
        if any(answer.text for answer in exchange.answers.values()):
            shown[:], typed = [*before, exchange], ""
        yield updates(box=exchanges.draw(shown), text=typed or gr.skip(), notice=told, **IDLE)
        if not told:
            raise


def still_answering(studio: Studio) -> bool:
    """Whether a question is being answered; if so, it is told."""
    if answers := studio.chat_answers():
        edge.warn("The model is still answering. Stop that answer, or wait for it.")
    return answers


def _heard(exchange: Exchange, reply: Text | Answered) -> Exchange:
    known = exchange.answers[reply.voice]
    heard = (
        replace(known, figures=reply) if isinstance(reply, Answered) else replace(known, text=known.text + reply.text)
    )
    return exchange.with_answer(reply.voice, heard)


def _waiting(what: str) -> str:
    return f"<div class='ft-stats waiting'>{markup.text(what)} …</div>"
