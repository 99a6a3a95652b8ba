"""Canonical rows → files that other tools read: OpenAI's chat JSONL, and Parquet; streamed."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import orjson

from ftapp.contract.errors import StorageError
from ftapp.contract.examples import Example

Kind = Literal["jsonl", "parquet"]
BATCH_ROWS = 1000


def export(rows: Path, target: Path, kind: Kind) -> Path:
    """Write the rows of a rows.jsonl to `target`, whole or not at all; raises StorageError."""
    if kind == "jsonl":
        return _written(target, lambda draft: _write_jsonl(_rows(rows), draft))
    return _written(target, lambda draft: _write_parquet(rows, draft))


def export_examples(examples: Iterable[Example], target: Path) -> Path:
    """Write canonical rows as OpenAI chat JSONL, whole or not at all; raises StorageError."""
    rows = (example.model_dump(exclude_none=True, exclude_defaults=True, exclude={"line"}) for example in examples)
    return _written(target, lambda draft: _write_jsonl(rows, draft))


def _written(target: Path, write: Callable[[Path], None]) -> Path:
    draft = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write(draft)
        draft.replace(target)
        return target
    except OSError as error:
        raise StorageError(f"Cannot write {target}: {error.strerror}.", "Check the folder and its space.") from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def _write_jsonl(rows: Iterable[dict[str, Any]], draft: Path) -> None:
    with draft.open("wb") as file:
        for row in rows:
            file.write(orjson.dumps(_openai(row)) + b"\n")


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for line in file:
            row = orjson.loads(line)
            row.pop("line", None)
            yield row


def _openai(row: dict[str, Any]) -> dict[str, Any]:
    """As OpenAI's fine-tuning has it: a call's arguments are JSON text, its turn says nothing else."""
    for turn in row.get("messages", []):
        for call in turn.get("tool_calls", []):
            call["function"]["arguments"] = orjson.dumps(call["function"]["arguments"]).decode()
        if "tool_calls" in turn and not turn["content"]:
            turn["content"] = None
    return row


def _write_parquet(rows: Path, draft: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    turn_keys, row_keys = _keys(rows)
    text = pyarrow.string()
    types = {"weight": pyarrow.int8()}
    turn = pyarrow.struct([(key, types.get(key, text)) for key in turn_keys])
    schema = pyarrow.schema([(key, pyarrow.list_(turn) if key == "messages" else text) for key in row_keys])
    with pyarrow.parquet.ParquetWriter(draft, schema, compression="zstd") as writer:
        batch: list[dict[str, Any]] = []
        for row in _rows(rows):
            batch.append(_flat(row))
            if len(batch) == BATCH_ROWS:
                writer.write_table(pyarrow.Table.from_pylist(batch, schema))
                batch = []
        if batch:
            writer.write_table(pyarrow.Table.from_pylist(batch, schema))


def _keys(rows: Path) -> tuple[list[str], list[str]]:
    """The keys that turns and rows have anywhere, so that no column is empty."""
    turn_keys, row_keys = dict.fromkeys(("role", "content")), dict[str, None]()
    for row in _rows(rows):
        row_keys.update(dict.fromkeys(row))
        for turn in row.get("messages", []):
            if len(turn) > 2:
                turn_keys.update(dict.fromkeys(turn))
    return list(turn_keys), list(row_keys)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Calls and tools as JSON text: their arguments have no one schema."""
    if "tools" in row:
        row["tools"] = orjson.dumps(row["tools"]).decode()
    for turn in row.get("messages", []):
        if "tool_calls" in turn:
            turn["tool_calls"] = orjson.dumps(turn["tool_calls"]).decode()
    return row
