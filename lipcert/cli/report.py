"""``lipcert report``: what becomes of records and reports after the runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lipcert.cli import show
from lipcert.cli.command import Command
from lipcert.cli.gate import REQUIREMENT_NOT_MET
from lipcert.cli.once import OnceGroup
from lipcert.cli.options import Output, require_folder
from lipcert.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from lipcert.results import RunRow, RunsResult
    from lipcert.robustness.records.lines import Log
    from lipcert.robustness.requirements import Requirement

NAME = "report"
HELP = "Merge the reports of shards, or compare those of several runs."


@dataclass(frozen=True, kw_only=True)
class MergeOptions(Output):
    """Options of ``lipcert report merge``."""

    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders with records of the same run.")]
    out: Annotated[Path, typer.Option(metavar="DIR", help="Write the report and the records of all here.")]
    require: Annotated[
        list[str] | None,
        typer.Option(metavar="EXPR", help="Such as 'certified_accuracy@0.5 >= 0.6'; repeatable; exit 1 if unmet."),
    ] = None
    parquet: Annotated[bool, typer.Option("--parquet", help="Write the samples as Parquet too, beside the CSV.")] = (
        False
    )
    figures: Annotated[bool, typer.Option("--figures", help="Write each figure as PNG and SVG too.")] = False


@dataclass(frozen=True, kw_only=True)
class CompareOptions(Output):
    """Options of ``lipcert report compare``."""

    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of reports, two or more.")]
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page here.")] = None


def merge_shards(options: MergeOptions) -> int:
    """Make one report of the records of several shards; in any order, and as often as wanted."""
    from lipcert.cli.certify import summary, write_faces
    from lipcert.report.samples import require_parquet
    from lipcert.robustness.records.lines import FILE
    from lipcert.robustness.records.merge import merge, missing, ranges, write_records
    from lipcert.robustness.requirements import measured
    from lipcert.robustness.summary import make_report

    if options.parquet:
        require_parquet()
    log = merge([log for folder in options.folders for log in _records(folder)])
    if not len(log.verdicts):
        raise UsageError("no sample is done yet: there is nothing to report")
    requirements = _requirements(options.require or (), log)
    _make(options.out)
    left = missing(log)
    note = f"{len(left)} of {log.heading.total} samples are missing: {ranges(left)}"
    remarks = [note] if len(left) else []
    if log.heading.outputs is not None:
        return _merge_changes(options, log, remarks)
    report = make_report(log, None, options.out / FILE, remarks)
    judged = tuple(requirement.judge(measured(report, requirement)) for requirement in requirements)
    report = report.model_copy(update={"requirements": judged})
    write_records(options.out / FILE, log)
    write_faces(options, options.out, report)
    if options.json:
        show.document(report)
    else:
        show.result(*summary(report))
    show.remark(f"report: {options.out / 'report.html'}", quiet=options.quiet)
    return 0 if all(requirement.passed for requirement in report.requirements) else REQUIREMENT_NOT_MET


def _merge_changes(options: MergeOptions, log: Log, remarks: Sequence[str]) -> int:
    """Make one report of shards whose outputs are numbers."""
    from lipcert.cli.regression import overview, write_faces
    from lipcert.robustness.records.lines import FILE
    from lipcert.robustness.records.merge import write_records
    from lipcert.robustness.regression import make_changes_report

    write_records(options.out / FILE, log)
    report = make_changes_report(log, None, options.out, remarks)
    write_faces(options.out, report, parquet=options.parquet)
    if options.json:
        show.document(report)
    else:
        show.result(*overview(report))
    show.remark(f"report: {options.out / 'report.html'}", quiet=options.quiet)
    return 0


def compare_reports(options: CompareOptions) -> int:
    """Set the reports of several runs side by side: other models, methods or settings on the same samples."""
    from lipcert.robustness.records.runs import compare_runs

    require_folder(options.html, "--html")
    result = compare_runs(options.folders)
    if options.html is not None:
        from lipcert.report.html import runs_page
        from lipcert.report.json import write_text

        write_text(options.html, runs_page(result))
        show.remark(f"page: {options.html}", quiet=options.quiet)
    if options.json:
        show.document(result)
    else:
        show.result(show.title(f"{len(result.rows)} runs, {result.norm}"), table(result))
    for note in result.notes:
        show.remark(f"note: {note}", quiet=options.quiet)
    return 0


def table(result: RunsResult) -> Table:
    """Return one row per run."""
    from rich.text import Text

    from lipcert.report import numbers

    keys = [numbers.eps_key(eps) for eps in result.eps]
    certified = [f"certified@{numbers.eps(eps)}" for eps in result.eps]
    found = show.table()
    found.add_column("run")
    for name in ("clean", *certified, "mean radius", "bound ≤", "time"):
        found.add_column(name, justify="right")
    for name in ("method", "level"):
        found.add_column(name)
    for row in result.rows:
        found.add_row(
            Text(row.name),
            numbers.percent_down(row.clean_count, row.samples),
            *(_cell(row, key) for key in keys),
            numbers.down(row.mean_certified_radius, 4),
            numbers.up(row.bound, 4),
            numbers.duration(row.seconds),
            row.method,
            row.level,
        )
    return found


def _cell(row: RunRow, key: str) -> str:
    """Return the certified accuracy at one eps, with what changed against the first run."""
    from lipcert.report import numbers

    if key not in row.certified_count:
        return numbers.MISSING
    share = numbers.percent_down(row.certified_count[key], row.samples)
    if row.gained is None or row.lost is None or key not in row.gained:
        return share
    return f"{share} (+{row.gained[key]} -{row.lost[key]})"


def _records(folder: Path) -> Sequence[Log]:
    from lipcert.robustness.records.lines import FILE
    from lipcert.robustness.records.merge import read_folder

    if not folder.is_dir():
        raise UsageError(f"there is no folder '{folder}'")
    found = read_folder(folder)
    if not found:
        raise UsageError(f"the folder '{folder}' has no records ({FILE}): give what --report named")
    return found


def _requirements(texts: Sequence[str], log: Log) -> Sequence[Requirement]:
    """Read requirements on a merged report; raises UsageError where one speaks of what records do not hold."""
    from lipcert.robustness.requirements import parse_requirements

    if texts and log.heading.outputs is not None:
        raise UsageError("requirements are about classes: these records are of --task regression")
    requirements = parse_requirements(texts, log.heading.eps)
    for requirement in requirements:
        if requirement.name == "bound" or requirement.needs_baseline:
            raise UsageError(
                f"the requirement '{requirement.text}' cannot be judged from records: "
                "`lipcert certify --require` and `lipcert check --require` judge it"
            )
        if requirement.name == "empirical_robust_accuracy" and not log.heading.attacks:
            raise UsageError(f"the requirement '{requirement.text}' needs an attack, which these runs did not make")
    return requirements


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder '{folder}': {error.strerror}; give --out another place") from None


COMMANDS = (
    Command(
        "merge",
        MergeOptions,
        merge_shards,
        (
            "lipcert certify digits.onnx --data test.npz --eps 0.5 --shard 1/2 --report a",
            "lipcert certify digits.onnx --data test.npz --eps 0.5 --shard 2/2 --report b",
            "lipcert report merge a b --out whole",
        ),
    ),
    Command(
        "compare",
        CompareOptions,
        compare_reports,
        (
            "lipcert certify digits.onnx --data test.npz --eps 1 --method crown --report a",
            "lipcert certify digits.onnx --data test.npz --eps 1 --method global --report b",
            "lipcert report compare a b",
        ),
    ),
)


def register(app: typer.Typer) -> None:
    """Add the group of commands to `app`."""
    group = typer.Typer(name=NAME, cls=OnceGroup, help=HELP, no_args_is_help=True)
    for command in COMMANDS:
        command.register(group)
    app.add_typer(group)
