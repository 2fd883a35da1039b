"""A report or a check in a few lines of Markdown, for a pull request or a job summary."""

from __future__ import annotations

from collections.abc import Sequence

from lipcert.report import numbers, wording
from lipcert.results import CheckResult, FileDigest, Report, RequirementResult


def report_markdown(report: Report) -> str:
    """Return verdicts, the claim and the numbers at each eps."""
    lines = [f"## Robustness of `{_literal(wording.file_name(report.model.path))}`", ""]
    lines += [f"**{wording.headline(report)}.** {wording.claim(report)} Level: {report.level}.", ""]
    lines += _verdicts(report.requirements)
    lines += ["| ε | certified | unknown | broken by the attack | misclassified |", "|--:|--:|--:|--:|--:|"]
    lines += [_row(report, numbers.eps_key(eps)) for eps in report.eps]
    lines += [
        "",
        f"Clean accuracy {numbers.percent_down(report.clean_count, report.samples)}, mean certified radius "
        f"{numbers.plain(report.mean_certified_radius)}. {wording.bound_claim(report)}",
        "",
        f"Network `{report.model.weights_digest[:12]}`, {numbers.count(report.samples)} samples of "
        f"`{_literal(report.provenance.data)}`, lipcert {report.provenance.lipcert}.",
    ]
    return "\n".join(lines) + "\n"


def check_markdown(result: CheckResult) -> str:
    """Return the verdict on a certificate, the verdicts on requirements, and the digests of what was read."""
    files = [file for file in (result.certificate, result.model) if file is not None]
    names = " and ".join(f"`{_literal(wording.file_name(file.path))}`" for file in files)
    lines = [f"## Certificate check: {names}", ""]
    if result.valid:
        lines += [f"✓ **Valid.** {wording.check_claim(result)}, level {result.level}, rule `{result.rule}`.", ""]
    else:
        lines += [f"✗ **Invalid.** {_literal(result.reason)}", ""]
    lines += _verdicts(result.requirements)
    lines += [_digest(file) for file in files]
    return "\n".join(lines) + "\n"


def failure_markdown(error: str) -> str:
    """Return what to say where nothing was checked."""
    return f"## lipcert did not run\n\n✗ **Not checked.** {_literal(error)}\n"


def _verdicts(requirements: Sequence[RequirementResult]) -> list[str]:
    if not requirements:
        return []
    lines = ["| requirement | actual | verdict |", "|---|--:|---|"]
    for r in requirements:
        verdict = "✓ met" if r.passed else "✗ **not met**"
        lines.append(f"| `{_literal(r.text)}` | {wording.found(r)} | {verdict} |")
    return [*lines, ""]


def _digest(file: FileDigest) -> str:
    return f"- `{_literal(wording.file_name(file.path))}`: sha256 `{file.sha256 or 'none'}`"


def _row(report: Report, key: str) -> str:
    certified = report.certified_count[key]
    attacked = report.attacked_count.get(key)
    cells = (
        key,
        f"{numbers.count(certified)} ({numbers.percent_down(certified, report.samples)})",
        numbers.count(report.unknown_count.get(key, 0)),
        numbers.MISSING if attacked is None else numbers.count(attacked),
        numbers.count(report.samples - report.clean_count),
    )
    return f"| {' | '.join(cells)} |"


def _literal(text: str) -> str:
    """Return text that can stand in a code span inside a table."""
    return text.replace("`", "'").replace("|", "\\|").replace("\n", " ")
