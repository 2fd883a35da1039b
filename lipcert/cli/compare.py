"""``lipcert compare``: several methods on one network, side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lipcert.cli import show
from lipcert.cli.command import Command
from lipcert.cli.options import Model, Norm, require_folder
from lipcert.errors import InconclusiveError

if TYPE_CHECKING:
    from rich.table import Table

    from lipcert.network.graph import Network
    from lipcert.results import CompareResult


@dataclass(frozen=True, kw_only=True)
class CompareOptions(Model):
    """Options of ``lipcert compare``."""

    methods: Annotated[str, typer.Option(metavar="A,B,..", help="Names of methods, or all.")] = "all"
    norm: Annotated[Norm, typer.Option(help="Norm on input and output.")] = "l2"
    time_limit: Annotated[float | None, typer.Option(metavar="S", min=0.0, help="Seconds for each method.")] = None
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page here.")] = None


def run(options: CompareOptions) -> int:
    """Run every method that applies; show bound, ratio to the best lower bound, time, memory, level, or why not."""
    from lipcert.report import numbers

    require_folder(options.html, "--html")
    result = _compare(options, options.read())
    if options.html is not None:
        from lipcert.report.html import compare_page
        from lipcert.report.json import write_text

        write_text(options.html, compare_page(result))
        show.remark(f"page: {options.html}", quiet=options.quiet)
    if options.json:
        show.document(result)
    else:
        lower = numbers.down(result.lower_bound)
        show.result(show.title(f"{result.model.path}: {result.norm} bounds (lower bound ≥ {lower})"), rows(result))
    return 0 if any(row.bound is not None for row in result.rows) else InconclusiveError.exit_code


def _compare(options: CompareOptions, network: Network) -> CompareResult:
    from lipcert import api

    names = "all" if options.methods == "all" else [name.strip() for name in options.methods.split(",")]

    def go(progress: Callable[[str], None] | None) -> CompareResult:
        return api.compare(network, methods=names, norm=options.norm, time_limit=options.time_limit, progress=progress)

    if not show.has_bars(quiet=options.quiet):
        return go(lambda name: show.remark(f"running {name}", quiet=options.quiet))
    with show.console(stderr=True).status("looking for a lower bound") as status:
        return go(lambda name: status.update(f"running {name}"))


def rows(result: CompareResult) -> Table:
    """Return one row per method."""
    from rich.text import Text

    from lipcert.report import numbers

    table = show.table()
    table.add_column("method")
    for name in ("bound ≤", "ratio", "time", "memory"):
        table.add_column(name, justify="right")
    table.add_column("level")
    for row in result.rows:
        spent = (numbers.duration(row.seconds), numbers.memory(row.memory))
        if row.bound is None:
            why = Text(row.error or "no bound", style="dim")
            table.add_row(row.method, numbers.MISSING, numbers.MISSING, *spent, why)
        else:
            table.add_row(row.method, numbers.up(row.bound), numbers.up(row.ratio, 4), *spent, row.level)
    return table


COMMAND = Command("compare", CompareOptions, run)
