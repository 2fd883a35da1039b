r"""Better multipliers by gradient steps on log e.

Every set of multipliers inside the domain bounds every output and every pre-activation, so the best bound of all
steps is kept, one by one. Sets that leave the domain are brought back by raising e.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lipcert.bounds.local.covariance import Covariance, Logs, Measure, carry, each_row
from lipcert.bounds.local.noise import NoiseModel

RATE = 0.2  # of Adam's steps on log e
SOFTNESS = 0.03  # of the soft minimum, relative to eps L
BACK = 0.3  # added to log e where a step left the domain


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
    def open(self, lengths: Tensor) -> Tensor:
        """Return the indices of samples for which constants better than (B, S') are of use."""

    @abstractmethod
    def take(self, samples: Tensor) -> Goal:
        """Return the same of some samples, given by index."""

    def without(self, lengths: Tensor) -> Goal:
        """Return the same without the functions whose constants (B, S') are good enough."""
        return self

    def merged(self, best: Tensor, now: Tensor) -> Tensor:
        """Return what of the constants (B, S') of two sets of multipliers counts: the smaller ones."""
        return torch.minimum(best, now)

    def beats(self, now: Tensor, best: Tensor) -> Tensor:
        """Return (B,) whether some constants (B, S') are nearer to the goal than others."""
        return torch.nan_to_num(self.loss(now), nan=torch.inf) < torch.nan_to_num(self.loss(best), nan=torch.inf)


@dataclass(frozen=True, eq=False)
class Positive(Goal):
    """Margins minus eps times constants positive.

    Attributes:
        margins: (B, S) at the samples, float64. eps: (B,) radii, float64.
    """

    margins: Tensor
    eps: Tensor
    measure = staticmethod(each_row)

    def loss(self, lengths: Tensor) -> Tensor:
        """Return minus the soft minimum, in units of eps L."""
        spread = self.eps[:, None] * lengths
        unit = spread.detach().mean(dim=1, keepdim=True).clamp(min=1e-300)
        return SOFTNESS * torch.logsumexp((spread - self.margins) / unit / SOFTNESS, dim=1)

    def open(self, lengths: Tensor) -> Tensor:
        """Return those that are not positive."""
        return (~self.reached(lengths).all(dim=1)).nonzero()[:, 0]

    def take(self, samples: Tensor) -> Positive:
        """Return the same of some samples."""
        return Positive(self.margins[samples], self.eps[samples])

    def without(self, lengths: Tensor) -> Positive:
        """Return the same with the margins that are proved infinite, which leaves them out of the soft minimum."""
        return Positive(self.margins.masked_fill(self.reached(lengths), torch.inf), self.eps)

    def reached(self, lengths: Tensor) -> Tensor:
        """Return (B, S) which margins are positive."""
        return (self.margins - self.eps[:, None] * lengths > 0) | (self.margins == torch.inf)


@dataclass(frozen=True, eq=False)
class Together(Positive):
    """All margins positive by one set of multipliers, so that it can be proposed to `proof.local`."""

    def without(self, lengths: Tensor) -> Together:
        """Return itself."""
        return self

    def take(self, samples: Tensor) -> Together:
        """Return the same of some samples."""
        return Together(self.margins[samples], self.eps[samples])

    def merged(self, best: Tensor, now: Tensor) -> Tensor:
        """Return the constants of the better set."""
        return torch.where(self.beats(now, best)[:, None], now, best)


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
        proved: the best bounds. last: the last multipliers inside the domain. best: those nearest to the goal.
    """

    proved: Covariance
    last: Logs
    best: Logs


def improve(model: NoiseModel, logs: Logs, goal: Goal, steps: int) -> Improved:
    """Improve multipliers by gradient steps.

    Args:
        model: of B samples.
        logs: where to start, as from `first_logs`.
        goal: see there.
        steps: of Adam at most; 0 only evaluates the start, and none are made once all samples reach the goal.
    """
    proved = carry(model, logs, goal.measure)
    safe, best = ([log.clone() for log in logs] for _ in range(2))
    if not steps or not logs:
        return Improved(proved, safe, best)
    moving = [log.clone().requires_grad_() for log in logs]
    optimiser = torch.optim.Adam(moving, lr=RATE, betas=(0.9, 0.99))
    for _ in range(steps):
        if not len(goal.open(proved.lengths)):
            break
        optimiser.zero_grad()
        with torch.enable_grad():
            now = carry(model, moving, goal.measure)
            inside = now.inside[:, None]
            lengths = torch.where(inside, now.lengths, torch.ones_like(now.lengths))
            torch.autograd.backward(torch.where(now.inside, goal.loss(lengths), 0.0).sum())
        better = goal.beats(now.lengths.detach(), proved.lengths)[:, None]
        merged = goal.merged(proved.lengths, now.lengths.detach())
        proved = replace(proved.best(now.detach()), lengths=merged)
        with torch.no_grad():
            for log, last, kept in zip(moving, safe, best, strict=True):
                kept.copy_(torch.where(better, log, kept))
                last.copy_(torch.where(inside, log, last + BACK))
                log.copy_(last)
                if log.grad is not None:
                    log.grad.nan_to_num_(0.0, 0.0, 0.0)
        optimiser.step()
    return Improved(proved, safe, best)
