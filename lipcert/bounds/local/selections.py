r"""Lines below and above maxima: max pooling, entrywise extrema, sorted pairs.

Each output is y = max_k x_k over a few candidates with boxes [l_k, u_k] (a minimum is -max(-x)).

* Below: y >= x_k for any k; the candidate with the largest l_k is taken.
* Above, two candidates a and b: y = a + max(b - a, 0), and the chord of ReLU on b - a in [dl, du],
  dl = l_b - u_a, du = u_b - l_a, gives y <= a + s (b - a - dl), s = du / (du - dl), where dl < 0 < du. It keeps the
  sum of both inputs, as MaxMin does: max + min = a + b.
* Above, more: with the candidate 1 of the largest u, and U = max(l_1, all other u_k), y <= max(x_1, U), and its chord
  on [l_1, u_1] is U + s (x_1 - l_1), s = (u_1 - U) / (u_1 - l_1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lipcert.network.graph import Shape
from lipcert.network.linear import unfold
from lipcert.network.operators import MaxPool

Ends = tuple[Tensor, Tensor]  # coefficients (B, J, m) and their places (B, J, m) among the inputs


@dataclass(frozen=True)
class Selection:
    """Lines of m maxima (or minima) of entries of a vector of n inputs.

    Attributes:
        sign: 1 for maxima, -1 for minima.
        below: (B, m) the place of the candidate that is a line below (of the maximum of sign * x).
        above: coefficients (B, J, m) and places (B, J, m) of the line above.
        constant: (B, m) of the line above.
        size: n.
    """

    sign: int
    below: Tensor
    above: Ends
    constant: Tensor
    size: int

    def take(self, samples: Tensor) -> Selection:
        """Return the same of some samples, given by index."""
        coefficients, places = self.above
        above = coefficients[samples], places[samples]
        return Selection(self.sign, self.below[samples], above, self.constant[samples], self.size)

    def pull(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """Return coefficients (B, S, n) and constants (B, S) of linear functions of the inputs below a.y; a: (B, S, m).

        A minimum is y = -max(-x): lines above and below change places, and constants their sign.
        """
        over, under = (a.clamp(min=0.0), a.clamp(max=0.0))[:: self.sign]
        coefficients, places = self.above
        found = a.new_zeros((*a.shape[:2], self.size))
        found.scatter_add_(2, self.below[:, None].expand_as(a), over)
        for j in range(coefficients.shape[1]):
            found.scatter_add_(2, places[:, j][:, None].expand_as(a), under * coefficients[:, j][:, None])
        return found, torch.bmm(under, self.sign * self.constant[..., None])[..., 0]


def select(candidates: Tensor, low: Tensor, high: Tensor, sign: int) -> Selection:
    """Return lines of maxima (sign 1) or minima (sign -1).

    Args:
        candidates: (K, m) places among the inputs, -1 for none; at least one of each column is not -1.
        low, high: (B, n) boxes of the inputs.
        sign: see `Selection`.
    """
    size = low.shape[1]
    if sign < 0:
        low, high = -high, -low
    absent = (candidates < 0)[None]
    low, high = (x[:, candidates.clamp(min=0)].masked_fill(absent, -math.inf) for x in (low, high))
    places = candidates.expand_as(low)
    below = places.gather(1, low.argmax(dim=1, keepdim=True))[:, 0]
    coefficients, where, constant = (_pair if len(candidates) == 2 and not absent.any() else _chord)(low, high, places)
    return Selection(sign, below, (coefficients, where), constant, size)


def _pair(low: Tensor, high: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    least, most = low[:, 1] - high[:, 0], high[:, 1] - low[:, 0]
    crossing = (least < 0) & (most > 0)
    share = torch.where(crossing, most / torch.where(crossing, most - least, 1.0), (least >= 0).to(low.dtype))
    constant = torch.where(crossing, -share * least, 0.0)
    return torch.stack([1.0 - share, share], dim=1), places, constant


def _chord(low: Tensor, high: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    top, first = high.max(dim=1, keepdim=True)
    start = low.gather(1, first)
    others = high.scatter(1, first, -math.inf).amax(dim=1, keepdim=True)
    level = torch.maximum(start, others)
    wide = top > start
    slope = torch.where(wide, (top - level) / torch.where(wide, top - start, 1.0), 0.0)
    return slope, places.gather(1, first), (level - slope * start)[:, 0]


def pool_candidates(op: MaxPool, source: Shape, device: torch.device) -> Tensor:
    """Return (K, m) the places that each window of a max pool sees; -1 is padding."""
    places = np.arange(math.prod(source)).reshape(1, *source)
    padded = np.pad(places, [(0, 0), (0, 0), *op.padding], constant_values=-1).astype(np.float64)
    windows = unfold(padded, op.window, op.stride, ((0, 0),) * len(op.window), op.dilation)
    axes = tuple(range(2, 2 + len(op.window)))
    columns = np.moveaxis(windows, axes, range(1, 1 + len(axes))).reshape(1, math.prod(op.window), -1)
    return torch.from_numpy(columns[0].astype(np.int64)).to(device)


def stacked_candidates(count: int, size: int, device: torch.device) -> Tensor:
    """Return (count, size) places of the entries of several inputs, one flattened behind the other."""
    return torch.arange(count * size, device=device).reshape(count, size)


def join(boxes: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return boxes of several nodes as one of (B, n), flattened one behind the other."""
    low, high = (torch.cat([box[side].flatten(1) for box in boxes], dim=1) for side in (0, 1))
    return low, high
