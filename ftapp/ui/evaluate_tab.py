"""The Evaluate tab: measure what a run's training was worth, and look at the answers side by side."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import gradio as gr

from ftapp.contract.errors import ConfigError
from ftapp.contract.evaluation import NAMES, Contestant, EvaluateConfig, parse_evaluate_config
from ftapp.evaluations import DEMO_QUESTIONS
from ftapp.studio import Studio
from ftapp.ui import edge, findings, form, markup, status, voting
from ftapp.views import EvaluationView

FIELDS = [field for field in form.fields_of(EvaluateConfig) if field.name != "run"]
BASIC = [field for field in FIELDS if field.level == "basic"]
ADVANCED = [field for field in FIELDS if field.level != "basic"]
PLACED = [*BASIC, *ADVANCED]
OWN = "What the run held out"
POLL_SECONDS = 0.8


@dataclass(frozen=True)
class EvaluateTab:
    """The components that other tabs are wired to."""

    run: Any
    options: list[Any]
    advanced: Any
    start: Any
    stop: Any
    number: Any
    progress: Any
    verdict: Any
    figures: Any
    details: Any
    sort: Any
    against: Any
    answers: Any
    previous: Any
    next: Any
    where: Any
    page: Any
    vote: voting.Voting
    problems: Any
    timer: Any
    seen: Any

    @property
    def shown(self) -> list[Any]:
        """What `_show` updates, in its order."""
        above = [self.number, self.start, self.stop, self.progress, self.verdict, self.figures, self.details]
        return [*above, *self.listed, *self.vote.shown, self.timer, self.seen]

    @property
    def listed(self) -> list[Any]:
        """What `_page` updates, in its order."""
        return [self.against, self.answers, self.previous, self.next, self.where, self.page]


def place() -> EvaluateTab:
    """Put the components on the page."""
    with gr.Row(elem_classes="fields"):
        run = gr.Dropdown(
            choices=[], label="Run", elem_id="evaluate-run", interactive=True, filterable=False, scale=2, min_width=240
        )
        number = gr.Dropdown(
            choices=[], label="Evaluation", elem_id="evaluate-number", interactive=True, filterable=False, scale=1,
            min_width=200, visible=False,
        )  # fmt: skip
    with gr.Row(elem_classes="fields"):
        options = [_option(field) for field in BASIC]
    with gr.Accordion("More options", open=False, elem_id="evaluate-advanced") as advanced, gr.Row():
        options += [_option(field) for field in ADVANCED]
    with gr.Row(elem_classes="actions"):
        start = gr.Button("Evaluate", variant="primary", elem_id="evaluate-start", min_width=140)
        stop = gr.Button("Stop", variant="stop", visible=False, elem_id="evaluate-stop", min_width=110)
    progress = gr.HTML(elem_id="evaluate-progress")
    verdict = gr.HTML(elem_id="evaluate-verdict")
    figures = gr.HTML(elem_id="evaluate-figures")
    with gr.Tabs(visible=False, elem_id="evaluate-details") as details:
        with gr.Tab("Answers side by side"):
            with gr.Row(elem_classes="fields"):
                sort = gr.Radio(
                    choices=[(title, name) for name, title in findings.SORTS.items()], value="best", label="Order",
                    elem_id="evaluate-sort", interactive=True, scale=2, min_width=300,
                )  # fmt: skip
                against = gr.Radio(
                    choices=_rivals(True), value="base", label="Tuned against", elem_id="evaluate-against",
                    interactive=True, scale=1, min_width=240,
                )  # fmt: skip
            answers = gr.HTML(elem_id="evaluate-answers")
            with gr.Row(elem_classes="pager"):
                previous = gr.Button("← Previous", size="sm", elem_id="evaluate-previous", min_width=90)
                where = gr.HTML(elem_id="evaluate-where", elem_classes="where")
                following = gr.Button("Next →", size="sm", elem_id="evaluate-next", min_width=90)
        with gr.Tab("Blind vote", elem_id="evaluate-vote-tab"):
            vote = voting.place()
    return EvaluateTab(
        run=run, options=options, advanced=advanced, start=start, stop=stop, number=number, progress=progress,
        verdict=verdict, figures=figures, details=details, sort=sort, against=against, answers=answers,
        previous=previous, next=following, where=where, page=gr.State(0), vote=vote, problems=gr.State({}),
        timer=gr.Timer(POLL_SECONDS, active=False), seen=gr.State(()),
    )  # fmt: skip


def _option(field: form.Field) -> Any:
    choices = [(OWN, "")] if field.name == "dataset" else None
    return form.component(field, choices, elem_id=f"evaluate-{field.name.replace('_', '-')}", min_width=200)


def wire(bound: edge.Edge, tab: EvaluateTab) -> None:
    """Bind what happens inside this tab."""
    looked_at = [tab.run, tab.number, tab.sort, tab.against]
    marked = [*tab.options, tab.problems]
    changed = bound.on(tab.run.change, _of_run, [tab.run], [*tab.options, tab.number])
    bound.on(changed.then, _show, looked_at, tab.shown, **edge.LAST)
    bound.on(tab.number.input, _show, looked_at, tab.shown, **edge.LAST)
    for one in tab.options:
        bound.on(form.edited(one), _check, [tab.problems, *tab.options], marked)
    given = [tab.run, tab.problems, *tab.options]
    started = bound.on(tab.start.click, _start, given, [tab.number, *marked, tab.advanced], trigger_mode="once")
    bound.on(started.success, _show, looked_at, tab.shown)
    stopped = bound.on(tab.stop.click, _stop, [tab.run, tab.number])
    bound.on(stopped.then, _show, looked_at, tab.shown)
    bound.poll(tab.timer.tick, _poll, [*looked_at, tab.seen], tab.shown)
    listing = [tab.run, tab.number, tab.sort, tab.against, tab.page]
    for event, step in (
        (tab.sort.input, None),
        (tab.against.input, None),
        (tab.previous.click, -1),
        (tab.next.click, 1),
    ):
        bound.on(event, _turner(step), listing, tab.listed)
    voting.wire(bound, tab.vote, tab.run, tab.number)


def refresh(bound: edge.Edge, event: Any, tab: EvaluateTab) -> None:
    """On this event, read again which runs have a result, and how the chosen one's evaluation stands."""
    listed = bound.on(event, lambda studio, name: edge.keep_chosen(chosen(studio, name), name), [tab.run], [tab.run])
    bound.on(listed.then, _show, [tab.run, tab.number, tab.sort, tab.against], tab.shown)


