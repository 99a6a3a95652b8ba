"""Config + events → model card: only what is known, nothing that flatters; Studio shows it, the worker writes it."""

import math
import re
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from ftapp.contract import events as ev
from ftapp.contract.config import AdapterConfig, RunConfig
from ftapp.contract.elsewhere import with_vllm
from ftapp.contract.evaluation import EvaluationReport
from ftapp.contract.findings import card_lines, card_metrics, plain
from ftapp.contract.publication import PublishConfig
from ftapp.contract.refusals import refusal
from ftapp.contract.report import DatasetRecord, Edit
from ftapp.contract.state import JobState
from ftapp.store.evaluations import newest_report
from ftapp.store.jobs import Job

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


CHECK_PLACE = "<!-- What the check of the merged model finds is put here. -->"
PICTURE = "loss.png"


def card_of(run: Job, publication: PublishConfig, verified: ev.Verified | None = None) -> str:
    """The card of a run's artifact as it would be published; `verified` is what the merged model's check found."""
    return card(run.run_config(), run.refresh(), publication, run.dataset(), newest_report(run), verified)


def final(text: str, verified: ev.Verified | None) -> str:
    """A card as it is pushed: what the check found is in its place."""
    return text.replace(CHECK_PLACE, _check(verified) if verified else "")


def check_card(text: str) -> None:
    """Raises ConfigError if the Hub could not read the metadata in front of an edited card."""
    found = re.match(r"---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|$)", text, re.DOTALL)
    try:
        if not found:
            raise ValueError("it must begin with metadata between two lines of ---")
        if not isinstance(yaml.safe_load(found[1]), dict):
            raise ValueError("the metadata must be names with values")
    except (ValueError, yaml.YAMLError) as error:
        words = " ".join(str(error).split())[:200]
        raise refusal({"card": f"has metadata that cannot be read: {words}"}) from None


def card(
    config: RunConfig,
    state: JobState,
    publication: PublishConfig,
    dataset: DatasetRecord | None = None,
    evaluation: EvaluationReport | None = None,
    verified: ev.Verified | None = None,
) -> str:
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
        datasets=[dataset.source.id] if dataset and dataset.source else None,
        pipeline_tag="text-generation",
        tags=["ftapp", config.method.type, "trl", "sft"],
        model_name=title,
        eval_results=_metrics(state, dataset, evaluation, config),
    )
    merged = config.method.type != "full" and not adapter
    parts = [
        f"# {plain(title)}",
        _what(config, resolved, publication, base, on_hub),
        "## Data\n\n" + _data(config, state, dataset),
        "## Training\n\n" + _table(_hyperparameters(config, resolved)),
        "## Results\n\n" + _results(state, evaluation),
        *(["## Checked before publishing\n\n" + (_check(verified) if verified else CHECK_PLACE)] if merged else []),
        "## How to load it\n\n" + _loading(config, publication, base, on_hub),
        "## Made with\n\n" + _versions(state),
    ]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"


def _metrics(
    state: JobState, dataset: DatasetRecord | None, evaluation: EvaluationReport | None, config: RunConfig
) -> list[EvalResult] | None:
    """For the Hub's model-index: an evaluation's figures, else the last held-out loss."""
    kept = _kept(state)
    found = card_metrics(evaluation) if evaluation else []
    if not found and kept and math.isfinite(kept.loss):
        found = [{"type": "loss", "name": "Held-out loss (nats a token)", "value": round(kept.loss, 4)}]
    name = Path(config.data.eval_dataset or config.data.dataset).name
    source = dataset.source.id if dataset and dataset.source and not config.data.eval_dataset else None
    return [
        EvalResult(
            task_type="text-generation",
            task_name="Text generation",
            dataset_type=source or "custom",
            dataset_name=f"{source or name} (held out)",
            metric_type=one["type"],
            metric_name=one["name"],
            metric_value=one["value"],
        )
        for one in found
    ] or None


def _kept(state: JobState) -> ev.Evaluation | None:
    """The measurement of the weights that were kept."""
    if not state.evaluations:
        return None
    if isinstance(state.end, ev.Finished | ev.Stopped) and state.end.best_step is not None:
        best = state.end.best_step
        return next((one for one in state.evaluations if one.step == best), state.evaluations[-1])
    return state.evaluations[-1]


def _check(verified: ev.Verified) -> str:
    whose = "held-out" if verified.held_out else "other"
    return (
        "The merged model was written, loaded again from its files and compared with base + adapter, both in "
        f"{verified.precision}:\n\n"
        + _table(
            {
                f"same likeliest token, {verified.positions} places in {verified.rows} {whose} rows": (
                    f"{100 * verified.top1:.2f} %"
                ),
                "mean KL divergence, nats a token": f"{verified.divergence:.2e}",
                "for comparison: base + adapter against the base alone": f"{verified.change:.2e}",
                "same greedy answers": f"{verified.same_answers} of {verified.answers}",
            }
        )
    )


