"""``lipcert certify --task regression``: how far the outputs of a network can move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from lipcert.cli import show
from lipcert.cli.options import real, reals
from lipcert.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lipcert.cli.certify import CertifyOptions
    from lipcert.results import RegressionReport

FOR_CLASSES = (
    *("require", "baseline", "annotate", "sarif"),
    *("certificate", "radius", "save_adversarial", "proofs", "shard", "resume", "explain", "top_k", "box"),
)
FOR_SAMPLES = ("method", "arithmetic", "time_limit", "budget_per_sample", "figures", "parquet")
FOR_NUMBERS = ("per_input", "output_scale", "output_offset")


def run_regression(options: CertifyOptions, folder: Path | None) -> int:
    """Bound the change of every output, print it, and write it to the folder."""
    from lipcert.report.json import write_document
    from lipcert.robustness.regression import Units, bound_changes, load_inputs

    _refuse(options, FOR_CLASSES, "is about classes: it does not go with --task regression")
    _refuse(options, FOR_SAMPLES, "does not go with --task regression")
    if options.level != "verified":
        raise UsageError(f"--task regression gives bounds of level verified, not {options.level}")
    units = Units(
        per_input=_numbers(options.per_input, "--per-input", 1.0),
        scale=_numbers(options.output_scale, "--output-scale", 1.0),
        offset=_numbers(options.output_offset, "--output-offset", 0.0),
    )
    scale = None if options.scale is None else real(options.scale, "--scale")
    report = bound_changes(
        options.read(),
        load_inputs(options.data, scale, options.limit),
        eps=[real(text, "--eps") for text in options.eps],
        norm=options.norm,
        units=units,
        folder=folder,
    )
    if folder is not None:
        write_document(folder / "report.json", report)
    if options.json:
        show.document(report)
    else:
        show.result(*overview(report))
    if folder is not None:
        files = f"{folder / 'report.json'}, each sample's intervals in {folder / 'intervals.npz'}"
        show.remark(f"report: {files}", quiet=options.quiet)
    return 0


def refuse_numbers(options: CertifyOptions) -> None:
    """Raise UsageError where an option about outputs that are numbers stands beside classes."""
    _refuse(options, FOR_NUMBERS, "is about outputs that are numbers: it goes with --task regression only")


def _refuse(options: CertifyOptions, names: Sequence[str], why: str) -> None:
    """Raise UsageError for the first option that is not what it is by default."""
    usual = {field.name: field.default for field in fields(options)}
    for name in names:
        if getattr(options, name) != usual[name]:
            raise UsageError(f"--{name.replace('_', '-')} {why}")


def _numbers(text: str | None, option: str, default: float) -> tuple[float, ...]:
    return (default,) if text is None else tuple(reals(text, option))


def overview(report: RegressionReport) -> list[RenderableType]:
    """Return the largest and the mean change of each output at each eps."""
    from rich.text import Text

    from lipcert.report import numbers

    table = show.table()
    for name in ("eps", "output", "largest change", "mean change", "all values lie above", "and below"):
        table.add_column(name, justify="right")
    for key, changes in report.changes.items():
        for change in changes:
            table.add_row(
                key,
                str(change.output),
                numbers.up(change.largest),
                numbers.up(change.mean),
                numbers.down(change.lower),
                numbers.up(change.upper),
            )
    return [
        show.title(f"{report.model.path}, {report.norm}: change of each output, level {report.level}"),
        table,
        Text(
            f"{numbers.count(report.samples)} samples; from {', '.join(report.methods)}; "
            f"{numbers.duration(report.seconds)}"
        ),
        *(Text(f"note: {note}", style="dim") for note in report.notes),
    ]
