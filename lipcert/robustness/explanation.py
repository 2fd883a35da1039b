"""What a run would do, as a document."""

from __future__ import annotations

from lipcert.bounds.documents import model_info
from lipcert.bounds.registry import choose_method, find_method
from lipcert.network.graph import Network
from lipcert.network.normal import normal_form, split_head, strip_softmax
from lipcert.proof.claims import Level
from lipcert.results import PlannedStage, PlanResult
from lipcert.robustness.settings import Settings
from lipcert.robustness.stages import batches
from lipcert.robustness.stages.plan import Plan, Step


def plan_document(
    network: Network, settings: Settings, plan: Plan, samples: int, device: str, batch_size: int
) -> PlanResult:
    """Return the plan of a run as a document.

    Args:
        network: as read. settings, plan, device: of the run.
        samples: that it would look at. batch_size: samples that go through all stages together, at first.
    """
    name, reason = _bound_method(network, settings)
    return PlanResult(
        model=model_info(network),
        samples=samples,
        norm=settings.norm,
        eps=settings.eps,
        level=Level.parse(settings.level).label,
        method=settings.method,
        device=device,
        bound_method=name,
        bound_reason=reason,
        batch_size=batch_size,
        time_limit=settings.time_limit,
        budget_per_sample=settings.budget_per_sample,
        stages=tuple(_stage(step, batch_size) for step in plan.steps),
    )


def _stage(step: Step, batch_size: int) -> PlannedStage:
    first = min(batches.FIRST, batch_size) if step.method is not None else batch_size
    return PlannedStage(
        name=step.name,
        kind=step.kind,
        included=step.included,
        reason=step.reason,
        level=None if step.level is None else step.level.label,
        cost=step.cost,
        multiplications=step.work,
        batch_size=first if step.included else None,
    )


def _bound_method(network: Network, settings: Settings) -> tuple[str, str]:
    """Return the method for the global bound, and why."""
    if settings.certificate is not None:
        return "certificate", f"the bound of '{settings.certificate}', after checking it"
    if settings.bound_method != "auto":
        reason = "one pass, where local methods do the work" if settings.local_methods else "it is the method named"
        return find_method(settings.bound_method).name, reason
    bare = normal_form(strip_softmax(network))
    parts = split_head(bare)
    choice = choose_method(bare if parts is None else parts[0], settings.norm, settings.bound_seconds)
    return choice.method.name, choice.reason
