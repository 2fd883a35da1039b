r"""Margins on l2 balls of networks with one kink per activation: ellipsoids with cuts, and parts where these fail.

Each margin that is still open is a problem of its own, with multipliers of its own (`ascent`). The point where the
Lagrangian is least is a candidate for a counterexample: where the network is wrong there, the sample is left alone, as
no bound can help it. What stays open is cut at the kink of the neuron whose noise disagrees most with its ReLU, and the
halves start from the multipliers of the whole.

Level: numerical.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lipcert.bounds.local.ascent import STEPS, Ascent, begin, climb
from lipcert.bounds.local.crown import Relaxed
from lipcert.bounds.local.kinks import Kinks, Seen, seen, unstable
from lipcert.bounds.local.margins import differences
from lipcert.bounds.local.rounds import groups

LARGEST, LARGEST_ON_GPU = 400, 4000  # unstable neurons of a sample: every step factorises a matrix of their size
_COPIES = 16  # matrices of all problems that live at once
AT_ONCE = 2**22  # bytes of the matrices of one kind that are handled at once
PICKED = 8  # parts of a sample that are cut in one step
_EASY = 1e-3  # of how far a function moves: bounds that are better need no further steps to be derived again
_STAGE = 20  # steps between two looks at what is proved
_LEAF_STEPS = 200  # on parts whose neurons are all linear: weights of cuts are all that is left
_AGAIN, _HALF_STEPS = 60.0, 40  # steps that a half counts as made, and those that are made on it


@dataclass(frozen=True)
class Budget:
    """What branching may cost.

    Attributes:
        parts: of one sample, cut altogether, where `domains` bounds them.
        seconds: per sample of a batch; infinite for results that do not depend on the machine.
        steps: of the optimisers of `cuts`, on every part.
        balls: parts of one sample that are cut where `ellipsoid` bounds them, which takes longer and proves far more.
    """

    parts: int = 2000
    seconds: float = 2.0
    steps: int = 4
    balls: int = 40


@dataclass(frozen=True, eq=False)
class Parts:
    """P parts of balls, each with the one margin that is bounded on it.

    Attributes:
        samples, functions: (P,) of which sample, and which margin.
        kinks, ascent: the problem, and its multipliers.
        trails: where each part was cut, from the whole ball on: 1 + neuron for t >= 0, -1 - neuron for t <= 0.
    """

    samples: Tensor
    functions: Tensor
    kinks: Kinks
    ascent: Ascent
    trails: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.samples)

    def take(self, rows: Tensor) -> Parts:
        """Return some of them, given by index."""
        trails = tuple(self.trails[row] for row in rows.tolist())
        return Parts(self.samples[rows], self.functions[rows], self.kinks.take(rows), self.ascent.take(rows), trails)

    def join(self, others: Parts) -> Parts:
        """Return these and others of the same size."""
        return Parts(
            torch.cat([self.samples, others.samples]),
            torch.cat([self.functions, others.functions]),
            self.kinks.join(others.kinks),
            self.ascent.join(others.ascent),
            self.trails + others.trails,
        )

    def climbed(self, steps: int) -> Parts:
        """Return the same with better multipliers."""
        count = self.kinks.low.shape[1]
        width = max(1, AT_ONCE // (8 * (count + 1) ** 2))
        found = [
            climb(self.kinks.take(rows), self.ascent.take(rows), steps)
            for rows in torch.split(torch.arange(len(self), device=self.samples.device), width)
        ]
        ascent = found[0]
        for other in found[1:]:
            ascent = ascent.join(other)
        return Parts(self.samples, self.functions, self.kinks, ascent, self.trails)

    def again(self, made: float) -> Parts:
        """Return the same from their best multipliers on, as after so many steps."""
        return Parts(self.samples, self.functions, self.kinks, self.ascent.again(made), self.trails)

    def halves(self) -> Parts:
        """Return the two halves of each part; all of them have a free neuron."""
        neuron = torch.where(self.kinks.free, self.ascent.scores, -1.0).argmax(dim=1)
        ascent = self.ascent.again(_AGAIN)
        found = []
        for sign, kinks in zip((-1, 1), self.kinks.halves(neuron), strict=True):
            trails = ((*trail, sign * (1 + at)) for trail, at in zip(self.trails, neuron.tolist(), strict=True))
            found.append(Parts(self.samples, self.functions, kinks, ascent, tuple(trails)))
        return found[0].join(found[1])


@dataclass(frozen=True, eq=False)
class Found:
    """What is proved of some samples of a batch.

    Attributes:
        samples: (G,) which ones.
        margins: (G, classes - 1) lower bounds, float64; infinite where nothing was tried.
        closed: parts that are proved, as they were found; they make up the ball for each margin that is positive.
        around: what the neurons of these samples are.
    """

    samples: Tensor
    margins: Tensor
    closed: list[Parts]
    around: Seen


def grow(relaxed: Relaxed, labels: Tensor, known: Tensor, budget: Budget) -> list[Found]:
    """Bound the margins that are not known to be positive, group by group.

    Args:
        relaxed: B samples on l2 balls; `kinks.obstacle` of the network is None.
        labels: (B,).
        known: (B, classes - 1) bounds that hold.
        budget: see there. Samples that are not `small` are left alone.
    """
    rivals, counts = (~(known > 0)).sum(dim=1) * relaxed.ball.valid, unstable(relaxed)
    tried = ((rivals > 0) & small(relaxed)).nonzero()[:, 0]
    found = []
    for group in groups((rivals * (counts + 1).square() * 8 * _COPIES)[tried]) if len(tried) else []:
        rows = tried[group]
        found.append(Found(rows, *_search(relaxed.take(rows), labels[rows], known[rows], budget)))
    return found


def small(relaxed: Relaxed) -> Tensor:
    """Return (B,) which samples have few enough unstable neurons."""
    return unstable(relaxed) <= (LARGEST_ON_GPU if relaxed.view.device.type == "cuda" else LARGEST)


def raised(known: Tensor, found: Sequence[Found]) -> Tensor:
    """Return bounds (B, classes - 1) that are known, and better ones where they were found."""
    best = known.clone()
    for part in found:
        better = torch.where(part.margins < torch.inf, part.margins, -torch.inf).to(known.dtype)
        best[part.samples] = torch.fmax(known[part.samples], better)
    return best


def _search(relaxed: Relaxed, labels: Tensor, known: Tensor, budget: Budget) -> tuple[Tensor, list[Parts], Seen]:
    """Bound margins of one group, on whole balls, then on parts of them; arguments as of `grow`."""
    rows = differences(relaxed.view, labels)
    around, ledger = seen(relaxed, rows), _Ledger(torch.full_like(known, torch.inf, dtype=torch.float64), [])
    samples, functions = (~(known > 0) & relaxed.ball.valid[:, None]).nonzero(as_tuple=True)
    kinks = around.kinks(samples, functions)
    parts = Parts(samples, functions, kinks, begin(kinks), ((),) * len(samples))
    deadline = time.monotonic() + budget.seconds * len(known)
    for _ in range(0, STEPS, _STAGE):
        if not len(parts) or time.monotonic() > deadline:
            break
        parts = ledger.settle(parts.climbed(_STAGE), _EASY)
        parts = ledger.abandon(parts, _lost(relaxed, around, rows, parts))
    parts = ledger.settle(parts)
    _cut(parts, ledger, budget.balls, deadline)
    return ledger.margins, ledger.closed, around


class _Ledger:
    """Bounds of samples, and the parts that are proved.

    Attributes:
        margins: (B, classes - 1) the least bounds of the parts that are done.
        closed: the proved ones.
    """

    def __init__(self, margins: Tensor, closed: list[Parts]) -> None:
        self.margins, self.closed = margins, closed

    def settle(self, parts: Parts, room: float = 0.0) -> Parts:
        """Take down parts that are proved with some room, and return the others."""
        done = parts.ascent.bounds > room * parts.kinks.move
        if bool(done.any()):
            self.closed.append(parts.take(done.nonzero()[:, 0]))
        return self.abandon(parts, done)

    def abandon(self, parts: Parts, which: Tensor) -> Parts:
        """Take down the bounds of parts (P,), and return the others."""
        gone = which.nonzero()[:, 0]
        flat = parts.samples[gone] * self.margins.shape[1] + parts.functions[gone]
        bounds = parts.ascent.bounds[gone]
        self.margins = self.margins.flatten().scatter_reduce(0, flat, bounds, "amin").reshape(self.margins.shape)
        return parts.take((~which).nonzero()[:, 0])


def _cut(parts: Parts, ledger: _Ledger, most: int, deadline: float) -> None:
    """Cut parts until all are proved, or so many of a sample were cut, or time is over."""
    spent = torch.zeros(len(ledger.margins), dtype=torch.int64, device=parts.samples.device)
    while len(parts) and time.monotonic() < deadline:
        linear = ~parts.kinks.free.any(dim=1)
        if bool(linear.any()):
            last = parts.take(linear.nonzero()[:, 0])
            parts = parts.take((~linear).nonzero()[:, 0]).join(ledger.settle(last.again(0.0).climbed(_LEAF_STEPS)))
            linear = ~parts.kinks.free.any(dim=1)
        lost = torch.zeros_like(spent, dtype=torch.bool).index_fill(0, parts.samples[linear], True) | (spent >= most)
        parts = ledger.abandon(parts, lost[parts.samples])
        if not len(parts):
            break
        chosen = _first(parts, most - spent)
        rest = torch.ones(len(parts), dtype=torch.bool, device=chosen.device).index_fill(0, chosen, False)
        picked, parts = parts.take(chosen), parts.take(rest.nonzero()[:, 0])
        spent = spent + torch.bincount(picked.samples, minlength=len(spent))
        parts = parts.join(ledger.settle(picked.halves().climbed(_HALF_STEPS)))
    ledger.abandon(parts, torch.ones_like(parts.samples, dtype=torch.bool))


def _first(parts: Parts, left: Tensor) -> Tensor:
    """Return the parts that are cut next: of each sample the worst ones, as many as it has left (B,), some at most."""
    order = parts.ascent.bounds.argsort(stable=True)
    order = order[parts.samples[order].argsort(stable=True)]
    samples = parts.samples[order]
    before = torch.bincount(samples, minlength=len(left)).cumsum(dim=0).roll(1)
    before[0] = 0
    rank = torch.arange(len(order), device=order.device) - before[samples]
    return order[rank < left.clamp(max=PICKED)[samples]]


def _lost(relaxed: Relaxed, around: Seen, rows: Tensor, parts: Parts) -> Tensor:
    """Return (P,) which parts are of samples with a point in their balls where some margin is not positive."""
    ball = relaxed.ball.take(parts.samples)
    way = around.points(parts.samples, parts.functions, parts.ascent.rows).to(ball.centre)
    length = torch.linalg.vector_norm(way, dim=1, keepdim=True).clamp(min=torch.finfo(way.dtype).tiny)
    way = way * (ball.eps[:, None] / length).clamp(max=1.0)
    x = ball.centre + way.reshape(ball.centre.shape)
    if ball.box is not None:
        x = x.clamp(*ball.box)
    margins = (rows[parts.samples].flatten(2) @ relaxed.view(x)[..., None])[..., 0]
    wrong = parts.samples[(margins <= 0).any(dim=1)]
    found = torch.zeros(len(rows), dtype=torch.bool, device=wrong.device).index_fill(0, wrong, True)
    return found[parts.samples]
