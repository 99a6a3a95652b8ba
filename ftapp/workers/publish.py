"""Publish: make the artifact of a run or take one that is there, check it, write its card, push it."""

import hashlib
import os
import shutil
from functools import partial
from pathlib import Path

from ftapp.card import PICTURE, card_of, final
from ftapp.contract import events as ev
from ftapp.contract.config import FullConfig, RunConfig
from ftapp.contract.elsewhere import gguf_file
from ftapp.contract.errors import ConfigError, JobError, ModelError
from ftapp.contract.publication import PublishConfig
from ftapp.settings import read_llama_cpp
from ftapp.store import artifacts
from ftapp.store.eventlog import EventLog
from ftapp.store.jobs import Job
from ftapp.store.weights import weight_files
from ftapp.workers import sources
from ftapp.workers.gguf import convert
from ftapp.workers.picture import draw_losses
from ftapp.workers.push import Push

SPARE = 64 * 2**20
"""Bytes that must stay free on the disk."""
TEXTS = (".json", ".jinja", ".md", ".txt", ".model")
LONGEST_TEXT = 64 * 2**20


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
        self._last = ("", -1)

    def run(self) -> ev.Event:
        """A stop, or a failure, before the artifact is whole leaves nothing of it."""
        for left in self._job.folder.parent.glob("*/.*.new"):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        folder: Path | None = None
        try:
            folder, made = (None if self._config.folder else self._reused(self._config)) or self._made()
            if self._config.artifact != "gguf":
                self._describe(folder, made.verified)
            self._check_texts(folder)
            artifact = str(folder) if self._config.folder else os.path.relpath(folder, self._job.folder)
            if not self._config.destination:
                return ev.Finished(artifact=artifact)
            extra = {name: _sha256(folder / name) for name in artifacts.CARD if (folder / name).exists()}
            push = Push(self._config, self._token, folder, {**made.files, **extra})
            return ev.Finished(artifact=artifact, url=push.run(self._progress))
        except _Stop:
            return ev.Stopped(artifact=os.path.relpath(folder, self._job.folder) if folder else None)

    def _say(self, event: ev.Event) -> None:
        if self._job.stop_requested:
            raise _Stop
        if self._events:
            self._events.append(event)

    def _progress(self, name: str, done: int, total: int) -> None:
        if self._job.stop_requested:
            raise _Stop
        percent = (name, 100 * done // max(1, total))
        if percent != self._last:
            self._last = percent
            self._say(ev.Phase(name=name, done=done, total=total, unit="bytes"))

    def _reused(self, config: PublishConfig) -> tuple[Path, artifacts.Artifact] | None:
        """What an earlier publication of this run made, if it is whole and what is asked for."""
        others = sorted(self._job.folder.parent.glob("[0-9]*"), key=lambda path: int(path.name), reverse=True)
        found = artifacts.find(others, config, artifacts.source_of(self._run.folder))
        if found is None:
            return None
        folder, made = found
        if not artifacts.unchanged(folder, made, lambda done, total: self._progress("checking", done, total)):
            self._say(ev.Note(message="What was made before has changed since; it is made again."))
            return None
        self._say(ev.Note(message=f"What publication {folder.parent.name} made is still whole and is used."))
        if made.verified:
            self._say(made.verified)
        return folder, made

    def _made(self) -> tuple[Path, artifacts.Artifact]:
        out = Path(self._config.folder) if self._config.folder else self._job.folder / self._config.artifact
        if out.exists() and any(out.iterdir()):
            raise JobError(f"{out} is not empty.", "Choose an empty or a new folder.")
        source = artifacts.source_of(self._run.folder)
        draft = out.with_name(f".{out.name}.new")
        shutil.rmtree(draft, ignore_errors=True)
        try:
            draft.mkdir(parents=True)
            verified = self._make(draft)
            if out.exists():
                out.rmdir()
            draft.rename(out)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        made = artifacts.record(
            self._job.folder, out, self._config, source, verified,
            lambda done, total: self._progress("hashing", done, total),
        )  # fmt: skip
        return out, made

    def _make(self, out: Path) -> ev.Verified | None:
        if self._config.artifact == "gguf":
            return self._convert(out)
        if isinstance(self._run_config.method, FullConfig):
            self._copy(self._run.folder / "model", out)
            return None
        if self._config.artifact == "merged":
            return self._merge(out)
        self._copy(self._run.folder / "adapter", out)
        if self._config.with_base:
            base = self._base()
            self._copy(base, out / "base", {path for name in sources.MODEL_FILES for path in base.glob(name)})
            sources.name_base(out / "base" / "config.json", self._run_config.model, None)
        return None

    def _convert(self, out: Path) -> ev.Verified | None:
        """The merged model, an earlier publication's or one made for it and checked, as one GGUF file."""
        llama_cpp = read_llama_cpp()
        if llama_cpp is None:
            raise ConfigError("FTAPP_LLAMA_CPP names no llama.cpp.", "Set it to the folder of one.")
        kind, scratch, verified = self._config.gguf_type, self._job.folder / ".merged.new", None
        try:
            if isinstance(self._run_config.method, FullConfig):
                model = self._run.folder / "model"
            elif found := self._reused(self._config.model_copy(update={"artifact": "merged"})):
                model, verified = found[0], found[1].verified
            else:
                scratch.mkdir()
                model, verified = scratch, self._merge(scratch)
            self._check_disk(out, sum(path.stat().st_size for path in weight_files(model)))
            target = out / gguf_file(self._config)
            convert(llama_cpp, model, target, kind, self._job.output, partial(self._progress, "converting"))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return verified

    def _copy(self, source: Path, out: Path, only: set[Path] | None = None) -> None:
        files = sorted(path for path in (source.rglob("*") if only is None else only) if path.is_file())
        total, done = sum(path.stat().st_size for path in files), 0
        out.mkdir(exist_ok=True)
        self._check_disk(out, total)
        for path in files:
            target = out / path.relative_to(source)
            target.parent.mkdir(exist_ok=True)
            with path.open("rb") as read, target.open("wb") as write:
                while data := read.read(4 * 2**20):
                    write.write(data)
                    done += len(data)
                    self._progress("copying", done, total)

    def _base(self) -> Path:
        """The base's files, at the commit that the run was trained on."""
        state = self._run.refresh()
        revision = state.resolved.values.get("model.revision") if state.resolved else None
        model = self._run_config.model.model_copy(update={"revision": revision or self._run_config.model.revision})
        return sources.find_files(model, self._token, self._say)[0]

    def _merge(self, out: Path) -> ev.Verified:
        # torch takes seconds to load, and only a merge needs it
        from ftapp.workers.merge import NotStreamable, merge

        base, adapter = self._base(), self._run.folder / "adapter"
        self._check_disk(out, sum(path.stat().st_size for path in weight_files(base)))
        try:
            merge(base, adapter, out, lambda done, total: self._progress("merging", done, total))
        except NotStreamable as reason:
            from ftapp.workers.in_memory import merge_in_memory

            self._say(ev.Note(message=f"Merged in memory by PEFT, since {reason}."))
            self._say(ev.Phase(name="merging"))
            shutil.rmtree(out)
            merge_in_memory(base, adapter, out, self._run_config.model.public_name)
        sources.name_base(out / "config.json", self._run_config.model, None)
        self._say(ev.Phase(name="verifying"))
        from ftapp.workers.verify import Verification

        verified = Verification(self._run, base, adapter, out, self._say).run()
        self._say(verified)
        if not verified.passed:
            wrong = "; ".join(verified.problems) or (
                f"the same likeliest token at {100 * verified.top1:.1f} % of {verified.positions} places, "
                f"{verified.divergence:.2g} nats apart, where the training changed {verified.change:.2g}"
            )
            raise ModelError(
                f"The merged model is not what was trained ({wrong}), so it was not kept.",
                "Publish again; if it fails again, publish the adapter.",
            )
        return verified

    def _describe(self, folder: Path, verified: ev.Verified | None) -> None:
        """The card, and the picture that it shows."""
        text = self._config.card or card_of(self._run, self._config, verified)
        (folder / "README.md").write_text(final(text, verified), encoding="utf-8")
        if not draw_losses(self._run.refresh(), folder / PICTURE):
            (folder / PICTURE).unlink(missing_ok=True)

    def _check_texts(self, folder: Path) -> None:
        """Nothing that leaves this machine may name a folder of it, or hold the token; raises JobError."""
        base = Path(self._run_config.model.id)
        secret = {"a folder of this machine": [str(self._run.folder.parents[1]), *([str(base)] * base.is_absolute())]}
        secret["the Hub token"] = [self._token] if self._token else []
        for path in sorted(folder.rglob("*")):
            if not path.is_file() or path.suffix not in TEXTS or path.stat().st_size > LONGEST_TEXT:
                continue
            data = path.read_bytes()
            for what, words in secret.items():
                if any(word.encode() in data for word in words):
                    raise JobError(f"{path.relative_to(folder)} names {what}, so it was not published.", "Take it out.")

    def _check_disk(self, out: Path, needed: int) -> None:
        free = shutil.disk_usage(out).free
        if free < needed + SPARE:
            raise JobError(
                f"The artifact needs {needed / 2**30:.1f} GiB, the disk has {free / 2**30:.1f} GiB left.",
                "Free some space and publish again.",
            )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
