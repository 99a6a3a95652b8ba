"""Evaluate: base, base with examples and tuned model on the same held-out rows, in one process, from one base."""

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ftapp.contract import events as ev
from ftapp.contract.answers import AnswerFormat, find_format, in_format, same
from ftapp.contract.chat import THINKING
from ftapp.contract.evaluation import Answer, AnsweredRow, Contestant, EvaluationReport
from ftapp.contract.examples import Example
from ftapp.contract.memory import AUTO_LENGTH_LIMIT
from ftapp.contract.scoring import Sums, comparisons_of, scores_of, unrelated_of
from ftapp.contract.verdict import judge
from ftapp.store.accelerator import wait_until_free
from ftapp.store.datasets import DatasetStore
from ftapp.store.evaluations import REPORT, write_results
from ftapp.store.eventlog import EventLog
from ftapp.store.jobs import Job
from ftapp.workers.asking import Asker, Interrupted, Prompt, Written
from ftapp.workers.overlap import overlap, spoken
from ftapp.workers.questions import Question, draw_rows, longest_answer, questions, reference, show_examples, think
from ftapp.workers.run_model import RunModel
from ftapp.workers.tokens import Encoder, TokenRow

PASSAGE_TOKENS = 512
UNRELATED = Path(__file__).with_name("unrelated.txt")
WHO: dict[Contestant, str] = {"base": "base", "examples": "base with examples", "tuned": "tuned model"}
PAUSE = 0.3
"""Seconds between two events about one phase."""


def evaluate(job: Job, events: EventLog | None) -> ev.Event:
    """Do what the evaluation's config asks; returns Finished or Stopped, raises FtappError."""
    try:
        return _Evaluation(job, events).run()
    except Interrupted:
        return ev.Stopped()


