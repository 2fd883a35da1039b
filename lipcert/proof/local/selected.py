r"""Linear functions below and above maxima and minima of entries: max pooling, entrywise extrema, sorted pairs.

Let y = max_k x_k over candidates with boxes [l_k, u_k]. Below: y >= x_k for any k; that of the largest l_k is taken.
Above: y <= sum_j w_j x_j + t for any weights w, if t is at least the largest value of

* two candidates: max(x_1, x_2) - w_1 x_1 - w_2 x_2, convex, so at one of the four corners of the box;
* more: max(x_1, U) - w x_1, where x_1 is the candidate of the largest u, and U the largest u of the others; again
  convex, so at l_1 or at u_1.

So only t is derived, rounded up. The weights are those of `bounds.local.selections`. A minimum is -max(-x). Every
entry is the k-th candidate of at most one output: no more coefficients meet in an entry than there are candidates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lipcert.network.enclosure import TINY, UNIT, Float, gamma, round_up
from lipcert.network.graph import Network, Shape
from lipcert.network.linear import unfold
from lipcert.network.operators import Extremum, MaxPool, Sort
from lipcert.proof.local.affine import Box
from lipcert.proof.local.arithmetic import product_error
from lipcert.proof.local.proposal import Ints


@dataclass(frozen=True)
class Selected:
    """Linear functions below and above m maxima or minima, of n inputs, of B samples.

    Attributes:
        places: (K, m) of the candidates among the inputs, -1 for none; no place twice in a row.
        low, high: (K, B, m) weights of the functions below and above.
        low_constant, high_constant: (B, 1, m).
        outputs: which entries of the node these are.
    """

    places: Ints
    low: Float
    high: Float
    low_constant: Float
    high_constant: Float
    outputs: slice

    def pull(self, a: Float, into: Float) -> Float:
        """Add coefficients on the inputs to `into`, for coefficients a (B, S, m); return the sums of the absolute ones.

        A product is rounded once, and so is every one of the at most K sums that an entry takes part in.
        """
        size = np.zeros_like(into)
        for places, low, high in zip(self.places, self.low, self.high, strict=True):
            there = places >= 0
            part = (a * np.where(a > 0, low[:, None], high[:, None]))[..., there]
            into[..., places[there]] += part
            size[..., places[there]] += np.abs(part)
        return size


def selections(network: Network, index: int, boxes: list[Box]) -> list[Selected]:
    """Return functions of the inputs of a node, flattened one behind the other; nothing for nodes of other kinds.

    Args:
        network, index: the node.
        boxes: of its inputs, (B, *shape) each.
    """
    node = network.nodes[index]
    low, high = (np.concatenate([box[side].reshape(len(box[side]), -1) for box in boxes], axis=1) for side in (0, 1))
    match node.op:
        case MaxPool():
            places = pool_places(node.op, network.nodes[node.inputs[0]].shape)
            return [_select(places, low, high, 1, slice(None))]
        case Extremum():
            places = np.arange(len(boxes) * node.size).reshape(len(boxes), -1)
            return [_select(places, low, high, 1 if node.op.maximum else -1, slice(None))]
        case Sort() if node.shape[-1] == 2:
            places = np.arange(node.size).reshape(-1, 2).T
            return [_select(places, low, high, sign, slice(k, None, 2)) for k, sign in enumerate((-1, 1))]
        case _:
            return []


def pull_selections(parts: list[Selected], a: Float, magnitude: Float) -> tuple[Float, Float]:
    """Return coefficients (B, S, n) on the inputs, and (B, S) what their rounding costs.

    Args:
        parts: of one node.
        a: (B, S, size of the node) coefficients.
        magnitude: (B, n) upper bounds of the inputs' absolute values.
    """
    found = np.zeros((*a.shape[:2], magnitude.shape[1]))
    size = sum((part.pull(a[..., part.outputs], found) for part in parts), np.zeros_like(found))
    count = 2 + sum(len(part.places) for part in parts)
    lost = gamma(2 * count) * size + count * TINY
    return found, round_up((lost @ magnitude[..., None])[..., 0] * (1.0 + 2.0 * gamma(size.shape[2] + 8)) + TINY)


def pool_places(op: MaxPool, source: Shape) -> Ints:
    """Return (K, m) the places that each window of a max pool sees; -1 is padding."""
    places = np.arange(math.prod(source)).reshape(1, *source)
    padded = np.pad(places, [(0, 0), (0, 0), *op.padding], constant_values=-1).astype(np.float64)
    windows = unfold(padded, op.window, op.stride, ((0, 0),) * len(op.window), op.dilation)
    axes = tuple(range(2, 2 + len(op.window)))
    columns = np.moveaxis(windows, axes, range(1, 1 + len(axes))).reshape(1, math.prod(op.window), -1)
    found: Ints = columns[0].astype(np.int64)
    return found


def _select(places: Ints, low: Float, high: Float, sign: int, outputs: slice) -> Selected:
    if sign < 0:
        low, high = -high, -low
    absent = (places < 0)[:, None]
    lo, hi = (np.where(absent, -np.inf, np.moveaxis(end[:, places], 1, 0)) for end in (low, high))
    one = np.zeros(lo.shape)
    np.put_along_axis(one, lo.argmax(axis=0)[None], 1.0, axis=0)
    weights, constant = (_pair if len(places) == 2 and not absent.any() else _chord)(lo, hi)
    zero, constant = np.zeros_like(constant)[:, None], constant[:, None]
    if sign > 0:
        return Selected(places, one, weights, zero, constant, outputs)
    return Selected(places, weights, one, -constant, zero, outputs)


def _pair(lo: Float, hi: Float) -> tuple[Float, Float]:
    least, most = lo[1] - hi[0], hi[1] - lo[0]
    crossing = (least < 0) & (most > 0)
    share = np.where(crossing, most / np.where(crossing, most - least, 1.0), (least >= 0).astype(np.float64))
    weights = np.stack([1.0 - share, share])
    constant = np.full(share.shape, -np.inf)
    for first in (lo[0], hi[0]):
        for second in (lo[1], hi[1]):
            constant = np.maximum(constant, _above(np.maximum(first, second), weights, (first, second)))
    # a decided maximum is one of its candidates
    return weights, np.where(crossing, constant, 0.0)


def _chord(lo: Float, hi: Float) -> tuple[Float, Float]:
    first = hi.argmax(axis=0)[None]
    start, top = (np.take_along_axis(end, first, axis=0)[0] for end in (lo, hi))
    others = hi.copy()
    np.put_along_axis(others, first, -np.inf, axis=0)
    rest = others.max(axis=0)
    level = np.maximum(start, rest)
    wide = top > start
    slope = np.where(wide, (top - level) / np.where(wide, top - start, 1.0), 0.0)
    # where the first is above all others, the maximum is the first
    alone = start >= rest
    slope = np.where(alone, 1.0, slope)
    weights = np.zeros(lo.shape)
    np.put_along_axis(weights, first, slope[None], axis=0)
    ends = [_above(np.maximum(x, rest), slope[None], (x,)) for x in (start, top)]
    return weights, np.where(alone, 0.0, np.maximum(*ends))


def _above(value: Float, weights: Float, at: tuple[Float, ...]) -> Float:
    """Return upper bounds of value - sum_j w_j x_j, of at most two terms."""
    products = [w * x for w, x in zip(weights, at, strict=True)]
    total, lost, size = value, np.zeros_like(value), np.abs(value)
    for w, x, product in zip(weights, at, products, strict=True):
        total, size = total - product, size + np.abs(product)
        lost = lost + product_error(w, x, product)
    return np.nextafter(total + round_up(lost + 4.0 * UNIT * size), np.inf)
