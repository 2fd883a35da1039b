"""What a report says in words: what is proved, what is not claimed, how to check it again."""

from __future__ import annotations

import itertools
import shlex
from dataclasses import dataclass
from pathlib import PurePath

from lipcert.report import numbers
from lipcert.results import (
    BoundResult,
    CheckResult,
    Exhibit,
    LevelName,
    NormName,
    RegressionReport,
    Report,
    RequirementResult,
    StageResult,
)

NOTICEABLE = 0.01  # seconds

NORMS: dict[NormName, str] = {"l1": "ℓ₁", "l2": "ℓ₂", "linf": "ℓ∞"}

LEVELS: dict[LevelName, str] = {
    "estimate": "This is an estimate: a search found nothing worse, and nothing is proved.",
    "numerical": (
        "The bound holds in real arithmetic as far as floating-point errors of its computation, which were not "
        "counted, do not matter."
    ),
    "verified": (
        "What is proved holds for the real function that exactly these weights define, with every rounding error of "
        "the proof counted. Rounding inside the deployed forward pass is not covered."
    ),
    "verified-exec": (
        "What is proved holds for exactly these weights, with every rounding error of the proof counted and every "
        "rounding error of the deployed floating-point forward pass too."
    ),
}


@dataclass(frozen=True)
class Step:
    """A command that checks something again, and what it shows."""

    purpose: str
    command: str


def file_name(path: str) -> str:
    """Return a path without its folders."""
    return PurePath(path).name or path


def passed(report: Report) -> bool | None:
    """Whether all requirements are met; None where there are none."""
    return all(r.passed for r in report.requirements) if report.requirements else None


def headline(report: Report) -> str:
    """Return the verdict in one line."""
    total = len(report.requirements)
    met = sum(requirement.passed for requirement in report.requirements)
    if total == 0:
        return "No requirement was set"
    if met == total:
        few = {1: "The requirement is met", 2: "Both requirements are met"}
        return few.get(total, f"All {total} requirements are met")
    if total == 1:
        return "The requirement is not met"
    return f"{total - met} of {total} requirements {'is' if total - met == 1 else 'are'} not met"


def actual(requirement: RequirementResult) -> str:
    """Return the value found: a bound rounded up, anything else down."""
    return _shown(requirement, requirement.actual)


def found(requirement: RequirementResult) -> str:
    """Return the value found and, where it was held against one, the baseline."""
    if requirement.baseline is None:
        return actual(requirement)
    return f"{actual(requirement)}, baseline {_shown(requirement, requirement.baseline)}"


def _shown(requirement: RequirementResult, value: float | None) -> str:
    show = numbers.up if requirement.text.lstrip().startswith("bound") else numbers.plain
    return show(value, 9)


def claim(report: Report) -> str:
    """Say in one sentence what is proved for how many samples."""
    word = "found" if report.level == "estimate" else "proved"
    norm = NORMS[report.norm]
    if not any(report.certified_count.values()):
        return (
            f"None of the {numbers.count(report.samples)} samples is {word}, at level {report.level}, to keep the "
            f"right class in the network {report.model.weights_digest[:12]} within any of the {norm} distances ε "
            f"asked for: {listed([numbers.eps(eps) for eps in report.eps])}."
        )
    shares = [
        f"{numbers.count(count)} ({numbers.percent_down(count, report.samples)}) at ε = {numbers.eps(eps)}"
        for eps in report.eps
        for count in [report.certified_count[numbers.eps_key(eps)]]
    ]
    return (
        f"Of {numbers.count(report.samples)} samples, {listed(shares)} are classified correctly by the network "
        f"{report.model.weights_digest[:12]} and {word}, at level {report.level}, to keep the right class for every "
        f"input whose {norm} distance to the sample is at most ε{_inside(report)}."
    )


def _inside(report: Report) -> str:
    box = report.provenance.settings.get("box")
    return f" and whose entries lie in [{box}]" if box else ""


