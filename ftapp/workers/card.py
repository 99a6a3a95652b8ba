"""Config + events → model card: only what is known, nothing that flatters."""

import re
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from ftapp.contract import events as ev
from ftapp.contract.config import AdapterConfig, PublishConfig, RunConfig
from ftapp.contract.report import DatasetRecord, Edit
from ftapp.store.jobs import Job, JobState

METHODS = {"lora": "LoRA", "qlora": "QLoRA (NF4, double quantisation)", "full": "full fine-tuning"}

LEFT_OUT: dict[Edit, str] = {
    "drop_short": "having a very short answer",
    "drop_duplicates": "repeating another row",
    "drop_near_duplicates": "being almost another row",
}

CHANGED: dict[Edit, str] = {
    "drop_trailing": "the turns after the last answer were dropped",
    "merge_turns": "turns of one role in a row were merged",
    "fold_system": "the system text was put in front of the first user turn",
}


def write_card(folder: Path, run: Job, publication: PublishConfig) -> None:
    """README.md for the artifact in `folder`, from the run's config and events alone."""
    config, state = run.run_config(), run.refresh()
    (folder / "README.md").write_text(card(config, state, publication, run.dataset()), encoding="utf-8")


def card(config: RunConfig, state: JobState, publication: PublishConfig, dataset: DatasetRecord | None = None) -> str:
    """The model card's text, with its metadata in front."""
    adapter = publication.artifact == "adapter"
    base, on_hub = config.model.public_name, config.model.on_hub
    title = publication.destination.split("/")[1] if publication.destination else f"{base}, fine-tuned"
    resolved: dict[str, Any] = state.resolved.values if state.resolved else {}
    data = ModelCardData(
        base_model=base if on_hub else None,
        base_model_relation=("adapter" if adapter else "finetune") if on_hub else None,
        library_name="peft" if adapter else "transformers",
        license=_licence_id(resolved.get("model.licence")),
        pipeline_tag="text-generation",
        tags=["ftapp", config.method.type, "trl", "sft"],
    )
    parts = [
        f"# {_plain(title)}",
        _what(config, resolved, adapter, base, on_hub),
        "## Data\n\n" + _data(config, state, dataset),
        "## Training\n\n" + _table(_hyperparameters(config, resolved)),
        "## Results\n\n" + _results(state),
        "## How to load it\n\n" + _loading(publication, base, on_hub),
        "## Made with\n\n" + _versions(state),
    ]
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"))


def _what(config: RunConfig, resolved: dict[str, Any], adapter: bool, base: str, on_hub: bool) -> str:
    link = f"[{base}](https://huggingface.co/{base})" if on_hub else f"`{base}`"
    revision = f" at revision `{resolved['model.revision']}`" if resolved.get("model.revision") else ""
    kind = "A LoRA adapter for" if adapter else "A fine-tuned version of"
    text = f"{kind} {link}{revision}, trained with {METHODS[config.method.type]}."
    licence = resolved.get("model.licence")
    text += f" The base's licence is {_plain(licence)}." if licence else " The base's card names no licence."
    if not on_hub:
        text += " The base is not on the Hub" + (": without it this adapter cannot be used." if adapter else ".")
    return text


def _data(config: RunConfig, state: JobState, dataset: DatasetRecord | None) -> str:
    resolved = state.resolved
    text = f"Dataset `{_plain(Path(config.data.dataset).name)}`"
    if dataset and dataset.source:
        text += f" from `{_plain(dataset.source.id)}` at revision `{dataset.source.revision}`"
    if dataset:
        text += f" ({dataset.rows} rows"
        text += f", {dataset.problems} left out because they could not be used" if dataset.problems else ""
        for edit, count in dataset.left_out.items():
            text += f", {count} left out as {LEFT_OUT[edit]}"
        text += ")"
    if resolved is None:
        return text + "."
    other = config.data.eval_dataset
    measured = f"rows of `{_plain(other)}` to measure on" if other else "held out"
    text += f": {resolved.train_rows} rows for training, {resolved.eval_rows} {measured}"
    if resolved.left_out_rows:
        text += f", {resolved.left_out_rows} left out because they are longer than the maximum length"
    text += f"; {resolved.train_tokens} tokens an epoch. The loss counts the answers only."
    changes = [words for edit, words in CHANGED.items() if dataset and edit in dataset.edits]
    return text + (f" Changed before training: {', '.join(changes)}." if changes else "")


