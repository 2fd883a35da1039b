"""What a machine that shows problems needs of a result: one alert per verdict, for SARIF and for annotations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import MappingProxyType

from lipcert.report import wording
from lipcert.results import CheckResult, Report, RequirementResult

PROVED, REQUIREMENT, NOT_RUN = "proved", "requirement", "not-run"
MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        PROVED: "The certificate proves its claim about the model.",
        REQUIREMENT: "A result meets what was required of it.",
        NOT_RUN: "The guard ran; what did not run proves nothing.",
    }
)
NO_PROOF = "The certificate does not prove its claim about the model."


@dataclass(frozen=True)
class Alert:
    """One verdict.

    Attributes:
        rule: stable name of what was looked at: `PROVED`, `REQUIREMENT`, `NOT_RUN`, or the checker's reason code.
        passed: whether all is well.
        message: one line for people, with what to do where something is wrong.
        file: the file that it is about, relative to the current folder where it lies below it, with forward slashes.
    """

    rule: str
    passed: bool
    message: str
    file: str


def check_alerts(result: CheckResult) -> tuple[Alert, ...]:
    """Return the verdicts of a check: on the certificate, then on each requirement."""
    file = _file_of(result)
    if not result.valid:
        # what is required of a bound that is not proved needs no second alarm
        return (Alert(result.code or NOT_RUN, False, result.reason, file),)
    message = f"{wording.check_claim(result)} is proved at level {result.level}"
    return (Alert(PROVED, True, message, file), *_requirements(result.requirements, file))


def report_alerts(report: Report) -> tuple[Alert, ...]:
    """Return the verdicts on each requirement of a report."""
    return _requirements(report.requirements, shown(report.model.path))


def failure_alert(error: str, file: str) -> Alert:
    """Return the alert of a guard that could not do its work."""
    return Alert(NOT_RUN, False, f"not checked: {error}", shown(file))


def shown(path: str) -> str:
    """Return a path relative to the current folder where it lies below it, with forward slashes."""
    full = Path(path).absolute()
    return full.relative_to(Path.cwd()).as_posix() if full.is_relative_to(Path.cwd()) else full.as_posix()


def _file_of(result: CheckResult) -> str:
    path = result.model.path if result.model is not None else ""
    if path and PurePath(path).suffix:
        return shown(path)
    return shown(result.certificate.path if result.certificate is not None else ".")


def _requirements(requirements: Sequence[RequirementResult], file: str) -> tuple[Alert, ...]:
    return tuple(
        Alert(REQUIREMENT, r.passed, f"{'met' if r.passed else 'not met'}: {r.text} (actual {wording.found(r)})", file)
        for r in requirements
    )
