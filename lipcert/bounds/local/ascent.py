r"""Multipliers of `ellipsoid` improved by gradient steps with a barrier.

The best multipliers make S singular (Shor's relaxation is exact where they do so in one direction), so plain steps
leave the cone all the time. Adding nu log det S / det diag(d + k), nu falling from step to step, keeps them inside; a
step that leaves it all the same is halved. Each function has a trajectory of its own, whatever the others are.

Steps are those of Adam, on log(d + k), k / (d + k) and the weights of cuts, in units of each function's own size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lipcert.bounds.local.ellipsoid import TINY, Least, Multipliers, least
from lipcert.bounds.local.kinks import Kinks

STEPS = 100  # of one ascent
_RATES = (0.1, 0.05, 0.1)  # of log(d + k), k / (d + k), weights
_LAST = 0.05  # of the rates, at the end
_FIRST_BARRIER, _LAST_BARRIER = 5e-3, 1.5e-4  # nu, in units of how far the function moves
_MOMENTS = 0.9, 0.99
_STILL = 1e-6  # gradients, in the same units, that are next to rounding: no step of full length is made for them
_LAYERS = 4  # whose noises count in a first guess
_SCALES = tuple(4.0**-k for k in range(-1, 5))  # of the first multipliers


@dataclass(frozen=True, eq=False)
class Ascent:
    """Where P functions are on the way. Places are (P, 5, u): log(d + k), k / (d + k), and weights in their unit.

    Attributes:
        at: now. safe: the last place inside the cone. best: that of the best bound. bounds: (P,) these bounds.
        first, second: moments of the gradients.
        made: (P,) steps so far, float64.
        scores: (P, u) d |dB/dd| + k |dB/dk| at the last place inside the cone: how much w and relu(t) disagree.
        rows: (P, u + 1) weights of the rows T, G in the dx of that place.
    """

    at: Tensor
    safe: Tensor
    best: Tensor
    bounds: Tensor
    first: Tensor
    second: Tensor
    made: Tensor
    scores: Tensor
    rows: Tensor

    def take(self, rows: Tensor) -> Ascent:
        """Return some of them, given by index or mask."""
        return Ascent(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def join(self, others: Ascent) -> Ascent:
        """Return these and others of the same size."""
        return Ascent(*(torch.cat([getattr(a, name) for a in (self, others)]) for name in self.__dataclass_fields__))

    def again(self, made: float) -> Ascent:
        """Return the same from the best places on, as after so many steps; bounds stay those of the whole."""
        return replace(self, at=self.best, safe=self.best, made=torch.full_like(self.made, made))


def begin(kinks: Kinks) -> Ascent:
    """Return places inside the cone: the best of some uniform scales, or of k alone, where Q is always positive.

    Level of the bounds: numerical.
    """
    count = kinks.low.shape[1]
    spread, start = _spread(kinks), kinks.start[:, :count]
    share = torch.where(kinks.free, -start / (kinks.high - start), 0.0).clamp(0.0, 1.0)
    places, bounds = [], []
    for scale, part in [*((scale, share) for scale in _SCALES), (1.0, torch.ones_like(share))]:
        logs = torch.where(kinks.free, -(spread * scale).clamp(min=TINY).log(), 0.0)
        places.append(torch.cat([logs[:, None], part[:, None], logs.new_zeros((len(logs), 3, count))], dim=1))
        bounds.append(least(kinks, multipliers(kinks, places[-1])).bound)
    best, which = torch.stack(bounds).max(dim=0)
    at = torch.stack(places)[which, torch.arange(len(kinks), device=which.device)]
    none, rows = torch.zeros_like(at), torch.zeros_like(kinks.start)
    return Ascent(at, at, at, best, none, none, torch.zeros_like(best), none[:, 0], rows)


def multipliers(kinks: Kinks, at: Tensor) -> Multipliers:
    """Return the multipliers at places (P, 5, u)."""
    return Multipliers(at[:, 0].exp(), at[:, 1], at[:, 2:] * kinks.unit[:, None, None])


def climb(kinks: Kinks, ascent: Ascent, steps: int) -> Ascent:
    """Return where some steps lead, `STEPS` in all at most. Level of the bounds: numerical."""
    for _ in range(steps):
        done = (ascent.made / STEPS).clamp(max=1.0)
        barrier = _FIRST_BARRIER * (_LAST_BARRIER / _FIRST_BARRIER) ** done * kinks.move
        rate = _LAST + (1.0 - _LAST) * 0.5 * (1.0 + torch.cos(torch.pi * done))
        now = least(kinks, multipliers(kinks, ascent.at), inverse=True)
        gradient = _gradient(kinks, ascent.at, now, barrier) / kinks.move.clamp(min=TINY)[:, None, None]
        ascent = _step(ascent, now, gradient, rate)
    return ascent


def _step(ascent: Ascent, now: Least, gradient: Tensor, rate: Tensor) -> Ascent:
    """Return the place after one step of Adam; half way back where the last one left the cone."""
    inside, better = torch.isfinite(now.bound), now.bound > ascent.bounds
    within = inside[:, None, None]
    momentum, memory = _MOMENTS
    first = torch.where(within, momentum * ascent.first + (1.0 - momentum) * gradient, 0.0)
    second = torch.where(within, memory * ascent.second + (1.0 - memory) * gradient.square(), ascent.second)
    made = (ascent.made + 1.0)[:, None, None]
    way = first / (1.0 - momentum**made) / ((second / (1.0 - memory**made)).sqrt() + _STILL)
    rates = rate[:, None, None] * gradient.new_tensor([_RATES[0], _RATES[1], *[_RATES[2]] * 3])[:, None]
    at = torch.where(within, ascent.at + rates * way, (ascent.at + ascent.safe) / 2)
    low = at.new_tensor([-torch.inf, 0.0, 0.0, 0.0, 0.0])[:, None]
    high = at.new_tensor([torch.inf, 1.0, torch.inf, torch.inf, torch.inf])[:, None]
    size = ascent.at[:, 0].exp()
    pull = size * ((1.0 - ascent.at[:, 1]) * now.sharper.abs() + ascent.at[:, 1] * now.wider.abs())
    return Ascent(
        torch.minimum(torch.maximum(at, low), high),
        torch.where(within, ascent.at, ascent.safe),
        torch.where(better[:, None, None], ascent.at, ascent.best),
        torch.maximum(now.bound, ascent.bounds),
        first,
        second,
        ascent.made + 1.0,
        torch.where(inside[:, None], pull, ascent.scores),
        torch.where(inside[:, None], now.rows, ascent.rows),
    )


def _gradient(kinks: Kinks, at: Tensor, now: Least, barrier: Tensor) -> Tensor:
    """Return (P, 5, u) the gradient of the bound and the barrier, in the coordinates of places."""
    assert now.logdet is not None
    size, share, weight = at[:, 0].exp(), at[:, 1], barrier[:, None]
    in_d, in_k = (
        bound + weight * part for bound, part in zip((now.sharper, now.wider), now.logdet.unbind(1), strict=True)
    )
    in_log = size * (in_d * (1.0 - share) + in_k * share) - weight
    in_share = size * (in_k - in_d)
    changes = torch.stack([torch.where(kinks.free, part, 0.0) for part in (in_log, in_share)], dim=1)
    found = torch.cat([changes, now.cutting * kinks.unit[:, None, None]], dim=1)
    return found.nan_to_num(0.0, 0.0, 0.0)


def _spread(kinks: Kinks) -> Tensor:
    """Return (P, u) squares of how far neurons may move per unit of |dx|, a guess."""
    count = kinks.low.shape[1]
    own, squares = kinks.gram.diagonal(dim1=1, dim2=2)[:, :count], kinks.noise[:, :count].square()
    number = kinks.free.sum(dim=1, keepdim=True).clamp(min=1)
    spread = own
    for _ in range(_LAYERS):
        spread = own + (squares @ spread[..., None])[..., 0]
    return spread * number