def bound_claim(report: Report) -> str:
    """Say what the global bound means, and those of the margins where there are any."""
    bound = report.bound
    subjects = {
        "output": "The output moves",
        "features": "The features before the last linear layer move",
        "margins": "The difference of any two logits moves",
    }
    subject = subjects.get(bound.quantity or "", "What the bound speaks of moves")
    text = f"{subject} at most {numbers.up(bound.bound)} times as far as the input in {NORMS[bound.norm]}"
    if bound.lower_bound is None:
        return f"{text}.{_pairs(report)}"
    found = f"a search found a place where it is {numbers.down(bound.lower_bound)} times"
    excess = f", so the bound is at most {numbers.up(bound.ratio, 4)} times too large" if bound.ratio else ""
    return f"{text}; {found}{excess}.{_pairs(report)}"


def _pairs(report: Report) -> str:
    """Say between what the bounds of single pairs of classes lie."""
    table = None if report.margins is None else report.margins.margins
    if table is None:
        return ""
    entries = [entry for i, row in enumerate(table) for j, entry in enumerate(row) if i != j]
    span = f"from {numbers.up(min(entries))} to {numbers.up(max(entries))}"
    return f" Every pair of classes has its own bound, of the difference of its two logits: {span}."


def steps_make_bound(bound: BoundResult) -> bool:
    """Whether the bound is the product of its layers' factors, and not only shown beside it.

    What is claimed is what the factors make, or more by at most 1 part in 2^38.
    """
    if not bound.contributions or bound.bound is None:
        return False
    product = bound.contributions[-1].cumulative
    return product <= bound.bound <= product * (1.0 + 2.0**-38)


def layers(bound: BoundResult) -> str:
    """Say which layer makes the bound large, and what the factors have to do with it."""
    steps = bound.contributions
    largest = max(steps, key=lambda step: step.factor)
    culprit = f"{largest.node} ({largest.kind}) has the largest, {numbers.up(largest.factor, 5)}"
    if steps_make_bound(bound):
        stretches = "" if bound.method == "product" else " (a factor of several layers stands at the last of them)"
        return f"The bound is the product of the layers' factors along the network{stretches}: {culprit}."
    return (
        f"The plain product of the layers' factors would be {numbers.up(steps[-1].cumulative)}: {bound.method} does "
        f"not go by it. The table shows the factors of that product, and thereby which layers are large: {culprit}."
    )


def has_radii(report: Report) -> bool:
    """Whether any sample has a certified radius that the histogram shows."""
    return any(report.histogram.counts)


def histogram(report: Report) -> str:
    """Say what the histogram of radii shows."""
    if not has_radii(report):
        return "No sample has a certified radius to show."
    return (
        f"Number of samples by certified radius, from 0 to {numbers.near(report.histogram.edges[-1])}. The mean over "
        f"all samples, 0 where misclassified, is {numbers.plain(report.mean_certified_radius)}."
    )


def used(report: Report | RegressionReport) -> list[StageResult]:
    """Return the methods that decided a sample or took noticeable time."""
    return [stage for stage in report.per_method if stage.decided or stage.seconds >= NOTICEABLE]


def idle(report: Report) -> str:
    """Return the names of the other methods."""
    busy = used(report)
    names = [stage.method for stage in report.per_method if stage not in busy]
    return listed(names) if names else ""


def exhibit(shown: Exhibit) -> str:
    """Say how far a sample keeps its class, and where it is known to lose it."""
    kept = f"class {shown.label}, " + (
        f"proved within {numbers.down(shown.radius, 3)}" if shown.radius else "no radius proved"
    )
    if shown.adversarial is None:
        return kept
    return f"{kept}; class {shown.adversarial.predicted} at distance {numbers.up(shown.adversarial.distance, 3)}"


