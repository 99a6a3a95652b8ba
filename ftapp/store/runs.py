"""The runs of one person: each a folder, and in it those of its publications and evaluations."""

import re
import secrets
import shutil
from datetime import datetime
from pathlib import Path

import orjson

from ftapp.contract.base import Contract
from ftapp.contract.config import RunConfig
from ftapp.contract.errors import JobError, StorageError
from ftapp.contract.evaluation import EvaluateConfig
from ftapp.contract.publication import PublishConfig
from ftapp.contract.report import DatasetRecord
from ftapp.store.files import write_whole
from ftapp.store.jobs import Job

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,120}")
LOADED = 16
"""Runs whose events are kept in memory, those asked for last."""


class JobStore:
    """The runs of one user, each with its publications and evaluations."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._jobs: dict[str, Job] = {}
        self._recent: list[Job] = []

    def create(self, config: RunConfig, dataset: DatasetRecord | None = None) -> Job:
        """Write a new run's request, whole or not at all, with what its dataset was then; raises StorageError."""
        model = re.sub(r"[^a-z0-9]+", "-", config.model.id.rstrip("/").rsplit("/", 1)[-1].lower()).strip("-")
        name = f"{datetime.now():%Y-%m-%d}-{model[:40] or 'model'}-{config.method.type}-{secrets.token_hex(2)}"
        return self._write(self.folder / name, config, dataset)

    def create_publication(self, run: Job, config: PublishConfig) -> Job:
        """Write a new publication's request inside its run."""
        return self._write_next(run.folder / "publications", config)

    def create_evaluation(self, run: Job, config: EvaluateConfig) -> Job:
        """Write a new evaluation's request inside its run."""
        return self._write_next(run.folder / "evaluations", config)

    def _write_next(self, parent: Path, config: Contract) -> Job:
        return self._write(parent / str(max(map(int, _numbers(parent)), default=0) + 1), config)

    def _write(self, folder: Path, config: Contract, dataset: DatasetRecord | None = None) -> Job:
        draft = folder.with_name(f".{folder.name}.new")
        try:
            draft.mkdir(parents=True, exist_ok=True)  # left by a crash
            write_whole(draft / "config.json", orjson.dumps(config.model_dump(mode="json"), option=orjson.OPT_INDENT_2))
            if dataset:
                write_whole(draft / "dataset.json", dataset.model_dump_json(indent=2).encode())
            draft.rename(folder)
        except OSError as error:
            raise StorageError(f"Cannot write {folder}: {error.strerror}.", "Free some disk space.") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return self._job(folder.relative_to(self.folder).as_posix())

    def _job(self, path: str) -> Job:
        return self._jobs.get(path) or self._jobs.setdefault(path, Job(self.folder / path))

    def get(self, name: str) -> Job:
        """The run of that name; raises JobError if there is none."""
        folder = self.folder / name
        if not is_run_name(name) or not (folder / "config.json").is_file():
            raise JobError(f"There is no run called '{name[:100]}'.", "Choose one from the list of runs.")
        job = self._job(name)
        self._recent = [job, *(other for other in self._recent if other is not job)]
        for other in self._recent[LOADED:]:
            other.forget()
        del self._recent[LOADED:]
        return job

    def known(self, name: str) -> Job:
        """The run in the folder of that name, which the caller has seen."""
        return self._job(name)

    def delete(self, job: Job) -> None:
        """Remove a run's folder, at once for whoever looks; raises StorageError."""
        grave = job.folder.with_name(f".{job.name}.deleted")
        try:
            job.folder.rename(grave)
            self._jobs.pop(job.name, None)
            for left in self.folder.glob(".*.deleted"):  # this one, and those of a crash
                shutil.rmtree(left)
        except OSError as error:
            raise StorageError(f"Cannot delete {job.name}: {error.strerror}.", "Delete its folder by hand.") from error

    def publications(self, run: Job) -> list[Job]:
        """A run's publications, newest first."""
        return [self._job(f"{run.name}/publications/{number}") for number in _numbers(run.folder / "publications")]

    def evaluations(self, run: Job) -> list[Job]:
        """A run's evaluations, newest first."""
        return [self._job(f"{run.name}/evaluations/{number}") for number in _numbers(run.folder / "evaluations")]


def is_run_name(name: str) -> bool:
    """Whether a run may be called so: nothing that leads out of the store, no draft."""
    return bool(_NAME.fullmatch(name))


def evaluation_jobs(run: Job) -> list[Job]:
    """A run's evaluations, newest first, for whoever has the run but no store."""
    folder = run.folder / "evaluations"
    return [Job(folder / number) for number in _numbers(folder)]


def _numbers(parent: Path) -> list[str]:
    """The names of the jobs inside a run, newest first."""
    try:
        found = [path.name for path in parent.iterdir() if (path / "config.json").is_file()]
    except FileNotFoundError:
        return []
    return sorted(filter(str.isdecimal, found), key=int, reverse=True)
