"""``lipcert compare``: several methods on one network, side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from lipcert.cli import show
from lipcert.cli.command import Command, Interrupted
from lipcert.cli.completion import GLOBAL, several_of
from lipcert.cli.options import Model, Norm, require_folder
from lipcert.cli.partial import partial_path
from lipcert.errors import InconclusiveError

if TYPE_CHECKING:
    from lipcert.network.graph import Network
    from lipcert.results import CompareResult


@dataclass(frozen=True, kw_only=True)
class CompareOptions(Model):
    """Options of ``lipcert compare``."""

    methods: Annotated[
        str,
        typer.Option(
            metavar="A,B,..",
            help="Methods that `lipcert doctor` lists, or all.",
            autocompletion=several_of(("all", *GLOBAL)),
        ),
    ] = "all"
    norm: Annotated[Norm, typer.Option(help="Norm on input and output.")] = "l2"
    time_limit: Annotated[float | None, typer.Option(metavar="S", min=0.0, help="Seconds for each method.")] = None
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page here.")] = None
    figures: Annotated[Path | None, typer.Option(metavar="DIR", help="Write the figures here, as PNG and SVG.")] = None


def run(options: CompareOptions) -> int:
    """Run every method that applies; show bound, ratio to the best lower bound, time, memory, level, or why not."""
    require_folder(options.html, "--html")
    done: list[CompareResult] = []
    try:
        result = _compare(options, options.read(), done.append)
    except KeyboardInterrupt:
        _interrupt(options, done)
    if options.html is not None:
        _write_page(options, options.html, result)
    if options.figures is not None:
        from lipcert.report.figure_files import write_figures
        from lipcert.report.plots import comparison_drawings

        write_figures(comparison_drawings(result), options.figures)
        show.remark(f"figures: {options.figures}", quiet=options.quiet)
    _show(options, result)
    return 0 if any(row.bound is not None for row in result.rows) else InconclusiveError.exit_code


def _show(options: CompareOptions, result: CompareResult) -> None:
    from lipcert.report import overview

    if options.json:
        show.document(result)
    else:
        shown = overview.compare_overview(result)
        show.result(show.title(shown.title), show.grid(shown))


def _write_page(options: CompareOptions, page: Path, result: CompareResult) -> None:
    from lipcert.report.html import compare_page
    from lipcert.report.json import write_text

    write_text(page, compare_page(result))
    show.remark(f"page: {page}", quiet=options.quiet)


def _interrupt(options: CompareOptions, done: list[CompareResult]) -> NoReturn:
    """Show and write the rows that Ctrl-C has left, under another name than the whole page."""
    if not done:
        raise Interrupted("interrupted before the first method was done", resumable=False)
    if options.html is not None:
        _write_page(options, partial_path(options.html), done[-1])
    _show(options, done[-1])
    rows = done[-1].rows
    raise Interrupted(
        f"interrupted after {', '.join(row.method for row in rows)}: the methods after {rows[-1].method} are missing",
        resumable=False,
    )


def _compare(options: CompareOptions, network: Network, so_far: Callable[[CompareResult], None]) -> CompareResult:
    from lipcert import api

    names = "all" if options.methods == "all" else [name.strip() for name in options.methods.split(",")]

    def go(progress: Callable[[str], None] | None) -> CompareResult:
        return api.compare(
            network,
            methods=names,
            norm=options.norm,
            time_limit=options.time_limit,
            progress=progress,
            so_far=so_far,
        )

    if not show.has_bars(quiet=options.quiet):
        return go(lambda name: show.remark(f"running {name}", quiet=options.quiet))
    with show.console(stderr=True).status("looking for a lower bound") as status:
        return go(lambda name: status.update(f"running {name}"))


COMMAND = Command(
    "compare", CompareOptions, run, ("lipcert compare digits.onnx --methods product,lipsdp --html compare.html",)
)
