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
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from lipcert.bounds.cut_search import search_places
from lipcert.bounds.cutting import Planner, Section, Tool
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


@dataclass(frozen=True)
class Found:
    """The bound of one stretch: by which method, what it proposed, what the rule derived."""

    section: Section
    method: str
    proposal: Proposal
    bound: float


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
        return self._planner(network, norm, time_limit).plan()

    def propose(self, network: Network, norm: Norm, time_limit: float | None) -> Proposal:
        """Propose the witnesses of all stretches; anytime methods share what time is left."""
        planner, start = self._planner(network, norm, time_limit), time.monotonic()
        seconds, cheap = planner.limits.seconds, self._tools[-2:]
        closed_form, product = cheap
        rival = replace(planner, tools=cheap, limits=replace(planner.limits, seconds=TRIALS * seconds))
        attempts = [_bounded_all(rival, rival.plan(), math.inf)]
        sections = search_places(planner, planner.plan(), closed_form, TRIALS * seconds)
        if sections != [f.section for f in attempts[0]]:
            attempts.append(_bounded_all(planner, sections, seconds - (time.monotonic() - start)))
        best = min(attempts, key=lambda found: math.prod(f.bound for f in found))
        if len(best) != 1 and all(f.method == product.method.name for f in best):
            return product.method.propose(network, norm, None)
        return _joined(network, best, tuple(planner.reasons()))

    def _planner(self, network: Network, norm: Norm, time_limit: float | None) -> Planner:
        seconds = SECONDS if time_limit is None else time_limit
        return Planner(network, norm, self._tools, Effort(seconds, BYTES))


def describe(network: Network, sections: Sequence[Section]) -> str:
    """Return in one line which method takes which stretch."""
    texts = (f"{_where(network, section)} by {section.tools[0].method.name}" for section in sections)
    return "; ".join(texts)


def _bounded_all(planner: Planner, sections: Sequence[Section], seconds: float) -> list[Found]:
    """Return the bounds of all stretches; each gets a share of the time by its effort."""
    found: list[Found] = []
    start = time.monotonic()
    for position, section in enumerate(sections):
        left = max(seconds - (time.monotonic() - start), 0.0)
        ahead = sum(s.effort.seconds for s in sections[position:])
        share = left * section.effort.seconds / ahead if ahead > 0 else left
        found.append(_bounded(planner, section, share))
    return found


def _bounded(planner: Planner, section: Section, seconds: float) -> Found:
    """Return the smaller of what the product and the best other tool that comes to something find for a stretch."""
    part = stretch(planner.network, section.start, section.end)

    def find(tool: Tool, limit: float | None) -> Found:
        proposal, derivation = derive(part, planner.norm, tool.method.propose(part, planner.norm, limit))
        return Found(section, tool.method.name, proposal, derivation.bound)

    *better, product = section.tools
    plain = find(product, None)
    for tool in better:
        try:
            return min(find(tool, seconds), plain, key=lambda found: found.bound)
        except (InconclusiveError, Refused):
            continue
    return plain


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