class _Evaluation:
    def __init__(self, job: Job, events: EventLog | None) -> None:
        self._job, self._events = job, events
        self._began, self._told = time.monotonic(), 0.0
        self._config = job.evaluate_config()
        self._run = Job(job.folder.parents[1])
        self._run_config = self._run.run_config()

    def run(self) -> ev.Event:
        """Rows, contestants, unrelated text, report."""
        self._phase("reading the rows")
        drawn = draw_rows(DatasetStore(self._run.folder.parents[1] / "datasets"), self._config, self._run_config)
        wait_until_free(self._run.folder.parents[2], self._phase)
        self._phase("loading the model")
        model = RunModel(self._run)
        encoder, context = model.encoder, self._context(model)
        room = longest_answer(encoder, self._config, drawn.rows)
        # a base that thinks would be cut off before its answer: it is asked for what the rows show, an answer
        of_base = {} if think([*drawn.rows, *drawn.pool]) else {THINKING: False}
        asked = questions(encoder, drawn.rows, room, context, of_base)
        talks = all(one.prompt for one in asked)
        wanted = find_format([reference(encoder, row) for row in drawn.pool]) if talks else None
        shown = self._show_examples(encoder, asked, drawn.pool, context, of_base) if talks else 0.0
        contestants: list[Contestant] = ["base", "examples", "tuned"] if shown else ["base", "tuned"]
        if talks and not shown:
            self._say(ev.Note(level="warning", message="No training row fits the context beside a question."))

        right = [reference(encoder, one.example) for one in asked]
        passages = _passages(encoder, context)
        answers: dict[Contestant, list[Answer]] = {}
        unrelated: dict[Contestant, Sums] = {}
        for name in contestants:
            with nullcontext() if name == "tuned" else model.without_adapter():
                asker = Asker(
                    model.tuned if name == "tuned" else model.base,
                    model.stop_ids,
                    encoder.tokenizer.pad_token_id,
                    lambda: self._job.stop_requested,
                )
                losses = self._losses(asker, name, asked)
                written = self._written(asker, name, asked) if talks else [None] * len(asked)
                if name != "examples":
                    unrelated[name] = asker.losses(passages, lambda _: None)
            answers[name] = [
                _answer(encoder, one.shown if name == "examples" else 0, loss, text, correct, wanted)
                for one, loss, text, correct in zip(asked, losses, written, right, strict=True)
            ]
        rows = [
            AnsweredRow(
                row=number + 1,
                line=one.example.line,
                turns=one.turns,
                reference=right[number],
                answers={name: answers[name][number] for name in contestants},
            )
            for number, one in enumerate(asked)
        ]
        scores = [scores_of(name, rows, wanted is not None) for name in contestants]
        comparisons = comparisons_of(contestants, rows, wanted is not None)
        forgotten = unrelated_of(unrelated["base"], unrelated["tuned"])
        data = self._run_config.data
        report = EvaluationReport(
            run=self._run.name,
            dataset=self._config.dataset or data.eval_dataset or data.dataset,
            held_out_by_run=self._config.dataset is None,
            rows=len(rows),
            available=drawn.available,
            too_long=len(drawn.rows) - len(asked),
            seen_in_training=drawn.seen,
            examples=shown,
            max_new_tokens=room,
            base_unthinking=any(one.prompt_base != one.prompt for one in asked),
            format=wanted,
            scores=scores,
            comparisons=comparisons,
            unrelated=forgotten,
            verdict=judge(len(rows), shown, scores, comparisons, forgotten),
            seconds=time.monotonic() - self._began,
            device=model.device_name,
        )
        write_results(self._job, report, rows)
        return ev.Finished(artifact=REPORT)

    def _say(self, event: ev.Event) -> None:
        if self._events:
            self._events.append(event)

    def _phase(self, name: str, done: int | None = None, total: int | None = None) -> None:
        if self._job.stop_requested:
            raise Interrupted
        now = time.monotonic()
        if not done or done == total or now - self._told > PAUSE:
            self._told = now
            self._say(ev.Phase(name=name, done=done, total=total))

    def _context(self, model: RunModel) -> int:
        """The longest row in tokens, prompt and answer together."""
        limit = getattr(model.tuned.config.get_text_config(), "max_position_embeddings", None) or AUTO_LENGTH_LIMIT
        resolved = self._run.refresh().resolved
        trained = resolved.values.get("data.max_length") if resolved else None
        return min(limit, max(AUTO_LENGTH_LIMIT, trained or 0))

    def _show_examples(
        self, encoder: Encoder, asked: list[Question], pool: list[Example], context: int, of_base: dict[str, Any]
    ) -> float:
        return show_examples(
            encoder,
            asked,
            pool,
            self._config.examples,
            context,
            of_base,
            lambda done: self._phase("looking for examples", done, len(asked)),
        )

    def _losses(self, asker: Asker, name: Contestant, asked: list[Question]) -> list[tuple[float, int]]:
        """The loss of each row's right answers, summed over their tokens, and the number of these."""
        rows = [one.learned_with if name == "examples" else one.learned for one in asked]
        flat = [row for several in rows for row in several]
        phase = f"measuring the {WHO[name]}"
        self._phase(phase, 0, len(flat))
        found = iter(asker.losses(flat, lambda done: self._phase(phase, done, len(flat))))
        sums = []
        for several in rows:
            each = [next(found) for _ in several]
            sums.append((sum(loss for loss, _ in each), sum(tokens for _, tokens in each)))
        return sums

    def _written(self, asker: Asker, name: Contestant, asked: list[Question]) -> list[Written]:
        by = {"base": "prompt_base", "examples": "prompt_with", "tuned": "prompt"}
        prompts: list[Prompt | None] = [getattr(one, by[name]) for one in asked]
        phase = f"asking the {WHO[name]}"
        self._phase(phase, 0, len(asked))
        return asker.answers(
            [prompt for prompt in prompts if prompt], lambda done: self._phase(phase, done, len(asked))
        )


def _answer(
    encoder: Encoder,
    shown: int,
    loss: tuple[float, int],
    written: Written | None,
    right: str,
    wanted: AnswerFormat | None,
) -> Answer:
    """What one contestant made of a row, judged."""
    if written is None:
        return Answer(loss=loss[0], tokens=loss[1], examples=shown)
    text = spoken(str(encoder.tokenizer.decode(written.ids, skip_special_tokens=True)))
    return Answer(
        loss=loss[0],
        tokens=loss[1],
        text=text,
        exact=same(text, right),
        overlap=overlap(text, right),
        in_format=wanted is not None and in_format(text, wanted),
        stopped=written.stopped,
        length=len(written.ids),
        examples=shown,
    )


def _passages(encoder: Encoder, context: int) -> list[TokenRow]:
    """The text that has nothing to do with any run, a paragraph a row."""
    found = []
    for passage in UNRELATED.read_text(encoding="utf-8").split("\n\n"):
        ids = list(encoder.tokenizer(passage.strip())["input_ids"])[: min(context, PASSAGE_TOKENS)]
        found.append(TokenRow(ids, ids))
    return found
