"""What goes where: results to stdout, remarks and progress to stderr, bars only on a terminal."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lipcert.results import Document

WIDE = 160  # columns where the output is not a terminal, so that piped tables are not cut
BROKEN_PIPE = 141  # 128 + SIGPIPE, as the shell reports it


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console(stderr: bool = False) -> Console:
    """Return a console on today's stdout or stderr; text is taken literally, names may hold brackets."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else WIDE
    return _Console(stderr=stderr, width=width, markup=False, highlight=False, emoji=False)


def result(*parts: RenderableType) -> None:
    """Print a result for people on stdout."""
    screen = console()
    for part in parts:
        screen.print(part)
    sys.stdout.flush()


def document(value: Document) -> None:
    """Print one JSON document on stdout."""
    sys.stdout.write(value.model_dump_json(indent=2) + "\n")
    sys.stdout.flush()


def remark(text: str, *, quiet: bool) -> None:
    """Print a line for people on stderr."""
    if not quiet:
        console(stderr=True).print(text, style="dim")


def error(text: str) -> None:
    """Print the one line that says what is wrong."""
    sys.stderr.write(f"lipcert: error: {' '.join(text.split())}\n")


def has_bars(*, quiet: bool) -> bool:
    """Whether progress bars are wanted: stderr is a terminal and nobody asked for silence."""
    return sys.stderr.isatty() and not quiet


def abandon_stdout() -> None:
    """Let nothing more be written to a closed pipe, not even when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
