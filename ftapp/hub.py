"""The Hub seen from the web: metadata, who am I, and the files of datasets; no torch."""

import fnmatch
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    NotASafetensorsRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from pydantic import Field

from ftapp.contract.base import Contract
from ftapp.contract.errors import HubError, HubUnreachable
from ftapp.contract.report import HubSource


class Account(Contract):
    """Who a token belongs to."""

    name: str
    organisations: list[str] = Field(default_factory=list)
    can_write: bool


class HubModel(Contract):
    """What the Hub says about a model."""

    id: str
    revision: str
    """The commit that `revision` stood for."""
    licence: str | None = None
    gated: bool = False
    shapes: dict[str, tuple[int, ...]] = Field(default_factory=dict)


class HubDataset(Contract):
    """What the Hub says about a dataset: each config's splits, with their files and sizes."""

    id: str
    revision: str
    """The commit that the revision asked for stood for."""
    licence: str | None = None
    gated: bool = False
    sources: list[HubSource] = Field(default_factory=list)
    """One for each config and split."""


READABLE = re.compile(r"\.(jsonl|json|csv|tsv|txt|parquet)(\.gz)?$", re.IGNORECASE)
NO_DATA = re.compile(r"(^|/)(\.|README|LICENSE|dataset_infos?\.json|requirements\.txt|config\.json)", re.IGNORECASE)
SPLITS = {"train": "train", "training": "train", "test": "test", "validation": "validation", "valid": "validation"}
SPLITS |= {"val": "validation", "dev": "validation", "eval": "test"}


class Hub:
    """The Hub on behalf of one token."""

    def __init__(self, token: str | None) -> None:
        # False: never fall back to a token that somebody left on this machine
        self._token: str | bool = token or False
        self._api = HfApi(token=self._token)

    def whoami(self) -> Account:
        """Whose token this is; raises HubError when it is refused."""
        if not self._token:
            raise HubError("There is no Hub token.", "Paste one with write access, or set HF_TOKEN.")
        with told("the token"):
            answer = self._api.whoami()
        auth = answer.get("auth", {}).get("accessToken", {})
        return Account(
            name=answer["name"],
            organisations=[org["name"] for org in answer.get("orgs", [])],
            can_write=auth.get("role") != "read",
        )

    def model(self, id: str, revision: str | None) -> HubModel:
        """Licence, commit and tensor shapes of a model; raises HubError."""
        with told(id):
            info = self._api.model_info(id, revision=revision)
            metadata = self._api.get_safetensors_metadata(id, revision=info.sha)
        shapes = {
            name: tuple(tensor.shape)
            for file in metadata.files_metadata.values()
            for name, tensor in file.tensors.items()
        }
        licence = info.card_data.get("license") if info.card_data else None
        return HubModel(id=info.id, revision=info.sha or "main", licence=licence, gated=bool(info.gated), shapes=shapes)

    def dataset(self, id: str, revision: str | None = None) -> HubDataset:
        """Configs, splits and sizes of a dataset's readable files, nothing downloaded; raises HubError."""
        with told(id, "dataset"):
            info = self._api.dataset_info(id, revision=revision, files_metadata=True)
        sizes = {
            file.rfilename: file.size or 0
            for file in info.siblings or []
            if READABLE.search(file.rfilename) and not NO_DATA.search(file.rfilename)
        }
        if not sizes:
            raise HubError(
                f"{id} has no file that can be read.", "Choose a dataset with Parquet, JSON, CSV or text files."
            )
        card: dict[str, Any] = dict(vars(info.card_data)) if info.card_data else {}
        groups = _declared(card.get("configs"), list(sizes)) or _by_name(list(sizes))
        sources = [
            HubSource(
                id=info.id,
                revision=info.sha or "main",
                config=config,
                split=split,
                files=sorted(files),
                bytes=sum(sizes[file] for file in files),
            )
            for (config, split), files in groups.items()
        ]
        licence = card.get("license")
        return HubDataset(
            id=info.id,
            revision=info.sha or "main",
            licence=licence if isinstance(licence, str) else None,
            gated=bool(info.gated),
            sources=sources,
        )

    def download(
        self, source: HubSource, folder: Path, progress: Callable[[int, int], None]
    ) -> Sequence[tuple[Path, str]]:
        """Get a split's files; `progress` hears the bytes so far and in all, and may raise. Raises HubError."""
        from tqdm.auto import tqdm

        got = 0

        class Bar(tqdm):  # type: ignore[misc]
            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(*arguments, **{**options, "disable": True})

            def update(self, n: float | None = 1) -> bool | None:
                nonlocal got
                got += int(n or 0)
                progress(min(got, source.bytes), source.bytes)
                return None

        found = []
        for name in source.files:
            with told(source.id, "dataset"):
                path = self._api.hf_hub_download(
                    source.id, name, repo_type="dataset", revision=source.revision, local_dir=folder, tqdm_class=Bar
                )
            found.append((Path(path), name))
        return found


