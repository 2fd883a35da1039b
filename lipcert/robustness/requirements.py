"""Requirement expressions such as ``certified_accuracy@0.5 >= 0.6``: parsed up front, judged at the end.

    NAME [@EPS] OPERATOR NUMBER        OPERATOR is one of >=, >, <=, <, ==

Names without eps: clean_accuracy, mean_certified_radius, bound, lower_bound, samples. Names with eps:
certified_accuracy, empirical_robust_accuracy, certified_count, attacked_count, unknown_count. Numbers are compared as
they are; there is no tolerance.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lipcert.errors import UsageError
from lipcert.results import Report, RequirementResult

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
    "==": operator.eq,
}
_PLAIN: dict[str, Callable[[Report], float | None]] = {
    "clean_accuracy": lambda report: report.clean_accuracy,
    "mean_certified_radius": lambda report: report.mean_certified_radius,
    "bound": lambda report: report.bound.bound,
    "lower_bound": lambda report: report.bound.lower_bound,
    "samples": lambda report: float(report.samples),
}
_PER_EPS: dict[str, Callable[[Report, str], float | None]] = {
    "certified_accuracy": lambda report, eps: report.certified_accuracy.get(eps),
    "empirical_robust_accuracy": lambda report, eps: report.empirical_robust_accuracy.get(eps),
    "certified_count": lambda report, eps: report.certified_count.get(eps),
    "attacked_count": lambda report, eps: report.attacked_count.get(eps),
    "unknown_count": lambda report, eps: report.unknown_count.get(eps),
}
_FORM = re.compile(r"\s*(?P<name>\w+)\s*(?:@\s*(?P<eps>[^\s<>=]+))?\s*(?P<op>>=|<=|==|>|<)\s*(?P<value>\S+)\s*")


@dataclass(frozen=True)
class Requirement:
    """One requirement.

    Attributes:
        text: as the user wrote it.
        name, eps: the quantity; eps is None where it needs none.
        comparison, value: what it is compared with.
    """

    text: str
    name: str
    eps: float | None
    comparison: str
    value: float

    def judge(self, report: Report) -> RequirementResult:
        """Return the verdict; a quantity that the report does not have fails."""
        plain, at = _PLAIN.get(self.name), self.eps
        actual = plain(report) if plain is not None else _PER_EPS[self.name](report, eps_key(at or 0.0))
        passed = actual is not None and _OPERATORS[self.comparison](actual, self.value)
        return RequirementResult(text=self.text, actual=actual, passed=passed)


def eps_key(eps: float) -> str:
    """Return the spelling of a radius in result documents."""
    return format(eps, "g")


def parse(text: str, eps: Sequence[float]) -> Requirement:
    """Parse one requirement and check that the run will compute what it needs.

    Args:
        text: the expression.
        eps: the radii of the run.

    Raises:
        UsageError: the expression cannot be read, names nothing known, or needs another eps.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise UsageError(f"cannot read the requirement '{text}': write for example 'certified_accuracy@0.5 >= 0.6'")
    name, at, value = found["name"], found["eps"], _number(found["value"], text)
    if name not in _PLAIN and name not in _PER_EPS:
        near = difflib.get_close_matches(name, [*_PLAIN, *_PER_EPS], n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join([*_PLAIN, *_PER_EPS])}"
        raise UsageError(f"the requirement '{text}' names nothing known: {hint}")
    if (name in _PER_EPS) != (at is not None):
        need = "needs a radius, as in" if name in _PER_EPS else "takes no radius, as in"
        example = f"{name}@0.5" if name in _PER_EPS else name
        raise UsageError(f"the requirement '{text}' {need} '{example} {found['op']} {found['value']}'")
    radius = None if at is None else _number(at, text)
    if radius is not None and eps_key(radius) not in {eps_key(e) for e in eps}:
        raise UsageError(f"the requirement '{text}' needs --eps {at}, which this run does not compute")
    return Requirement(text, name, radius, found["op"], value)


def _number(text: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"'{text}' in the requirement '{where}' is not a number")
    return number
