r"""Better multipliers by steps towards a fixed point.

C_jj is convex in lambda_i = 1 / (r_i e_i), with derivative r_i^2 (z_i^2 - e_i^2 s_i^2) (see `covariance`): z_i how far
neuron i moves where function j is largest, s_i how its noise acts on j. So the best multipliers for a weighted sum of
functions have e_i = (sum_j p_j z_ij^2 / sum_j p_j s_ij^2)^(1/2), z and s being those of these multipliers. A step goes
a share of the way there in log e; it counts where it brings the goal nearer and stays inside the domain, else the
next one is shorter. No derivative of a factorisation is needed, and a few steps do what dozens of Adam's did.

Every set of multipliers inside the domain bounds all functions and pre-activations; the best of these bounds are kept
one by one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from lipcert.bounds.local.covariance import Covariance, Logs, Measure, carry, each_row
from lipcert.bounds.local.noise import NoiseModel

SHARE, LONGER, SHORTER = 0.6, 1.5, 0.4  # of the way, at first; its factors after steps that count and that do not
FARTHEST = 2.0  # that log e moves in one step
BACK = 0.3  # added to log e where the start is outside the domain
SOFTNESS = 0.1  # of the soft minimum, relative to eps L
PATIENCE = 4.0  # times the gain of the last round: a goal farther away than that is given up
FLOOR = 0.05  # of the weight, shared by all functions alike: without it steps leave the domain


class Goal(ABC):
    """What multipliers are improved for, of B samples.

    Attributes:
        measure: from the covariance of the outputs to constants.
    """

    measure: Measure

    @abstractmethod
    def loss(self, lengths: Tensor) -> Tensor:
        """Return (B,) what is to be small, of constants (B, S'), in units of each sample's own size."""

    @abstractmethod
    def weights(self, lengths: Tensor) -> Tensor:
        """Return (B, S') how much the squares of constants matter, up to a factor."""

    @abstractmethod
    def open(self, lengths: Tensor) -> Tensor:
        """Return the indices of samples for which constants better than (B, S') are of use."""

    @abstractmethod
    def take(self, samples: Tensor) -> Goal:
        """Return the same of some samples, given by index."""

    def without(self, lengths: Tensor) -> Goal:
        """Return the same without the functions whose constants (B, S') are good enough."""
        return self

    def hopeful(self, before: Tensor, now: Tensor) -> Tensor:
        """Return (B,) whether more rounds may reach the goal, from constants (B, S') before the last one and now."""
        return torch.ones(len(now), dtype=torch.bool, device=now.device)

    def beats(self, now: Tensor, best: Tensor) -> Tensor:
        """Return (B,) whether some constants (B, S') are nearer to the goal than others."""
        return torch.nan_to_num(self.loss(now), nan=torch.inf) < torch.nan_to_num(self.loss(best), nan=torch.inf)


@dataclass(frozen=True, eq=False)
class Positive(Goal):
    """Margins minus eps times constants positive.

    Attributes:
        margins: (B, S) at the samples, float64; infinite for those that do not matter. eps: (B,) radii, float64.
    """

    margins: Tensor
    eps: Tensor
    measure = staticmethod(each_row)

    def loss(self, lengths: Tensor) -> Tensor:
        """Return minus the soft minimum, in units of eps L."""
        return SOFTNESS * torch.logsumexp(self._excess(lengths), dim=1)

    def weights(self, lengths: Tensor) -> Tensor:
        """Return those of the soft minimum, with a floor under those that are proved too: it keeps steps even."""
        even = FLOOR / lengths.shape[1]
        return ((1.0 - FLOOR) * torch.softmax(self._excess(lengths), dim=1) + even) / lengths

    def open(self, lengths: Tensor) -> Tensor:
        """Return those that are not positive."""
        return (~self.reached(lengths).all(dim=1)).nonzero()[:, 0]

    def take(self, samples: Tensor) -> Positive:
        """Return the same of some samples."""
        return Positive(self.margins[samples], self.eps[samples])

    def without(self, lengths: Tensor) -> Positive:
        """Return the same with the margins that are proved infinite, which leaves them out of the soft minimum."""
        return Positive(self.margins.masked_fill(self.reached(lengths), torch.inf), self.eps)

    def hopeful(self, before: Tensor, now: Tensor) -> Tensor:
        """Return whether the worst margin would be positive at a few times the gain of the last round."""
        low, last = ((self.margins - self.eps[:, None] * x).amin(dim=1) for x in (now, before))
        return low + PATIENCE * (low - last) > 0

    def reached(self, lengths: Tensor) -> Tensor:
        """Return (B, S) which margins are positive."""
        return (self.margins - self.eps[:, None] * lengths > 0) | (self.margins == torch.inf)

    def _excess(self, lengths: Tensor) -> Tensor:
        spread = self.eps[:, None] * lengths
        unit = spread.mean(dim=1, keepdim=True).clamp(min=1e-300)
        return (spread - self.margins) / unit / SOFTNESS


@dataclass(frozen=True, eq=False)
class Small(Goal):
    """Constants small, all of them.

    Attributes:
        measure: see `Goal`.
    """

    measure: Measure

    def loss(self, lengths: Tensor) -> Tensor:
        """Return the sum of the logarithms."""
        return lengths.log().sum(dim=1)

    def weights(self, lengths: Tensor) -> Tensor:
        """Return the inverse squares."""
        return lengths**-2

    def open(self, lengths: Tensor) -> Tensor:
        """Return all samples."""
        return torch.arange(len(lengths), device=lengths.device)

    def take(self, samples: Tensor) -> Small:
        """Return itself."""
        return self


@dataclass(frozen=True, eq=False)
class Improved:
    """What some steps found.

    Attributes:
        logs: the multipliers nearest to the goal.
        lengths: (B, S') the constants that they prove.
        least: (B, S') the least constants of all steps.
        widths: of each node, (B, u_k) the least of all steps.
    """

    logs: Logs
    lengths: Tensor
    least: Tensor
    widths: tuple[Tensor, ...]


def improve(model: NoiseModel, logs: Logs, found: Covariance, goal: Goal, steps: int) -> Improved:
    """Improve multipliers.

    Args:
        model: of B samples.
        logs: where to start. found: what they prove.
        goal: see there.
        steps: at most; none are made once all samples reach the goal.
    """
    best = Improved(logs, found.lengths, found.lengths, found.widths)
    inside, share = found.inside, found.lengths.new_full((len(found.lengths), 1), SHARE)
    ways = _ways(best, found, goal)
    for _ in range(steps if logs else 0):
        if not len(goal.open(best.lengths)):
            break
        step = torch.where(inside[:, None], share, 1.0)
        tried = [log + (step * way).clamp(-FARTHEST, FARTHEST) for log, way in zip(best.logs, ways, strict=True)]
        now = carry(model, tried, goal.measure)
        counts = goal.beats(now.lengths, best.lengths)
        taken = (counts | ~inside)[:, None]
        best = Improved(
            [torch.where(taken, new, old) for new, old in zip(tried, best.logs, strict=True)],
            torch.where(counts[:, None], now.lengths, best.lengths),
            torch.minimum(best.least, now.lengths),
            tuple(torch.minimum(a, b) for a, b in zip(best.widths, now.widths, strict=True)),
        )
        share = torch.where(taken & inside[:, None], (share * LONGER).clamp(max=1.0), share)
        share = torch.where(taken, share, share * SHORTER)
        inside = inside | now.inside
        if bool(taken.any()):
            new_ways = _ways(best, now, goal)
            ways = [torch.where(taken, new, old) for new, old in zip(new_ways, ways, strict=True)]
    return best


def _ways(best: Improved, now: Covariance, goal: Goal) -> list[Tensor]:
    """Return how far log e of each node is from what its responses ask for; up, outside the domain."""
    inside = now.inside[:, None]
    weights = goal.weights(torch.where(inside, now.lengths, 1.0))[..., None]
    found = []
    for log, z, s in zip(best.logs, *now.responses(), strict=True):
        moved, acting = ((x.square() @ weights)[..., 0].clamp(min=1e-60) for x in (z, s))
        way = ((moved.log() - acting.log()) / 2 - log).nan_to_num(0.0, FARTHEST, -FARTHEST)
        found.append(torch.where(inside, way, BACK))
    return found
