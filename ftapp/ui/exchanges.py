"""What was said in a chat: questions, each with the answers of one or two voices; as messages, and as HTML."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ftapp.contract.chat import Answered, Voice
from ftapp.contract.examples import Message
from ftapp.ui import markup

SPEAKERS: dict[str, str] = {"base": "Base model", "tuned": "Tuned model", "reference": "Reference"}
VOICES: tuple[Voice, ...] = ("base", "tuned")
OPEN, CLOSE = "<think>", "</think>"
ENDS = {"stop": "", "length": "cut at the longest length", "stopped": "stopped"}


@dataclass(frozen=True)
class Answer:
    """One answer, whole or as far as it is."""

    text: str = ""
    """As it was written, thoughts included."""
    figures: Answered | None = None
    """None while it is being written, or if it broke off."""
    kept: str = ""
    """The dataset that it is a row of."""

    @property
    def parts(self) -> tuple[str, str, bool]:
        """What was thought, what was said, and whether the thinking is over."""
        text = self.text.lstrip()
        if not text.startswith(OPEN):
            return "", self.text, True
        thought, closed, said = text.removeprefix(OPEN).partition(CLOSE)
        return thought.strip(), said.lstrip("\n"), bool(closed)

    def corrected(self, said: str) -> "Answer":
        """The same thoughts, another answer."""
        thought = self.parts[0]
        return replace(self, text=f"{OPEN}\n{thought}\n{CLOSE}\n\n{said}" if thought else said)

    def message(self) -> Message:
        """As a turn of a conversation; how thoughts of earlier turns are rendered is the template's matter."""
        thought, said, _ = self.parts
        return Message(role="assistant", content=said, reasoning_content=thought or None)


@dataclass(frozen=True)
class Exchange:
    """A question with its answers."""

    question: str
    before: tuple[Message, ...] = ()
    """What a held-out row has before its last question."""
    reference: str = ""
    """The answer in the row that was held out."""
    answers: dict[Voice, Answer] = field(default_factory=dict)
    turn: Message | None = None
    """As what the question stands in a held-out row, if that is not the user's: what a tool said."""
    tools: list[dict[str, Any]] | None = None
    """What may be called from here on."""
    attempt: int = 0
    """How often it was asked again; added to the seed."""

    @property
    def asked(self) -> Message:
        """The question as a turn."""
        turn = self.turn or Message(role="user", content="")
        return turn.model_copy(update={"content": self.question})

    def with_answer(self, voice: Voice, answer: Answer) -> "Exchange":
        """The same with another answer."""
        return replace(self, answers={**self.answers, voice: answer})


def messages(exchanges: Sequence[Exchange], voice: Voice, system: str) -> list[Message]:
    """The conversation as one voice knows it, up to the last question; what it did not answer the other one did."""
    found: list[Message] = []
    for number, exchange in enumerate(exchanges, 1):
        found += [*exchange.before, exchange.asked]
        answer = exchange.answers.get(voice) or next(iter(exchange.answers.values()), None)
        if answer and number < len(exchanges):
            found.append(answer.message())
    if system.strip() and found[0].role != "system":
        found.insert(0, Message(role="system", content=system))
    return found


def tools(exchanges: Sequence[Exchange]) -> list[dict[str, Any]] | None:
    """What may be called in this conversation."""
    return next((exchange.tools for exchange in exchanges if exchange.tools), None)


def draw(exchanges: Sequence[Exchange], has_run: bool = True, growing: bool = False) -> str:
    """The whole conversation; while the answers to its last question are `growing`, the page adds what Growth says."""
    if not exchanges and has_run:
        return markup.empty("Nothing said yet.", "Ask something, or try an example that the training never saw.")
    if not exchanges:
        return markup.empty("No trained run yet.", "Go to Configure and press Start: the demo takes under a minute.")
    last = len(exchanges) - 1
    drawn = "".join(_exchange(exchange, n, growing and n == last) for n, exchange in enumerate(exchanges))
    return f"<div role='log' aria-live='polite' aria-label='Conversation'>{drawn}</div>"


