"""``lipcert certify --task regression``: how far the outputs of a network can move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lipcert.cli import show
from lipcert.cli.options import real, reals
from lipcert.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lipcert.cli.certify import CertifyOptions
    from lipcert.cli.progress import Tracker
    from lipcert.results import RegressionReport
    from lipcert.robustness.records.processes import Processes

FOR_CLASSES = (
    *("require", "baseline", "annotate", "sarif"),
    *("certificate", "radius", "save_adversarial", "proofs", "explain", "top_k", "box"),
)
FOR_SAMPLES = ("method", "arithmetic", "figures", "device")
RUN = ("shard", "resume", "time_limit", "budget_per_sample", "batch_size")
FOR_NUMBERS = ("per_input", "output_scale", "output_offset")


def run_regression(options: CertifyOptions, folder: Path | None) -> int:
    """Bound the change of every output, print it, and write it to the folder."""
    from lipcert.cli.progress import tracked
    from lipcert.robustness.records.processes import joined

    _refuse(options, FOR_CLASSES, "is about classes: it does not go with --task regression")
    _refuse(options, FOR_SAMPLES, "does not go with --task regression")
    if options.level != "verified":
        raise UsageError(f"--task regression gives bounds of level verified, not {options.level}")
    with joined() as processes:
        if not processes.first:  # one of them speaks
            options = replace(options, quiet=True)
        with tracked(quiet=options.quiet, folder=folder) as tracker:
            report = _bounded(options, folder, tracker, processes)
    if not processes.first:
        return 0
    if folder is not None:
        write_faces(folder, report, parquet=options.parquet)
    if options.json:
        show.document(report)
    else:
        show.result(*overview(report))
    if folder is not None:
        show.remark(f"report: {folder / 'report.html'}", quiet=options.quiet)
    return 0


def _bounded(options: CertifyOptions, folder: Path | None, tracker: Tracker, processes: Processes) -> RegressionReport:
    from lipcert.robustness.regression import Units, bound_changes, load_inputs

    units = Units(
        per_input=_numbers(options.per_input, "--per-input", 1.0),
        scale=_numbers(options.output_scale, "--output-scale", 1.0),
        offset=_numbers(options.output_offset, "--output-offset", 0.0),
    )
    scale = None if options.scale is None else real(options.scale, "--scale")
    return bound_changes(
        options.read(),
        load_inputs(options.data, scale, options.limit),
        eps=[real(text, "--eps") for text in options.eps],
        norm=options.norm,
        units=units,
        progress=tracker,
        say=lambda hint: show.remark(f"hint: {hint}", quiet=options.quiet),
        processes=processes,
        folder=folder,
        **{name: getattr(options, name) for name in RUN},
    )


def write_faces(folder: Path, report: RegressionReport, *, parquet: bool) -> None:
    """Write every face of a report into a folder; raises UsageError where one cannot be written."""
    from lipcert.report.html import regression_page
    from lipcert.report.json import write_document, write_text
    from lipcert.report.samples import write_csv, write_parquet

    samples = folder / "samples.csv"
    write_document(folder / "report.json", report)
    write_text(folder / "report.html", regression_page(report, samples.name))
    if report.records is not None:
        write_csv(Path(report.records), samples)
        if parquet:
            write_parquet(Path(report.records), samples.with_suffix(".parquet"))


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
    for eps in report.eps:
        for change in report.changes[numbers.eps_key(eps)]:
            table.add_row(
                numbers.eps(eps),
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