def _declared(configs: Any, files: list[str]) -> dict[tuple[str, str], list[str]]:
    """The configs that the dataset's card names, as `datasets` reads them."""
    found: dict[tuple[str, str], list[str]] = {}
    for config in configs if isinstance(configs, list) else []:
        entries = config.get("data_files") if isinstance(config, dict) else None
        if isinstance(entries, str):
            entries = [{"split": "train", "path": entries}]
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, str):
                entry = {"split": "train", "path": entry}
            paths = entry.get("path") if isinstance(entry, dict) else None
            patterns = [paths] if isinstance(paths, str) else paths if isinstance(paths, list) else []
            matched = [file for file in files if any(fnmatch.fnmatch(file, str(pattern)) for pattern in patterns)]
            if matched:
                found[str(config.get("config_name", "default")), str(entry.get("split", "train"))] = matched
    return found


def _by_name(files: list[str]) -> dict[tuple[str, str], list[str]]:
    """Configs by folder and splits by the words in the names, where the card says nothing."""
    found: dict[tuple[str, str], list[str]] = {}
    for file in files:
        words = re.split(r"[^a-z]+", file.lower())
        split = next((SPLITS[word] for word in words if word in SPLITS), "train")
        folder = file.split("/")[0] if "/" in file else ""
        config = "default" if folder.lower() in ("", "data", *SPLITS) else folder
        found.setdefault((config, split), []).append(file)
    return found


@contextmanager
def told(what: str, kind: str = "model or repository") -> Iterator[None]:
    """The client's errors about `what`, in plain words."""
    place = "datasets/" if kind == "dataset" else ""
    try:
        yield
    except GatedRepoError:
        raise HubError(
            f"{what} is gated: its owner asks you to accept the licence first.",
            f"Open https://huggingface.co/{place}{what}, accept, and use a token of that account.",
        ) from None
    except RevisionNotFoundError:
        raise HubError(f"{what} has no such revision.", "Check the branch, tag or commit.") from None
    except RepositoryNotFoundError:
        raise HubError(
            f"There is no {kind} '{what}' that this token can see.",
            "Check the spelling; for a private or gated one, give a token that may read it.",
        ) from None
    except NotASafetensorsRepoError:
        raise HubError(
            f"{what} has no safetensors weights.", "Choose a model with .safetensors files; pickles are refused."
        ) from None
    except HFValidationError:
        raise HubError(f"'{what}' is not the name of a Hub repository.", "It has the form owner/name.") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        raise HubError(_refusal(what, status), _hint(status)) from None
    except (OSError, httpx2.TransportError) as error:
        raise HubUnreachable(
            f"The Hub could not be reached for {what} ({type(error).__name__}).", "Check the connection and try again."
        ) from None


def _refusal(what: str, status: int) -> str:
    match status:
        case 401:
            return f"The Hub refused {what}: the token is not valid (401)."
        case 403:
            return f"The Hub refused {what}: this token may not do that (403)."
        case 409:
            return f"The Hub refused {what}: it already exists or changed meanwhile (409)."
        case 412:
            return f"The Hub refused {what}: somebody else changed it meanwhile (412)."
        case 429:
            return f"The Hub refused {what}: too many requests (429)."
        case _:
            return f"The Hub failed on {what} ({status or 'no answer'})."


def _hint(status: int) -> str:
    if status in (401, 403):
        return "Make a token with write access at https://huggingface.co/settings/tokens and use that one."
    if status == 429:
        return "Wait a few minutes and try again."
    return "Try again; what was made here is kept."
