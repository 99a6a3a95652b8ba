"""The verbs on runs: starting, stopping, taking up again."""

from collections.abc import Callable

from ftapp.contract.changes import changed
from ftapp.contract.config import RunConfig
from ftapp.contract.duration import idle, probe_of
from ftapp.contract.errors import DatasetError, HubUnreachable, JobError, LimitReached
from ftapp.contract.refusals import refusal
from ftapp.contract.report import DatasetInfo, dataset_record
from ftapp.people import acts, in_turn
from ftapp.preparing import Preparing
from ftapp.processes.child import alive, stop_tree
from ftapp.processes.machine import lacking
from ftapp.store.adapters import disagreements
from ftapp.store.checkpoints import last_whole
from ftapp.store.jobs import ACTIVE, Job, Status
from ftapp.views import C, End, JobView, RunView


class Training(Preparing):
    """The runs that one user can start and end."""

    def make_room(self, why: str) -> None:
        """End what else of this user's holds the accelerator's memory."""

    def _run_using(self, id: str) -> str | None:
        for job, _ in self._runs.active():
            if id in job.datasets():
                return job.name
        return None

    @acts
    @in_turn
    def start_training(self, config: RunConfig) -> str:
        """Write the run's request and start it, or queue it behind the running one; returns the run's name."""
        info = self._trainable(config.data.dataset)
        if config.data.eval_dataset:
            self._trainable(config.data.eval_dataset)
            if not self.overlap(config.data, config.seed).train_rows:
                raise DatasetError(
                    f"Every row of '{info.id}' has a prompt that is also in '{config.data.eval_dataset}'.",
                    "Measure on other rows, or on a share of these.",
                )
        elif info.report.valid < 2 and config.data.eval_fraction > 0:
            raise DatasetError(
                f"'{info.id}' has {info.report.valid} usable row: too few to hold one out.",
                "Add rows, or set the held-out share to 0.",
            )
        self._refuse_unusable(config.model)
        self._refuse_foreign(config.model)
        self._refuse_full()
        self._refuse_many()
        problems = lacking(config, self.gpus()) | idle(config, info.report.valid)
        if self.person.shared and config.tracking not in ("none", "tensorboard"):
            problems["tracking"] = "is not for a shared machine: TensorBoard's files stay with the run"
        if config.model.adapter:
            problems |= disagreements(config, self._jobs.get(config.model.adapter))
        try:
            problems |= self.misfits(config)
        except HubUnreachable:
            pass  # the model may have been downloaded before: the worker finds out
        if problems:
            raise refusal(problems)
        job = self._jobs.create(config, dataset_record(info))
        self._begin(job)
        return job.name

    @acts
    def try_two_steps(self, config: RunConfig) -> str:
        """Start the first two steps of a run as a run of their own, by which `duration` then goes; returns its name."""
        name = self.start_training(probe_of(config))
        self.describe_run(name, title="Two steps, for the estimate")
        return name

    def _refuse_many(self) -> None:
        """Raise LimitReached if this person has as many runs waiting and at work as may be."""
        most = self.settings.max_runs
        if most and (now := self.scheduler.count(self.person.name)) >= most:
            raise LimitReached(
                f"You have {now} runs and evaluations waiting or at work, the most that are allowed here.",
                "Wait for one to end, or take one out of the queue.",
            )

    def _trainable(self, id: str) -> DatasetInfo:
        info = self.dataset(id)
        if bad := info.unresolved:
            raise DatasetError(
                f"{bad:,} row{'s' if bad != 1 else ''} of '{id}' cannot be used.",
                "Leave them out (in the Dataset tab; in the terminal --leave-out-invalid), or correct the file.",
            )
        return info

    @acts
    @in_turn
    def resume(self, name: str) -> None:
        """Take a run up again from its last whole checkpoint, when its turn comes.

        One that was taken out of the queue waits again. Raises JobError if it has no checkpoint or still works.
        """
        job = self._jobs.get(name)
        if self._runs.summary(job).status not in ("lost", "failed", "stopped"):
            raise JobError(f"{name} is not interrupted.", "Only a lost, failed or stopped run can be resumed.")
        config = job.run_config()
        if job.process() and last_whole(job.folder / "checkpoints") is None:
            raise JobError(f"{name} has no whole checkpoint.", "Start it again from the Configure tab.")
        if change := self._change_of_rows(job):
            raise DatasetError(
                f"'{config.data.dataset}' has changed since {name} began: {change}. It would go on as another run.",
                "Undo the change, or start a new run.",
            )
        self._refuse_full()
        self._refuse_many()
        job.request_resume()
        self._begin(job)

    def _begin(self, job: Job) -> None:
        """Start what waits, if its turn has come."""
        self.make_room("a training started and needs the memory")
        try:
            self.scheduler.tick()
        except JobError as error:
            hint = f"{error.hint} The queue tries again by itself; nothing has to be started anew."
            raise JobError(f"{job.name} waits in the queue. {error.message}", hint) from error

    def _change_of_rows(self, job: Job) -> str:
        """How a run's dataset differs from what it was when the run began; empty if it does not."""
        known = job.dataset()
        if known is None:
            return ""  # started by an earlier version
        now = dataset_record(self.dataset(known.id))
        if now.sha256 != known.sha256:
            return "its file is another one"
        if set(now.edits) != set(known.edits):
            return "other fixes are applied to it"
        if now.used != known.used:
            return f"{known.used:,} of its rows were used then, {now.used:,} now"
        return ""

    @acts
    def start_changed(self, name: str) -> str:
        """Start a new run like a failed one, with the changes that its failure suggests; returns the new run's name."""
        view = self.run(name)
        config = changed(view.config, view.changes)
        if not view.changes or config is None:
            raise JobError(f"Nothing about {name}'s config is known to help.", "Change it in the Configure tab.")
        return self.start_training(config)

    def runs(self) -> list[RunView]:
        """The user's runs, newest first."""
        views = []
        for job, summary in self._runs.all():
            views.append(self._view(job, job.run_config, summary.row.created, summary.status, summary.end))
        return views

    def run(self, name: str) -> RunView:
        """One run; raises JobError."""
        return self._run_view(self._jobs.get(name))

    def log_tail(self, name: str, publication: str = "") -> str:
        """The end of what a run's worker, or a publication's, printed."""
        return self._job(name, publication).log_tail()

    @acts
    def stop(self, name: str, publication: str = "") -> None:
        """Ask a job to save and end; after the grace period it is ended."""
        self._ask_to_stop(self._job(name, publication))

    def _ask_to_stop(self, job: Job) -> None:
        if job.status(alive(job.process())) in ACTIVE:
            job.request_stop()

    @acts
    def kill(self, name: str, publication: str = "") -> None:
        """End a job's processes now; they have five seconds to save."""
        job = self._job(name, publication)
        job.request_stop()
        stop_tree(job.process())

    def _run_view(self, job: Job) -> RunView:
        status, end = self._runs.status(job)
        return self._view(job, job.run_config, job.created.timestamp(), status, end)

    def _job(self, name: str, publication: str) -> Job:
        run = self._jobs.get(name)
        return self._publication_job(run, publication) if publication else run

    def _publication_job(self, run: Job, number: str) -> Job:
        for job in self._jobs.publications(run):
            if job.name == number:
                return job
        raise JobError(f"{run.name} has no publication '{number[:20]}'.")

    def _view(self, job: Job, read_config: Callable[[], C], created: float, status: Status, end: End) -> JobView[C]:
        if status == "stopping":
            self.scheduler.end_overdue(job)  # a publication, of which the scheduler knows nothing, or no page is served
        return JobView(job, read_config, created, status, end)
