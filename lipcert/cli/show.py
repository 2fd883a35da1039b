"""What goes where: results to stdout, remarks and progress to stderr, bars only on a terminal."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, NoReturn

import typer
from rich.console import Console

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from lipcert.report.overview import Overview
    from lipcert.results import Document, RequirementResult

WIDE = 160  # columns where the output is not a terminal, so that piped tables are not cut
BROKEN_PIPE = 141  # 128 + SIGPIPE, as the shell reports it


class _Console(Console):
    def on_broken_pipe(self) -> None:
        _leave()


def console(stderr: bool = False) -> Console:
    """Return a console on today's stdout or stderr; text is taken literally, names may hold brackets."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else WIDE
    return _Console(stderr=stderr, width=width, markup=False, highlight=False, emoji=False)


def table() -> Table:
    """Return an empty table in the style of all our tables."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))


def grid(shown: Overview) -> Table:
    """Return the table of an overview: numbers to the right, or names and values."""
    if not shown.head:
        pairs = facts()
        for row in shown.rows:
            pairs.add_row(*row)
        return pairs
    cells = table()
    for place, name in enumerate(shown.head):
        cells.add_column(name, justify="left" if place in shown.words else "right")
    for row in shown.rows:
        cells.add_row(*row)
    return cells


def title(line: str) -> Text:
    """Return the line above a table; a title of the table itself would be wrapped to its width."""
    from rich.text import Text

    return Text(line, style="bold")


def facts() -> Table:
    """Return an empty table of names and values."""
    from rich.table import Table

    grid = Table(box=None, show_header=False, pad_edge=False)
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    return grid


def result(*parts: RenderableType) -> None:
    """Print a result for people on stdout."""
    screen = console()
    for part in parts:
        for column in getattr(part, "columns", ()):
            column.overflow = "fold"  # in a narrow terminal nothing is cut off
        screen.print(part)
    text("")


def document(value: Document) -> None:
    """Print one JSON document on stdout."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # as JSON is, whatever the terminal speaks
    text(value.model_dump_json(indent=2) + "\n")


def speak_any_tongue() -> None:
    """Let what stdout and stderr cannot spell, such as a sign in ASCII, come out as a question mark."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def text(lines: str) -> None:
    """Print text as it is on stdout, now: a closed pipe is noticed here and not when the interpreter ends."""
    try:
        sys.stdout.write(lines)
        sys.stdout.flush()
    except BrokenPipeError:
        _leave()


def remark(line: str, *, quiet: bool) -> None:
    """Print a line for people on stderr."""
    if not quiet:
        console(stderr=True).print(line, style="dim", soft_wrap=True)


def machine(line: str) -> None:
    """Print a line for machines on stderr, as it is and even where people want quiet."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def verdict(requirement: RequirementResult) -> Text:
    """Return the line that says whether a requirement is met."""
    from rich.text import Text

    from lipcert.report import overview

    line = overview.verdict(requirement)
    return Text.assemble((line[:7], "green" if requirement.passed else "bold red"), line[7:])


def error(line: str) -> None:
    """Print the one line that says what is wrong."""
    sys.stderr.write(f"lipcert: error: {' '.join(line.split())}\n")


def has_bars(*, quiet: bool) -> bool:
    """Whether progress bars are wanted: stderr is a terminal and nobody asked for silence."""
    return sys.stderr.isatty() and not quiet


def _leave() -> NoReturn:
    """End the program because the reader of stdout went away; nothing more may be written there."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise typer.Exit(BROKEN_PIPE)
