"""What a report on outputs that are numbers says in words."""

from __future__ import annotations

from lipcert.report import numbers, wording
from lipcert.results import OutputChange, RegressionReport

FEW = 8  # radii of single inputs that are listed


def farthest(report: RegressionReport, eps: float) -> OutputChange:
    """Return the output that can move farthest at one eps."""
    return max(report.changes[numbers.eps_key(eps)], key=lambda change: change.largest)


def claim(report: RegressionReport) -> str:
    """Say in one sentence what is proved."""
    parts = [
        f"at ε = {numbers.eps(eps)} no output moves by more than {numbers.up(farthest(report, eps).largest)}"
        for eps in report.eps
    ]
    return (
        f"For each of the {numbers.count(report.samples)} samples and every input {ball(report)}: "
        f"{wording.listed(parts)} in the network {report.model.weights_digest[:12]}, at level {report.level}. "
        "The tables say it output by output."
    )


def ball(report: RegressionReport) -> str:
    """Say which inputs belong to the ball around a sample."""
    norm, radii = wording.NORMS[report.norm], report.per_input
    if all(radius == 1 for radius in radii):
        return f"whose {norm} distance to it is at most ε"
    if len(set(radii)) == 1:
        return f"whose {norm} distance to it is at most {numbers.plain(radii[0])} ε"
    shown = ", ".join(numbers.plain(radius) for radius in radii[:FEW]) + (", …" if len(radii) > FEW else "")
    if report.norm == "linf":
        return f"whose entries differ from it by at most ε times {shown}"
    return f"whose {norm} distance to it, each entry divided by its radius ({shown}), is at most ε"


def bound_claim(report: RegressionReport) -> str:
    """Say where the numbers come from."""
    local = "" if len(report.methods) == 1 else f" and linear bounds around each sample ({report.methods[-1]})"
    return (
        f"The intervals come from one Lipschitz bound for each output{local}; the better end counts. The network with "
        f"all its outputs in both signs moves at most {numbers.up(report.bound.bound)} times as far as the input, in "
        f"units of its radii; this is {report.bound.level}, from the method {report.bound.method}."
    )


def not_claimed(report: RegressionReport) -> list[str]:
    """List what a reader might take the report to say, and it does not."""
    unsaid = [
        "Nothing is said about how far an output is from the truth: only about how far it moves.",
        "Nothing is said about inputs outside the balls, nor about samples that are not in the file.",
        "The rounding of the deployed forward pass is not covered at this level.",
    ]
    if report.untried_count:
        unsaid.append("Samples that the time limit left to the global bound may move much less than it says.")
    return unsaid
