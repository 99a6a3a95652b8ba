"""What the Hub tells about a repository: card data, tags, files and the shapes of its weights."""

from __future__ import annotations

import json
import math
import re
import struct
from typing import Any

import yaml  # type: ignore[import-untyped]

from tests.hub.model import Commit, FileEntry, Repo
from tests.hub.storage import Store

FRONT_MATTER = re.compile(rb"\A(?:\xef\xbb\xbf)?\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)


def card_data(readme: bytes) -> dict[str, Any]:
    """The front matter of a README; a ValueError when it is not a YAML mapping."""
    found = FRONT_MATTER.match(readme)
    if not found:
        return {}
    try:
        data = yaml.safe_load(found[1])
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ValueError("The metadata must be a mapping")
    return json.loads(json.dumps(data, default=str))  # type: ignore[no-any-return]


def _read_card(store: Store, commit: Commit) -> dict[str, Any]:
    readme = commit.files.get("README.md")
    try:
        return card_data(store.blob(readme.sha256).read_bytes()) if readme else {}
    except ValueError:
        return {}


def _as_list(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _pipeline_tag(card: dict[str, Any], config: dict[str, Any] | None) -> str | None:
    """What the card says, else what the Hub itself concludes from the architecture."""
    architectures = (config or {}).get("architectures") or [""]
    return card.get("pipeline_tag") or ("text-generation" if architectures[0].endswith("ForCausalLM") else None)


def _tags(card: dict[str, Any], files: dict[str, FileEntry], pipeline_tag: str | None) -> list[str]:
    tags = [str(tag) for tag in (card.get("library_name"), pipeline_tag) if tag]
    tags += ["safetensors"] if any(path.endswith(".safetensors") for path in files) else []
    tags += _as_list(card.get("tags")) + _as_list(card.get("language"))
    for key, prefix in (("license", "license"), ("base_model", "base_model"), ("datasets", "dataset")):
        tags += [f"{prefix}:{value}" for value in _as_list(card.get(key))]
    return list(dict.fromkeys([*tags, "region:us"]))


def _safetensors(store: Store, files: dict[str, FileEntry]) -> dict[str, Any] | None:
    counts: dict[str, int] = {}
    for path, entry in files.items():
        if not re.fullmatch(r"(model|adapter_model)[^/]*\.safetensors", path):
            continue
        try:
            with store.blob(entry.sha256).open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(length)) if length < entry.size else {}
            for name, tensor in header.items():
                if name != "__metadata__":
                    counts[tensor["dtype"]] = counts.get(tensor["dtype"], 0) + math.prod(tensor["shape"])
        except (ValueError, KeyError, TypeError, struct.error):
            return None
    return {"parameters": counts, "total": sum(counts.values())} if counts else None


def _config(store: Store, files: dict[str, FileEntry]) -> dict[str, Any] | None:
    if "config.json" not in files:
        return None
    try:
        config = json.loads(store.blob(files["config.json"].sha256).read_bytes())
        return {key: config[key] for key in ("architectures", "model_type") if key in config}
    except (ValueError, TypeError):
        return None


def siblings(commit: Commit, *, blobs: bool) -> list[dict[str, Any]]:
    """The files of a commit, with sizes and digests when asked."""
    listed: list[dict[str, Any]] = []
    for path, entry in commit.files.items():
        item: dict[str, Any] = {"rfilename": path}
        if blobs:
            item |= {"blobId": entry.oid, "size": entry.size}
            if entry.lfs:
                info = entry.lfs_info()
                item["lfs"] = {"sha256": info["oid"], "size": info["size"], "pointerSize": info["pointerSize"]}
        listed.append(item)
    return listed


def describe(store: Store, repo: Repo, commit: Commit, *, blobs: bool = False) -> dict[str, Any]:
    """All that is known about a repository at a commit."""
    card, config = _read_card(store, commit), _config(store, commit.files)
    pipeline_tag = _pipeline_tag(card, config) if repo.kind == "model" else card.get("pipeline_tag")
    about: dict[str, Any] = {
        "_id": f"{repo.kind}-{repo.id}",
        "id": repo.id,
        "author": repo.namespace,
        "sha": commit.oid,
        "lastModified": commit.date,
        "createdAt": repo.created,
        "private": repo.private,
        "gated": repo.gated,
        "disabled": False,
        "downloads": repo.downloads,
        "likes": 0,
        "tags": _tags(card, commit.files, pipeline_tag),
        "cardData": card or None,
        "siblings": siblings(commit, blobs=blobs),
        "usedStorage": sum(entry.size for entry in commit.files.values() if entry.lfs),
    }
    if repo.kind == "model":
        about |= {
            "modelId": repo.id,
            "pipeline_tag": pipeline_tag,
            "library_name": card.get("library_name"),
            "config": config,
            "safetensors": _safetensors(store, commit.files),
        }
    if repo.kind == "space":
        about |= {"sdk": repo.space.get("sdk"), "subdomain": repo.id.replace("/", "-").lower()}
    return about


def only(about: dict[str, Any], expand: list[str]) -> dict[str, Any]:
    """The properties that `expand` asks for; everything when it asks for nothing."""
    if not expand:
        return about
    return {key: value for key, value in about.items() if key in ("_id", "id", "modelId", *expand)}


def tree_item(path: str, entry: FileEntry) -> dict[str, Any]:
    """A file as the tree lists it."""
    item: dict[str, Any] = {"type": "file", "oid": entry.oid, "size": entry.size, "path": path}
    if entry.lfs:
        item["lfs"] = entry.lfs_info()
    if entry.xet:
        item["xetHash"] = entry.xet
    return item


def last_commit(commit: Commit) -> dict[str, Any]:
    """The commit as an expanded tree tells it; this Hub names the listed commit for every file."""
    return {"id": commit.oid, "title": commit.title, "date": commit.date}
