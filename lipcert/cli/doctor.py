"""``lipcert doctor``: what this installation can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lipcert.cli import show
from lipcert.cli.command import Command
from lipcert.cli.options import Output
from lipcert.errors import InconclusiveError

if TYPE_CHECKING:
    from rich.table import Table

    from lipcert.results import DoctorResult

_STYLES = {"ok": "green", "absent": "dim", "broken": "bold red"}


@dataclass(frozen=True, kw_only=True)
class DoctorOptions(Output):
    """Options of ``lipcert doctor``."""


def run(options: DoctorOptions) -> int:
    """Show the solvers and licences found, devices and threads, and test the arithmetic that proofs rest on."""
    from lipcert.cli.diagnosis import diagnose

    result = diagnose()
    if options.json:
        show.document(result)
    else:
        show.result(findings(result))
    return 0 if result.healthy else InconclusiveError.exit_code


def findings(result: DoctorResult) -> Table:
    """Return one row per finding, with the remedy below where something is missing."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in ("", "", "state", ""):
        table.add_column(name, overflow="fold")
    topic = ""
    for finding in result.findings:
        shown = finding.topic if finding.topic != topic else ""
        topic = finding.topic
        detail = finding.detail if finding.remedy is None else f"{finding.detail}; {finding.remedy}"
        table.add_row(
            Text(shown, style="bold"), finding.name, Text(finding.status, style=_STYLES[finding.status]), detail
        )
    return table


COMMAND = Command("doctor", DoctorOptions, run, ("lipcert doctor",))
