"""What can be said of a base model before it is trained: in a list, and of one; pure, the finding out is elsewhere."""

from typing import Literal

from pydantic import Field

from ftapp.contract.base import Contract

Template = Literal["marks", "spans", "rows", "plain"]
"""How what is learned is found: by the template's own marks; by rendering; one row for each answer; no template."""

TEMPLATES: dict[Template, str] = {
    "marks": "Its chat template marks what is learned.",
    "spans": "Its chat template does not mark the answers: they are found by rendering.",
    "rows": "Its chat template shows earlier turns otherwise than the last: each answer becomes a row of its own.",
    "plain": "It has no chat template: a plain one is used and saved with the result.",
}

WEIGHTS = ".safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


class ModelHit(Contract):
    """A model in a list to choose from."""

    id: str
    parameters: int | None = None
    licence: str | None = None
    downloads: int | None = None
    """In the last thirty days."""
    gated: bool = False
    used: bool = False
    """Whether one of the user's runs was based on it."""


class ModelFiles(Contract):
    """A model's files and what stands beside them, from the Hub or a folder; no file's content but the card's."""

    revision: str | None = None
    """The commit, of a Hub model."""
    sizes: dict[str, int]
    """Path → bytes."""
    licence: str | None = None
    gated: bool = False
    accessible: bool = True
    """Whether the files can be read: those of a gated model only by whom its owner has let in."""
    parameters: int | None = None
    architecture: str = ""

    @property
    def weights(self) -> dict[str, int]:
        """The weights that are loaded: not those in folders, nor Mistral's second copy."""
        return {
            path: size
            for path, size in self.sizes.items()
            if path.endswith(WEIGHTS) and "/" not in path and not path.startswith("consolidated")
        }


class Examined(Contract):
    """What the library makes of a model's config and tokenizer."""

    type: Literal["examined"] = "examined"
    refusal: str = ""
    """Why it cannot be trained; empty if nothing speaks against it."""
    hint: str = ""
    architecture: str = ""
    context: int | None = None
    """Longest input that it was made for, tokens."""
    vocabulary: int | None = None
    """Tokens."""
    template: Template | None = None
    """None if it is refused."""
    stop_tokens: list[str] = Field(default_factory=list)
    """That end a turn, the one that is learned first."""
    notes: list[str] = Field(default_factory=list)


class ModelFacts(Contract):
    """All that is known of a base model before it is trained."""

    id: str
    revision: str | None
    """The commit, of a Hub model."""
    refusal: str = ""
    """Why it cannot be trained, in a sentence; empty if nothing speaks against it."""
    hint: str = ""
    """What to do about that."""
    architecture: str = ""
    parameters: int | None = None
    weight_bytes: int = 0
    licence: str | None = None
    gated: bool = False
    context: int | None = None
    vocabulary: int | None = None
    template: Template | None = None
    template_words: str = ""
    """The same as a sentence."""
    stop_tokens: list[str] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)


def licence_of(card: object) -> str | None:
    """The licence that a card's front matter names; its own name where it is none of the known ones."""
    get = getattr(card, "get", None)
    named = (get("license_name") if get("license") == "other" else get("license")) if get else None
    return named if isinstance(named, str) else None


def refusal_of(name: str, files: ModelFiles) -> tuple[str, str]:
    """Why a model with such files cannot be trained, and what to do; two empty strings if nothing speaks against it."""
    sizes = files.sizes
    if not files.accessible:
        return (
            f"{name} is gated: its owner asks you to accept the licence first.",
            f"Open https://huggingface.co/{name}, accept, and use a token of that account.",
        )
    if "config.json" not in sizes and "adapter_config.json" in sizes:
        return f"{name} is an adapter, not a model.", "Choose the model that it was made for."
    if not files.weights:
        pickles = [path for path in sizes if path.endswith(PICKLES)]
        if pickles:
            return (
                f"{name} has only pickled weights ({pickles[0]}), which can run code when they are loaded.",
                "Choose a model with .safetensors files.",
            )
        if any(path.endswith(".gguf") for path in sizes):
            return f"{name} has only GGUF files, which are for inference.", "Choose the model that they were made from."
        return f"{name} has no safetensors weights.", "Choose a model with .safetensors files."
    if "config.json" not in sizes:
        return f"{name} has no config.json.", "Choose a model in the format of the transformers library."
    return "", ""


def join_facts(id: str, name: str, files: ModelFiles, examined: Examined | None) -> ModelFacts:
    """What the files and the library say, together; the library is not asked if the files suffice to refuse."""
    refusal, hint = refusal_of(name, files)
    seen = examined or Examined(architecture=files.architecture)
    return ModelFacts(
        id=id,
        revision=files.revision,
        refusal=refusal or seen.refusal,
        hint=hint if refusal else seen.hint,
        architecture=seen.architecture or files.architecture,
        parameters=files.parameters,
        weight_bytes=sum(files.weights.values()),
        licence=files.licence,
        gated=files.gated,
        context=seen.context,
        vocabulary=seen.vocabulary,
        template=seen.template,
        template_words=TEMPLATES[seen.template] if seen.template else "",
        stop_tokens=seen.stop_tokens,
        notes=seen.notes,
    )
