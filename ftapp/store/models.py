"""The files of a model in a folder on this machine: names, sizes, parameters, the card's licence."""

from math import prod
from pathlib import Path

from huggingface_hub import ModelCard

from ftapp.contract.errors import ModelError
from ftapp.contract.models import ModelFiles, licence_of
from ftapp.store.weights import tensors


def model_files(folder: Path) -> ModelFiles:
    """What is in the folder; raises ModelError if it is none or its weights are broken."""
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a model's folder.", "It needs config.json and .safetensors files.")
    sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    files = ModelFiles(sizes=sizes, licence=_licence(folder))
    if not files.weights:
        return files
    return files.model_copy(update={"parameters": sum(prod(shape) for shape in tensors(folder)[0].values())})


def changed(folder: Path) -> int:
    """When its config, tokenizer or template changed last, nanoseconds since the epoch."""
    kinds = ("*.json", "*.jinja", "*.model", "*.txt")
    return max((path.stat().st_mtime_ns for kind in kinds for path in folder.glob(kind)), default=0)


def _licence(folder: Path) -> str | None:
    try:
        return licence_of(ModelCard.load(folder / "README.md", ignore_metadata_errors=True).data)
    except (OSError, ValueError):
        return None