class Growth:
    """Answers that are being written, and what the page knows of them: drawing all again would take ever longer."""

    def __init__(self) -> None:
        self.answers: Mapping[Voice, Answer] = {}
        """As far as they are; replaced as they grow."""
        self._name = time.monotonic_ns()  # the page sees that other answers began
        self._told: dict[tuple[Voice, str], str] = {}
        self._count = 0

    def news(self) -> str:
        """What the page was not told yet, or nothing.

        Whose answers, how many lines it knows; then a line for each part of an answer that has changed: voice, part,
        whether the text takes the place of what that was, text.
        """
        lines: list[str] = []
        for voice, answer in self.answers.items():
            for part, text in _parts(answer).items():
                known = self._told.get((voice, part), "")
                if text != known:
                    added = text.startswith(known)
                    lines.append(json.dumps([voice, part, not added, text[len(known) :] if added else text]))
                    self._told[voice, part] = text
        head, self._count = json.dumps([self._name, self._count]), self._count + len(lines)
        # Gradio looks for tags in every value
        return "\n".join([head, *lines]).replace("<", "\\u003c") if lines else ""


def _exchange(exchange: Exchange, number: int, growing: bool) -> str:
    before = "".join(markup.bubble(message.role, markup.said(message)) for message in exchange.before)
    asks = markup.SPEAKERS[exchange.turn.role] if exchange.turn else "You"
    voices = [voice for voice in VOICES if voice in exchange.answers]
    cards = [_card(voice, exchange.answers[voice], number, growing) for voice in voices]
    if exchange.reference:
        said = f"<div class='content'>{markup.text(exchange.reference)}</div>"
        cards.append(
            f"<section class='ft-answer reference'><div class='who'>{SPEAKERS['reference']}</div>{said}</section>"
        )
    return (
        f"<div class='ft-exchange' data-at='{number}'>{before}<div class='ft-turn user'><div class='who'>{asks}</div>"
        f"<div class='content' data-testid='user'>{markup.text(exchange.question)}</div>"
        f"<div class='tools'>{_button('copy', 'Copy')}{_button('edit', 'Edit')}</div></div>"
        f"<div class='ft-answers'>{''.join(cards)}</div></div>"
    )


def _parts(answer: Answer) -> dict[str, str]:
    """What a card shows of an answer, by the names of its places."""
    thought, said, over = answer.parts
    count = len(thought.split())
    words = f"{'Thought' if over else 'Thinking …'} · {count:,} word{'s' if count != 1 else ''}"
    folded = words if thought or not over else ""
    return {"folded": folded, "thought": thought, "said": said, "figures": figures(answer.figures)}


def _card(voice: Voice, answer: Answer, number: int, growing: bool) -> str:
    part = {name: markup.text(text) for name, text in _parts(answer).items()}
    folded = ""
    if part["folded"] or growing:
        folded = (
            f"<details class='thought' data-key='{number}-{voice}'{'' if part['folded'] else ' hidden'}>"
            f"<summary data-part='folded'>{part['folded']}</summary><div data-part='thought'>{part['thought']}</div>"
            "</details>"
        )
    kept = f"<span class='kept'>✓ row of {markup.text(answer.kept)}</span>" if answer.kept else _button("good", "Good")
    tools = [_button("copy", "Copy"), kept, _button("correct", "Correct")] if answer.figures and not growing else []
    return (
        f"<section class='ft-answer {voice}{' growing' * growing}' data-voice='{voice}'>"
        f"<div class='who'>{SPEAKERS[voice]}</div>{folded}"
        f"<div class='content' data-testid='bot' data-part='said'>{part['said']}</div>"
        f"<div class='foot'><span class='figures' data-part='figures'>{part['figures']}</span>"
        f"<span class='tools'>{''.join(tools)}</span></div></section>"
    )


def _button(what: str, label: str) -> str:
    return f"<button type='button' data-do='{what}'>{label}</button>"


def figures(answered: Answered | None) -> str:
    """How long, how fast, and what ended it."""
    if answered is None:
        return ""
    writing = answered.seconds - answered.first_token_seconds
    speed = f"{(answered.tokens - 1) / writing:.0f} tokens/s" if answered.tokens > 1 and writing > 0 else ""
    count = f"{answered.tokens:,} token{'s' if answered.tokens != 1 else ''}"
    parts = [count, speed, f"first after {answered.first_token_seconds:.2f} s", ENDS[answered.reason]]
    return " · ".join(part for part in parts if part)
