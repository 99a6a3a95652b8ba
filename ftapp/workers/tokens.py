"""Messages → tokens and loss mask; the preview and the training call the same function."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jinja2 import TemplateError
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from ftapp.contract.errors import ModelError
from ftapp.contract.examples import Example, Message, RowProblem
from ftapp.contract.preview import Piece

IGNORED = -100
"""Label of a token that the loss does not see (torch.nn.CrossEntropyLoss, ignore_index)."""

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")

PLAIN_TEMPLATE = (
    "{%- for message in messages %}"
    "{%- if message['role'] == 'assistant' %}"
    "{{- '### Assistant:\n' }}{% generation %}{{- message['content'] + eos_token }}{% endgeneration %}{{- '\n\n' }}"
    "{%- else %}{{- '### ' + message['role'].capitalize() + ':\n' + message['content'] + '\n\n' }}{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '### Assistant:\n' }}{%- endif %}"
)
"""For a base model without a template: made of tokens that it has, so that nothing new must be learned."""

PROBE = [Message(role="user", content="Hello"), Message(role="assistant", content="Good day")]


@dataclass(frozen=True)
class TokenRow:
    """One row as the trainer sees it; both lists have one entry per token."""

    input_ids: list[int]
    labels: list[int]
    """The token's own id where it is learned, IGNORED elsewhere."""


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder; raises ModelError."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"The tokenizer in {folder} cannot be loaded: {first_line(error)}.") from error
    return tokenizer


def context_of(folder: Path, name: str) -> int | None:
    """Tokens that a model was made for, by its config alone; raises ModelError."""
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{name} cannot be loaded: {first_line(error)}.",
            "Choose a causal language model that transformers knows without remote code.",
        ) from error
    found = getattr(config, "max_position_embeddings", None)
    return int(found) if found else None


