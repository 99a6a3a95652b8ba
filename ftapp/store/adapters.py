"""An earlier run's adapter as the start of another: what must agree; asked by Studio and, once more, by the worker."""

import json
from pathlib import Path

from ftapp.contract.config import AdapterConfig, RunConfig
from ftapp.contract.errors import JobError
from ftapp.store.jobs import Job


def adapter_folder(earlier: Job) -> Path:
    """Where a run's finished adapter is; raises JobError."""
    folder = earlier.folder / "adapter"
    if not (folder / "adapter_config.json").is_file():
        raise JobError(
            f"{earlier.name} has no adapter to go on from.", "Choose a run that has finished with LoRA or QLoRA."
        )
    return folder


def disagreements(config: RunConfig, earlier: Job) -> dict[str, str]:
    """Dotted field name → why a run cannot go on from the earlier one's adapter as it says; raises JobError."""
    saved = json.loads((adapter_folder(earlier) / "adapter_config.json").read_text())
    before, method = earlier.run_config(), config.method
    if not isinstance(method, AdapterConfig) or not isinstance(before.method, AdapterConfig):
        return {"model.adapter": "only LoRA and QLoRA have an adapter to go on from"}
    problems: dict[str, str] = {}
    if config.model.id != before.model.id:
        problems["model.id"] = f"{earlier.name} trained its adapter on {before.model.id}: choose that model"
    pairs = {
        "rank": (method.rank, saved["r"]),
        "alpha": (method.alpha, float(saved["lora_alpha"])),
        "target_modules": (method.target_modules, before.method.target_modules),
        "rslora": (method.rslora, bool(saved.get("use_rslora"))),
        "dora": (method.dora, bool(saved.get("use_dora"))),
    }
    for name, (wanted, there) in pairs.items():
        if wanted != there:
            shown = (
                str(there).lower() if isinstance(there, bool) else f"{there:g}" if isinstance(there, float) else there
            )
            problems[f"method.{name}"] = f"must be {shown}, as in the adapter of {earlier.name}"
    return problems


def pinned_revision(earlier: Job) -> str | None:
    """The commit of the base that the earlier run trained on."""
    resolved = earlier.refresh().resolved
    revision = resolved.values.get("model.revision") if resolved else None
    return revision if isinstance(revision, str) else earlier.run_config().model.revision
