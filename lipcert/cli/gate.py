"""Options of the commands that can fail a build: what is required, and how a verdict is told to machines."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lipcert.cli import show
from lipcert.cli.options import Model, require_folder

if TYPE_CHECKING:
    from lipcert.report.alerts import Alert
    from lipcert.results import FileDigest

REQUIREMENT_NOT_MET = 1
_GATE = "Gate"


@dataclass(frozen=True, kw_only=True)
class Gate(Model):
    """Requirements, and faces of the verdict; none of them is guessed from the surroundings."""

    require: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EXPR",
            help="Such as 'certified_accuracy@0.5 >= 0.6' or 'bound <= 1.05 * baseline'; repeatable; exit 1 if unmet.",
            rich_help_panel=_GATE,
        ),
    ] = None
    baseline: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON of an earlier result, for --require.", rich_help_panel=_GATE),
    ] = None
    annotate: Annotated[
        Literal["github"] | None,
        typer.Option(help="Annotations on stderr, and the step's summary.", rich_help_panel=_GATE),
    ] = None
    sarif: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a SARIF 2.1.0 log here.", rich_help_panel=_GATE)
    ] = None

    def tell(self, alerts: Sequence[Alert], markdown: str, files: Sequence[FileDigest]) -> None:
        """Write the faces that were asked for; raises UsageError where one cannot be written."""
        if self.sarif is not None:
            from lipcert.report.json import write_text
            from lipcert.report.sarif import sarif_log

            write_text(self.sarif, sarif_log(alerts, files))
        if self.annotate == "github":
            from lipcert.report.github import SUMMARY, annotation, write_summary

            for alert in alerts:
                show.machine(annotation(alert))
            if not write_summary(markdown, os.environ):
                show.remark(f"no step summary: {SUMMARY} is not set", quiet=self.quiet)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Tell machines too where the work ends in an error: what did not run must not look like success."""
        require_folder(self.sarif, "--sarif")
        try:
            yield
        except Exception as error:
            from lipcert.report.alerts import failure_alert
            from lipcert.report.markdown import failure_markdown

            text = str(error) or type(error).__name__
            self.tell([failure_alert(text, self.model.rpartition("@")[2])], failure_markdown(text), ())
            raise
