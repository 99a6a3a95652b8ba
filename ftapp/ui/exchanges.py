"""What was said in a chat: questions, each with the answers of one or two voices; as messages, and as HTML."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

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
    attempt: int = 0
    """How often it was asked again; added to the seed."""

    def with_answer(self, voice: Voice, answer: Answer) -> "Exchange":
        """The same with another answer."""
        return replace(self, answers={**self.answers, voice: answer})


def messages(exchanges: Sequence[Exchange], voice: Voice, system: str) -> list[Message]:
    """The conversation as one voice knows it, up to the last question; what it did not answer the other one did."""
    found: list[Message] = []
    for number, exchange in enumerate(exchanges, 1):
        found += [*exchange.before, Message(role="user", content=exchange.question)]
        answer = exchange.answers.get(voice) or next(iter(exchange.answers.values()), None)
        if answer and number < len(exchanges):
            found.append(answer.message())
    if system.strip() and found[0].role != "system":
        found.insert(0, Message(role="system", content=system))
    return found


def draw(exchanges: Sequence[Exchange], has_run: bool = True) -> str:
    """The whole conversation."""
    if not exchanges and has_run:
        return markup.empty("Nothing said yet.", "Ask something, or try an example that the training never saw.")
    if not exchanges:
        return markup.empty("No trained run yet.", "Go to Configure and press Start: the demo takes under a minute.")
    drawn = "".join(_exchange(exchange, number) for number, exchange in enumerate(exchanges))
    return f"<div role='log' aria-live='polite' aria-label='Conversation'>{drawn}</div>"


def _exchange(exchange: Exchange, number: int) -> str:
    before = "".join(markup.bubble(message.role, message.content) for message in exchange.before)
    cards = [_card(voice, exchange.answers[voice], number) for voice in VOICES if voice in exchange.answers]
    if exchange.reference:
        said = f"<div class='content'>{markup.text(exchange.reference)}</div>"
        cards.append(
            f"<section class='ft-answer reference'><div class='who'>{SPEAKERS['reference']}</div>{said}</section>"
        )
    return (
        f"<div class='ft-exchange' data-at='{number}'>{before}<div class='ft-turn user'><div class='who'>You</div>"
        f"<div class='content' data-testid='user'>{markup.text(exchange.question)}</div>"
        f"<div class='tools'>{_button('copy', 'Copy')}{_button('edit', 'Edit')}</div></div>"
        f"<div class='ft-answers'>{''.join(cards)}</div></div>"
    )


def _card(voice: Voice, answer: Answer, number: int) -> str:
    thought, said, thinking_over = answer.parts
    folded = ""
    if thought or not thinking_over:
        words = f"{'Thought' if thinking_over else 'Thinking …'} · {len(thought.split()):,} words"
        folded = (
            f"<details class='thought' data-key='{number}-{voice}'><summary>{words}</summary>"
            f"<div>{markup.text(thought)}</div></details>"
        )
    shown = markup.text(said) if said or answer.figures or not thinking_over else "<span class='caret'>…</span>"
    kept = f"<span class='kept'>✓ row of {markup.text(answer.kept)}</span>" if answer.kept else _button("good", "Good")
    tools = [_button("copy", "Copy"), kept, _button("correct", "Correct")] if answer.figures else []
    return (
        f"<section class='ft-answer {voice}' data-voice='{voice}'><div class='who'>{SPEAKERS[voice]}</div>{folded}"
        f"<div class='content' data-testid='bot'>{shown}</div><div class='foot'><span class='figures'>"
        f"{figures(answer.figures)}</span><span class='tools'>{''.join(tools)}</span></div></section>"
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
