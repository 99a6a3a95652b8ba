"""An earlier run's adapter as the start of another: what must agree; asked by Studio and, once more, by the worker."""

import json
from pathlib import Path

from ftapp.contract.config import AdapterConfig, RunConfig
from ftapp.contract.errors import JobError
from ftapp.store.jobs import Job
from ftapp.store.stored import StoredDatasets


def adapter_folder(earlier: Job) -> Path:
    """Where a run's finished adapter is; raises JobError."""
    folder = earlier.folder / "adapter"
    if not (folder / "adapter_config.json").is_file():
        raise JobError(
            f"{earlier.name} has no adapter to go on from.", "Choose a run that has finished with LoRA or QLoRA."
        )
    return folder


def lineage(config: RunConfig, runs: Path) -> list[Job]:
    """The runs in this folder whose training is in the adapter that a run goes on from, the nearest first."""
    found: list[Job] = []
    while config.model.adapter and (runs / config.model.adapter / "config.json").is_file():
        job = Job(runs / config.model.adapter)
        if job.name in [one.name for one in found]:
            break
        found.append(job)
        try:
            config = job.run_config()
        except JobError:  # of another version: nobody can tell what came before
            break
    return found


def measured_before(store: StoredDatasets, config: RunConfig, runs: Path) -> str:
    """What to know where a run measures on rows that its adapter was trained on before; empty if it does not."""
    earlier = [job.run_config() for job in lineage(config, runs) if job.unreadable is None]
    if not earlier:
        return ""
    count = store.trained_before(config.data, config.seed, [(one.data, one.seed) for one in earlier])
    if not count:
        return ""
    told = f"The adapter was trained on {count:,} of the held-out rows before: their loss says too little."
    splits = {(one.data.dataset, one.data.eval_dataset, one.data.eval_fraction, one.seed) for one in earlier}
    dataset, apart, share, seed = splits.pop()
    if splits or apart or not share or (config.data.dataset, config.data.eval_dataset) != (dataset, None):
        return f"{told} Choose a held-out dataset of other rows."
    return f"{told} Take its seed ({seed}) and held-out share ({share:g}), or a held-out dataset of other rows."


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
