"""What a trained model's own files say of how it is asked: its generation config and its chat template; no torch."""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from ftapp.contract.chat import THINKING, Sampling

LIBRARY_TOP_K = 50
"""What transformers takes when it samples and the model does not say (GenerationConfig's defaults)."""


def own_sampling(folders: Sequence[Path]) -> Sampling:
    """By the first generation_config.json in these folders; greedy where none of them, or none that can be used."""
    try:
        said = json.loads(_first(folders, "generation_config.json") or "{}")
        values = {
            "max_new_tokens": said.get("max_new_tokens"),
            "repetition_penalty": said.get("repetition_penalty"),
        }
        if said.get("do_sample"):
            values |= {name: said.get(name) for name in ("temperature", "top_p")}
            values |= {"temperature": said.get("temperature") or 1.0, "top_k": said.get("top_k", LIBRARY_TOP_K)}
        return Sampling.model_validate({name: value for name, value in values.items() if value is not None})
    except (ValidationError, ValueError, AttributeError):
        return Sampling()


def knows_thinking(folders: Sequence[Path]) -> bool:
    """Whether the first chat template in these folders can be told to think or not."""
    return THINKING in _first(folders, "chat_template.jinja")


def _first(folders: Sequence[Path], name: str) -> str:
    for folder in folders:
        try:
            return (folder / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
    return ""
