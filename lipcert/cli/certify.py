"""``lipcert certify``: for how many samples is the prediction provably stable?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lipcert.cli import show
from lipcert.cli.command import Command
from lipcert.cli.gate import REQUIREMENT_NOT_MET, Gate
from lipcert.cli.options import Norm, real
from lipcert.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from lipcert.results import Report

_RUN = "Run"


@dataclass(frozen=True, kw_only=True)
class CertifyOptions(Gate):
    """Options of ``lipcert certify``."""

    data: Annotated[Path, typer.Option(metavar="FILE", help="An .npz file with images and labels.")]
    eps: Annotated[
        list[str], typer.Option(metavar="E", help="Radius in raw input units, such as 0.5 or 8/255; repeatable.")
    ]
    norm: Annotated[Norm, typer.Option(help="Norm of the ball.")] = "l2"
    method: Annotated[str, typer.Option(help="cascade, global, a method for the global bound, or a local method.")] = (
        "cascade"
    )
    level: Annotated[
        Literal["numerical", "verified", "verified-exec"],
        typer.Option(help="What a certified sample must be; verified-exec covers the deployed forward pass."),
    ] = "verified"
    arithmetic: Annotated[
        Literal["float32", "float64", "float16", "bfloat16", "tf32"] | None,
        typer.Option(help="Arithmetic of the deployed pass, for verified-exec [default: the model's own]"),
    ] = None
    time_limit: Annotated[
        float | None,
        typer.Option(metavar="S", min=0.0, help="Seconds for an anytime bound, and as many for the margins."),
    ] = None
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write report.html, report.json and the records here.")
    ] = None
    certificate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Use the bound of this certificate after checking it.")
    ] = None
    scale: Annotated[
        str | None, typer.Option(metavar="S", help="Factor on the data [default: 1/255 for uint8, 1 for floats]")
    ] = None
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N samples.")] = None
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.", rich_help_panel=_RUN)] = "auto"
    batch_size: Annotated[int | None, typer.Option(metavar="N", min=1, rich_help_panel=_RUN)] = None
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Only part I of N, counted from 1.", rich_help_panel=_RUN)
    ] = None
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the records in --report DIR.", rich_help_panel=_RUN)
    ] = False


def run(options: CertifyOptions) -> int:
    """Certify the predictions on labelled data: clean, certified and attacked accuracy, with a report to show."""
    from lipcert.report.alerts import report_alerts
    from lipcert.report.markdown import report_markdown

    folder = _prepare(options)
    with options.watched(), _progress(quiet=options.quiet) as advance:
        report = _certify(options, folder, advance)
    options.tell(report_alerts(report), report_markdown(report), ())
    if folder is not None:
        _write_faces(folder, report)
    if options.json:
        show.document(report)
    else:
        show.result(*summary(report))
    if folder is not None:
        show.remark(f"report: {folder / 'report.html'}", quiet=options.quiet)
    return 0 if all(requirement.passed for requirement in report.requirements) else REQUIREMENT_NOT_MET


def _certify(options: CertifyOptions, folder: Path | None, advance: Callable[[int, int], None]) -> Report:
    from lipcert import api
    from lipcert.robustness.data import load_data

    eps = [real(text, "--eps") for text in options.eps]
    scale = None if options.scale is None else real(options.scale, "--scale")
    data = load_data(options.data, scale, options.limit)
    return api.certify(
        options.read(),
        data,
        eps=eps,
        norm=options.norm,
        method=options.method,
        level=options.level,
        arithmetic=options.arithmetic,
        time_limit=options.time_limit,
        device=options.device,
        batch_size=options.batch_size,
        shard=options.shard,
        resume=options.resume,
        certificate=options.certificate,
        requirements=options.require or (),
        baseline=options.baseline,
        folder=folder,
        progress=advance,
    )


def _prepare(options: CertifyOptions) -> Path | None:
    """Create the folder of the report before the work begins."""
    if options.report is None:
        if options.resume:
            raise UsageError("--resume goes on with the records in a report folder: give --report DIR too")
        return None
    try:
        options.report.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder '{options.report}': {error.strerror}") from None
    return options.report


def _write_faces(folder: Path, report: Report) -> None:
    from lipcert.report.html import report_page
    from lipcert.report.json import write_document, write_text
    from lipcert.report.junit import report_junit
    from lipcert.report.markdown import report_markdown

    write_document(folder / "report.json", report)
    write_text(folder / "report.html", report_page(report))
    write_text(folder / "report.md", report_markdown(report))
    write_text(folder / "junit.xml", report_junit(report))


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Give a function of (samples done, samples in all) that moves a bar where there is a terminal."""
    if not show.has_bars(quiet=quiet):
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=show.console(stderr=True), transient=True) as bars:
        task = bars.add_task("bounding", total=None, rate="")

        def advance(done: int, total: int) -> None:
            speed = bars.tasks[task].speed
            rate = "" if not speed else f"{speed:.0f}/s"
            bars.update(task, description="certifying", completed=done, total=total, rate=rate)

        yield advance


def summary(report: Report) -> list[RenderableType]:
    """Return the numbers at each eps, the verdicts and where they come from."""
    from rich.text import Text

    from lipcert.report import numbers, wording

    total, correct = report.samples, report.clean_count
    wrong = f"{numbers.count(total - correct)} of {numbers.count(total)} misclassified"
    of = "" if report.bound.quantity != "features" else " of the features"
    bound = f"{report.norm} bound{of} ≤ {numbers.up(report.bound.bound)}, ≥ {numbers.down(report.bound.lower_bound)}"
    rate = f"{numbers.near(report.samples_per_second)} samples/s on {report.device}"
    parts: list[RenderableType] = [
        show.title(f"{report.model.path}, {report.norm}"),
        _rows(report),
        Text(f"clean accuracy {numbers.percent_down(correct, total)}, {wrong}"),
        Text(f"{bound}; level {report.level}; {numbers.duration(report.seconds)}, {rate}"),
    ]
    parts += [Text(f"note: {note}", style="dim") for note in report.notes]
    parts += [show.verdict(requirement) for requirement in report.requirements]
    return parts if not report.requirements else [*parts, Text(wording.headline(report), style="bold")]


def _rows(report: Report) -> Table:
    from lipcert.report import numbers

    table = show.table()
    for name in ("eps", "certified", "", "attack leaves", "unknown", "attacked"):
        table.add_column(name, justify="right")
    for key in map(numbers.eps_key, report.eps):
        left = report.empirical_robust_accuracy.get(key)
        attacked = report.attacked_count.get(key)
        table.add_row(
            key,
            numbers.percent_down(report.certified_count[key], report.samples),
            numbers.count(report.certified_count[key]),
            numbers.MISSING
            if left is None
            else numbers.percent_up(numbers.count_of(left, report.samples), report.samples),
            numbers.count(report.unknown_count.get(key, 0)),
            numbers.MISSING if attacked is None else numbers.count(attacked),
        )
    return table


COMMAND = Command("certify", CertifyOptions, run)
