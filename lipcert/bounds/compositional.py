"""`compositional`: cuts the network into stretches, each bounded by the best method that serves it and fits.

`bounds.cutting` plans the cuts from shapes, `bounds.cut_search` tries a few places near them. Each stretch is then
bounded by its best tool and by the product: the smaller counts, so the whole is never above the product of norms. A
plan for the closed form alone, with fewer cuts, is tried as well where that takes little time. The rule
`stretches/v1` derives every stretch anew; where one method takes the whole network, its own rule does.

Measured, mlp_L17_W16 cut once: 6311 to 7250 by `lipsdp`, depending on the place, where the whole has 5095 by `lipsdp`
and 18 262 by `eclipse-fast`; the place that the closed form likes best was the best one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from lipcert.bounds.allowance import Allowance, Phase
from lipcert.bounds.cut_search import search_places
from lipcert.bounds.cutting import Planner, Section, Tool, weight_of_joints
from lipcert.bounds.effort import GIB, MOST_BYTES, Effort
from lipcert.bounds.method import Method, Proposal, Solver, derive
from lipcert.errors import InconclusiveError
from lipcert.network.cut import stretch
from lipcert.network.graph import Network
from lipcert.proof.claims import Norm
from lipcert.proof.refusal import Refused
from lipcert.proof.rules.stretches import Stretches, pack

SECONDS = 120.0  # where no time limit is given
BYTES = MOST_BYTES / 2
TRIALS = 0.1  # of the time, for trying places of cuts
REPEATED = 1.5  # times an estimate, which has one proof in it: the joined witness is proved once more
BUSY = 1.2  # times the processor time, from which on others are said to use the machine


@dataclass(frozen=True)
class Found:
    """The bound of one stretch: by which method, what it proposed, what the rule derived, and in how many seconds.

    `late`: a better tool was left out for lack of time.
    """

    section: Section
    method: str
    proposal: Proposal
    bound: float
    proof: float
    late: bool = False


class Compositional(Method):
    """Certified stretches, joined by the product of their bounds."""

    name: ClassVar[str] = "compositional"
    summary: ClassVar[str] = "stretches of the network, each by the best method that serves it and fits"
    norms: ClassVar[frozenset[Norm]] = frozenset({"l2"})
    cost: ClassVar[str] = f"planned for {SECONDS:.0f} s, or the time limit, and {BYTES / GIB:.0f} GiB"

    def __init__(self, tools: Sequence[Tool]) -> None:
        """Take the tools for stretches, best first: the last one is the product, the one before it a closed form."""
        self._tools = tuple(tools)

    def refuses(self, network: Network, norm: Norm) -> str | None:
        """Return None: the product serves every stretch."""
        return None

    def sections(self, network: Network, norm: Norm, time_limit: float | None) -> tuple[Section, ...]:
        """Return the planned stretches of a normal form; looks at shapes only."""
        return self._planner(network, norm, Allowance.of(time_limit, SECONDS)).plan()

    def propose(self, network: Network, norm: Norm, time_limit: float | None) -> Proposal:
        """Propose the witnesses of all stretches; anytime methods share what time is left.

        With a time limit, the product comes first, whatever the limit; then what fits into the rest of it by the
        estimates and by how busy the machine is. What is not ready in time is left out. The limit covers the proof.
        """
        allowance, product = Allowance.of(time_limit, SECONDS), self._tools[-1].method
        plain = product.propose(network, norm, None) if allowance.is_limit else None
        attempts = list(self._attempts(network, norm, allowance))
        planner, best = min(attempts, key=lambda one: math.prod(f.bound for f in one[1]))
        late = _late(planner, best, self.sections(network, norm, None), allowance)
        if all(f.method == product.name for f in best):
            found = plain or product.propose(network, norm, None)
            return replace(found, notes=(*found.notes, *(late or (planner.reasons() if len(best) == 1 else ()))))
        return _joined(network, best, (*planner.reasons(), *late))

    def _attempts(self, network: Network, norm: Norm, allowance: Allowance) -> Iterator[tuple[Planner, list[Found]]]:
        """Yield the bounds of the stretches of two plans: for the closed form alone, with fewer cuts, and for all."""
        cheap = self._tools[-2:]
        rival = replace(self._planner(network, norm, allowance.part(TRIALS)), tools=cheap)
        first = _bounded_all(rival, rival.plan(), allowance)
        yield rival, first
        planner = self._planner(network, norm, allowance)
        sections = search_places(planner, planner.plan(), cheap[0], allowance.part(TRIALS))
        if sections != [f.section for f in first]:
            yield planner, _bounded_all(planner, sections, allowance)

    def _planner(self, network: Network, norm: Norm, allowance: Allowance) -> Planner:
        seconds = allowance.work / (REPEATED if allowance.is_limit else 1.0)
        return Planner(network, norm, self._tools, Effort(seconds, BYTES))


def describe(network: Network, sections: Sequence[Section]) -> str:
    """Return in one line which method takes which stretch."""
    texts = (f"{_where(network, section)} by {section.tools[0].method.name}" for section in sections)
    return "; ".join(texts)


def _bounded_all(planner: Planner, sections: Sequence[Section], allowance: Allowance) -> list[Found]:
    """Return the bounds of all stretches: by the product first, then by better tools, those with least effort first.

    Each gets a share of the time by its effort; so much is kept back as the proofs took, which are done once more.
    """
    found = [_plain(planner, section, allowance.phase) for section in sections]
    order = sorted((i for i, s in enumerate(sections) if s.gains), key=lambda i: _cost(planner, sections[i]))
    for rank, position in enumerate(order):
        rest = allowance.less(sum(f.proof for f in found))
        ahead = sum(sections[i].effort.seconds for i in order[rank:])
        share = sections[position].effort.seconds / ahead if ahead > 0 else 1.0
        found[position] = _improved(planner, found[position], rest.part(share), rest)
    return found


def _cost(planner: Planner, section: Section) -> tuple[float, int]:
    """Return what stretches are ordered by: the estimate, and of equal ones the entries that the first layer reads."""
    return section.effort.seconds, planner.network.nodes[section.start].size


def _improved(planner: Planner, plain: Found, share: Allowance, rest: Allowance) -> Found:
    """Return the smaller of a stretch's product and what the best other tool that comes to something finds.

    share: of the time, by which a tool is given what it may use. rest: what there is, proofs included.
    """
    late = False
    for tool in plain.section.tools[:-1]:
        try:
            found = _in_time(planner, plain.section, tool, share, rest)
        except (InconclusiveError, Refused):
            continue
        if found is not None:
            return min(found, plain, key=lambda one: one.bound)
        late = True
    return replace(plain, late=late)


def _in_time(planner: Planner, section: Section, tool: Tool, share: Allowance, rest: Allowance) -> Found | None:
    """Return what a tool finds, or None where time is too short for it by its estimate, or was over before its proofs.

    Raises:
        InconclusiveError, Refused: it finds nothing.
    """
    part = stretch(planner.network, section.start, section.end)
    need = tool.estimate(part).seconds
    if not rest.affords(REPEATED * need):
        return None
    again = (REPEATED - 1.0) * need * rest.phase.slowdown if rest.is_limit else 0.0
    proposal = tool.method.propose(part, planner.norm, share.less(again).left)
    if not rest.spares(0.0):
        return None
    found = _proved(planner, section, tool, proposal, rest.phase)
    return found if rest.spares(found.proof) else None


def _proved(planner: Planner, section: Section, tool: Tool, proposal: Proposal, phase: Phase) -> Found:
    """Return what the rule derives for a stretch; raises Refused where that is nothing."""
    began = phase.seconds
    part = stretch(planner.network, section.start, section.end)
    proposal, derivation = derive(part, planner.norm, proposal)
    return Found(section, tool.method.name, proposal, derivation.bound, phase.seconds - began)


def _plain(planner: Planner, section: Section, phase: Phase) -> Found:
    """Return what the product finds for a stretch."""
    part, tool = stretch(planner.network, section.start, section.end), section.tools[-1]
    return _proved(planner, section, tool, tool.method.propose(part, planner.norm, None), phase)


def _late(planner: Planner, found: Sequence[Found], ample: Sequence[Section], allowance: Allowance) -> tuple[str, ...]:
    """Return in one line that a time limit was too short for better methods, if it was.

    ample: the plan for a quiet machine and no limit.
    """
    planned, possible = (
        sum(s.tools[0].gain * weight_of_joints(planner.network, s.start, s.end) for s in sections)
        for sections in ([f.section for f in found], ample)
    )
    if not allowance.is_limit or not (planned < possible or any(f.late for f in found)):
        return ()
    slowdown = allowance.phase.slowdown
    busy = (
        f" (the work took {slowdown:.1f} times its processor time: others use the machine)" if slowdown > BUSY else ""
    )
    return (f"the {allowance.seconds:.3g} s for this bound were too short for tighter methods on every stretch{busy}",)


def _joined(network: Network, found: Sequence[Found], reasons: tuple[str, ...]) -> Proposal:
    """Return the proposal for the whole network."""
    notes = reasons
    for f in found:
        remarks = f" ({'; '.join(f.proposal.notes)})" if f.proposal.notes else ""
        notes += (f"{_where(network, f.section)} by {f.method}: {f.bound:.6g}{remarks}",)
    if len(found) == 1:
        return replace(found[0].proposal, notes=notes)
    cuts = [f.section.end for f in found[:-1]]
    witness = pack(cuts, [(f.proposal.rule, f.proposal.witness) for f in found])
    return Proposal(Stretches.id, witness, _solver([f.proposal.solver for f in found if f.proposal.solver]), notes)


def _solver(solvers: Sequence[Solver]) -> Solver | None:
    """Return one account for all stretches: relative gaps of factors add up, to first order."""
    if not solvers:
        return None
    gaps = [solver.gap for solver in solvers]
    gap = None if None in gaps else sum(gap for gap in gaps if gap is not None)
    names, states = (
        ", ".join(dict.fromkeys(texts)) for texts in zip(*((s.name, s.status) for s in solvers), strict=True)
    )
    return Solver(names, states, gap)


def _where(network: Network, section: Section) -> str:
    names = [network.nodes[i].name for i in (section.start + 1, section.end)]
    return f"stretch {'..'.join(dict.fromkeys(names))}"
