"""A report or a check in a few lines of Markdown, for a pull request or a job summary."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lipcert.report import facts, figures, numbers, wording
from lipcert.results import CheckResult, FileDigest, Report, RequirementResult


def report_markdown(report: Report) -> str:
    """Return verdicts, the claim and the numbers at each eps; what is long is folded."""
    lines = [f"## Robustness of `{_literal(wording.file_name(report.model.path))}`", ""]
    lines += [f"**{wording.headline(report)}.** {wording.claim(report)}", ""]
    lines += _verdicts(report.requirements)
    lines += ["| ε | certified | unknown | broken by the attack | misclassified |", "|--:|--:|--:|--:|--:|"]
    lines += [_row(report, eps) for eps in report.eps]
    lines += [
        "",
        f"Clean accuracy {numbers.percent_down(report.clean_count, report.samples)}, mean certified radius "
        f"{numbers.plain(report.mean_certified_radius)}. {wording.bound_claim(report)}",
        "",
    ]
    lines += _folded("What is not claimed", [f"- {sentence}" for sentence in wording.not_claimed(report)])
    lines += _folded("Per class", _classes(report))
    lines += _folded("Layer by layer", _layers(report))
    lines += _folded("Methods", _methods(report))
    lines += _folded("Provenance", [f"- {fact.name}: `{_literal(fact.value)}`" for fact in facts.provenance(report)])
    lines += _folded("Check it yourself", _steps(report))
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


def _folded(title: str, lines: Sequence[str]) -> list[str]:
    """Return lines that are shown on a click, nothing where there are none."""
    return ["<details>", f"<summary>{title}</summary>", "", *lines, "", "</details>", ""] if lines else []


def _classes(report: Report) -> list[str]:
    keys, shown = ([name(eps) for eps in report.eps] for name in (numbers.eps_key, numbers.eps))
    lines = [f"| class | samples | clean | {' | '.join(f'certified at {eps}' for eps in shown)} |"]
    lines.append(f"|--:|--:|--:|{'--:|' * len(keys)}")
    for row in report.per_class:
        shares = [row.clean_accuracy, *(row.certified[key] for key in keys)]
        shown = [numbers.percent_down(numbers.count_of(share, row.samples), row.samples, 1) for share in shares]
        lines.append(f"| {row.label} | {numbers.count(row.samples)} | {' | '.join(shown)} |")
    return lines if report.per_class else []


def _layers(report: Report) -> list[str]:
    bars = figures.layer_bars(report.bound.contributions)
    lines = (
        [escape(wording.layers(report.bound), quote=False), "", "| layer | kind | factor ≤ |", "|---|---|--:|"]
        if bars
        else []
    )
    for bar in bars:
        factor = numbers.up(bar.layer.factor, 5)
        shown = f"**{factor}**" if bar.largest else factor
        lines.append(f"| `{_literal(bar.layer.node)}` | {bar.layer.kind} | {shown} |")
    return lines


def _methods(report: Report) -> list[str]:
    lines = ["| method | samples decided | share | time |", "|---|--:|--:|--:|"]
    for stage in wording.used(report):
        share = numbers.percent_down(stage.decided, report.samples, 1)
        spent = numbers.duration(stage.seconds)
        lines.append(f"| {_literal(stage.method)} | {numbers.count(stage.decided)} | {share} | {spent} |")
    return lines if wording.used(report) else []


def _steps(report: Report) -> list[str]:
    return [line for step in wording.recheck(report) for line in (step.purpose, "", f"    {step.command}", "")][:-1]


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


def _row(report: Report, eps: float) -> str:
    key = numbers.eps_key(eps)
    certified = report.certified_count[key]
    attacked = report.attacked_count.get(key)
    cells = (
        numbers.eps(eps),
        f"{numbers.count(certified)} ({numbers.percent_down(certified, report.samples)})",
        numbers.count(report.unknown_count.get(key, 0)),
        numbers.MISSING if attacked is None else numbers.count(attacked),
        numbers.count(report.samples - report.clean_count),
    )
    return f"| {' | '.join(cells)} |"


def _literal(text: str) -> str:
    """Return text that can stand in a code span inside a table."""
    return text.replace("`", "'").replace("|", "\\|").replace("\n", " ")
