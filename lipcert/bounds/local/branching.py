"""`branching`: regions cut at kinks of unstable neurons until every part is proved (branch and bound).

On l2 balls, networks whose activations have one kink each go to `trees`: its bounds of whole balls are so good that
cuts are rare, and they can be derived again at level verified. All else, and large samples, go on as follows.

A sample is certified when all parts of its region are. Samples with few open parts go first, so that a batch gives up
on the hopeless ones last; on one sample, parts with the worst margins go first. Every step handles parts of many
samples at once. What stays open when the budget is spent keeps the bounds found so far: they hold.

Where the tree is exhausted, parts have linear neurons only, and `cuts` tend to the exact least margin on them.
Source: Bunel et al. 2020; bounds on parts: `domains`.
"""

from __future__ import annotations

import time
from typing import ClassVar

import torch
from torch import Tensor

from lipcert.bounds.local import crown
from lipcert.bounds.local.anchored import Anchored, search_margins
from lipcert.bounds.local.crown import relax_network
from lipcert.bounds.local.domains import Domains, bounded, split, whole
from lipcert.bounds.local.kinks import obstacle, unstable
from lipcert.bounds.local.method import Bounds
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.tree_proposal import proposed
from lipcert.bounds.local.trees import Budget as Budget
from lipcert.bounds.local.trees import grow, raised, small
from lipcert.bounds.local.view import View
from lipcert.proof.claims import NORMS, Norm
from lipcert.proof.local import Proposal

AT_ONCE = 64  # parts that are cut in one step
EXHAUSTED = 16  # unstable neurons, up to which `domains` may look at all their sides after `trees`
LEAF_STEPS = 200  # of the optimiser, on parts whose neurons are all linear


def margins(view: View, ball: Ball, labels: Tensor, known: Domains, budget: Budget) -> Tensor:
    """Return (B, classes - 1) lower bounds of all margins. Level: numerical.

    Args:
        view: the network; its activations are elementwise.
        ball: B regions.
        labels: (B,) int64.
        known: the whole regions, with bounds that hold.
        budget: see there.
    """
    if not known.boxes:
        return known.bounds
    proved = torch.full_like(known.bounds, torch.inf)
    spent = torch.zeros(len(labels), dtype=torch.int64, device=labels.device)
    domains = _open(known, proved, ball.valid)
    deadline = time.monotonic() + budget.seconds * len(domains)
    while len(domains) and time.monotonic() < deadline:
        chosen = _choose(domains, spent < budget.parts)
        if not len(chosen):
            break
        picked = domains.take(chosen)
        spent = spent + torch.bincount(picked.samples, minlength=len(spent))
        halves, stuck = split(view, ball, labels, picked)
        domains = domains.take(_others(chosen, len(domains)))
        if bool(stuck.any()):
            leaves = bounded(view, ball, labels, picked.take(stuck), LEAF_STEPS)
            failed = _open(leaves, proved, ball.valid)
            _lower(proved, failed)
            spent[failed.samples] = budget.parts
        if len(halves):
            domains = domains.join(_open(bounded(view, ball, labels, halves, budget.steps), proved, ball.valid))
    _lower(proved, domains)
    return proved


def _others(chosen: Tensor, count: int) -> Tensor:
    """Return (count,) which are not chosen."""
    found = torch.ones(count, dtype=torch.bool, device=chosen.device)
    found[chosen] = False
    return found


def _open(domains: Domains, proved: Tensor, valid: Tensor) -> Domains:
    """Take down the bounds of parts that are done, in place, and return the others."""
    done = (domains.bounds > 0).all(dim=1) | ~valid[domains.samples]
    _lower(proved, domains.take(done))
    return domains.take(~done)


def _lower(proved: Tensor, domains: Domains) -> None:
    """Lower what is proved of each sample, in place, to the bounds of its parts."""
    bounds = domains.bounds.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    proved.scatter_reduce_(0, domains.samples[:, None].expand_as(bounds), bounds, "amin")


def _choose(domains: Domains, allowed: Tensor) -> Tensor:
    """Return which parts are cut next: those of samples with the fewest open parts, the worst ones first."""
    open_ = torch.bincount(domains.samples, minlength=len(allowed))
    rows = allowed[domains.samples].nonzero()[:, 0]
    order = domains.worst[rows].argsort(stable=True)
    rows = rows[order]
    rows = rows[open_[domains.samples[rows]].argsort(stable=True)]
    return rows[:AT_ONCE]


class Branching(Anchored):
    """Margins by branch and bound, where `anchored` and CROWN leave them open.

    Args of the constructor:
        budget: what it may cost.
    """

    name: ClassVar[str] = "branching"
    summary: ClassVar[str] = "ellipsoids with cuts for every margin, and branch and bound over unstable neurons"
    norms: ClassVar[frozenset[Norm]] = frozenset(NORMS)
    rule: ClassVar[str | None] = "local-parts/v1"
    cost: ClassVar[str] = "up to two seconds per sample that is still open"

    def __init__(self, budget: Budget | None = None) -> None:
        super().__init__()
        self.budget = budget or Budget()

    def _bound(self, view: View, ball: Ball, labels: Tensor) -> Bounds:
        relaxed = relax_network(view, ball)
        if ball.norm != "l2":
            known = whole(view, relaxed, crown.margins(relaxed, labels))
            return Bounds(margins(view, ball, labels, known, self.budget))
        first = search_margins(relaxed, labels, self.steps)
        straight = obstacle(view) is None
        grown = grow(relaxed, labels, first.lows, self.budget) if straight else []
        found = raised(first.lows, grown)
        others = ~small(relaxed) | (unstable(relaxed) <= EXHAUSTED) if straight else torch.ones_like(ball.valid)
        rows = (others & ~(found > 0).all(dim=1)).nonzero()[:, 0]
        if len(rows):
            known = whole(view, relaxed.take(rows), found[rows])
            found[rows] = margins(view, ball.take(rows), labels[rows], known, self.budget)

        def suggest(some: Tensor) -> Proposal:
            parts = proposed(view, grown, some)
            return Proposal(multipliers=first.multipliers(some, view), norms=view.norms, parts=parts)

        return Bounds(found, suggest)
