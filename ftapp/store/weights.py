"""A model's files on this machine: names, shapes and sizes of its tensors, without reading a weight."""

from pathlib import Path

import orjson

from ftapp.contract.errors import ModelError
from ftapp.contract.memory import Model, read_model


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
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                if not 0 < length <= 100 * 2**20:
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