def chosen(studio: Studio, name: str | None) -> Any:
    """The runs with a result, or with what an evaluation found; the newest chosen unless another one was."""
    names = [view.name for view in studio.runs() if view.has_result or view.has_evaluations]
    value = name if name in names else names[0] if names else None
    return gr.update(choices=names, value=value, visible=bool(names))


def _of_run(studio: Studio, run: str | None) -> list[Any]:
    """The options as they suit a run, and its newest evaluation."""
    if not run:
        return [*[gr.skip()] * len(PLACED), gr.update(choices=[], value=None)]
    config = studio.evaluation_config(run)
    data = studio.run(run).config.data
    ids = [info.id for info in studio.datasets() if info.id not in (data.dataset, DEMO_QUESTIONS)]
    own = [(OWN, "")] if data.eval_fraction or data.eval_dataset else []
    demo = [("300 more questions like the demo's", DEMO_QUESTIONS)] if config.dataset == DEMO_QUESTIONS else []
    choices = [*demo, *own, *((id, id) for id in ids)]
    values = form.config_to_values(config, PLACED)
    value = values["dataset"] if values["dataset"] in [id for _, id in choices] else None
    updates = [
        gr.update(choices=choices, value=value) if field.name == "dataset" else values[field.name] for field in PLACED
    ]
    return [*updates, _numbers(studio.evaluations(run), None)]


def _numbers(views: list[EvaluationView], number: str | None) -> Any:
    """The list of a run's evaluations; one that is there stays chosen, else the newest is."""
    names = [view.name for view in views]
    labels = [
        (
            f"{view.name} · {datetime.fromtimestamp(view.created):%d %b %H:%M} · {status.WORDS[view.status].lower()}",
            view.name,
        )
        for view in views
    ]
    value = number if number in names else names[0] if names else None
    return gr.update(choices=labels, value=value, visible=len(names) > 1)


def _config(run: str, values: tuple[form.Value, ...]) -> EvaluateConfig:
    named = {field.name: value for field, value in zip(PLACED, values, strict=True)}
    return parse_evaluate_config({**form.values_to_plain(named, PLACED), "run": run})