def check_claim(result: CheckResult) -> str:
    """Say what a valid certificate proves."""
    if result.balls is not None:
        count, eps = result.balls.samples, numbers.plain(result.balls.eps, 9)
        box = "" if result.balls.box is None else f" within {list(result.balls.box)}"
        samples = "1 sample keeps its class" if count == 1 else f"{count} samples keep their classes"
        return f"{samples} for all changes of {result.norm} size ≤ {eps}{box}"
    return f"{result.norm} bound of the {result.quantity} ≤ {numbers.up(result.bound, 9)}"


def not_claimed(report: Report) -> list[str]:
    """List what a reader might take the report to say, and it does not."""
    unsaid = [
        "Nothing is said about inputs farther than ε from these samples, nor about samples that are not in the "
        "file: the numbers are exact counts on this data, not guarantees for other data.",
        f"Nothing is said about changes that the {NORMS[report.norm]} distance does not measure well, such as "
        "rotation, blur or another camera.",
    ]
    if any(report.unknown_count.values()):
        unsaid.append(
            "“Unknown” means neither proved nor broken. The true robust accuracy lies between the certified and "
            "the attacked one."
        )
    if report.untried_count:
        unsaid.append(f"{_untried(report)} more time may settle them.")
    if report.empirical_robust_accuracy:
        unsaid.append("The attacked accuracy is what one attack left standing; a better attack may leave less.")
    if report.level != "verified-exec":
        unsaid.append("The rounding of the deployed forward pass is not covered at this level.")
    return unsaid


def _untried(report: Report) -> str:
    """Say how many of the unknown samples the end of time left."""
    shares = [
        f"{numbers.count(count)} at ε = {numbers.eps(eps)}"
        for eps in report.eps
        for count in [report.untried_count[numbers.eps_key(eps)]]
    ]
    return f"Of the unknown samples, {listed(shares)} were not tried to the end when the time limit was over:"


def recheck(report: Report) -> list[Step]:
    """Return the commands that check the report's foundations again."""
    model = shlex.quote(_model_word(report))
    steps = []
    if report.model.sha256 is not None:
        purpose = "The file is the one that was certified: compare with the digest below."
        steps.append(Step(purpose, f"sha256sum {shlex.quote(report.model.path)}"))
    files = {bound.certificate: bound.quantity for bound in (report.margins, report.bound) if bound is not None}
    for certificate, quantity in reversed(files.items()):
        if certificate is None:
            continue
        what = "bounds of all pairs of classes are" if quantity == "margins" else "bound is"
        purpose = f"The {what} proved for these weights: a small checker derives it all again, without any solver."
        options = _model_options(report.provenance.command or "")
        steps.append(Step(purpose, " ".join(["lipcert check", shlex.quote(certificate), model, *options])))
    for proof in report.proofs:
        what = "1 sample keeps its class" if proof.samples == 1 else f"{proof.samples} samples keep their classes"
        purpose = f"{what} within ε = {numbers.eps(proof.eps)}, by {proof.method}: derived again, sample by sample."
        options = _model_options(report.provenance.command or "")
        steps.append(Step(purpose, " ".join(["lipcert check", shlex.quote(proof.path), model, *options])))
    if report.provenance.command is not None:
        steps.append(Step("Everything again, from the start.", report.provenance.command))
    return steps


def _model_word(report: Report) -> str:
    """Return what a command calls the model: its file, with the factory before it where there was one."""
    path = report.model.path
    words = shlex.split(report.provenance.command or "")
    return next((word for word in words if word.endswith(f"@{path}")), path)


def _model_options(command: str) -> list[str]:
    """Return the options of a command that say what the model is: normalisation is part of it."""
    words = [*shlex.split(command), ""]
    found = []
    for option, following in itertools.pairwise(words):
        name, _, joined = option.partition("=")
        if name in ("--mean", "--std", "--input-shape"):
            found.append(shlex.quote(option) if joined else f"{option} {shlex.quote(following)}")
        elif option == "--allow-pickle":
            found.append(option)
    return found


def listed(parts: list[str]) -> str:
    """Return parts as they stand in a sentence."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
