"""Datasets that grow by answers from the chat: a new version beside the old one, which stays as it is."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from ftapp.contract.errors import DatasetError
from ftapp.contract.examples import Message, RowProblem
from ftapp.contract.formats import to_canonical
from ftapp.contract.report import DatasetInfo
from ftapp.contract.turns import check_turns
from ftapp.store.datasets import DatasetStore
from ftapp.store.files import abandoned, alone, workplace

FROM_CHAT = "from chat.jsonl"
"""The file of a version that holds the rows from the chat; it is the last one."""
VERSION = re.compile(r"(.+)-v(\d+)")
WORK = ".version-"

Row = dict[str, object]


class Versions:
    """The versions of one user's datasets; `used` says whether a run was started with a dataset."""

    def __init__(self, store: DatasetStore, used: Callable[[str], bool]) -> None:
        self._store, self._used = store, used

    def keep(self, id: str, messages: list[Message], tools: list[dict[str, Any]] | None = None) -> DatasetInfo:
        """Add a conversation to the newest version of a dataset, or begin one if a run uses that.

        A conversation that was kept before with another last answer is replaced. A dataset that is gone, or holds
        plain texts, stays out of it: then the version has rows from the chat alone. Raises DatasetError, StorageError.
        """
        row, folder = _row(messages, tools), self._store.folder
        for _ in abandoned(folder, WORK):
            pass
        with workplace(folder, WORK) as place, alone(folder / ".versions.lock"):
            stem, newest = self._newest(id)
            target = place / "rows.jsonl"
            if newest and _kept(newest) and not self._used(newest.id):
                _write(target, _with(self._rows(newest), row))
                files = [*list(self._store.originals(newest.id))[:-1], (target, FROM_CHAT)]
                return self._store.add_all(files, newest.id, edits=newest.edits, place=os.link)
            _write(target, [row])
            files = [(target, FROM_CHAT)]
            if before := newest or self._source(id) or self._source(stem):
                exported = self._store.export(before.id, "jsonl", place / "before.jsonl")
                files.insert(0, (exported, f"{before.id}.jsonl"))
            return self._store.add_all(files, self._next(stem, before), place=os.link)

    def _next(self, stem: str, before: DatasetInfo | None) -> str:
        known = VERSION.fullmatch(before.id) if before else None
        number = int(known[2]) + 1 if known else 2 if before else 1
        while self._used(f"{stem}-v{number}"):
            number += 1  # a run remembers one of that name which is gone
        return f"{stem}-v{number}"

    def rows_from_chat(self, id: str) -> int:
        """How many rows of a version came from the chat."""
        return len(self._rows(self._store.get(id)))

    def _source(self, id: str) -> DatasetInfo | None:
        """The dataset, if conversations can be added to its rows."""
        found = next((info for info in self._store.all() if info.id == id), None)
        return found if found and found.report.format != "text" else None

    def _newest(self, id: str) -> tuple[str, DatasetInfo | None]:
        """The name that versions of a dataset share, and the newest of them."""
        known = VERSION.fullmatch(id)
        stem = known[1] if known else id if self._source(id) else f"{id.removesuffix('-chat')}-chat"
        found = {int(m[2]): info for info in self._store.all() if (m := VERSION.fullmatch(info.id)) and m[1] == stem}
        return stem, found[max(found)] if found else None

    def _rows(self, info: DatasetInfo) -> list[Row]:
        path, name = list(self._store.originals(info.id))[-1]
        return [orjson.loads(line) for line in path.read_bytes().splitlines()] if name == FROM_CHAT else []


def _kept(info: DatasetInfo) -> bool:
    return (info.files or [info.filename])[-1] == FROM_CHAT


def _write(path: Path, rows: list[Row]) -> None:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))


def _row(messages: list[Message], tools: list[dict[str, Any]] | None) -> Row:
    """A conversation as a row of a file; raises DatasetError if it is none that can be learned."""
    row: Row = {"messages": [message.model_dump() for message in messages]} | ({"tools": tools} if tools else {})
    try:
        check_turns(to_canonical(row, "messages"))
    except RowProblem as problem:
        raise DatasetError(f"This cannot be a row: {problem}.", "Correct the answer first.") from None
    return row


def _with(rows: list[Row], row: Row) -> list[Row]:
    """The rows with one more, which takes the place of one that answers the same."""
    return [*(one for one in rows if _asked(one) != _asked(row)), row]


def _asked(row: Row) -> object:
    turns = row["messages"]
    assert isinstance(turns, list)
    return turns[:-1]
