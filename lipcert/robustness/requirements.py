"""Requirements: ``certified_accuracy@0.5 >= 0.6``, ``bound <= 1.05 * baseline`` and the like.

The right side is a number, or ``[FACTOR *] baseline [+ or - NUMBER]``, where ``baseline`` is the same quantity in an
earlier result (`baseline`). It is computed exactly, from the decimals and quotients as written and from counts of
samples, and rounded once to the nearest float64. The left side is rounded in the same way, so that 74 of 100 meets
``baseline - 0.01`` where the baseline has 75 of 100, and nothing less does.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from types import MappingProxyType

from lipcert.errors import UsageError, suggestion
from lipcert.results import Report, RequirementResult

Compare = Callable[[float, float], bool]

OPERATORS: Mapping[str, Compare] = MappingProxyType(
    {">=": operator.ge, "<=": operator.le, "==": operator.eq, ">": operator.gt, "<": operator.lt}
)
AT_EPS: Mapping[str, Callable[[Report, str], Fraction | None]] = MappingProxyType(
    {
        "certified_accuracy": lambda report, key: _share(report, report.certified_count.get(key)),
        "empirical_robust_accuracy": lambda report, key: _unbroken(report, report.attacked_count.get(key)),
    }
)
OVERALL: Mapping[str, Callable[[Report], Fraction | None]] = MappingProxyType(
    {
        "clean_accuracy": lambda report: _share(report, report.clean_count),
        "mean_certified_radius": lambda report: Fraction(report.mean_certified_radius),
        "bound": lambda report: None if report.output_bound is None else Fraction(report.output_bound),
    }
)
_FORM = re.compile(
    r"\s*(?P<name>[a-z_]+)\s*(?:@\s*(?P<eps>[^\s<>=]+))?\s*(?P<op>>=|<=|==|>|<)\s*(?P<right>[^<>=]*?)\s*"
)
_BASELINE = re.compile(r"(?:(?P<factor>[^\s*]+)\s*\*\s*)?baseline(?:\s*(?P<sign>[+-])\s*(?P<offset>[^\s*+-]\S*))?")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?", re.IGNORECASE)  # no exponent that takes ages
_EXAMPLE = "write for example 'certified_accuracy@0.5 >= 0.6' or 'bound <= 1.05 * baseline'"


@dataclass(frozen=True)
class Requirement:
    """One condition on a result.

    Attributes:
        text: as it was given.
        name: a key of `AT_EPS` or `OVERALL`.
        key: the eps it speaks of, as a key of the report's maps; None for those of `OVERALL`.
        operator: a key of `OPERATORS`.
        factor, offset: the actual value is compared with ``factor * baseline + offset``.
        baseline: the value in the baseline, where there is one.
    """

    text: str
    name: str
    key: str | None
    operator: str
    factor: Fraction
    offset: Fraction
    baseline: Fraction | None = None

    @property
    def needs_baseline(self) -> bool:
        """Whether the text speaks of a baseline."""
        return self.factor != 0

    def held_to(self, baseline: Fraction) -> Requirement:
        """Return the requirement with the value of its baseline; raises UsageError where the sum overflows."""
        held = replace(self, baseline=baseline)
        try:
            held.threshold()
        except OverflowError:
            raise UsageError(f"the requirement '{self.text}' asks for a number that is too large") from None
        return held

    def threshold(self) -> float:
        """Return the number that the actual value is compared with."""
        if self.baseline is None:
            return float(self.offset)
        return float(self.factor * self.baseline + self.offset)

    def judge(self, actual: Fraction | None) -> RequirementResult:
        """Return the verdict; a value that does not exist fails."""
        if self.needs_baseline and self.baseline is None:
            raise ValueError(f"'{self.text}' is judged without its baseline")
        found, threshold = None if actual is None else float(actual), self.threshold()
        return RequirementResult(
            text=self.text,
            actual=found,
            passed=found is not None and OPERATORS[self.operator](found, threshold),
            threshold=threshold,
            baseline=None if self.baseline is None else float(self.baseline),
        )


def measured(report: Report, requirement: Requirement) -> Fraction | None:
    """Return what a report says of a requirement's quantity, exactly; None where it says nothing."""
    if requirement.key is None:
        return OVERALL[requirement.name](report)
    return AT_EPS[requirement.name](report, requirement.key)


