"""``lipcert check``: does a certificate prove its claim about this model?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from lipcert.cli import show
from lipcert.cli.command import Command
from lipcert.cli.options import Model
from lipcert.errors import CertificateError


@dataclass(frozen=True, kw_only=True)
class CheckOptions(Model):
    """Options of ``lipcert check``."""

    cert: Annotated[Path, typer.Argument(metavar="CERT", help="A certificate file (.lipcert).")]


def run(options: CheckOptions) -> int:
    """Check a certificate against a model; needs no solver and trusts nothing else."""
    from rich.text import Text

    from lipcert import api
    from lipcert.report import numbers

    result = api.check(options.cert, options.read())
    if options.json:
        show.document(result)
    elif result.valid:
        claim = f"{result.norm} bound ≤ {numbers.up(result.bound, 9)}"
        show.result(
            Text.assemble(("valid", "bold green"), f"  {claim}  ({result.level}, {result.rule})"),
            Text(f"       {result.reason}; {numbers.duration(result.seconds)}"),
        )
    else:
        show.result(Text.assemble(("invalid", "bold red"), f"  {result.reason}"))
    return 0 if result.valid else CertificateError.exit_code


COMMAND = Command("check", CheckOptions, run)
