"""What was made is used again only if it is whole, unchanged, and of the same result."""

import os
from pathlib import Path

import pytest

from ftapp.contract.publication import PublishConfig
from ftapp.store import artifacts


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A publication with a whole artifact of the run beside it."""
    run = tmp_path / "run"
    (run / "adapter").mkdir(parents=True)
    (run / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    folder = run / "publications" / "1" / "merged"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"merged weights")
    (folder / "README.md").write_text("a card")
    config = PublishConfig(run="run", artifact="merged")
    artifacts.record(folder.parent, folder, config, artifacts.source_of(run), None, lambda *_: None)
    return run


def found(run: Path, config: PublishConfig | None = None) -> Path | None:
    config = config or PublishConfig(run="run", artifact="merged")
    hit = artifacts.find([run / "publications" / "1"], config, artifacts.source_of(run))
    return hit[0] if hit else None


def test_it_is_found_and_unchanged(made: Path) -> None:
    folder = found(made)
    assert folder == made / "publications" / "1" / "merged"
    record = artifacts.read(folder.parent)
    assert record
    assert list(record.files) == ["model.safetensors"], "the card is written anew each time"
    (folder / "README.md").write_text("another card")
    assert found(made) == folder
    assert artifacts.unchanged(folder, record, lambda *_: None)
    (folder / "model.safetensors").write_bytes(b"Merged weights")
    assert not artifacts.unchanged(folder, record, lambda *_: None)


def test_something_else_is_not_found(made: Path) -> None:
    assert found(made, PublishConfig(run="run", artifact="adapter")) is None
    weights = made / "adapter" / "adapter_model.safetensors"
    os.utime(weights, ns=(1, 1))
    assert found(made) is None, "the run was taken up again since"


@pytest.mark.parametrize("harm", ["shorter", "missing", "more", "record"])
def test_what_is_not_whole_is_not_found(made: Path, harm: str) -> None:
    folder = made / "publications" / "1" / "merged"
    match harm:
        case "shorter":
            (folder / "model.safetensors").write_bytes(b"merged")
        case "missing":
            (folder / "model.safetensors").unlink()
        case "more":
            (folder / "other.safetensors").write_bytes(b"x")
        case "record":
            (folder.parent / "artifact.json").write_text('{"kind": "merged"')
    assert found(made) is None
