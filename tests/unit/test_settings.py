"""Settings come from the environment; a wrong one is told by its name."""

from pathlib import Path

import pytest

from ftapp.contract.errors import ConfigError
from ftapp.settings import read_settings


def test_the_defaults_are_for_this_machine_alone(home: Path) -> None:
    settings = read_settings()
    assert settings.home == home
    assert (settings.host, settings.port) == ("127.0.0.1", 7860)
    assert settings.max_upload_bytes == 2 * 2**30
    assert (settings.stop_grace_seconds, settings.chat_idle_seconds) == (600, 600)
    assert (settings.hub_token, settings.devices) == (None, None)


def test_a_space_has_sign_in_or_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings().sign_in is None
    monkeypatch.setenv("SPACE_ID", "ann/tuner")
    with pytest.raises(ConfigError, match="OAUTH_CLIENT_ID is not set: nobody could sign in") as caught:
        read_settings()
    assert "hf_oauth: true" in caught.value.hint
    monkeypatch.setenv("OAUTH_CLIENT_ID", "id")
    with pytest.raises(ConfigError, match="OAUTH_CLIENT_SECRET is not set"):
        read_settings()
    monkeypatch.setenv("OAUTH_CLIENT_SECRET", "very-secret")
    monkeypatch.setenv("SPACE_AUTHOR_NAME", "ann")
    monkeypatch.setenv("SPACE_HOST", "ann-tuner.hf.space,own.example")
    monkeypatch.setenv("FTAPP_ALLOWED", "bob, lab,")
    settings = read_settings()
    assert settings.sign_in
    assert settings.sign_in.allowed == ("ann", "bob", "lab")
    assert settings.sign_in.address == "ann-tuner.hf.space"
    assert settings.sign_in.provider == "https://huggingface.co"
    assert (settings.max_rows, settings.max_runs, settings.max_requests) == (2_000_000, 5, 1200)
    assert (settings.max_disk_bytes, settings.max_run_seconds) == (20 * 2**30, 86_400)
    assert "very-secret" not in repr(settings)
    monkeypatch.setenv("FTAPP_MAX_RUNS", "0")
    assert read_settings().max_runs is None


def test_a_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTAPP_PASSWORD", "very-secret")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert read_settings().password == "very-secret"
    assert "secret" not in repr(read_settings())


def test_the_home_is_absolute_and_may_use_a_tilde(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for value, folder in [("", "ftapp"), ("~/x", "x"), ("y/z", "y/z")]:
        monkeypatch.setenv("FTAPP_HOME", value)
        assert read_settings().home == tmp_path / folder


def test_what_is_set_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"PORT": "0", "MAX_UPLOAD_MB": "1.5", "STOP_GRACE": "0", "CHAT_IDLE": "1e3", "DEVICES": "2"}
    for name, value in values.items():
        monkeypatch.setenv(f"FTAPP_{name}", value)
    monkeypatch.setenv("HF_TOKEN", " hf_x\n")
    settings = read_settings()
    assert (settings.port, settings.max_upload_bytes, settings.chat_idle_seconds) == (0, 3 * 2**19, 1000)
    assert (settings.stop_grace_seconds, settings.devices) == (0, 2)
    assert settings.hub_token == "hf_x"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FTAPP_PORT", "http"),
        ("FTAPP_PORT", "65536"),
        ("FTAPP_PORT", "nan"),
        ("FTAPP_MAX_UPLOAD_MB", "0"),
        ("FTAPP_STOP_GRACE", "-1"),
        ("FTAPP_DEVICES", "all"),
        ("FTAPP_CHAT_IDLE", "inf"),
        ("FTAPP_VOLUME", "data"),
        ("FTAPP_SLEEP", "-2"),
        ("FTAPP_HOME", "~no-such-user/x"),
    ],
)
def test_a_wrong_setting_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=name) as caught:
        read_settings()
    assert repr(value) in caught.value.message
    assert caught.value.hint