def parse_requirements(texts: Sequence[str], eps: Sequence[float]) -> tuple[Requirement, ...]:
    """Read requirements before anything is computed.

    Args:
        texts: ``NAME OP RIGHT`` or ``NAME@EPS OP RIGHT`` with OP one of >=, >, <=, <, ==; see the module for RIGHT.
            Numbers may be quotients such as 8/255.
        eps: the radii that will be computed; where there are none, only ``bound`` is.

    Raises:
        UsageError: a text has another form, or an unknown name, or an eps that is not computed.
    """
    return tuple(_parse(text, eps) for text in texts)


def _parse(text: str, eps: Sequence[float]) -> Requirement:
    match = _FORM.fullmatch(text)
    if match is None or not match["right"]:
        raise UsageError(f"the requirement '{text}' cannot be read: {_EXAMPLE}")
    name, at = match["name"], match["eps"]
    known = [*AT_EPS, *OVERALL] if eps else ["bound"]
    if name not in known:
        raise UsageError(
            f"the requirement '{text}' speaks of '{name}', which is not computed: {suggestion(name, known)}"
        )
    if name in OVERALL and at is not None:
        raise UsageError(f"the requirement '{text}': {name} does not depend on eps, leave out '@{at}'")
    if name in AT_EPS and at is None:
        raise UsageError(f"the requirement '{text}' needs a radius: {name}@{eps[0]:g}, say")
    key = None if at is None else _key(float(_number(at, text)), eps, text)
    return Requirement(text, name, key, match["op"], *_right(match["right"], text))


def _right(right: str, text: str) -> tuple[Fraction, Fraction]:
    """Return factor and offset."""
    match = _BASELINE.fullmatch(right)
    if match is None:
        if "baseline" in right or len(right.split()) != 1:
            raise UsageError(f"the requirement '{text}' cannot be read: {_EXAMPLE}")
        return Fraction(0), _number(right, text)
    factor = Fraction(1) if match["factor"] is None else _number(match["factor"], text)
    offset = Fraction(0) if match["offset"] is None else _number(match["offset"], text)
    if factor <= 0:
        raise UsageError(
            f"the requirement '{text}' multiplies the baseline by {match['factor']}: give a positive factor"
        )
    return factor, -offset if match["sign"] == "-" else offset


def _key(value: float, eps: Sequence[float], text: str) -> str:
    for known in eps:
        if known == value:
            return format(known, "g")
    listed = ", ".join(format(known, "g") for known in eps)
    raise UsageError(f"the requirement '{text}' speaks of eps {value:g}, which is not computed: add it to {listed}")


def _number(text: str, requirement: str) -> Fraction:
    """Return a decimal or a quotient of two, exactly; it has a finite float64."""
    parts = text.split("/")
    try:
        if len(parts) > 2 or not all(_NUMBER.fullmatch(part) for part in parts):
            raise ValueError
        value = Fraction(parts[0]) / (Fraction(parts[1]) if len(parts) == 2 else 1)
        if math.isfinite(float(value)):
            return value
    except (ValueError, ZeroDivisionError, OverflowError):
        pass
    raise UsageError(f"the requirement '{requirement}': '{text}' is not a number; {_EXAMPLE}")


def _share(report: Report, count: int | None) -> Fraction | None:
    return None if count is None else Fraction(count, report.samples)


def _unbroken(report: Report, attacked: int | None) -> Fraction | None:
    return None if attacked is None else _share(report, report.clean_count - attacked)
