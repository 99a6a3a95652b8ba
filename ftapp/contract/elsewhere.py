"""How a published result is used by other programs: the exact commands for vLLM, llama.cpp and Ollama."""

import re
import shlex

from ftapp.contract.config import AdapterConfig, FullConfig, RunConfig
from ftapp.contract.publication import PublishConfig

VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""That vLLM's --max-lora-rank takes; 16 is its default."""


def with_vllm(config: RunConfig, publication: PublishConfig, folder: str = "") -> str:
    """The command that serves it by vLLM, from `folder` or from the Hub; empty if vLLM does not take it."""
    place = folder or publication.destination or "path/to/this/folder"
    at = f" --revision {publication.branch}" if publication.branch and not folder else ""
    method = config.method
    if publication.artifact == "merged" or isinstance(method, FullConfig):
        return f"vllm serve {shlex.quote(place)}{at}"
    rank = _saved_rank(method)
    if method.dora or rank > VLLM_RANKS[-1] or at:
        return ""
    base = config.model.id if config.model.on_hub else "path/to/the/base"
    if publication.with_base and folder:
        base = f"{folder}/base"
    most = next(one for one in VLLM_RANKS if one >= rank)
    module = f"{short_name(publication)}={place}"
    return f"vllm serve {shlex.quote(base)} --enable-lora --max-lora-rank {most} --lora-modules {shlex.quote(module)}"


def with_ollama(publication: PublishConfig, folder: str) -> str:
    """The commands that run a folder's GGUF file by llama.cpp or Ollama; first those that make it of a merged model."""
    name = short_name(publication)
    file, make = f"./{name}.gguf", _conversion(folder, f"{name}.gguf")
    if publication.artifact == "gguf":
        file, make = f"{folder}/{gguf_file(publication)}", []
    return "\n".join(
        [
            *make,
            "# llama.cpp's own server takes the model's own chat template:",
            f"llama-server -m {shlex.quote(file)} --jinja",
            "# Ollama takes it where it knows it; else write a TEMPLATE into the Modelfile:",
            f"echo {shlex.quote(f'FROM {file}')} > Modelfile",
            f"ollama create {name} -f Modelfile",
            f"ollama run {name}",
        ]
    )


def _conversion(folder: str, file: str) -> list[str]:
    return [
        "git clone --depth 1 https://github.com/ggml-org/llama.cpp",
        "python -m pip install -r llama.cpp/requirements/requirements-convert_hf_to_gguf.txt",
        f"python llama.cpp/convert_hf_to_gguf.py {shlex.quote(folder)} --outfile {file} --outtype q8_0",
    ]


def gguf_file(publication: PublishConfig) -> str:
    """What the file of such a publication is called."""
    return f"{short_name(publication)}-{publication.gguf_type}.gguf"


def short_name(publication: PublishConfig) -> str:
    """What the model is called where only plain names are allowed."""
    name = (publication.destination or publication.run).split("/")[-1].lower()
    return re.sub(r"[^a-z0-9.-]+", "-", name).strip("-.") or "tuned"


def _saved_rank(method: AdapterConfig) -> int:
    # an adapter that started from the base's own weights is saved with twice its rank
    return 2 * method.rank if method.init in ("pissa", "olora") else method.rank
