"""Safetensors files by pieces, in and out, without mapping them: what is in memory is what was asked for."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ftapp.contract.errors import ModelError

PIECE = 16 * 2**20
"""Bytes read at once where nothing is computed."""
LONGEST_HEADER = 100 * 2**20
"""As safetensors has it."""

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Those that can be added to."""


class Shard:
    """One safetensors file, read by rows of its tensors. Raises ModelError where it is no whole one.

    The format: eight bytes with the header's length, the header as JSON, then the tensors' bytes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        size = path.stat().st_size
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                if not 0 < length <= min(size, LONGEST_HEADER):
                    raise ValueError("no header")
                self.header: dict[str, Any] = json.loads(file.read(length))
            self.header.pop("__metadata__", None)
            self.start = 8 + length
            ends = [entry["data_offsets"][1] for entry in self.header.values()]
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ModelError(f"{path.name} is not a safetensors file: {error}.", "Download it again.") from None
        if size != self.start + max(ends, default=0):
            raise ModelError(f"{path.name} is not as long as its header says.", "Download it again.")

    def names(self) -> list[str]:
        """In the order of the file."""
        return sorted(self.header, key=lambda name: self.header[name]["data_offsets"][0])

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor."""
        return tuple(self.header[name]["shape"])

    def size(self, name: str) -> int:
        """A tensor's bytes."""
        begin, end = self.header[name]["data_offsets"]
        return int(end - begin)

    def dtype(self, name: str) -> torch.dtype | None:
        """Of a tensor; None if nothing can be added to it."""
        return DTYPES.get(self.header[name]["dtype"])

    def rows(self, name: str, first: int = 0, end: int | None = None) -> torch.Tensor:
        """Some rows of a tensor, all by default."""
        shape, dtype = self.shape(name), self.dtype(name)
        if dtype is None:
            raise ModelError(f"{name} is stored as {self.header[name]['dtype']}.", "Choose a base in 16 or 32 bit.")
        count = shape[0] if shape else 1
        end = count if end is None else end
        width = self.size(name) // max(1, count)
        data = bytearray((end - first) * width)
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.start + self.header[name]["data_offsets"][0] + first * width)
            if data and file.readinto(data) != len(data):
                raise ModelError(f"{self.path.name} became shorter while it was read.", "Download it again.")
        flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return flat.reshape((end - first, *shape[1:]) if shape else ())

    def copy(self, name: str, target: BinaryIO) -> Iterator[int]:
        """Write a tensor's bytes as they are; yields how many, piece by piece."""
        left = self.size(name)
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.start + self.header[name]["data_offsets"][0])
            while left:
                data = file.read(min(left, PIECE))
                if not data:
                    raise ModelError(f"{self.path.name} became shorter while it was read.", "Download it again.")
                target.write(data)
                left -= len(data)
                yield len(data)

    def head(self) -> bytes:
        """All before the tensors' bytes."""
        with self.path.open("rb") as file:
            return file.read(self.start)


def to_bytes(tensor: torch.Tensor) -> memoryview:
    """A tensor's bytes, as a file has them."""
    return tensor.contiguous().flatten().view(torch.uint8).numpy().data