def _check(_: Studio, shown: dict[str, str], *values: form.Value) -> list[Any]:
    problems: dict[str, str] = {}
    try:
        _config("any", values)
    except ConfigError as error:
        problems = error.problems
    return [*form.marks(PLACED, problems, shown), problems]


def _start(studio: Studio, run: str | None, shown: dict[str, str], *values: form.Value) -> list[Any]:
    if not run:
        edge.warn("There is no trained run to evaluate yet. Start one in the Configure tab.")
        return [gr.skip()] * (len(PLACED) + 3)
    try:
        config = _config(run, values)
    except ConfigError as error:
        edge.warn("Correct what is marked first.")
        hidden = any(field.name in error.problems for field in ADVANCED)
        opened = gr.update(open=True) if hidden else gr.skip()
        return [gr.skip(), *form.marks(PLACED, error.problems, shown), error.problems, opened]
    number = studio.evaluate(config)
    return [_numbers(studio.evaluations(run), number), *form.marks(PLACED, {}, shown), {}, gr.skip()]


def _stop(studio: Studio, run: str | None, number: str | None) -> None:
    if run and number:
        studio.stop_evaluation(run, number)


def _poll(
    studio: Studio, run: str | None, number: str | None, sort: str, against: Contestant, seen: tuple[Any, ...]
) -> Any:
    if run and number and _signature(studio.evaluation(run, number)) == seen:
        return gr.skip()
    return _show(studio, run, number, sort, against)


def _signature(view: EvaluationView) -> tuple[Any, ...]:
    return view.folder, view.status, view.state.count


def _show(studio: Studio, run: str | None, number: str | None, sort: str, against: Contestant) -> tuple[Any, ...]:
    """The whole of an evaluation as it stands."""
    views = studio.evaluations(run) if run else []
    view = next((one for one in views if one.name == number), views[0] if views else None)
    nothing = [gr.skip()] * 14
    if run is None or view is None:
        words = ("Not evaluated yet.", "Press Evaluate: the run's model answers rows that it was not trained on.")
        if not run:
            words = ("Nothing to evaluate yet.", "Train first: go to Configure and press Start.")
        start = gr.update(interactive=bool(run), visible=True)
        hidden = gr.update(visible=False)
        return (
            _numbers(views, None), start, hidden, markup.empty(*words), "", "", hidden, *nothing,
            gr.Timer(active=False), (),
        )  # fmt: skip
    report = studio.evaluation_report(run, view.name)
    told = status.headline(view, told=report is None) + status.phase_bar(view) if report is None else ""
    below = nothing
    if report:
        rows = _page(studio, run, view.name, sort, against, 0)
        talks = any(scores.exact for scores in report.scores)
        below = [*rows, *(voting.show(studio, run, view.name) if talks else [gr.skip()] * 8)]
    return (
        _numbers(views, view.name),
        gr.update(visible=not view.active, interactive=True, value="Evaluate again" if views else "Evaluate"),
        gr.update(visible=view.active and view.status != "stopping"),
        told,
        findings.verdict(report) if report else "",
        findings.figures(report) if report else "",
        gr.update(visible=report is not None),
        *below,
        gr.Timer(active=view.active),
        _signature(view),
    )


def _rivals(examples: bool) -> list[tuple[str, str]]:
    names: list[Contestant] = ["base", "examples"] if examples else ["base"]
    return [(NAMES[name], name) for name in names]


def _turner(step: int | None) -> Any:
    """Another page of answers; None: the first one."""

    def turn(studio: Studio, run: str, number: str, sort: str, against: Contestant, page: int) -> list[Any]:
        return _page(studio, run, number, sort, against, 0 if step is None else page + step)

    return turn


def _page(studio: Studio, run: str, number: str, sort: str, against: Contestant, page: int) -> list[Any]:
    rows = studio.evaluation_rows(run, number)
    examples = bool(rows) and "examples" in rows[0].answers
    rival: Contestant = against if examples else "base"
    rows = findings.ordered(rows, sort, rival)
    last = max(0, (len(rows) - 1) // findings.PAGE)
    page = max(0, min(page, last))
    start = page * findings.PAGE
    end = min(start + findings.PAGE, len(rows))
    return [
        gr.update(choices=_rivals(examples), value=rival),
        findings.answers(rows, start),
        gr.update(interactive=page > 0),
        gr.update(interactive=page < last),
        f"<p class='where'>{start + 1 if rows else 0}–{end} of {len(rows)}</p>",
        page,
    ]
