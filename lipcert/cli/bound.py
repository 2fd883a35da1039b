"""``lipcert bound``: one upper bound of the Lipschitz constant, with its certificate."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lipcert.cli import show
from lipcert.cli.command import Command
from lipcert.cli.completion import BOUND, one_of
from lipcert.cli.options import Model, Norm, require_folder
from lipcert.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from lipcert.results import BoundResult


@dataclass(frozen=True, kw_only=True)
class BoundOptions(Model):
    """Options of ``lipcert bound``."""

    method: Annotated[
        str, typer.Option(help="auto, or a method that `lipcert doctor` lists.", autocompletion=one_of(BOUND))
    ] = "auto"
    norm: Annotated[Norm, typer.Option(help="Norm on input and output.")] = "l2"
    output: Annotated[
        str,
        typer.Option(
            metavar="WHAT", help="output, one logit such as 8, the margin 3-8, all margins, or features; from 0."
        ),
    ] = "output"
    time_limit: Annotated[float | None, typer.Option(metavar="S", min=0.0, help="Seconds for anytime methods.")] = None
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the certificate here.")] = None


def run(options: BoundOptions) -> int:
    """Bound how much the output can move when the input moves, over all inputs."""
    from lipcert import api

    require_folder(options.out, "--out")
    network = options.read()
    found = api.bound(
        network,
        method=options.method,
        norm=options.norm,
        output=quantity(options.output),
        time_limit=options.time_limit,
    )
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


def quantity(text: str) -> int | tuple[int, int] | str:
    """Read ``8``, ``3-8`` or a name; names are looked up where they are used.

    Raises:
        UsageError: it is none of these.
    """
    from lipcert.proof.claims import QUANTITIES

    match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", text)
    if match is not None:
        return int(match[1]) if match[2] is None else (int(match[1]), int(match[2]))
    if text not in QUANTITIES:
        raise UsageError(f"'{text}' in --output is no output: write 8, 3-8 or one of {', '.join(QUANTITIES)}")
    return text


def summary(result: BoundResult) -> Table:
    """Return the result as rows of name and value."""
    from lipcert.report import overview

    table = show.grid(overview.bound_overview(result))
    table.add_row("certificate", result.certificate or "not written (use --out)")
    return table


COMMAND = Command("bound", BoundOptions, run, ("lipcert bound digits.onnx --out digits.lipcert",))
