"""Publish: make the artifact of a run, write its card, push it, and read back what arrived."""

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from ftapp.contract import events as ev
from ftapp.contract.config import FullConfig, PublishConfig, RunConfig
from ftapp.contract.errors import HubError, JobError
from ftapp.hub import told
from ftapp.store.eventlog import EventLog
from ftapp.store.jobs import Job
from ftapp.workers import sources
from ftapp.workers.card import write_card


class _Stop(Exception):
    """Somebody asked the publication to stop."""


def publish(job: Job, events: EventLog | None) -> ev.Event:
    """Do what the publication's config asks; returns Finished or Stopped, raises FtappError."""
    return _Publication(job, events).run()


class _Publication:
    def __init__(self, job: Job, events: EventLog | None) -> None:
        self._job, self._events = job, events
        self._config: PublishConfig = job.publish_config()
        self._run = Job(job.folder.parents[1])
        self._run_config: RunConfig = self._run.run_config()
        self._token = os.environ.get("HF_TOKEN")
        self._last_percent = -1

    def run(self) -> ev.Event:
        """The artifact, its card, the push; a stop in between leaves nothing half-written."""
        out = Path(self._config.folder) if self._config.folder else self._job.folder / self._config.artifact
        if out.exists() and any(out.iterdir()):
            raise JobError(f"{out} is not empty.", "Choose an empty or a new folder.")
        draft = out.with_name(f".{out.name}.new")
        shutil.rmtree(draft, ignore_errors=True)
        try:
            draft.mkdir(parents=True)
            self._make(draft)
            write_card(draft, self._run, self._config)
            if out.exists():
                out.rmdir()
            draft.rename(out)
        except _Stop:
            return ev.Stopped()
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        artifact = str(out) if self._config.folder else out.name
        if not self._config.destination:
            return ev.Finished(artifact=artifact)
        try:
            return ev.Finished(artifact=artifact, url=self._push(out, self._config.destination))
        except _Stop:
            return ev.Stopped(artifact=artifact)

    def _say(self, event: ev.Event) -> None:
        if self._events:
            self._events.append(event)

    def _progress(self, name: str, done: int, total: int) -> None:
        if self._job.stop_requested:
            raise _Stop
        percent = 100 * done // max(1, total)
        if percent != self._last_percent:
            self._last_percent = percent
            self._say(ev.Phase(name=name, done=done, total=total, unit="bytes"))

    def _make(self, out: Path) -> None:
        if isinstance(self._run_config.method, FullConfig):
            self._copy(self._run.folder / "model", out)
        elif self._config.artifact == "adapter":
            self._copy(self._run.folder / "adapter", out)
        else:
            self._merge(out)

    def _copy(self, source: Path, out: Path) -> None:
        files = [path for path in sorted(source.rglob("*")) if path.is_file()]
        total, done = sum(path.stat().st_size for path in files), 0
        self._check_disk(out, total)
        for path in files:
            target = out / path.relative_to(source)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, target)
            done += path.stat().st_size
            self._progress("copying", done, total)

    def _merge(self, out: Path) -> None:
        # torch takes seconds to load, and only a merge needs it
        from ftapp.workers.merge import NotStreamable, merge

        state = self._run.refresh()
        revision = state.resolved.values.get("model.revision") if state.resolved else None
        model = self._run_config.model.model_copy(update={"revision": revision or self._run_config.model.revision})
        base, _ = sources.find_files(model, self._token, lambda: self._say(ev.Phase(name="downloading")))
        self._check_disk(out, sum(path.stat().st_size for path in base.glob("*.safetensors")))
        self._say(ev.Phase(name="merging"))
        try:
            merge(base, self._run.folder / "adapter", out, lambda done, total: self._progress("merging", done, total))
        except NotStreamable as reason:
            self._say(ev.Note(message=f"Merged in memory by PEFT, since {reason}."))
            self._merge_in_memory(base, out)
        sources.name_base(out / "config.json", self._run_config.model, None)

    def _merge_in_memory(self, base: Path, out: Path) -> None:
        import torch

        from ftapp.workers import models

        cpu = models.Hardware("cpu", "CPU", torch.float32)
        model = models.load_base(base, self._run_config.model.public_name, cpu, models.stored_dtype(base))
        adapter = self._run.folder / "adapter"
        merged = models.attach_adapter(model, adapter).merge_and_unload(safe_merge=True)
        tokenizer = models.load_tokenizer(adapter)
        models.stop_at(merged, tokenizer)
        merged.save_pretrained(out)
        tokenizer.save_pretrained(out)

    def _check_disk(self, out: Path, needed: int) -> None:
        free = shutil.disk_usage(out).free
        if free < needed * 1.05:
            raise JobError(
                f"The artifact needs {needed / 2**30:.1f} GiB, the disk has {free / 2**30:.1f} GiB left.",
                "Free some space and publish again.",
            )

    def _push(self, folder: Path, destination: str) -> str:
        """Create the repository, upload every file in one commit, and compare what arrived."""
        api = HfApi(token=self._token or False)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        total, done = sum(path.stat().st_size for path in files), 0
        self._progress("pushing", 0, total)
        with told(destination):
            address = api.create_repo(destination, private=self._config.private, exist_ok=True)
            if self._config.private and not api.model_info(destination).private:
                raise HubError(
                    f"{destination} exists and is public.", "Choose another name, or allow a public destination."
                )
            operations = []
            for path in files:
                add = CommitOperationAdd(path.relative_to(folder).as_posix(), path)
                api.preupload_lfs_files(destination, [add], free_memory=False)
                operations.append(add)
                done += path.stat().st_size
                self._progress("pushing", done, total)
            commit = _retried(
                lambda: api.create_commit(
                    destination, operations, commit_message=f"Fine-tuned with ftapp ({self._config.artifact})"
                )
            )
            self._say(ev.Phase(name="verifying"))
            there = {item.path: item for item in api.list_repo_tree(destination, recursive=True, revision=commit.oid)}
        for path in files:
            name = path.relative_to(folder).as_posix()
            arrived = there.get(name)
            lfs = getattr(arrived, "lfs", None)
            same = arrived is not None and getattr(arrived, "size", None) == path.stat().st_size
            if not same or (lfs and lfs.sha256 != _sha256(path)):
                raise HubError(f"{name} did not arrive whole at {destination}.", "Publish again.")
        return str(address)


def _retried(commit: Callable[[], CommitInfo], tries: int = 4) -> CommitInfo:
    """The one call of a push that the client does not repeat by itself when the Hub is unwell."""
    for attempt in range(1, tries):
        try:
            return commit()
        except HfHubHTTPError as error:
            if error.response is None or error.response.status_code < 500:
                raise
            time.sleep(2**attempt / 4)
    return commit()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
