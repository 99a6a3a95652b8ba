"""Questions to a chat, for tests: what came back, by voice."""

from collections.abc import Iterable
from typing import Any

from ftapp.contract.chat import Answered, Loaded, Loading, Question, Reply, Text
from ftapp.contract.examples import Message
from ftapp.studio import Studio


def question(text: str, *voices: str, **options: Any) -> Question:
    """A question to these voices; sampling and the rest by name."""
    rest = {name: options.pop(name, None) for name in ("thinking", "tools")}
    messages = {voice: [Message(role="user", content=text)] for voice in voices or ("tuned",)}
    return Question.model_validate({"messages": messages, "sampling": options, **rest})


class Heard:
    """All replies to one question."""

    def __init__(self, replies: Iterable[Reply]) -> None:
        self.replies = list(replies)
        self.answered = {reply.voice: reply for reply in self.replies if isinstance(reply, Answered)}
        self.loadings = [reply.name for reply in self.replies if isinstance(reply, Loading)]
        [self.loaded] = [reply for reply in self.replies if isinstance(reply, Loaded)]

    def __getitem__(self, voice: str) -> str:
        return "".join(reply.text for reply in self.replies if isinstance(reply, Text) and reply.voice == voice)


def ask(studio: Studio, run: str, text: str, *voices: str, checkpoint: str = "", **options: Any) -> Heard:
    """Ask and wait for all of it."""
    four_bit = options.pop("four_bit", None)
    return Heard(studio.chat(run, question(text, *voices, **options), checkpoint, four_bit))
