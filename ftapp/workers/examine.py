"""A base model's config and tokenizer, looked at with the library that will train it; no weight is read."""

import json
import os
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ftapp.contract.config import ModelConfig
from ftapp.contract.errors import ModelError
from ftapp.contract.examples import Example, Message, RowProblem
from ftapp.contract.models import Examined
from ftapp.workers import sources
from ftapp.workers.tokens import PROBE, Encoder, load_tokenizer

OTHER_TASKS = ("ForMaskedLM", "Classification", "ForQuestionAnswering", "ForMultipleChoice", "EncoderModel")
SYSTEM = Message(role="system", content="Be brief.")


def examine(model: ModelConfig) -> Examined:
    """What can be said of a model before it is trained; downloads all but its weights. Raises ModelError, HubError."""
    folder, _ = sources.find_files(model, os.environ.get("HF_TOKEN"), lambda _: None, weights=False)
    name = model.public_name
    try:
        raw = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"{name} has no readable config.json: {error}.", "Download it again.") from None
    architecture = str((raw.get("architectures") or [raw.get("model_type", "")])[0])
    if refused := _refused(name, raw, architecture):
        return Examined(refusal=refused[0], hint=refused[1], architecture=architecture)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config()
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Examined(
            refusal=f"{name} has a config that transformers {transformers.__version__} cannot read: {_first(error)}.",
            hint="Choose another model, or another revision of it.",
            architecture=architecture,
        )
    known: dict[str, Any] = {
        "architecture": architecture,
        "context": getattr(config, "max_position_embeddings", None),
        "vocabulary": getattr(config, "vocab_size", None),
    }
    quantised = (raw.get("quantization_config") or {}).get("quant_method")
    notes = [f"Its weights are stored quantised ({quantised}): better train the original."] if quantised else []
    try:
        tokenizer = load_tokenizer(folder)
        has_template = bool(tokenizer.chat_template)
        encoder = Encoder(tokenizer, name)
    except ModelError as error:
        if "trust_remote_code" in error.message:
            refusal, hint = _remote(name)
        else:
            refusal, hint = (
                error.message.replace(str(folder), name),
                error.hint or "Choose a model with a tokenizer.json.",
            )
        return Examined(refusal=refusal, hint=hint, notes=notes, **known)
    return Examined(
        template=encoder.way() if has_template else "plain",
        stop_tokens=_stops(folder, encoder),
        notes=[*notes, *(encoder.notes if has_template else []), *_turn_notes(encoder)],
        **known,
    )


def _refused(name: str, raw: dict[str, Any], architecture: str) -> tuple[str, str] | None:
    kind = raw.get("model_type")
    if kind not in CONFIG_MAPPING_NAMES:
        if "auto_map" in raw:
            return _remote(name)
        known = f"transformers {transformers.__version__} does not know"
        return f"{name} is a {kind or architecture or 'nameless'} model, which {known}.", "Choose another model."
    other = kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or raw.get("is_encoder_decoder")
    if other or any(task in architecture for task in OTHER_TASKS):
        return f"{name} ({architecture or kind}) is no causal language model.", "Choose one that generates text."
    return None


def _remote(name: str) -> tuple[str, str]:
    return f"{name} needs code of its own from the Hub, which is never run.", "Choose a model that the library knows."


def _stops(folder: Path, encoder: Encoder) -> list[str]:
    """The token that is learned to end a turn, and those that the model stopped at before."""
    try:
        before = json.loads((folder / "generation_config.json").read_text()).get("eos_token_id")
    except (OSError, ValueError):
        before = None
    ids = [encoder.stop_id, *(before if isinstance(before, list) else [before] if before is not None else [])]
    tokenizer: PreTrainedTokenizerBase = encoder.tokenizer
    return list(dict.fromkeys(str(tokenizer.convert_ids_to_tokens(id)) for id in ids))


def _turn_notes(encoder: Encoder) -> list[str]:
    notes = []
    for messages, what in (([*PROBE, *PROBE], "more than one answer"), ([SYSTEM, *PROBE], "a system message")):
        try:
            encoder.encode(Example(messages=messages))
        except RowProblem as problem:
            notes.append(f"Rows with {what} cannot be used: {problem}.")
    return notes


def _first(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:300]
