r"""Better multipliers by gradient steps on log e.

Every set of multipliers inside the domain bounds every output and every pre-activation, so the best bound of all
steps is kept, one by one. Sets that leave the domain are brought back by raising e.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

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
        return (~self._reached(lengths).all(dim=1)).nonzero()[:, 0]

    def take(self, samples: Tensor) -> Positive:
        """Return the same of some samples."""
        return Positive(self.margins[samples], self.eps[samples])

    def without(self, lengths: Tensor) -> Positive:
        """Return the same with the margins that are proved infinite, which leaves them out of the soft minimum."""
        return Positive(self.margins.masked_fill(self._reached(lengths), torch.inf), self.eps)

    def _reached(self, lengths: Tensor) -> Tensor:
        return (self.margins - self.eps[:, None] * lengths > 0) | (self.margins == torch.inf)


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


def improve(model: NoiseModel, logs: Logs, goal: Goal, steps: int) -> tuple[Covariance, Logs]:
    """Return the best bounds of some gradient steps, and the last multipliers inside the domain.

    Args:
        model: of B samples.
        logs: where to start, as from `first_logs`.
        goal: see there.
        steps: of Adam at most; 0 only evaluates the start, and none are made once all samples reach the goal.
    """
    best = carry(model, logs, goal.measure)
    safe = [log.clone() for log in logs]
    if not steps or not logs:
        return best, safe
    moving = [log.clone().requires_grad_() for log in logs]
    optimiser = torch.optim.Adam(moving, lr=RATE, betas=(0.9, 0.99))
    for _ in range(steps):
        if not len(goal.open(best.lengths)):
            break
        optimiser.zero_grad()
        with torch.enable_grad():
            now = carry(model, moving, goal.measure)
            inside = now.inside[:, None]
            lengths = torch.where(inside, now.lengths, torch.ones_like(now.lengths))
            torch.autograd.backward(torch.where(now.inside, goal.loss(lengths), 0.0).sum())
        best = best.best(now.detach())
        with torch.no_grad():
            for log, last in zip(moving, safe, strict=True):
                last.copy_(torch.where(inside, log, last + BACK))
                log.copy_(last)
                if log.grad is not None:
                    log.grad.nan_to_num_(0.0, 0.0, 0.0)
        optimiser.step()
    return best, safe
