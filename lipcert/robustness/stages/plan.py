"""Which stages a run has, in which order, and why each other one is left out: known without running anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lipcert.bounds.local.method import LocalMethod
from lipcert.bounds.local.registry import find_local
from lipcert.bounds.local.view import View
from lipcert.errors import UnsupportedError, UsageError
from lipcert.network.graph import Network
from lipcert.network.linear import row_terms
from lipcert.network.normal import normal_form, strip_softmax
from lipcert.proof.claims import Level
from lipcert.proof.local import Costs, Evaluator
from lipcert.proof.refusal import Refused
from lipcert.robustness.attack import Attacker
from lipcert.robustness.passes.execution import Execution
from lipcert.robustness.settings import Settings
from lipcert.robustness.stages.attacks import AGAIN, BEYOND, FIRST, AttackStage
from lipcert.robustness.stages.clock import Clock
from lipcert.robustness.stages.local import RADIUS_BY, LocalStage, RadiusStage
from lipcert.robustness.stages.prover import Ground, Prover
from lipcert.robustness.stages.stage import Stage

ORDER = ("intervals", "zonotope", "crown", "pruned", "anchored", "alpha-crown", "branching")
"""Local methods of the cascade, cheap ones first; the others never certify what these leave open, or hardly ever."""
CHEAP = frozenset({"intervals", "zonotope", "crown", "pruned"})
"""Those that come before the attack's further tries; the others only look at samples with hope, see `prover`."""
SIEVE, LOOK = "crown", "zonotope"

Kind = Literal["global", "attack", "local", "radius"]


@dataclass(frozen=True)
class Step:
    """A stage of a run, or one that it leaves out.

    Attributes:
        name, kind: of the stage.
        reason: why it is in or out.
        level: of its verdicts; None where it is out.
        cost: per sample, in words.
        work: multiplications per sample, where they can be counted beforehand, see `Work`.
        method: of a local stage.
    """

    name: str
    kind: Kind
    reason: str
    level: Level | None
    cost: str
    work: float | None = None
    method: LocalMethod | None = None

    @property
    def included(self) -> bool:
        """Whether the stage is run."""
        return self.level is not None


@dataclass(frozen=True)
class Plan:
    """The stages of a run.

    Attributes:
        steps: in the order in which they are run, those left out among them.
        view: the network for local methods; None where none is run.
        evaluator: derives bounds at level verified and above; None where that is not asked for or cannot be done.
    """

    steps: tuple[Step, ...]
    view: View | None
    evaluator: Evaluator | None

    @property
    def remarks(self) -> tuple[str, ...]:
        """Why no local method is run, where the run would have some."""
        local = [step for step in self.steps if step.kind == "local"]
        if not local or any(step.included for step in local):
            return ()
        return (f"no local method is run: {local[0].reason}",)

    def stages(
        self, settings: Settings, attacker: Attacker | None, clock: Clock, execution: Execution | None = None
    ) -> list[Stage]:
        """Return the stages behind the global one.

        Args:
            settings: of the run. attacker: where attacks are run. clock: of the run.
            execution: the deployed pass, at level verified-exec.
        """
        found: list[Stage] = []
        ground = None
        if self.view is not None:
            rank, box = settings.top_k, settings.box
            ground = Ground(self.view, settings.norm, rank, self.evaluator, clock, box, execution)
        for step in self.steps:
            if step.kind == "attack" and step.included and attacker is not None:
                found.append(AttackStage(attacker, settings.eps, clock, step.name))
            elif step.method is not None and step.included and ground is not None:
                sieved = settings.attacks and step.method.name not in CHEAP and step.kind == "local"
                prover = Prover(step.method, ground, find_local(SIEVE) if sieved else None)
                kind = RadiusStage if step.kind == "radius" else LocalStage
                found.append(kind(prover, settings.eps, Level.parse(settings.level)))
                found[-1].cheap = step.kind == "local" and step.name in CHEAP
            else:
                continue
            found[-1].work = step.work
        return found


