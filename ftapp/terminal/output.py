"""What the verbs print with: consoles, tables, JSON, the one line of an error."""

import sys
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

FAILED, BAD_CONFIG, STOPPED, LEFT_RUNNING = 1, 2, 3, 130
"""Exit codes."""


def console(stderr: bool = False) -> Console:
    """Plain text only: what is printed comes from files and models; not cut to a width that nobody has."""
    made = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not made.is_terminal:
        made.width = 200
    return made


def table(columns: list[str], rows: list[list[str]]) -> Table:
    """Rows under headings; the first column is never cut."""
    made = Table(box=None, pad_edge=False)
    for number, name in enumerate(columns):
        made.add_column(name.replace("_", " "), no_wrap=number == 0, overflow="fold")
    for row in rows:
        made.add_row(*map(plain, row))
    return made


def print_json(value: Any) -> None:
    """On stdout, for machines."""
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n")
    sys.stdout.flush()


def error(message: str, hint: str = "") -> None:
    """One line on stderr."""
    sys.stdout.flush()
    sys.stderr.write(" ".join(f"error: {message} {hint}".split()) + "\n")


def plain(text: str) -> str:
    """Text from files on one line, with nothing that a terminal would act on."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
