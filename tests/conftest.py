"""What every test stands on: a home of its own and nobody's token."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh FTAPP_HOME, and no setting of whoever runs the tests."""
    for name in ("FTAPP_HOST", "FTAPP_PORT", "FTAPP_MAX_UPLOAD_MB", "FTAPP_STOP_GRACE", "FTAPP_CHAT_IDLE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "home"
    monkeypatch.setenv("FTAPP_HOME", str(folder))
    return folder
