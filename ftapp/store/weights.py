"""A model's files on this machine: names, shapes and sizes of its tensors, without reading a weight."""

import hashlib
from pathlib import Path

import orjson

from ftapp.contract.errors import ModelError
from ftapp.contract.memory import Model, read_model

MAX_HEADER = 100 * 2**20
"""Bytes; the format allows no more."""
SAMPLES, SAMPLE_BYTES = 64, 4096
"""Of each file of weights, what is read to know it again: so many blocks spread evenly, each of so many bytes."""


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers loads a model's weights from; others may lie beside them."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    try:
        return sorted(folder / name for name in set(orjson.loads(index.read_bytes())["weight_map"].values()))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return sorted(folder.glob("*.safetensors"))


def fingerprint(folder: Path) -> str:
    """SHA-256 of the names and sizes of a model's weights, of their headers and samples: other weights give another.

    A change of a few weights in a large file may escape it; to read all of them would take as long as loading them.
    """
    digest = hashlib.sha256()
    for path in weight_files(folder):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
            digest.update(file.read(min(header, MAX_HEADER)))
            for number in range(SAMPLES):
                file.seek(8 + header + (size - 8 - header) * number // SAMPLES)
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def model_in(folder: Path) -> Model:
    """What the headers and config.json in a folder say about its model; raises ModelError."""
    try:
        config = orjson.loads((folder / "config.json").read_bytes())
        if not isinstance(config, dict):
            raise ValueError("it is not an object")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder / 'config.json'} cannot be read: {error}.", "A model's folder needs config.json and weights."
        ) from None
    shapes, stored = tensors(folder)
    return read_model(shapes, stored, config)


def tensors(folder: Path) -> tuple[dict[str, tuple[int, ...]], int]:
    """Name → shape of every tensor in the folder's safetensors files, and their bytes; raises ModelError if none."""
    shapes: dict[str, tuple[int, ...]] = {}
    stored = 0
    for path in weight_files(folder):
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                if not 0 < length <= MAX_HEADER:
                    raise ValueError("its header is missing or too long")
                header = orjson.loads(file.read(length))
            for name, tensor in header.items():
                if name != "__metadata__":
                    shapes[name] = tuple(tensor["shape"])
                    stored += tensor["data_offsets"][1] - tensor["data_offsets"][0]
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise ModelError(f"{path} is not a readable safetensors file: {error}.", "Download it again.") from None
    if not shapes:
        raise ModelError(
            f"{folder} has no .safetensors files.", "Choose a folder with config.json and model.safetensors."
        )
    return shapes, stored
