"""What every test stands on: a home of its own and nobody's token."""

import os
from pathlib import Path

import pytest

# trainings beside one another, or beside a browser: threads that wait for work by spinning would take the others' core
os.environ.setdefault("OMP_NUM_THREADS", "1")
# hundreds of processes start: without it each would compile all of ftapp anew
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh FTAPP_HOME, and no setting of whoever runs the tests."""
    for name in os.environ:
        if name.startswith(("FTAPP_", "SPACE_", "OAUTH_", "OPENID_")) or name == "HF_TOKEN":
            monkeypatch.delenv(name)
    folder = tmp_path / "home"
    monkeypatch.setenv("FTAPP_HOME", str(folder))
    return folder