def _what(config: RunConfig, resolved: dict[str, Any], publication: PublishConfig, base: str, on_hub: bool) -> str:
    adapter = publication.artifact == "adapter"
    link = f"[{base}](https://huggingface.co/{base})" if on_hub else f"`{_code(base)}`"
    revision = f" at revision `{resolved['model.revision']}`" if resolved.get("model.revision") else ""
    kind = "A LoRA adapter for" if adapter else "A fine-tuned version of"
    text = f"{kind} {link}{revision}, trained with {METHODS[config.method.type]}."
    licence = resolved.get("model.licence")
    text += f" The base's licence is {plain(str(licence))}." if licence else " The base's card names no licence."
    if config.method.type == "qlora" and not adapter:
        text += " It was trained on the base in 4 bit and merged into the base in 16 bit."
    if not on_hub:
        text += " The base is not on the Hub"
        text += ": it lies here in the folder `base`." if publication.with_base else "."
    return text


def _data(config: RunConfig, state: JobState, dataset: DatasetRecord | None) -> str:
    resolved = state.resolved
    text = f"Dataset `{_code(Path(config.data.dataset).name)}`"
    if dataset and dataset.source:
        link = f"[{plain(dataset.source.id)}](https://huggingface.co/datasets/{dataset.source.id})"
        text += f" from {link} at revision `{_code(dataset.source.revision)}`"
    if dataset:
        text += f" ({dataset.rows} rows"
        text += f", {dataset.problems} left out because they could not be used" if dataset.problems else ""
        for edit, count in dataset.left_out.items():
            text += f", {count} left out as {LEFT_OUT[edit]}"
        text += ")"
    if resolved is None:
        return text + "."
    other = config.data.eval_dataset
    measured = f"rows of `{_code(other)}` to measure on" if other else "held out"
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
        rows |= {"variant": ", ".join(names)} if (names := _variant(method)) else {}
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


def _variant(method: AdapterConfig) -> list[str]:
    names = [("rsLoRA", method.rslora), ("DoRA", method.dora), (f"{method.init} start", method.init != "default")]
    return [name for name, used in names if used]


def _results(state: JobState, evaluation: EvaluationReport | None) -> str:
    rows: dict[str, Any] = {}
    if state.metrics:
        last = state.metrics[-1]
        rows |= {"steps": last.step, "last training loss": f"{last.loss:.4f}"}
    if kept := _kept(state):
        rows |= {
            "held-out loss, first measured": f"{state.evaluations[0].loss:.4f} (step {state.evaluations[0].step})",
            "held-out loss of these weights": f"{kept.loss:.4f} (step {kept.step}, {kept.tokens} answer tokens)",
            "perplexity": f"{kept.perplexity:.3f}",
        }
    text = _table(rows) if rows else "Nothing was measured."
    if sum(math.isfinite(one.loss) for one in state.metrics) > 1:
        text += f"\n\n![Training and held-out loss over the steps]({PICTURE})"
    if isinstance(state.end, ev.Stopped):
        text += "\n\nThe run was stopped before its planned end."
    if evaluation:
        return text + "\n\n### Before and after\n\n" + "\n".join(card_lines(evaluation))
    return text + "\n\nNo evaluation was made before and after; the figures speak of this dataset only."


def _loading(config: RunConfig, publication: PublishConfig, base: str, on_hub: bool) -> str:
    name = publication.destination or "path/to/this/folder"
    at = f', revision="{publication.branch}"' if publication.branch and publication.destination else ""
    if publication.artifact == "merged":
        code = (
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f'model = AutoModelForCausalLM.from_pretrained("{name}"{at}, dtype="auto")\n'
            f'tokenizer = AutoTokenizer.from_pretrained("{name}"{at})'
        )
    elif publication.with_base:
        folder = f'snapshot_download("{name}"{at})' if publication.destination else f'"{name}"'
        code = (
            ("from huggingface_hub import snapshot_download\n" if publication.destination else "")
            + "from peft import PeftModel\n"
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f"folder = {folder}\n"
            'base = AutoModelForCausalLM.from_pretrained(f"{folder}/base", dtype="auto")\n'
            "model = PeftModel.from_pretrained(base, folder)\n"
            "tokenizer = AutoTokenizer.from_pretrained(folder)"
        )
    else:
        source = base if on_hub else "path/to/the/base"
        code = (
            "from peft import PeftModel\n"
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f'base = AutoModelForCausalLM.from_pretrained("{source}", dtype="auto")\n'
            f'model = PeftModel.from_pretrained(base, "{name}"{at})\n'
            f'tokenizer = AutoTokenizer.from_pretrained("{name}"{at})'
        )
    vllm = with_vllm(config, publication)
    served = f"\n\nWith [vLLM](https://docs.vllm.ai):\n\n```sh\n{vllm}\n```" if vllm else ""
    return f"```python\n{code}\n```{served}"


def _versions(state: JobState) -> str:
    versions = state.started.versions if state.started else {}
    return ", ".join(["ftapp", *(f"{name} {version}" for name, version in versions.items())]) + "."


def _table(rows: dict[str, Any]) -> str:
    body = "\n".join(f"| {plain(name)} | {plain(str(value))} |" for name, value in rows.items())
    return f"| | |\n|---|---|\n{body}"


def _code(text: str) -> str:
    """For the inside of backticks, which nothing but a backtick ends."""
    return " ".join(text.split()).replace("`", "'")


def _licence_id(named: Any) -> str | None:
    return named if isinstance(named, str) and re.fullmatch(r"[a-z0-9.+-]+", named) else None
