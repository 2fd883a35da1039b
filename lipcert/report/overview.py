"""A result in brief: a title, one table and a few lines; the command line, Python and notebooks all show these."""

from __future__ import annotations

from dataclasses import dataclass

from lipcert.report import numbers, wording
from lipcert.results import BoundResult, CheckResult, CompareResult, Report, RequirementResult


@dataclass(frozen=True)
class Overview:
    """What is shown of a result.

    Attributes:
        title: one line.
        head: names of the columns; empty where the rows are pairs (name, value).
        rows: of texts, as many as there are columns.
        lines: what stands below the table.
        words: positions of the columns that hold words and no numbers.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[str, ...] = ()
    words: frozenset[int] = frozenset()


def report_overview(report: Report) -> Overview:
    """Show the numbers at each eps and what they rest on."""
    total, correct, bound = report.samples, report.clean_count, report.bound
    of = "" if bound.quantity != "features" else " of the features"
    below = "" if bound.lower_bound is None else f", ≥ {numbers.down(bound.lower_bound)}"
    rate = f"{numbers.near(report.samples_per_second)} samples/s on {report.device}"
    return Overview(
        title=f"{report.model.path}, {report.norm}",
        head=("eps", "certified", "", "attack leaves", "unknown", "attacked"),
        rows=tuple(_eps_row(report, eps) for eps in report.eps),
        lines=(
            f"clean accuracy {numbers.percent_down(correct, total)}, "
            f"{numbers.count(total - correct)} of {numbers.count(total)} misclassified",
            f"mean certified radius {numbers.down(report.mean_certified_radius, 4)}, 0 where misclassified",
            f"{report.norm} bound{of} ≤ {numbers.up(bound.bound)}{below}; "
            f"level {report.level}; {numbers.duration(report.seconds)}, {rate}",
        ),
    )


def _eps_row(report: Report, eps: float) -> tuple[str, ...]:
    key = numbers.eps_key(eps)
    left, attacked = report.empirical_robust_accuracy.get(key), report.attacked_count.get(key)
    untried = f" ({numbers.count(report.untried_count[key])} untried)" if report.untried_count else ""
    return (
        numbers.eps(eps),
        numbers.percent_down(report.certified_count[key], report.samples),
        numbers.count(report.certified_count[key]),
        numbers.MISSING if left is None else numbers.percent_up(numbers.count_of(left, report.samples), report.samples),
        numbers.count(report.unknown_count.get(key, 0)) + untried,
        numbers.MISSING if attacked is None else numbers.count(attacked),
    )


def compare_overview(result: CompareResult) -> Overview:
    """Show one row per method: its bound, or why there is none."""
    return Overview(
        title=f"{result.model.path}: {result.norm} bounds (lower bound ≥ {numbers.down(result.lower_bound)})",
        head=("method", "bound ≤", "ratio", "time", "memory", "level"),
        rows=tuple(_method_row(row) for row in result.rows),
        words=frozenset({0, 5}),
    )


def _method_row(row: BoundResult) -> tuple[str, ...]:
    spent = (numbers.duration(row.seconds), numbers.memory(row.memory))
    if row.bound is None:
        return (row.method, numbers.MISSING, numbers.MISSING, *spent, row.error or "no bound")
    return (row.method, numbers.up(row.bound), numbers.up(row.ratio, 4), *spent, row.level or "")


def bound_overview(result: BoundResult) -> Overview:
    """Show a bound as names and values."""
    rows, of = [("model", result.model.path)], ""
    if result.quantity not in (None, "output"):
        of = f" of the {result.quantity}"
    if result.margins is not None:
        least = min(entry for i, row in enumerate(result.margins) for j, entry in enumerate(row) if i != j)
        rows.append(("smallest margin", f"≤ {numbers.up(least, 9)}   (all are in the certificate and in the JSON)"))
        of = " of the largest margin"
    if result.bound is None:
        rows.append((f"{result.norm} bound{of}", result.error or "none"))
    else:
        rows.append((f"{result.norm} bound{of}", f"≤ {numbers.up(result.bound, 9)}   ({result.level})"))
    rows += [
        ("lower bound", f"≥ {numbers.down(result.lower_bound, 6)}   (estimate, found by search)"),
        ("ratio", f"{numbers.up(result.ratio, 4)}   (1 is perfect)"),
        ("method", result.method),
    ]
    if result.solver is not None:
        rows.append(("solver", f"{result.solver.name}: {result.solver.status}"))
    rows.append(("time", numbers.duration(result.seconds)))
    return Overview(title=f"{result.norm} Lipschitz bound", head=(), rows=tuple(rows))


def check_overview(result: CheckResult) -> Overview:
    """Show the verdict on a certificate."""
    if not result.valid:
        return Overview(title=f"invalid  {result.reason}", head=(), rows=())
    return Overview(
        title=f"valid  {check_claim(result)}",
        head=(),
        rows=(),
        lines=(f"{result.reason}; {numbers.duration(result.seconds)}",),
    )


def check_claim(result: CheckResult) -> str:
    """Return what is proved, at which level and by which rule."""
    return f"{wording.check_claim(result)}  ({result.level}, {result.rule})"


def verdict(requirement: RequirementResult) -> str:
    """Return the line that says whether a requirement is met."""
    mark = "met    " if requirement.passed else "not met"
    return f"{mark}  {requirement.text}  (actual {wording.found(requirement)})"
