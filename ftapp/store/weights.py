"""The headers of safetensors files on this machine: names and shapes, without reading a weight."""

from pathlib import Path

import orjson

from ftapp.contract.errors import ModelError


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name → shape of every tensor in the folder's safetensors files; raises ModelError if there are none."""
    shapes: dict[str, tuple[int, ...]] = {}
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
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{path} is not a readable safetensors file: {error}.", "Download it again.") from None
    if not shapes:
        raise ModelError(
            f"{folder} has no .safetensors files.", "Choose a folder with config.json and model.safetensors."
        )
    return shapes
