"""The verb `evaluate`: base, base with examples and tuned model on rows that the run was not trained on."""

import sys
from typing import Annotated

import typer

from ftapp.contract.evaluation import EvaluateConfig, EvaluationReport, parse_evaluate_config
from ftapp.contract.findings import about, figures_table
from ftapp.settings import read_settings
from ftapp.studio import Studio
from ftapp.terminal.output import console, plain, table
from ftapp.terminal.watch import watch
from ftapp.views import EvaluationView


def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's name, as `runs` lists it.")],
    rows: Annotated[int | None, typer.Option(metavar="N", help="Held-out rows to measure on; 200.")] = None,
    examples: Annotated[
        int | None, typer.Option(metavar="K", help="Training rows that the base is shown with each question; 4.")
    ] = None,
    on: Annotated[
        str | None, typer.Option("--on", metavar="DATASET", help="Measure on this dataset, not on what was held out.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the events as JSON lines, as they come, and the report as the last.")
    ] = False,
) -> None:
    """Measure what a run's training was worth, against its base with and without examples in the prompt."""
    studio = Studio(read_settings())
    said = {"rows": rows, "examples": examples, "dataset": on}
    given = {name: value for name, value in said.items() if value is not None}
    config = parse_evaluate_config(studio.evaluation_config(run).model_dump() | given)
    number = studio.evaluate(config)
    watch_evaluation(studio, config, number, json)
    report = studio.evaluation_report(run, number)
    if report and json:
        sys.stdout.write(report.model_dump_json() + "\n")
    elif report:
        tell_report(report)


def watch_evaluation(studio: Studio, config: EvaluateConfig, number: str, json: bool) -> None:
    """Tell an evaluation's events until it ends."""

    def look() -> EvaluationView:
        view = studio.evaluation(config.run, number)
        if view.status == "queued":  # the page, which else starts it, may not be running
            studio.scheduler.tick()
        return view

    watch(f"{config.run}, evaluation {number}", look, lambda: studio.stop_evaluation(config.run, number), json)


def tell_report(report: EvaluationReport) -> None:
    """The figures as a table, what they are of, the verdict."""
    headings, rows = figures_table(report)
    screen = console()
    screen.print(table(headings, rows))
    screen.print(plain("; ".join(about(report)) + "."), soft_wrap=True)
    screen.print()
    for sentence in (report.verdict.sentence, *report.verdict.remarks):
        screen.print(plain(sentence), soft_wrap=True)
