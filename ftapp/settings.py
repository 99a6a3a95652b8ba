"""The environment, read once; the only module that reads it."""

import os
from dataclasses import dataclass
from pathlib import Path

from ftapp.contract.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    """Everything about this installation that is not about one run."""

    home: Path
    """`FTAPP_HOME`: where datasets and runs are kept; `~/ftapp` by default."""
    host: str
    """`FTAPP_HOST`: the address to listen on; 127.0.0.1 by default: this machine only."""
    port: int
    """`FTAPP_PORT`: the port; 7860 by default."""
    max_upload_bytes: int
    """`FTAPP_MAX_UPLOAD_MB`: largest file that may be uploaded; 2048 by default."""
    stop_grace_seconds: float
    """`FTAPP_STOP_GRACE`: how long a job may take to save after a stop before it is ended; 600 by default."""
    chat_idle_seconds: float
    """`FTAPP_CHAT_IDLE`: a chat unused for so long gives its memory back; 600 by default."""
    hub_token: str | None
    """`HF_TOKEN`: used to push and to load gated models when no other token is given."""
    max_unpacked_bytes: int = 16 * 2**30
    """`FTAPP_MAX_UNPACKED_MB`: most that a packed upload may unpack to; 16384 by default."""
    devices: int | None = None
    """`FTAPP_DEVICES`: processes per training, one for each GPU; by default all GPUs in CUDA_VISIBLE_DEVICES."""
    space_id: str | None = None
    """`SPACE_ID`: set by the Hub inside a Space; its hardware's price is looked up."""
    volume: Path | None = None
    """`FTAPP_VOLUME`: a mounted folder that outlives the disk; finished work is copied there and taken back."""
    sleep: int | None = None
    """`FTAPP_SLEEP`: seconds after which the Space sleeps when nothing is at work, as `deploy` set it; -1: never."""


def read_settings() -> Settings:
    """The settings of this process; raises ConfigError naming the variable that is wrong."""
    environ = os.environ
    home = environ.get("FTAPP_HOME") or "~/ftapp"
    try:
        folder = Path(home).expanduser().absolute()
    except RuntimeError:
        raise ConfigError(f"FTAPP_HOME is {home!r}: no such home.", "Set it to a folder's full path.") from None
    return Settings(
        home=folder,
        host=environ.get("FTAPP_HOST") or "127.0.0.1",
        port=int(_number("FTAPP_PORT", 7860, 0, 65535)),
        max_upload_bytes=int(_number("FTAPP_MAX_UPLOAD_MB", 2048, 1, 1_000_000) * 2**20),
        stop_grace_seconds=_number("FTAPP_STOP_GRACE", 600, 0, 86_400),
        chat_idle_seconds=_number("FTAPP_CHAT_IDLE", 600, 1, 86_400),
        hub_token=environ.get("HF_TOKEN", "").strip() or None,
        max_unpacked_bytes=int(_number("FTAPP_MAX_UNPACKED_MB", 16_384, 1, 10_000_000) * 2**20),
        devices=int(_number("FTAPP_DEVICES", 0, 0, 1024)) or None,
        space_id=environ.get("SPACE_ID") or None,
        volume=_mount(),
        sleep=int(_number("FTAPP_SLEEP", 0, -1, 31_536_000)) or None,
    )


def _mount() -> Path | None:
    text = os.environ.get("FTAPP_VOLUME")
    if text and not Path(text).is_absolute():
        raise ConfigError(f"FTAPP_VOLUME is {text!r}.", "Set it to a folder's full path, such as /data.")
    return Path(text) if text else None


def _number(name: str, default: float, least: float, most: float) -> float:
    text = os.environ.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise ConfigError(f"{name} is {text!r}.", f"Set it to a number from {least:g} to {most:g}.")
    return value
