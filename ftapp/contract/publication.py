"""What a publication is: its config, declared once for every face and worker."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from ftapp.contract.base import Contract
from ftapp.contract.refusals import config_error, of_field

REPO_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")


def _repo_id(text: str) -> str:
    if not REPO_ID.fullmatch(text) or ".." in text or "--" in text or text.endswith((".git", ".ipynb")):
        raise ValueError(f"'{text}' is not of the form owner/name")
    return text


BRANCH = re.compile(r"(?!refs/)(?!.*(\.\.|//|@\{|\.lock$))[A-Za-z0-9][A-Za-z0-9._/-]*(?<![./])")


def _branch(text: str) -> str:
    if not BRANCH.fullmatch(text):
        raise ValueError(f"'{text}' is not the name of a branch")
    return text


class PublishConfig(Contract):
    """One publication: an artifact of a run, written to disk and, when a destination is named, pushed to the Hub."""

    run: str = Field(min_length=1, title="Run")
    """The run whose result is published."""

    artifact: Literal["adapter", "merged", "gguf"] = Field("adapter", title="Artifact")
    """`adapter`: it alone. `merged`: the whole model, in 16 bit. `gguf`: that as one file, for this machine only."""

    gguf_type: Literal["q8_0", "bf16", "f16"] = Field("q8_0", title="Type of the GGUF file")
    """`q8_0`: 8 bits a weight, hardly a difference. `bf16`, `f16`: 16 bits, to be quantised further elsewhere."""

    with_base: bool = Field(False, title="Base model beside the adapter")
    """Put the base into the folder `base`; for an adapter of a base that others cannot get from the Hub."""

    destination: Annotated[str, AfterValidator(_repo_id)] | None = Field(None, max_length=193, title="Destination")
    """`owner/name` on the Hub, the owner being you or an organisation of yours; empty keeps it on this machine."""

    private: bool = Field(True, title="Private")
    """Only you, or your organisation, can see a private repository."""

    mode: Literal["commit", "branch", "pull_request"] = Field("commit", title="Push as")
    """A `commit` on the main branch, on a `branch`, or a `pull_request` to a repository that is there."""

    branch: Annotated[str, AfterValidator(_branch)] | None = Field(None, max_length=100, title="Branch")
    """The branch to push to; it is made if it is not there."""

    card: str | None = Field(None, max_length=200_000, title="Model card")
    """The card's text, as somebody edited it; empty writes it from the run."""

    folder: str | None = Field(None, title="Folder")
    """Where on this machine the artifact is written; empty means the publication's own folder. Terminal only."""

    @model_validator(mode="after")
    def _fits(self) -> "PublishConfig":
        if self.mode == "branch" and not self.branch:
            raise of_field("branch", "is missing: name the branch to push to")
        if self.mode != "branch" and self.branch:
            raise of_field("branch", "is only for pushing to a branch; choose that, or leave it empty")
        if self.with_base and self.artifact != "adapter":
            raise of_field("with_base", "is only for an adapter; the merged model holds its base")
        if self.artifact == "gguf" and self.destination:
            raise of_field("destination", "is not for a GGUF file, which stays on this machine; push the merged model")
        if self.artifact == "gguf" and self.card:
            raise of_field("card", "is not for a GGUF file, which has none")
        if self.folder and self.destination:
            raise of_field("folder", "is for writing to this machine only; leave the destination empty")
        return self


def parse_publish_config(value: Any) -> PublishConfig:
    """A PublishConfig from plain JSON values; raises ConfigError."""
    try:
        return PublishConfig.model_validate(value)
    except ValidationError as error:
        raise config_error(error) from None
