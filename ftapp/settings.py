"""The environment, read once; the only module that reads it."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from ftapp.contract.errors import ConfigError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PROVIDER = "https://huggingface.co"
SCOPES = "openid profile"


@dataclass(frozen=True)
class SignIn:
    """Sign-in with Hugging Face, as the Hub sets it up for a Space whose README says `hf_oauth: true`."""

    client_id: str
    """`OAUTH_CLIENT_ID`."""
    client_secret: str = field(repr=False)
    """`OAUTH_CLIENT_SECRET`."""
    scopes: str
    """`OAUTH_SCOPES`: what a signed-in person's token may do."""
    provider: str
    """`OPENID_PROVIDER_URL`: whose accounts they are; https://huggingface.co by default."""
    address: str | None
    """`SPACE_HOST`: where the app is reached, by https; whatever was asked for if it is not set."""
    allowed: tuple[str, ...]
    """`SPACE_AUTHOR_NAME` and `FTAPP_ALLOWED`: users and organisations that are let in; all others may only look."""


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
    hub_token: str | None = field(repr=False)
    """`HF_TOKEN`: used to push and to load gated models when no other token is given."""
    max_unpacked_bytes: int = 16 * 2**30
    """`FTAPP_MAX_UNPACKED_MB`: most that a packed upload may unpack to; 16384 by default."""
    devices: int | None = None
    """`FTAPP_DEVICES`: processes per training, one for each GPU; by default all GPUs in CUDA_VISIBLE_DEVICES."""
    space_id: str | None = None
    """`SPACE_ID`: set by the Hub inside a Space; its hardware's price is looked up."""
    llama_cpp: Path | None = None
    """`FTAPP_LLAMA_CPP`: the folder of a llama.cpp of one's own; with it the app makes GGUF files."""
    user: str = "ftapp"
    """`FTAPP_USER`: whom the password lets in; ftapp by default."""
    password: str | None = field(default=None, repr=False)
    """`FTAPP_PASSWORD`: needed to listen on any other address than this machine's own."""
    sign_in: SignIn | None = None
    """Set where people sign in with Hugging Face, each to a place of their own: in a Space."""
    max_rows: int | None = None
    """`FTAPP_MAX_ROWS`: most rows of a dataset; no limit by default, 2000000 with sign-in."""
    max_disk_bytes: int | None = None
    """`FTAPP_MAX_DISK_MB`: most that a person's datasets and runs take; no limit by default, 20480 with sign-in."""
    max_run_seconds: float | None = None
    """`FTAPP_MAX_RUN_HOURS`: a run at work for so long is stopped and saved; no limit by default, 24 with sign-in."""
    max_runs: int | None = None
    """`FTAPP_MAX_RUNS`: one person's runs in the queue and at work; no limit by default, 5 with sign-in."""
    max_requests: int | None = None
    """`FTAPP_MAX_REQUESTS`: one person's requests in a minute; no limit by default, 1200 with sign-in."""
    volume: Path | None = None
    """`FTAPP_VOLUME`: a mounted folder that outlives the disk; finished work is copied there and taken back."""
    sleep: int | None = None
    """`FTAPP_SLEEP`: seconds after which the Space sleeps when nothing is at work, as `deploy` set it; -1: never."""

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in LOOPBACK


def read_settings() -> Settings:
    """The settings of this process; raises ConfigError naming the variable that is wrong."""
    environ = os.environ
    home = environ.get("FTAPP_HOME") or "~/ftapp"
    try:
        folder = Path(home).expanduser().absolute()
    except RuntimeError:
        raise ConfigError(f"FTAPP_HOME is {home!r}: no such home.", "Set it to a folder's full path.") from None
    sign_in = _sign_in()
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
        llama_cpp=read_llama_cpp(),
        user=environ.get("FTAPP_USER") or "ftapp",
        password=environ.get("FTAPP_PASSWORD") or None,
        sign_in=sign_in,
        max_rows=_limit("FTAPP_MAX_ROWS", 2_000_000 if sign_in else None),
        max_disk_bytes=_limit("FTAPP_MAX_DISK_MB", 20_480 if sign_in else None, 2**20),
        max_run_seconds=_limit("FTAPP_MAX_RUN_HOURS", 24 if sign_in else None, 3600),
        max_runs=_limit("FTAPP_MAX_RUNS", 5 if sign_in else None),
        max_requests=_limit("FTAPP_MAX_REQUESTS", 1200 if sign_in else None),
        volume=_mount(),
        sleep=int(_number("FTAPP_SLEEP", 0, -1, 31_536_000)) or None,
    )


def _mount() -> Path | None:
    text = os.environ.get("FTAPP_VOLUME")
    if text and not Path(text).is_absolute():
        raise ConfigError(f"FTAPP_VOLUME is {text!r}.", "Set it to a folder's full path, such as /data.")
    return Path(text) if text else None


def read_llama_cpp() -> Path | None:
    """The folder of a llama.cpp, for a worker, too; raises ConfigError if it is none."""
    named = os.environ.get("FTAPP_LLAMA_CPP")
    if not named:
        return None
    try:
        folder = Path(named).expanduser().absolute()
    except RuntimeError:  # ~ of somebody who is not there
        folder = Path(named)
    if not (folder / "convert_hf_to_gguf.py").is_file():
        raise ConfigError(
            f"FTAPP_LLAMA_CPP is {named!r}: there is no convert_hf_to_gguf.py in it.",
            "Set it to a folder of llama.cpp (git clone https://github.com/ggml-org/llama.cpp), or leave it out.",
        )
    return folder


def _sign_in() -> SignIn | None:
    """How people sign in, if this is a Space or a client of the provider's was named."""
    environ = os.environ
    client, secret = environ.get("OAUTH_CLIENT_ID"), environ.get("OAUTH_CLIENT_SECRET")
    if not (environ.get("SPACE_ID") or client):
        return None
    if not (client and secret):
        missing = "OAUTH_CLIENT_SECRET" if client else "OAUTH_CLIENT_ID"
        raise ConfigError(
            f"{missing} is not set: nobody could sign in, and without sign-in this would be open to everybody.",
            "In a Space write `hf_oauth: true` into the front matter of its README.md; the Hub then sets it.",
        )
    allowed = [environ.get("SPACE_AUTHOR_NAME", ""), *environ.get("FTAPP_ALLOWED", "").split(",")]
    return SignIn(
        client_id=client,
        client_secret=secret,
        scopes=environ.get("OAUTH_SCOPES") or SCOPES,
        provider=(environ.get("OPENID_PROVIDER_URL") or PROVIDER).rstrip("/"),
        address=environ.get("SPACE_HOST", "").split(",")[0].strip() or None,
        allowed=tuple(name.strip() for name in allowed if name.strip()),
    )


def _limit(name: str, default: float | None, unit: int = 1) -> int | None:
    """A number of units; 0 takes the limit away."""
    number = _number(name, default or 0, 0, 1_000_000_000)
    return int(number * unit) or None


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
