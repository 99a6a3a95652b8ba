"""Where a model's files are, what they say of themselves, and what they may tell of this machine; no torch."""

import io
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi, ModelCard, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from tqdm import tqdm

from ftapp.contract import events as ev
from ftapp.contract.config import ModelConfig
from ftapp.contract.errors import ModelError
from ftapp.contract.models import licence_of
from ftapp.hub_errors import told

DEMO_MODEL = Path(__file__).parents[1] / "demo" / "model"
WEIGHTS = "*.safetensors"
MODEL_FILES = ["*.json", WEIGHTS, "*.jinja", "*.model", "*.txt", "LICENSE*", "NOTICE*"]
FILES = [*MODEL_FILES, "README.md"]
NOT_FILES = ["original/*", "onnx/*", "openvino/*", "consolidated*", "*.msgpack"]
TOLD_SECONDS = 1.0
"""Between two words of how far a download is."""

Say = Callable[[ev.Phase], None]


def find_files(model: ModelConfig, token: str | None, say: Say, weights: bool = True) -> tuple[Path, str | None]:
    """The model's folder on this machine and, for a Hub model, its commit; downloads what is missing."""
    if model.id == "demo":
        return DEMO_MODEL, None
    folder = Path(model.id)
    if folder.is_absolute():
        if not (folder / "config.json").is_file():
            raise ModelError(f"{folder} is not a model's folder.", "It needs config.json and .safetensors files.")
        return folder, None
    say(ev.Phase(name="downloading"))
    with told(model.id):
        _refuse_hidden(model.id, token)
        found = Path(
            snapshot_download(
                model.id,
                revision=model.revision,
                token=token or False,
                allow_patterns=FILES if weights else [name for name in FILES if name != WEIGHTS],
                ignore_patterns=NOT_FILES,
                tqdm_class=_telling(say),
            )
        )
    return found, found.name


def _telling(say: Say) -> type:
    """A progress bar for the Hub's library that says how many bytes are on the disk instead of drawing itself."""

    telling = threading.Lock()

    class Telling(tqdm):  # type: ignore[misc]
        last = 0.0

        def __init__(self, *arguments: Any, **options: Any) -> None:
            self.of_bytes = str(options.get("desc", "")).startswith("Reconstructing")
            super().__init__(*arguments, **options | {"file": io.StringIO(), "disable": False})

        def display(self, *_: Any, **__: Any) -> None:
            """Nothing is drawn."""

        def update(self, n: float | None = 1) -> bool | None:
            with telling:  # several files are fetched at once
                drawn: bool | None = super().update(n)
                if self.of_bytes and self.total and time.monotonic() - Telling.last > TOLD_SECONDS:
                    Telling.last = time.monotonic()
                    say(ev.Phase(name="downloading", done=int(self.n), total=int(self.total), unit="bytes"))
            return drawn

    return Telling


def _refuse_hidden(id: str, token: str | None) -> None:
    """Raise what the Hub says if this token may not read the model: somebody else's may have put it into the cache."""
    try:
        HfApi(token=token or False).auth_check(id)
    except HfHubHTTPError as error:
        if error.response is None or error.response.status_code not in (401, 403, 404):
            return
        if token is None:
            raise
        _refuse_hidden(id, None)  # a token that is over takes nothing away that is everybody's
    except (OSError, httpx2.TransportError):
        pass  # without the Hub, what was downloaded before does


def licence(folder: Path) -> str | None:
    """The licence that the model's own card names, if any."""
    try:
        return licence_of(ModelCard.load(folder / "README.md", ignore_metadata_errors=True).data)
    except (OSError, ValueError):
        return None


def name_base(path: Path, model: ModelConfig, revision: str | None) -> None:
    """Write the base's public name and commit into a saved config, where the libraries left the path it came from."""
    config = json.loads(path.read_text())
    if "_name_or_path" in config:
        config["_name_or_path"] = model.public_name
    if "base_model_name_or_path" in config:
        config |= {"base_model_name_or_path": model.public_name, "revision": revision}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
