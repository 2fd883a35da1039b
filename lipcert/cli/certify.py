"""``lipcert certify``: for how many samples is the prediction provably stable?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import typer

from lipcert.cli import show
from lipcert.cli.command import Command
from lipcert.cli.completion import CERTIFY, one_of
from lipcert.cli.gate import REQUIREMENT_NOT_MET, Gate
from lipcert.cli.options import Norm, real, reals, require_writable
from lipcert.cli.progress import Tracker, tracked
from lipcert.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lipcert.results import Report
    from lipcert.robustness.data.dataset import Dataset
    from lipcert.robustness.records.processes import Processes

_RUN = "Run"
_NUMBERS = "Regression"
WRITING = ("figures", "parquet", "save_adversarial", "proofs")  # options that need the folder of the report


class Faces(Protocol):
    """Which faces of a report are written beside those that always are."""

    @property
    def parquet(self) -> bool:
        """The samples as Parquet."""

    @property
    def figures(self) -> bool:
        """Each figure as a file."""


@dataclass(frozen=True, kw_only=True)
class CertifyOptions(Gate):
    """Options of ``lipcert certify``."""

    data: Annotated[
        Path,
        typer.Option(
            metavar="FILE|DIR",
            help="An .npz file with images and labels, or a folder with one sub-folder of PNG or JPEG for each class.",
        ),
    ]
    eps: Annotated[
        list[str], typer.Option(metavar="E", help="Radius in raw input units, such as 0.5 or 8/255; repeatable.")
    ]
    norm: Annotated[Norm, typer.Option(help="How the change of an input is measured.")] = "l2"
    box: Annotated[
        str | None, typer.Option(metavar="LOW,HIGH", help="Only inputs with all entries between, such as 0,1.")
    ] = None
    method: Annotated[
        str,
        typer.Option(
            help="cascade, global (its first stage alone), or a method that `lipcert doctor` lists.",
            autocompletion=one_of(CERTIFY),
        ),
    ] = "cascade"
    level: Annotated[
        Literal["numerical", "verified", "verified-exec"],
        typer.Option(
            help="What counts: numerical leaves rounding out, verified counts that of the proof, verified-exec that of "
            "the deployed forward pass too."
        ),
    ] = "verified"
    arithmetic: Annotated[
        Literal["float32", "float64", "float16", "bfloat16", "tf32"] | None,
        typer.Option(help="Arithmetic of the deployed pass, for verified-exec; the model's own if not given."),
    ] = None
    time_limit: Annotated[
        float | None,
        typer.Option(metavar="S", min=0.0, help="Seconds for the whole run; what they leave open is unknown."),
    ] = None
    budget_per_sample: Annotated[
        float | None,
        typer.Option(metavar="S", min=0.0, help="Seconds for one sample, beyond the global bound's share."),
    ] = None
    radius: Annotated[
        bool, typer.Option("--radius", help="Search each sample's certified radius with the local methods too.")
    ] = False
    task: Annotated[
        Literal["classification", "regression"],
        typer.Option(help="What the outputs are: classes (or one logit, labels 0 and 1), or numbers."),
    ] = "classification"
    per_input: Annotated[
        str | None,
        typer.Option(metavar="H,..", help="Radius of each input at eps 1; boxes in linf.", rich_help_panel=_NUMBERS),
    ] = None
    output_scale: Annotated[
        str | None, typer.Option(metavar="S,..", help="Units of the outputs: a factor.", rich_help_panel=_NUMBERS)
    ] = None
    output_offset: Annotated[
        str | None, typer.Option(metavar="B,..", help="Added to the scaled outputs.", rich_help_panel=_NUMBERS)
    ] = None
    top_k: Annotated[
        int, typer.Option(metavar="K", min=1, help="The label has to stay among the K largest outputs.")
    ] = 1
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write report.html, report.json and the records here.")
    ] = None
    certificate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Use the bound of this certificate after checking it.")
    ] = None
    scale: Annotated[
        str | None, typer.Option(metavar="S", help="Factor on the data; 1/255 for uint8 and 1 for floats if not given.")
    ] = None
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N samples.")] = None
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.", rich_help_panel=_RUN)] = "auto"
    batch_size: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Samples at a time; by size if not given.", rich_help_panel=_RUN),
    ] = None
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Only part I of N, counted from 1.", rich_help_panel=_RUN)
    ] = None
    figures: Annotated[
        bool, typer.Option("--figures", help="Write each figure into --report DIR as PNG and SVG too.")
    ] = False
    parquet: Annotated[
        bool, typer.Option("--parquet", help="Write the samples as Parquet too, beside the CSV in --report DIR.")
    ] = False
    save_adversarial: Annotated[
        bool, typer.Option("--save-adversarial", help="Write the adversarial inputs found into --report DIR.")
    ] = False
    proofs: Annotated[
        bool,
        typer.Option(
            "--proofs", help="Write certificates of the samples that local methods certified into --report DIR."
        ),
    ] = False
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Print the stages of the run and why, without running.", rich_help_panel=_RUN),
    ] = False
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the records in --report DIR.", rich_help_panel=_RUN)
    ] = False


def run(options: CertifyOptions) -> int:
    """Certify the predictions on labelled data: clean, certified and attacked accuracy, with a report to show."""
    from lipcert.cli.regression import refuse_numbers, run_regression
    from lipcert.report.alerts import report_alerts
    from lipcert.report.markdown import report_markdown
    from lipcert.robustness.records.processes import joined

    if options.task == "regression":
        return run_regression(options, _prepare(options))
    refuse_numbers(options)
    if options.explain:
        return _explain(options)
    folder = _prepare(options)
    with options.watched(), joined() as processes:
        if not processes.first:  # one of them speaks
            options = replace(options, quiet=True)
        with tracked(quiet=options.quiet, folder=folder) as tracker:
            report = _certify(options, folder, tracker, processes)
    code = 0 if all(requirement.passed for requirement in report.requirements) else REQUIREMENT_NOT_MET
    if not processes.first:
        return code
    options.tell(report_alerts(report), report_markdown(report), ())
    if folder is not None:
        write_faces(options, folder, report)
    if options.json:
        show.document(report)
    else:
        show.result(*summary(report))
    if folder is not None:
        show.remark(f"report: {folder / 'report.html'}", quiet=options.quiet)
    return code


def _certify(options: CertifyOptions, folder: Path | None, tracker: Tracker, processes: Processes) -> Report:
    from lipcert import api

    settings = _settings(options)
    return api.certify(
        options.read(),
        _data(options),
        **settings,
        resume=options.resume,
        requirements=options.require or (),
        baseline=options.baseline,
        folder=folder,
        save_adversarial=options.save_adversarial,
        proofs=options.proofs,
        progress=tracker,
        processes=processes,
        say=lambda hint: show.remark(f"hint: {hint}", quiet=options.quiet),
    )


def _explain(options: CertifyOptions) -> int:
    """Print the plan of the run; run nothing."""
    from lipcert.cli.plan import overview
    from lipcert.robustness.certifier import explain

    settings = _settings(options)
    result = explain(options.read(), _data(options), **settings)
    if options.json:
        show.document(result)
    else:
        show.result(*overview(result))
    return 0


def _data(options: CertifyOptions) -> Dataset:
    from lipcert.robustness.data.dataset import load_data

    scale = None if options.scale is None else real(options.scale, "--scale")
    return load_data(options.data, scale, options.limit)


def _settings(options: CertifyOptions) -> dict[str, Any]:
    """Return the settings of the run that decide what is computed; raises UsageError before the model is read."""
    from lipcert.robustness.settings import Settings

    names = "norm method level arithmetic time_limit budget_per_sample radius top_k device batch_size shard certificate"
    found: dict[str, Any] = {"eps": [real(text, "--eps") for text in options.eps]}
    found |= {name: getattr(options, name) for name in names.split()}
    if options.box is not None:
        found["box"] = _box(options.box)
    Settings(**found)
    return found


def _box(text: str) -> tuple[float, float]:
    ends = reals(text, "--box")
    if len(ends) != 2:
        raise UsageError(f"--box takes two numbers, LOW,HIGH such as 0,1, not '{text}'")
    return ends[0], ends[1]


def _prepare(options: CertifyOptions) -> Path | None:
    """Create the folder of the report before the work begins."""
    from lipcert.report.samples import require_parquet
    from lipcert.robustness.records.lines import FILE

    if options.report is None:
        if options.resume:
            raise UsageError("--resume goes on with the records in a report folder: give --report DIR too")
        writing = [name for name in WRITING if getattr(options, name)]
        if writing:
            option = f"--{writing[0].replace('_', '-')}"
            raise UsageError(f"{option} writes into the folder of the report: give --report DIR too")
        return None
    if options.parquet:
        require_parquet()
    try:
        options.report.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make the folder '{options.report}': {error.strerror}; give --report another place"
        ) from None
    require_writable(options.report, "--report")
    if not options.resume and (options.report / FILE).exists():
        show.remark(
            f"hint: '{options.report}' holds the records of an earlier run, which this one replaces; "
            "--resume goes on with them",
            quiet=options.quiet,
        )
    return options.report


def write_faces(options: Faces, folder: Path, report: Report) -> None:
    """Write every face of a report into a folder; raises UsageError where one cannot be written."""
    from lipcert.report.figure_files import write_figures
    from lipcert.report.html import report_page
    from lipcert.report.json import write_document, write_text
    from lipcert.report.junit import report_junit
    from lipcert.report.markdown import report_markdown
    from lipcert.report.plots import report_drawings
    from lipcert.report.samples import write_csv, write_parquet

    samples = None if report.records is None else folder / "samples.csv"
    write_document(folder / "report.json", report)
    write_text(folder / "report.html", report_page(report, None if samples is None else samples.name))
    write_text(folder / "report.md", report_markdown(report))
    write_text(folder / "junit.xml", report_junit(report))
    if samples is not None and report.records is not None:
        write_csv(Path(report.records), samples)
        if options.parquet:
            write_parquet(Path(report.records), samples.with_suffix(".parquet"))
    if options.figures:
        write_figures(report_drawings(report), folder / "figures")


def summary(report: Report) -> list[RenderableType]:
    """Return the numbers at each eps, the verdicts and where they come from."""
    from rich.text import Text

    from lipcert.report import overview, wording

    shown = overview.report_overview(report)
    parts: list[RenderableType] = [show.title(shown.title), show.grid(shown), *map(Text, shown.lines)]
    parts += [Text(f"note: {note}", style="dim") for note in report.notes]
    parts += [show.verdict(requirement) for requirement in report.requirements]
    return parts if not report.requirements else [*parts, Text(wording.headline(report), style="bold")]


COMMAND = Command(
    "certify", CertifyOptions, run, ("lipcert certify digits.onnx --data test.npz --eps 0.5 --report report",)
)