def _hyperparameters(config: RunConfig, resolved: dict[str, Any]) -> dict[str, Any]:
    method = config.method
    rows: dict[str, Any] = {"method": METHODS[method.type]}
    if isinstance(method, AdapterConfig):
        rows |= {
            "rank": method.rank,
            "alpha": f"{method.alpha:g}",
            "dropout": method.dropout,
            "target modules": method.target_modules,
        }
    return rows | {
        "learning rate": resolved.get("optim.learning_rate", config.optim.learning_rate),
        "schedule": config.optim.lr_scheduler_type,
        "warm-up share": config.optim.warmup_fraction,
        "weight decay": config.optim.weight_decay,
        "batch size": config.batch.effective_size,
        "micro-batch size": resolved.get("batch.micro_size", config.batch.micro_size),
        "epochs": f"{config.duration.epochs:g}",
        "maximum length": resolved.get("data.max_length", config.data.max_length),
        "seed": config.seed,
        "precision of the base": "4 bit" if method.type == "qlora" else resolved.get("dtype", "unknown"),
        "device": resolved.get("device", "unknown"),
    }


def _results(state: JobState) -> str:
    rows: dict[str, Any] = {}
    if state.metrics:
        last = state.metrics[-1]
        rows |= {"steps": last.step, "last training loss": f"{last.loss:.4f}"}
    if state.evaluations:
        kept = state.evaluations[-1]
        if isinstance(state.end, ev.Finished) and state.end.best_step is not None:
            kept = next((e for e in state.evaluations if e.step == state.end.best_step), kept)
        rows |= {
            "held-out loss, first measured": f"{state.evaluations[0].loss:.4f}",
            "held-out loss of these weights": f"{kept.loss:.4f} (step {kept.step}, {kept.tokens} answer tokens)",
            "perplexity": f"{kept.perplexity:.3f}",
        }
    text = _table(rows) if rows else "Nothing was measured."
    if isinstance(state.end, ev.Stopped):
        text += "\n\nThe run was stopped before its planned end."
    return text + "\n\nNo benchmark was run; the figures speak of this dataset only."


def _loading(publication: PublishConfig, base: str, on_hub: bool) -> str:
    name = publication.destination or "path/to/this/folder"
    if publication.artifact == "merged":
        code = (
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f'model = AutoModelForCausalLM.from_pretrained("{name}", dtype="auto")\n'
            f'tokenizer = AutoTokenizer.from_pretrained("{name}")'
        )
    else:
        source = base if on_hub else "path/to/the/base"
        code = (
            "from peft import PeftModel\n"
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f'base = AutoModelForCausalLM.from_pretrained("{source}", dtype="auto")\n'
            f'model = PeftModel.from_pretrained(base, "{name}")\n'
            f'tokenizer = AutoTokenizer.from_pretrained("{name}")'
        )
    return f"```python\n{code}\n```"


def _versions(state: JobState) -> str:
    versions = state.started.versions if state.started else {}
    return ", ".join(["ftapp", *(f"{name} {version}" for name, version in versions.items())]) + "."


def _table(rows: dict[str, Any]) -> str:
    body = "\n".join(f"| {name} | {_plain(value)} |" for name, value in rows.items())
    return f"| | |\n|---|---|\n{body}"


def _plain(value: Any) -> str:
    """Text from people, with nothing in it that Markdown or HTML would act on."""
    return re.sub(r"([\\`*_{}\[\]()#+!|<>&~$])", r"\\\1", " ".join(str(value).split()))


def _licence_id(named: Any) -> str | None:
    return named if isinstance(named, str) and re.fullmatch(r"[a-z0-9.+-]+", named) else None
