"""A report in a few lines of Markdown, for a pull request or a job summary."""

from __future__ import annotations

from lipcert.report import numbers, wording
from lipcert.results import Report


def report_markdown(report: Report) -> str:
    """Return verdicts, the claim and the numbers at each eps."""
    lines = [f"## Robustness of `{_literal(wording.file_name(report.model.path))}`", ""]
    lines += [f"**{wording.headline(report)}.** {wording.claim(report)} Level: {report.level}.", ""]
    if report.requirements:
        lines += ["| requirement | actual | verdict |", "|---|--:|---|"]
        lines += [
            f"| `{_literal(r.text)}` | {wording.actual(r)} | {'✓ met' if r.passed else '✗ **not met**'} |"
            for r in report.requirements
        ]
        lines.append("")
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
