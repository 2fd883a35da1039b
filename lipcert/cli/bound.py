"""``lipcert bound``: one upper bound of the Lipschitz constant, with its certificate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lipcert.cli import show
from lipcert.cli.command import Command
from lipcert.cli.options import Model, Norm, require_folder

if TYPE_CHECKING:
    from rich.table import Table

    from lipcert.results import BoundResult


@dataclass(frozen=True, kw_only=True)
class BoundOptions(Model):
    """Options of ``lipcert bound``."""

    method: Annotated[str, typer.Option(help="auto, or a method that `lipcert doctor` lists.")] = "auto"
    norm: Annotated[Norm, typer.Option(help="Norm on input and output.")] = "l2"
    time_limit: Annotated[float | None, typer.Option(metavar="S", min=0.0, help="Seconds for anytime methods.")] = None
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the certificate here.")] = None


def run(options: BoundOptions) -> int:
    """Bound how much the output can move when the input moves, over all inputs."""
    from lipcert import api

    require_folder(options.out, "--out")
    network = options.read()
    found = api.bound(network, method=options.method, norm=options.norm, time_limit=options.time_limit)
    if options.out is not None:
        found.certificate.save(options.out)
    from lipcert.bounds.documents import bound_result

    result = bound_result(network, found, None if options.out is None else str(options.out))
    if options.json:
        show.document(result)
        return 0
    show.result(summary(result))
    for note in result.notes:
        show.remark(f"note: {note}", quiet=options.quiet)
    return 0


def summary(result: BoundResult) -> Table:
    """Return the result as rows of name and value."""
    from lipcert.report import numbers

    table = show.facts()
    table.add_row("model", result.model.path)
    table.add_row(f"{result.norm} bound", f"≤ {numbers.up(result.bound, 9)}   ({result.level})")
    table.add_row("lower bound", f"≥ {numbers.down(result.lower_bound, 6)}   (estimate, found by search)")
    table.add_row("ratio", f"{numbers.up(result.ratio, 4)}   (1 is perfect)")
    table.add_row("method", result.method)
    if result.solver is not None:
        table.add_row("solver", f"{result.solver.name}: {result.solver.status}")
    table.add_row("time", numbers.duration(result.seconds))
    table.add_row("certificate", result.certificate or "not written (use --out)")
    return table


COMMAND = Command("bound", BoundOptions, run)
