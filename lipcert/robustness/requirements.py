"""Requirements on a report: ``certified_accuracy@0.5 >= 0.6`` and the like."""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

from lipcert.errors import UsageError
from lipcert.results import Report, RequirementResult

Compare = Callable[[float, float], bool]

OPERATORS: Mapping[str, Compare] = MappingProxyType(
    {">=": operator.ge, "<=": operator.le, "==": operator.eq, ">": operator.gt, "<": operator.lt}
)
AT_EPS: Mapping[str, Callable[[Report], Mapping[str, float]]] = MappingProxyType(
    {
        "certified_accuracy": lambda report: report.certified_accuracy,
        "empirical_robust_accuracy": lambda report: report.empirical_robust_accuracy,
    }
)
OVERALL: Mapping[str, Callable[[Report], float | None]] = MappingProxyType(
    {
        "clean_accuracy": lambda report: report.clean_accuracy,
        "mean_certified_radius": lambda report: report.mean_certified_radius,
        "bound": lambda report: None,  # of the output: computed on its own
    }
)
_FORM = re.compile(
    r"\s*(?P<name>[a-z_]+)\s*(?:@\s*(?P<eps>[^\s<>=]+))?\s*(?P<op>>=|<=|==|>|<)\s*(?P<value>[^\s<>=]+)\s*"
)
_EXAMPLE = "write for example 'certified_accuracy@0.5 >= 0.6'"


@dataclass(frozen=True)
class Requirement:
    """One condition on a report.

    Attributes:
        text: as it was given.
        name: a key of `AT_EPS` or `OVERALL`.
        key: the eps it speaks of, as a key of the report's maps; None for those of `OVERALL`.
        operator: a key of `OPERATORS`.
        value: what the actual value is compared with.
    """

    text: str
    name: str
    key: str | None
    operator: str
    value: float

    def judge(self, report: Report, bound: float | None) -> RequirementResult:
        """Return the verdict; a value that does not exist fails.

        bound: the Lipschitz bound of the network's output, where a requirement speaks of it.
        """
        actual = bound if self.name == "bound" else self._actual(report)
        passed = actual is not None and OPERATORS[self.operator](actual, self.value)
        return RequirementResult(text=self.text, actual=actual, passed=passed)

    def _actual(self, report: Report) -> float | None:
        return OVERALL[self.name](report) if self.key is None else AT_EPS[self.name](report).get(self.key)


def parse_requirements(texts: Sequence[str], eps: Sequence[float]) -> tuple[Requirement, ...]:
    """Read requirements before anything is computed.

    Args:
        texts: ``NAME OP NUMBER`` or ``NAME@EPS OP NUMBER`` with OP one of >=, >, <=, <, ==; numbers may be quotients
            such as 8/255.
        eps: the radii that will be computed.

    Raises:
        UsageError: a text has another form, or an unknown name, or an eps that is not computed.
    """
    return tuple(_parse(text, eps) for text in texts)


def _parse(text: str, eps: Sequence[float]) -> Requirement:
    match = _FORM.fullmatch(text)
    if match is None:
        raise UsageError(f"the requirement '{text}' cannot be read: {_EXAMPLE}")
    name, at = match["name"], match["eps"]
    if name not in AT_EPS and name not in OVERALL:
        known = [*AT_EPS, *OVERALL]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}"
        raise UsageError(f"the requirement '{text}' speaks of '{name}', which is not computed: {hint}")
    if name in OVERALL and at is not None:
        raise UsageError(f"the requirement '{text}': {name} does not depend on eps, leave out '@{at}'")
    if name in AT_EPS and at is None:
        raise UsageError(f"the requirement '{text}' needs a radius: {name}@{eps[0]:g}, say")
    key = None if at is None else _key(_number(at, text), eps, text)
    return Requirement(text, name, key, match["op"], _number(match["value"], text))


def _key(value: float, eps: Sequence[float], text: str) -> str:
    for known in eps:
        if known == value:
            return format(known, "g")
    listed = ", ".join(format(known, "g") for known in eps)
    raise UsageError(f"the requirement '{text}' speaks of eps {value:g}, which is not computed: add it to {listed}")


def _number(text: str, requirement: str) -> float:
    numerator, slash, denominator = text.partition("/")
    try:
        value = float(Fraction(numerator) / Fraction(denominator)) if slash else float(text)
    except (ValueError, ZeroDivisionError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"the requirement '{requirement}': '{text}' is not a number; {_EXAMPLE}")
    return value
