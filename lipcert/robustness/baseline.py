"""Baselines: an earlier result that requirements are held against, read from its JSON document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from os import PathLike

from pydantic import TypeAdapter, ValidationError

from lipcert.errors import UsageError
from lipcert.files import read_whole
from lipcert.results import BoundResult, CheckResult, Report
from lipcert.robustness.requirements import Requirement, measured, parse_requirements

_READERS: TypeAdapter[Report | BoundResult | CheckResult] = TypeAdapter(Report | BoundResult | CheckResult)
_KINDS = "the JSON that `lipcert certify`, `bound` or `check` writes"


@dataclass(frozen=True)
class Baseline:
    """An earlier result.

    Attributes:
        path: its file.
        document: a report, or a bound alone.
    """

    path: str
    document: Report | BoundResult | CheckResult

    def bound(self, norm: str, quantity: str) -> Fraction:
        """Return the bound of a quantity in a norm, exactly.

        Raises:
            UsageError: the baseline does not have it.
        """
        known = list(_bounds(self.document))
        for its_norm, its_quantity, value in known:
            if (its_norm, its_quantity) == (norm, quantity):
                return Fraction(value)
        listed = ", ".join(sorted({f"of the {q} in {n}" for n, q, _ in known})) or "none that is proved"
        raise UsageError(f"the baseline '{self.path}' has no bound of the {quantity} in {norm}: it has {listed}")

    def value(self, requirement: Requirement, norm: str) -> Fraction:
        """Return what the baseline says of a requirement on a report, exactly.

        Raises:
            UsageError: it says nothing about it, or in another norm.
        """
        if requirement.name == "bound":
            return self.bound(norm, "output")
        report = self._report(requirement)
        if report.norm != norm:
            raise UsageError(f"the baseline '{self.path}' is about {report.norm}, this run about {norm}")
        found = measured(report, requirement)
        if found is None:
            at = "" if requirement.key is None else f" at eps {requirement.key}"
            known = ", ".join(report.certified_count)
            raise UsageError(
                f"the baseline '{self.path}' has no {requirement.name}{at}, which '{requirement.text}' needs: make it "
                f"again with the same radii and method (it has eps {known})"
            )
        return found

    def require_samples(self, requirements: Sequence[Requirement], digest: str, shard: str | None) -> None:
        """Make sure that the baseline is about the samples with this digest.

        Raises:
            UsageError: a requirement compares numbers about samples, and these are others.
        """
        for requirement in requirements:
            if not requirement.needs_baseline or requirement.name == "bound":
                continue
            provenance = self._report(requirement).provenance
            if provenance.samples_sha256 != digest or provenance.settings.get("shard") != shard:
                raise UsageError(
                    f"the baseline '{self.path}' is about other samples than this run (another data file, scale, limit "
                    f"or shard), so '{requirement.text}' compares nothing: make the baseline again on these samples"
                )

    def _report(self, requirement: Requirement) -> Report:
        if not isinstance(self.document, Report):
            raise UsageError(
                f"the baseline '{self.path}' is no report, so it has no {requirement.name}: give the report.json that "
                "`lipcert certify --report` writes"
            )
        return self.document


def read_baseline(path: str | PathLike[str]) -> Baseline:
    """Read the JSON document of an earlier result.

    Raises:
        UsageError: there is no such file, or it is something else.
    """
    content = read_whole(path, "baseline")
    try:
        document = _READERS.validate_json(content)
    except ValidationError:
        raise UsageError(f"the baseline '{path}' is not {_KINDS}, or of another version of lipcert") from None
    if isinstance(document, Report) and not _is_consistent(document):
        raise UsageError(
            f"the baseline '{path}' contradicts itself: its accuracies are not its counts over its samples"
        )
    return Baseline(str(path), document)


def hold(requirements: Sequence[Requirement], baseline: Baseline | None, norm: str) -> tuple[Requirement, ...]:
    """Give requirements on a report the values of their baseline.

    Raises:
        UsageError: a baseline is needed and not given, or given and not needed, or lacks a value.
    """
    require_use(requirements, baseline)
    return tuple(
        r if baseline is None or not r.needs_baseline else r.held_to(baseline.value(r, norm)) for r in requirements
    )


def bound_requirements(
    texts: Sequence[str], baseline: str | PathLike[str] | None, norm: str, quantity: str
) -> tuple[Requirement, ...]:
    """Read requirements on the bound of one quantity, with their baseline.

    Raises:
        UsageError: a text cannot be read or speaks of something else, or the baseline is missing or lacks the bound.
    """
    requirements = parse_requirements(texts, ())
    found = None if baseline is None else read_baseline(baseline)
    require_use(requirements, found)
    if found is None:
        return requirements
    value = found.bound(norm, quantity)
    return tuple(r.held_to(value) if r.needs_baseline else r for r in requirements)


def require_use(requirements: Sequence[Requirement], baseline: Baseline | None) -> None:
    """Make sure that a baseline is there where a requirement speaks of one, and only there; raises UsageError."""
    needed = [requirement for requirement in requirements if requirement.needs_baseline]
    if needed and baseline is None:
        raise UsageError(f"the requirement '{needed[0].text}' needs a baseline: give --baseline FILE, {_KINDS}")
    if baseline is not None and not needed:
        raise UsageError(
            f"no requirement speaks of the baseline '{baseline.path}': add one such as 'bound <= baseline'"
        )


def _bounds(document: Report | BoundResult | CheckResult) -> Iterator[tuple[str, str, float]]:
    """Yield (norm, quantity, bound) of everything that a document proves."""
    if isinstance(document, Report):
        if document.output_bound is not None:
            yield document.norm, "output", document.output_bound
        for part in (document.bound, document.margins):
            if part is not None:
                yield from _bounds(part)
    elif document.bound is not None and document.quantity is not None and document.norm is not None:
        yield document.norm, document.quantity, document.bound


def _is_consistent(report: Report) -> bool:
    """Whether the accuracies are their counts over the samples, so that either may be used."""
    if report.samples == 0:
        return False
    total, clean = report.samples, report.clean_count
    certified = {key: count / total for key, count in report.certified_count.items()}
    left = {key: (clean - count) / total for key, count in report.attacked_count.items()}
    shown = (report.clean_accuracy, report.certified_accuracy, report.empirical_robust_accuracy)
    return shown == (clean / total, certified, left)
