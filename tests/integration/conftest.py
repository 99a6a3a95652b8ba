"""What the integration tests share: a tiny model, a Studio, and one finished run for those that only need a result."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from ftapp.settings import Settings, read_settings
from ftapp.studio import Studio
from tests.running import config_for, finish


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.models import make

    return make("llama", tmp_path_factory.mktemp("models") / "tiny-llama", shards="60KB")


@pytest.fixture
def studio(home: Path) -> Studio:
    return Studio(read_settings())


@dataclass(frozen=True)
class Trained:
    """A finished LoRA run; tests read it and may publish it, but leave it as it is."""

    studio: Studio
    run: str
    base: Path

    @property
    def folder(self) -> Path:
        return self.studio.run(self.run).folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    settings = Settings(folder / "home", "127.0.0.1", 0, 2**30, 600.0, 600.0, None)
    studio = Studio(settings)
    run = studio.start_training(config_for(studio, tiny_llama, folder))
    view = finish(studio, run)
    assert view.status == "finished", view.message
    return Trained(studio, run, tiny_llama)
