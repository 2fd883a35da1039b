"""``lipcert check``: does a certificate prove its claim about this model?"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lipcert.cli import show
from lipcert.cli.command import Command
from lipcert.cli.gate import REQUIREMENT_NOT_MET, Gate
from lipcert.cli.options import real, require_folder
from lipcert.errors import CertificateError, UsageError

if TYPE_CHECKING:
    from rich.text import Text

    from lipcert.results import CheckResult

SUFFIX = ".lipcert"
OTHER_DATA = "other-data"  # code of samples that are not those that were certified
CHANGED = ("other-weights", "other-structure")  # codes of a model that is not the one that was certified


@dataclass(frozen=True, kw_only=True)
class CheckOptions(Gate):
    """Options of ``lipcert check``."""

    cert: Annotated[Path, typer.Argument(metavar="CERT", help="A certificate file (.lipcert).")]
    engine: Annotated[
        Literal["float64", "exact"],
        typer.Option(help="Arithmetic of the proof: float64 with error bounds, or ball arithmetic (slower)."),
    ] = "float64"
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR",
            help="The data that a certificate of samples has to be about; needed where it holds only their digest.",
        ),
    ] = None
    scale: Annotated[
        str | None, typer.Option(metavar="S", help="Factor on --data; 1/255 for uint8 and 1 for floats if not given.")
    ] = None
    in_toto: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write an unsigned in-toto Statement about both files, if all is well."),
    ] = None


def run(options: CheckOptions) -> int:
    """Check a certificate against a model; needs no solver and trusts nothing else."""
    from lipcert.report.alerts import check_alerts
    from lipcert.report.markdown import check_markdown

    with options.watched():
        result = _check(options)
    options.tell(
        check_alerts(result), check_markdown(result), [f for f in (result.certificate, result.model) if f is not None]
    )
    if options.json:
        show.document(result)
    else:
        show.result(*summary(result, options))
    if not result.valid:
        return CertificateError.exit_code
    return 0 if all(requirement.passed for requirement in result.requirements) else REQUIREMENT_NOT_MET


def _check(options: CheckOptions) -> CheckResult:
    """Check, and attest where all is well."""
    from lipcert import api

    require_folder(options.in_toto, "--in-toto")
    if options.model.endswith(SUFFIX) and options.cert.suffix != SUFFIX:
        swapped = shlex.join(["lipcert", "check", options.model, str(options.cert)])
        raise UsageError(f"the certificate comes first, then the model: {swapped}")
    if options.scale is not None and options.data is None:
        raise UsageError("--scale is a factor on the data: give --data FILE too")
    result = api.check(
        options.cert,
        options.read(),
        engine=options.engine,
        data=options.data,
        scale=None if options.scale is None else real(options.scale, "--scale"),
        requirements=options.require or (),
        baseline=options.baseline,
    )
    if options.in_toto is not None and result.valid and all(r.passed for r in result.requirements):
        from lipcert.report.intoto import check_statement
        from lipcert.report.json import write_text

        write_text(options.in_toto, check_statement(result))
    return result


def summary(result: CheckResult, options: CheckOptions) -> list[Text]:
    """Return the verdicts, and what to do where the model is another one."""
    from rich.text import Text

    from lipcert.report import numbers, overview

    if not result.valid:
        lines = [Text.assemble(("invalid", "bold red"), f"  {result.reason}")]
        if result.code == OTHER_DATA and options.data is None:
            return [*lines, Text("         give the data of the samples: --data FILE")]
        return [*lines, Text(f"         {renewal(options)}")] if result.code in CHANGED else lines
    claim = overview.check_claim(result)
    lines = [
        Text.assemble(("valid", "bold green"), f"  {claim}"),
        Text(f"       {result.reason}; {numbers.duration(result.seconds)}"),
    ]
    return lines + [show.verdict(requirement) for requirement in result.requirements]


def renewal(options: CheckOptions) -> str:
    """Return the command that certifies the model anew, for the same norm and quantity or radius."""
    from lipcert.files import read_whole
    from lipcert.proof.local import LocalCertificate, any_certificate

    loaded = any_certificate(read_whole(options.cert, "certificate"), str(options.cert))
    if isinstance(loaded, LocalCertificate):
        return shlex.join(
            ["lipcert", "certify", options.model, "--norm", loaded.claim.norm, "--eps", f"{loaded.claim.eps:g}"]
        )
    claim = loaded.claim
    words = ["lipcert", "bound", options.model, "--norm", claim.norm]
    if claim.quantity != "output":
        words += ["--output", "-".join(claim.quantity.removeprefix("logit ").removeprefix("margin ").split())]
    for name in ("input_shape", "mean", "std"):
        value = getattr(options, name)
        words += [] if value is None else [f"--{name.replace('_', '-')}", value]
    return shlex.join([*words, "--out", str(options.cert)])


COMMAND = Command(
    "check",
    CheckOptions,
    run,
    ("lipcert bound digits.onnx --out digits.lipcert", "lipcert check digits.lipcert digits.onnx"),
)