def first_line(error: BaseException) -> str:
    """What a library's error says first, as part of a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:300]


class Encoder:
    """A tokenizer with its chat template, checked: knows what is learned and that the model learns to stop."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, model_name: str) -> None:
        self.tokenizer = tokenizer
        self.model_name = model_name
        self.notes: list[str] = []
        if tokenizer.eos_token_id is None:
            raise ModelError(f"{model_name} has no end-of-text token.", "Choose a model whose tokenizer defines one.")
        if not tokenizer.is_fast:
            raise ModelError(f"{model_name} has only a slow tokenizer.", "Choose a model with a tokenizer.json.")
        if not tokenizer.chat_template:
            tokenizer.chat_template = PLAIN_TEMPLATE
            self.notes.append(f"{model_name} has no chat template: a plain one is used and saved with the result.")
        self._marked = bool(GENERATION.search(str(tokenizer.chat_template)))
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.stop_id = self._find_stop()
        if self.stop_id != tokenizer.eos_token_id:
            self.notes.append(
                f"Turns of this template end with {self.stop_token!r}, not with "
                f"{tokenizer.eos_token!r}: the result stops there."
            )
            tokenizer.eos_token = self.stop_token

    @property
    def stop_token(self) -> str:
        """The token that ends an answer, as text."""
        return str(self.tokenizer.convert_ids_to_tokens(self.stop_id))

    def encode(self, example: Example) -> list[TokenRow]:
        """The row as tokens; several rows if the template shows earlier turns otherwise than later ones.

        Raises RowProblem when the template refuses the row or nothing in it would be learned.
        """
        if example.text is not None:
            ids = list(self.tokenizer(example.text)["input_ids"])
            if ids[-1:] != [self.tokenizer.eos_token_id]:
                ids.append(self.tokenizer.eos_token_id)
            return [TokenRow(ids, list(ids))]
        try:
            # the template's marks know nothing of answers that are read but not learned
            by_marks = self._marked and all(message.weight != 0 for message in example.messages)
            rows = self._marked_row(example) if by_marks else self._span_rows(example)
        except TemplateError as error:
            raise RowProblem(f"the model's chat template refuses it: {error}") from None
        for row in rows:
            if all(label == IGNORED for label in row.labels):
                raise RowProblem("the chat template leaves nothing to learn")
        return rows

    def way(self) -> Literal["marks", "spans", "rows"]:
        """How what is learned is found: by the template's marks, by rendering, or by a row for each answer."""
        if self._marked:
            return "marks"
        try:
            return "spans" if len(self.encode(Example(messages=[*PROBE, *PROBE]))) == 1 else "rows"
        except RowProblem:  # a template for one answer
            return "spans"

    def prompt(self, messages: Sequence[Message], **options: Any) -> list[int]:
        """The conversation as tokens, up to where the model's answer begins; options go to the chat template."""
        try:
            return self._ids(self._render(messages, add_generation_prompt=True, **options))
        except TemplateError as error:
            raise ModelError(
                f"The chat template of {self.model_name} refuses this conversation: {error}.", "Clear it and try again."
            ) from None

    def pieces(self, row: TokenRow) -> list[Piece]:
        """The row's tokens as text, each with its label; tokens that are whole characters only together stay so."""
        found: list[Piece] = []
        named = self.tokenizer.added_tokens_decoder.items()  # such as the start of a turn, which no attribute names
        special = set(self.tokenizer.all_special_ids) | {id for id, token in named if token.special}
        waiting: list[int] = []
        for token, label in zip(row.input_ids, row.labels, strict=True):
            trained = label != IGNORED
            if token in special:
                found.append(Piece(text=self.tokenizer.decode([token]), trained=trained, special=True))
                continue
            waiting.append(token)
            text = self.tokenizer.decode(waiting)
            if "\ufffd" not in text or len(waiting) > 8:
                found.append(Piece(text=text, trained=trained))
                waiting = []
        if waiting:
            found.append(Piece(text=self.tokenizer.decode(waiting), trained=trained))
        return found

    def _render(self, messages: Sequence[Message], tools: list[dict[str, Any]] | None = None, **options: Any) -> str:
        return str(self.tokenizer.apply_chat_template(_turns(messages), tools=tools, tokenize=False, **options))

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _marked_row(self, example: Example) -> list[TokenRow]:
        """By the template's own {% generation %} marks."""
        out = self.tokenizer.apply_chat_template(
            _turns(example.messages), tools=example.tools, return_dict=True, return_assistant_tokens_mask=True
        )
        ids, mask = list(out["input_ids"]), out["assistant_masks"]
        return [TokenRow(ids, [token if learned else IGNORED for token, learned in zip(ids, mask, strict=True)])]

    def _span_rows(self, example: Example) -> list[TokenRow]:
        """By what each assistant turn adds to the rendered text after its generation prompt."""
        messages, tools = example.messages, example.tools
        whole, spans = self._render(messages, tools), []
        for number in _learned(messages):
            before = self._render(messages[:number], tools, add_generation_prompt=True)
            after = self._render(messages[: number + 1], tools)
            if not (whole.startswith(before) and whole.startswith(after.rstrip())):
                return self._row_per_turn(example)
            spans.append((len(before), len(after.rstrip())))
        return [self._spanned(whole, spans)]

    def _row_per_turn(self, example: Example) -> list[TokenRow]:
        rows = []
        for number in _learned(example.messages):
            before = self._render(example.messages[:number], example.tools, add_generation_prompt=True)
            whole = self._render(example.messages[: number + 1], example.tools)
            if not whole.startswith(before):
                raise RowProblem(f"the chat template rewrites what comes before turn {number + 1}")
            rows.append(self._spanned(whole, [(len(before), len(whole.rstrip()))]))
        return rows

    def _spanned(self, text: str, spans: list[tuple[int, int]]) -> TokenRow:
        out = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, labels, current = list(out["input_ids"]), [], 0
        for token, (start, end) in zip(ids, out["offset_mapping"], strict=True):
            while current < len(spans) and start >= spans[current][1]:
                current += 1
            learned = current < len(spans) and start >= spans[current][0] and end <= spans[current][1] and end > start
            labels.append(token if learned else IGNORED)
        return TokenRow(ids, labels)

    def _find_stop(self) -> int:
        """The token that ends an answer; raises ModelError if the mask leaves it out: the model would not stop."""
        try:
            row = self.encode(Example(messages=PROBE))[-1]
        except RowProblem as problem:
            raise ModelError(f"The chat template of {self.model_name} cannot be used: {problem}.") from None
        learned = [token for token in row.labels if token != IGNORED]
        special = set(self.tokenizer.all_special_ids) | set(self.tokenizer.added_tokens_decoder)
        # some templates end the whole conversation with one more: the first after the words ends the answer
        ends = []
        while learned and (learned[-1] in special or not self.tokenizer.decode(learned[-1:]).strip()):
            ends.append(learned.pop())
        ends = [token for token in ends if token in special]
        if not learned or not ends:
            raise ModelError(
                f"The chat template of {self.model_name} does not end the assistant's turn with a stop token: "
                "the model would never learn to stop.",
                "Choose another model, or its instruction-tuned version.",
            )
        return ends[-1]


def _turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """As chat templates want them."""
    return [message.model_dump(exclude={"weight"}) for message in messages]


def _learned(messages: Sequence[Message]) -> list[int]:
    """Places of the answers that are learned."""
    return [number for number, message in enumerate(messages) if message.role == "assistant" and message.weight != 0]
