"""The terminal's face: every verb calls the same Studio as the page; errors become one line here."""

import sys
import traceback
from datetime import UTC, datetime

import typer
from typer.exceptions import TyperException

from ftapp.contract.config import RunConfig
from ftapp.contract.errors import ConfigError, FtappError
from ftapp.settings import read_settings
from ftapp.terminal import check, deploy, evaluate, jobs
from ftapp.terminal.output import BAD_CONFIG, FAILED, error, print_json

ENDING = """Exit codes: 0 done, 1 failed, 2 the command or the config is not valid, 3 stopped before the end,
130 left running in the background."""

app = typer.Typer(
    help="Fine-tune language models: the page's verbs in the terminal.",
    epilog=ENDING,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ON_RUNS = (jobs.train, jobs.runs, jobs.stop, jobs.resume, evaluate.evaluate, jobs.merge, jobs.push)
for verb in (check.check, *ON_RUNS, deploy.deploy):
    app.command()(verb)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the training config."""
    print_json(RunConfig.model_json_schema())


def main(arguments: list[str]) -> int:
    """Run one verb; an error is one line on stderr, a bug also a traceback in FTAPP_HOME/terminal.log."""
    try:
        command = typer.main.get_command(app)
        return int(command(arguments or ["--help"], prog_name="python -m ftapp", standalone_mode=False) or 0)
    except TyperException as wrong:
        error(wrong.format_message(), "See python -m ftapp --help.")
        return wrong.exit_code
    except FtappError as failure:
        error(failure.message, failure.hint)
        return BAD_CONFIG if isinstance(failure, ConfigError) else FAILED
    except Exception as bug:
        error(f"This is a bug in ftapp: {type(bug).__name__}: {bug}.", _keep(traceback.format_exc()))
        return FAILED


def _keep(text: str) -> str:
    try:
        log = read_settings().home / "terminal.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{datetime.now(UTC).isoformat()} {' '.join(sys.argv[1:])}\n{text}\n")
        return f"The traceback is in {log}."
    except (OSError, FtappError):
        sys.stderr.write(text)
        return "The traceback is above: it could not be logged."
