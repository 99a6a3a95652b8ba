"""Which checkpoints were written whole, told from the ends and headers of their files; the worker and Studio ask."""

import json
import math
import struct
from pathlib import Path

ZIP_END = b"PK\x05\x06"
ZIP_END_BYTES = 22
"""Of a zip archive's end record without a comment (APPNOTE.TXT 4.3.16), which is how torch.save writes."""


def last_whole(folder: Path) -> Path | None:
    """The newest checkpoint that can be gone on from."""
    return next((path for path in all_checkpoints(folder) if is_whole(path)), None)


def all_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a run's folder for them, whole or not, the newest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.rsplit("-", 1)[1].isdecimal()]
    return sorted(found, key=step_of, reverse=True)


def step_of(checkpoint: Path) -> int:
    """The optimizer step after which it was written."""
    return int(checkpoint.name.rsplit("-", 1)[1])


def best_step(checkpoint: Path) -> int | None:
    """The step with the lowest held-out loss until then; None if nothing was measured. Of a whole checkpoint."""
    found = json.loads((checkpoint / "trainer_state.json").read_bytes()).get("best_global_step")
    return found if isinstance(found, int) else None


def is_whole(checkpoint: Path) -> bool:
    """Whether weights, optimizer and state are there, none of them cut short, and the last loss was a number."""
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_bytes())
        losses = [float(entry["loss"]) for entry in state["log_history"] if "loss" in entry]
        saved = [*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")]
        return (
            not (checkpoint / "checkpoint-is-incomplete.txt").exists()
            and state["global_step"] == step_of(checkpoint)
            and all(math.isfinite(loss) for loss in losses[-1:])
            and {"optimizer.pt", "scheduler.pt"} <= {path.name for path in saved}
            and all(_zip_is_whole(path) for path in saved)
            and _weights_are_whole(checkpoint)
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _weights_are_whole(checkpoint: Path) -> bool:
    index = checkpoint / "model.safetensors.index.json"
    if index.is_file():
        files = [checkpoint / name for name in set(json.loads(index.read_bytes())["weight_map"].values())]
    else:
        names = ("adapter_model.safetensors", "model.safetensors")
        files = [path for name in names if (path := checkpoint / name).is_file()]
    return bool(files) and all(_safetensors_is_whole(path) for path in files)


def _safetensors_is_whole(path: Path) -> bool:
    """Whether the file is as long as its header says (https://github.com/huggingface/safetensors#format)."""
    with path.open("rb") as file:
        [length] = struct.unpack("<Q", file.read(8).ljust(8, b"\xff"))
        if length > path.stat().st_size:
            return False
        header = json.loads(file.read(length))
    end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    return bool(path.stat().st_size == 8 + length + end)


def _zip_is_whole(path: Path) -> bool:
    """Whether the archive has its end record, and its directory lies where that says."""
    size = path.stat().st_size
    if size < ZIP_END_BYTES:
        return False
    with path.open("rb") as file:
        file.seek(-ZIP_END_BYTES, 2)
        end = file.read()
        if not end.startswith(ZIP_END):
            return False
        length, offset = struct.unpack("<II", end[12:20])
        if 0xFFFFFFFF in (length, offset):
            return True  # larger than 4 GiB: the zip64 record in front has the figures
        file.seek(offset)
        return offset + length <= size and file.read(4) == b"PK\x01\x02"
