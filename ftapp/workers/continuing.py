"""Taking a run up again: from which checkpoint, and whether it would still be the same run; the training asks."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator

import numpy

from ftapp.contract import events as ev
from ftapp.contract.config import ModelConfig
from ftapp.contract.errors import DatasetError, FtappError, ModelError
from ftapp.store.checkpoints import all_checkpoints, last_whole, step_of
from ftapp.store.jobs import Job
from ftapp.workers.tokens import TokenRow

NEW_RUN = "Start a new run from the Configure tab; this one's checkpoints are kept."


class Before:
    """What an earlier process of this run left: a checkpoint, and what it trained on."""

    def __init__(self, job: Job) -> None:
        folder = job.folder / "checkpoints"
        self.checkpoint = last_whole(folder)
        self.step = step_of(self.checkpoint) if self.checkpoint else 0
        self.notes = [ev.Note(message=f"Goes on from {self.checkpoint.name}.")] if self.checkpoint else []
        state = job.refresh()
        self._resolved = state.resolved if self.checkpoint else None
        self._started = state.earlier if self.checkpoint else None
        self._now = state.started
        # a cut one would stand in the way of the next that is written at its step
        for cut in [path for path in all_checkpoints(folder) if step_of(path) > self.step]:
            self.notes.append(ev.Note(level="warning", message=f"{cut.name} was not written whole and is left out."))
            if os.environ.get("RANK", "0") == "0":
                shutil.rmtree(cut, ignore_errors=True)

    def model(self, asked: ModelConfig) -> ModelConfig:
        """The model, in the revision that the run began with."""
        known = self._resolved.values.get("model.revision") if self._resolved else None
        return asked.model_copy(update={"revision": known}) if known and asked.on_hub else asked

    def check(self, template_hash: str, data_hash: str) -> list[ev.Note]:
        """What differs but does no harm; raises ModelError or DatasetError if it would be another run."""
        if before := self._resolved:
            _refuse_other("model's chat template has", before.template_hash, template_hash, ModelError)
            _refuse_other("rows have", before.data_hash, data_hash, DatasetError)
        return _differences(self._started, self._now) if self._started and self._now else []

    def check_weights(self, weights_hash: str, earlier: Job | None) -> None:
        """Raises ModelError if the base's weights are not those that this run, or the adapter it goes on from, had."""
        if before := self._resolved:
            _refuse_other("base model's weights have", before.weights_hash, weights_hash, ModelError)
        trained = earlier.refresh().resolved if earlier else None
        if earlier and trained and trained.weights_hash and trained.weights_hash != weights_hash:
            raise ModelError(
                f"The base model's weights are not those on which {earlier.name} trained its adapter "
                f"({_short(trained.weights_hash)} then, {_short(weights_hash)} now).",
                "Put the weights of then back, or start a new adapter.",
            )


def _refuse_other(what: str, then: str, now: str, error: type[FtappError]) -> None:
    """Raise the error if that is known and another now."""
    if then and then != now:
        raise error(
            f"The {what} changed since this run began ({_short(then)} then, {_short(now)} now): it would go on as "
            "another run.",
            NEW_RUN,
        )


def _differences(then: ev.Started, now: ev.Started) -> list[ev.Note]:
    told = [
        f"{name} was {old} when this run was interrupted and is {now.versions[name]} now: the figures may differ."
        for name, old in then.versions.items()
        if name in now.versions and _series(old) != _series(now.versions[name])
    ]
    if then.world_size != now.world_size:
        told.append(f"{then.world_size} processes trained before, {now.world_size} now: rows come in another order.")
    return [ev.Note(level="warning", message=message) for message in told]


def _series(version: str) -> list[str]:
    """What a library promises to keep: its major version, before 1.0 the minor one."""
    parts = version.split("+")[0].split(".")
    return parts[:2] if parts[0] == "0" else parts[:1]


def _short(digest: str) -> str:
    return digest[:8]


def text_hash(text: str) -> str:
    """Of a chat template."""
    return hashlib.sha256(text.encode()).hexdigest()


class RowsHash:
    """A digest of token rows and of what is learned of them, each side of the split on its own."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def passing(self, rows: Iterable[TokenRow]) -> Iterator[TokenRow]:
        """The same rows, one side of the split, taken into the digest as they pass."""
        for row in rows:
            both = numpy.array([row.input_ids, row.labels], dtype="<i4")
            self._digest.update(len(row.input_ids).to_bytes(4, "little") + both.tobytes())
            yield row
        self._digest.update(b"\xff" * 4)

    def hexdigest(self) -> str:
        """Of all that has passed."""
        return self._digest.hexdigest()