def make_plan(network: Network, settings: Settings, device: str) -> Plan:
    """Plan a run.

    Args:
        network: as read. settings: of the run. device: where local methods and attacks compute.

    Raises:
        UsageError: the local method that the run names does not serve the network or the norm, or not at its level.
        UnsupportedError: the network has an operator that cannot be executed.
    """
    names = settings.local_methods if settings.local_methods else (ORDER if settings.attacks else ())
    methods = [find_local(name) for name in names]
    required = Level.parse(settings.level)
    view: View | None = None
    lacking, refusal = "", ""
    try:
        view = View(network, device) if methods else None
    except UnsupportedError as error:
        if settings.local_methods:
            raise
        lacking = str(error)
    evaluator: Evaluator | None = None
    if view is not None and required >= Level.VERIFIED and any(method.derived for method in methods):
        try:
            evaluator = Evaluator(network)
        except Refused as refused:
            refusal = str(refused)
    cost = Work.of(network)
    local = [_local_step(method, view, settings, refusal, lacking, cost) for method in methods]
    for step in local if settings.local_methods else ():
        if not step.included:
            raise UsageError(f"the method '{step.name}' cannot be used here: {step.reason}")
    steps = [_global_step(settings, cost), *_with_attacks(local, settings, cost)]
    if settings.radius:
        steps += [_radius_step(step) for step in local if step.included]
    return Plan(tuple(steps), view, evaluator)


def _local_step(
    method: LocalMethod, view: View | None, settings: Settings, refusal: str, lacking: str, cost: Work
) -> Step:
    """Return a local stage, in or out."""
    required = Level.parse(settings.level)
    best = required if method.derived and required >= Level.VERIFIED else method.level
    obstacle = lacking or (method.refuses(view, settings.norm) if view is not None else None)
    pinned = bool(settings.local_methods)
    if obstacle is None and method.derived and refusal and required >= Level.VERIFIED:
        obstacle = (
            f"no level {required.label} here: {refusal}; --level {Level.NUMERICAL.label} counts bounds whose "
            "rounding is not counted"
        )
    if obstacle is None and not pinned and method.name == LOOK and not cost.looks:
        obstacle = f"'{SIEVE}' costs little more here"
    if obstacle is None and best < required and not pinned:
        obstacle = f"its proofs are of level {best.label}, below {required.label}"
    reason = obstacle or ("it is the method named" if pinned else method.summary)
    level = None if obstacle else best
    return Step(method.name, "local", reason, level, method.cost, cost.local.get(method.name), method)


def _global_step(settings: Settings, cost: Work) -> Step:
    level = max(Level.parse(settings.level), Level.VERIFIED)
    reason = "predictions, and certified radii from one Lipschitz bound"
    return Step("global", "global", reason, level, "a forward pass", cost.forward)


def _with_attacks(local: Sequence[Step], settings: Settings, cost: Work) -> list[Step]:
    """Return the local stages with the attacks where they belong."""
    if not settings.attacks:
        return list(local)
    steps, tries = settings.attack.steps, settings.attack.restarts
    each = 3.0 * (steps + 1) * cost.forward
    first = Step(
        FIRST, "attack", "what falls at once costs nothing later", Level.ESTIMATE, f"{steps} gradient steps", each
    )
    again = Step(
        AGAIN,
        "attack",
        "random starts, aimed at single rivals, where cheap bounds do not certify" if tries > 1 else "one try only",
        Level.ESTIMATE if tries > 1 else None,
        f"{(tries - 1) * steps} gradient steps",
        (tries - 1) * each,
    )
    beyond = Step(
        BEYOND,
        "attack",
        "without an input box, claims are about the whole ball" if settings.box is None else "inputs keep to the box",
        Level.ESTIMATE if settings.box is None else None,
        f"{tries * steps} gradient steps",
        tries * each,
    )
    cheap = [step for step in local if step.name in CHEAP]
    return [first, *cheap, again, beyond, *(step for step in local if step.name not in CHEAP)]


def _radius_step(step: Step) -> Step:
    reason = "the largest radius of a fine grid that it proves, by bisection"
    cost = f"about nine times: {step.cost}"
    work = None if step.work is None else 9.0 * step.work
    return Step(f"{RADIUS_BY}{step.name}", "radius", reason, step.level, cost, work, step.method)


@dataclass(frozen=True)
class Work:
    """Multiplications per sample, or what takes as long: of a forward pass, and of local methods where known.

    Of `zonotope` where all neurons are stable, of the others where none is. Also, whether zonotopes come before CROWN.
    """

    forward: float
    local: dict[str, float]
    looks: bool

    @staticmethod
    def of(network: Network) -> Work:
        """Count them on the normal form."""
        normal = normal_form(strip_softmax(network))
        total = float(sum(node.size * row_terms(node.op) for node in normal.nodes))
        costs = Costs(normal)
        crown = costs.narrowing + normal.nodes[-1].size * float(costs.backwards[-1])
        local = {"intervals": 2.0 * total, "zonotope": costs.look, "crown": crown, "alpha-crown": 40.0 * crown}
        return Work(total, local, costs.looks)
