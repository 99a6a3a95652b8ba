"""What every test stands on: a home of its own and nobody's token."""

import os
from pathlib import Path

import pytest

# trainings beside one another, or beside a browser: threads that wait for work by spinning would take the others' core
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh FTAPP_HOME, and no setting of whoever runs the tests."""
    names = (
        "HOST",
        "PORT",
        "MAX_UPLOAD_MB",
        "MAX_UNPACKED_MB",
        "STOP_GRACE",
        "CHAT_IDLE",
        "DEVICES",
        "VOLUME",
        "SLEEP",
    )
    for name in (*(f"FTAPP_{name}" for name in names), "HF_TOKEN", "SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "home"
    monkeypatch.setenv("FTAPP_HOME", str(folder))
    return folder
