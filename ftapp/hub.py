"""The Hub seen from the web: metadata, who am I, and the files of datasets; no torch."""

import fnmatch
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_session, hf_raise_for_status
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
)
from pydantic import Field

from ftapp.contract.base import Contract
from ftapp.contract.errors import HubError
from ftapp.contract.models import ModelFiles, ModelHit, licence_of
from ftapp.contract.report import HubSource
from ftapp.hub_errors import told


class Account(Contract):
    """Who a token belongs to."""

    name: str
    organisations: list[str] = Field(default_factory=list)
    can_write: bool
    owners: list[str] = Field(default_factory=list)
    """Names in whose place it may write: oneself, organisations; of some tokens single repositories."""


class HubRepository(Contract):
    """A model's repository that is there."""

    private: bool
    writable: bool
    """By this token."""


class HubModel(Contract):
    """What the Hub says about a model."""

    id: str
    revision: str
    """The commit that `revision` stood for."""
    licence: str | None = None
    gated: bool = False
    shapes: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    stored: int = 0
    """Bytes of the tensors."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Its config.json."""


class HubDataset(Contract):
    """What the Hub says about a dataset: each config's splits, with their files and sizes."""

    id: str
    revision: str
    """The commit that the revision asked for stood for."""
    licence: str | None = None
    gated: bool = False
    sources: list[HubSource] = Field(default_factory=list)
    """One for each config and split."""


class SpacePrice(Contract):
    """What a Space runs on, and what that costs."""

    hardware: str
    dollars_per_hour: float


READABLE = re.compile(r"\.(jsonl|json|csv|tsv|txt|parquet)(\.gz)?$", re.IGNORECASE)
NO_DATA = re.compile(r"(^|/)(\.|README|LICENSE|dataset_infos?\.json|requirements\.txt|config\.json)", re.IGNORECASE)
SPLITS = {"train": "train", "training": "train", "test": "test", "validation": "validation", "valid": "validation"}
SPLITS |= {"val": "validation", "dev": "validation", "eval": "test"}

PER_HOUR = {"second": 3600, "minute": 60, "hour": 1}


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
        auth, orgs = answer.get("auth", {}).get("accessToken", {}), answer.get("orgs", [])
        owners = [answer["name"], *(org["name"] for org in orgs if org.get("roleInOrg") != "read")]
        if auth.get("role") == "fineGrained":
            scopes = auth.get("fineGrained", {}).get("scoped", [])
            owners = [scope["entity"]["name"] for scope in scopes if "repo.write" in scope.get("permissions", [])]
        return Account(
            name=answer["name"],
            organisations=[org["name"] for org in orgs],
            can_write=auth.get("role") != "read" and bool(owners),
            owners=[] if auth.get("role") == "read" else owners,
        )

    def repository(self, id: str) -> HubRepository | None:
        """A model's repository as this token sees it; None if it sees none. Raises HubError."""
        with told(id):
            try:
                private = bool(self._api.model_info(id, expand=["private"]).private)
            except RepositoryNotFoundError:
                return None
            try:
                self._api.auth_check(id, write=True)
            except HfHubHTTPError as error:
                if error.response is None or error.response.status_code not in (401, 403, 404):
                    raise
                return HubRepository(private=private, writable=False)
        return HubRepository(private=private, writable=True)

    def model(self, id: str, revision: str | None) -> HubModel:
        """Licence, commit, config.json and tensor headers of a model, no weights downloaded; raises HubError."""
        with told(id):
            info = self._api.model_info(id, revision=revision)
            metadata = self._api.get_safetensors_metadata(id, revision=info.sha)
            try:
                config = json.loads(Path(self._api.hf_hub_download(id, "config.json", revision=info.sha)).read_bytes())
            except (EntryNotFoundError, ValueError):
                config = {}
        tensors = [item for file in metadata.files_metadata.values() for item in file.tensors.items()]
        licence = licence_of(info.card_data)
        return HubModel(
            id=info.id,
            revision=info.sha or "main",
            licence=licence,
            gated=bool(info.gated),
            shapes={name: tuple(tensor.shape) for name, tensor in tensors},
            stored=sum(tensor.data_offsets[1] - tensor.data_offsets[0] for _, tensor in tensors),
            config=config,
        )

    def search(self, words: str, count: int) -> list[ModelHit]:
        """Models that generate text and have safetensors weights, the most downloaded first; raises HubError."""
        # as list_models asks, but once: that tries again for half a minute, too long for who types
        asked: dict[str, Any] = {
            "filter": "safetensors",
            "pipeline_tag": "text-generation",
            "sort": "downloads",
            "limit": count,
            "expand": ["downloads", "gated", "safetensors", "tags"],
        }
        if words:
            asked["search"] = words
        with told("the search for models"):
            headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
            answer = get_session().get(f"{self._api.endpoint}/api/models", params=asked, headers=headers, timeout=10)
            hf_raise_for_status(answer)
        return [
            ModelHit(
                id=item["id"],
                parameters=(item.get("safetensors") or {}).get("total"),
                licence=next((tag[8:] for tag in item.get("tags") or [] if tag.startswith("license:")), None),
                downloads=item.get("downloads"),
                gated=bool(item.get("gated")),
            )
            for item in answer.json()
        ]

    def model_files(self, id: str, revision: str | None) -> ModelFiles:
        """A model's files and what the Hub says of it, a gated one's too; raises HubError."""
        with told(id):
            info = self._api.model_info(id, revision=revision, files_metadata=True)
            accessible = not info.gated or self._let_in(id)
        return ModelFiles(
            revision=info.sha,
            sizes={file.rfilename: file.size or 0 for file in info.siblings or []},
            licence=licence_of(info.card_data),
            gated=bool(info.gated),
            accessible=accessible,
            parameters=info.safetensors.total if info.safetensors else None,
            architecture=next(iter((info.config or {}).get("architectures") or []), ""),
        )

    def _let_in(self, id: str) -> bool:
        try:
            self._api.auth_check(id)
        except GatedRepoError:
            return False
        return True

    def space_price(self, id: str) -> SpacePrice | None:
        """What a Space runs on costs; None if that is not known. Raises HubError."""
        with told(id, "Space"):
            name = self._api.get_space_runtime(id).hardware
            offered = {hardware.name: hardware for hardware in self._api.list_spaces_hardware()}
        if name is None or name not in offered or offered[name].unit_label not in PER_HOUR:
            return None
        hardware = offered[name]
        hourly = hardware.unit_cost_usd * PER_HOUR[hardware.unit_label]
        return SpacePrice(hardware=hardware.pretty_name, dollars_per_hour=hourly)

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
