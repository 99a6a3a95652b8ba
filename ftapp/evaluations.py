"""The verbs on evaluations: ask for one, follow it, read what it found, vote on its answers without seeing names."""

from ftapp.contract.errors import DatasetError, JobError
from ftapp.contract.evaluation import AnsweredRow, EvaluateConfig, EvaluationReport, Vote
from ftapp.conversation import Conversation
from ftapp.library import DEMO, DEMO_FOLDER
from ftapp.people import acts, in_turn
from ftapp.processes.child import alive
from ftapp.store import evaluations as files
from ftapp.store.jobs import Job
from ftapp.views import EvaluationView

DEMO_QUESTIONS = "demo-questions"
"""The dataset of 300 questions like the demo's that are not among its rows."""


class Evaluations(Conversation):
    """What one user's runs were found to be worth."""

    def _let_go(self, run: str) -> None:
        if any(view.active for view in self.evaluations(run)):
            raise JobError(f"{run} is being evaluated.", "Wait for that to end, or stop it.")
        super()._let_go(run)

    def evaluation_config(self, run: str) -> EvaluateConfig:
        """What to ask of a run if nothing else is said; a run on the demo's rows gets more questions than it held out.

        Raises JobError.
        """
        demo = self.run(run).config.data.dataset == DEMO
        return EvaluateConfig(run=run, dataset=DEMO_QUESTIONS if demo else None)

    @acts
    @in_turn
    def evaluate(self, config: EvaluateConfig) -> str:
        """Start an evaluation of a run, or queue it behind the training at work; returns its number.

        Raises JobError, DatasetError.
        """
        run = self._jobs.get(config.run)
        view = self.run(config.run)
        data = view.config.data
        if not view.has_result:
            raise JobError(f"{config.run} has no trained model yet.", "Wait for it to finish, or choose another run.")
        if view.active:
            raise JobError(f"{config.run} is still at work.", "Evaluate it when it has ended.")
        if any(one.active for one in self.evaluations(config.run)):
            raise JobError(f"{config.run} is being evaluated already.", "Wait for that to end, or stop it.")
        if config.dataset:
            self._measure_on(config.dataset)
        elif not data.eval_fraction and not data.eval_dataset:
            raise JobError(
                f"{config.run} held no rows out: there is nothing that it was not trained on.",
                "Choose a dataset of its own to measure on.",
            )
        if change := self._change_of_rows(run):
            raise DatasetError(
                f"'{data.dataset}' has changed since {config.run} began: {change}. "
                "Which rows it was not trained on is no longer known.",
                "Undo the change, or train again.",
            )
        self._refuse_full()
        self._refuse_many()
        job = self._jobs.create_evaluation(run, config)
        self.make_room("an evaluation started and needs the memory")
        self.scheduler.enqueue(job)
        self.scheduler.tick()
        return job.name

    def evaluations(self, run: str) -> list[EvaluationView]:
        """A run's evaluations, newest first."""
        return [self._evaluation_view(job) for job in self._jobs.evaluations(self._jobs.get(run))]

    def evaluation(self, run: str, number: str) -> EvaluationView:
        """One evaluation; raises JobError."""
        return self._evaluation_view(self._evaluation_job(run, number))

    @acts
    def stop_evaluation(self, run: str, number: str) -> None:
        """Ask an evaluation to end; it leaves no report."""
        self._ask_to_stop(self._evaluation_job(run, number))

    def evaluation_report(self, run: str, number: str) -> EvaluationReport | None:
        """What an evaluation found; None if it has not finished."""
        return files.read_report(self._evaluation_job(run, number))

    def evaluation_rows(self, run: str, number: str) -> list[AnsweredRow]:
        """Every row with its answers; raises JobError if it has not finished."""
        return files.read_rows(self._evaluation_job(run, number))

    @acts
    def vote(self, run: str, number: str, vote: Vote) -> None:
        """Keep who gave the best answer to a row; raises StorageError."""
        files.add_vote(self._evaluation_job(run, number), vote)

    def votes(self, run: str, number: str) -> list[Vote]:
        """The votes on an evaluation's answers so far, in their order."""
        return files.read_votes(self._evaluation_job(run, number))

    def _measure_on(self, id: str) -> None:
        if id == DEMO_QUESTIONS:
            self._datasets.add(DEMO_FOLDER / "heldout.jsonl", f"{DEMO_QUESTIONS}.jsonl", id=DEMO_QUESTIONS)
        self._trainable(id)

    def _evaluation_job(self, run: str, number: str) -> Job:
        for job in self._jobs.evaluations(self._jobs.get(run)):
            if job.name == number:
                return job
        raise JobError(f"{run} has no evaluation '{number[:20]}'.")

    def _evaluation_view(self, job: Job) -> EvaluationView:
        status = job.status(alive(job.process()))
        return self._view(job, job.evaluate_config, job.created.timestamp(), status, job.state.end)
