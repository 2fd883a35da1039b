r"""LipSDP with one multiplier per channel, all frequencies, by constraint generation.

Few frequencies matter at the optimum. The barrier is that of those which were found critical so far; every step along
its central path is checked against all, shortened until it violates none, and those that were violated most join. The
value of the smaller problem is a bound on that of the whole, so the gap is that of the whole problem too, and every
iterate is feasible for all frequencies: the method can be stopped at any time.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from lipcert.bounds.lipsdp_conv._bands import feasible
from lipcert.bounds.lipsdp_conv._family import Family, Tensors
from lipcert.bounds.lipsdp_conv._path import NEAR, Local, Stop, predicted, recentred
from lipcert.bounds.lipsdp_conv._start import central, critical, safe

MOST_NEW = 6  # chains that join at a time
MOST_STEPS = 200
PATIENCE = 8  # steps without a better gap
SHORTER = 0.6  # of a step that a chain does not allow
PULL = 0.1  # kappa of the start, per row of Z
MOST_EACH = 2  # chains of the largest gains in each layer, to start with
MOST_STARTS = 4


@dataclass(frozen=True)
class Result:
    """What was found.

    Attributes:
        multipliers: of each layer, feasible for all frequencies. f: F. gap: relative, of the bound F^(-1/2).
        status: ``optimal``, ``time_limit``, ``numerical_limit`` or ``iteration_limit``.
    """

    multipliers: Tensors
    f: float
    gap: float
    status: str


def solve(family: Family, gap: float, time_limit: float) -> Result:
    """Maximise F until the relative gap of F^(-1/2) is at most `gap`, or `time_limit` seconds are over.

    Raises:
        numpy.linalg.LinAlgError: the gains over- or underflow.
    """
    began = time.monotonic()

    def stop() -> bool:
        return time.monotonic() - began > time_limit

    multipliers, f = safe(family)
    if stop():
        return Result(multipliers, f, math.inf, "time_limit")
    search, scale, unit = _begin(family, multipliers, f, stop)
    search.run(gap, stop)
    found = [a * b for a, b in zip(scale, family.split(search.best[:-1]), strict=True)]
    return Result(found, unit * float(search.best[-1]), search.gap, search.status)


def _begin(family: Family, multipliers: Tensors, f: float, stop: Stop) -> tuple[Search, Tensors, float]:
    """Return a search that stands near the central path of enough chains, and its units.

    multipliers, f: feasible for all chains. The chains that forbid the way from there to the centre of some join them.
    """
    chosen = critical(family, multipliers, MOST_EACH)
    for _ in range(MOST_STARTS):
        try:
            scale, unit = central(family.with_chains(chosen), PULL * sum(family.groups[0].sizes), stop)
        except ArithmeticError:  # rounding; the path is then entered from farther off
            scale, unit = multipliers, f
        inside = torch.cat([*(a / b for a, b in zip(multipliers, scale, strict=True)), torch.tensor([f / unit])])
        search = Search(family.rescaled(scale, unit), inside, chosen)
        centre = torch.ones_like(inside)
        search.move(centre)
        if search.y is not inside and bool((search.y == centre).all()):
            break
        chosen = search.chosen
    return search, scale, unit


class Search:
    """The path and the frequencies that it heeds, in the units of its start.

    Attributes:
        y: where it stands, feasible for all chains. best: such a point with the largest F. above: upper bound on F.
        chosen: chains of the last group in the barrier. status: as in `Result`.
    """

    def __init__(self, family: Family, y: torch.Tensor, chosen: torch.Tensor) -> None:
        """Stand at y, which is feasible for all chains."""
        self.family, self.y, self.chosen = family, y, chosen
        self.best, self.above, self.status = y, math.inf, "iteration_limit"

    @property
    def gap(self) -> float:
        """Relative gap of the Lipschitz bound F^(-1/2)."""
        return math.sqrt(max(self.above / float(self.best[-1]), 1.0)) - 1.0

    def run(self, gap: float, stop: Stop) -> None:
        """Follow the path until the gap is small enough, time is out, or nothing is gained any more."""
        stalled = 0
        for _ in range(MOST_STEPS):
            part = self.family.with_chains(self.chosen)
            local = None if stop() else Local.at(part, self.y)
            if local is None:
                self.status = "time_limit" if stop() else "numerical_limit"
                return
            before = self.gap
            self.above = min(self.above, local.above(float(self.y[-1]), part.degree))
            if self.gap <= gap:
                self.status = "optimal"
                return
            stalled = 0 if self.gap < 0.9 * before or math.isinf(before) else stalled + 1
            if stalled > PATIENCE:
                self.status = "numerical_limit"
                return
            step = recentred if local.decrement > NEAR else predicted
            try:
                self.move(step(part, self.y, local))
            except ArithmeticError:
                self.status = "numerical_limit"
                return

    def move(self, wanted: torch.Tensor) -> None:
        """Go towards a point as far as all chains allow; those that allow least join the barrier."""
        group = self.family.groups[-1]
        bad, length = torch.arange(len(group)), 1.0
        blocking = bad[:0]
        while length > 1e-6:
            point = self.y + length * (wanted - self.y)
            bad = bad[~feasible(*self.family.band(group.chosen(bad), point))]
            if len(bad) == 0 and self.family.factors(point) is not None:
                self.y = point
                break
            if len(bad) > 0:
                blocking = bad
            else:
                bad = torch.arange(len(group))
            length *= SHORTER
        self.chosen = torch.tensor(sorted({*self.chosen.tolist(), *blocking[:MOST_NEW].tolist()}))
        if float(self.y[-1]) > float(self.best[-1]):
            self.best = self.y
