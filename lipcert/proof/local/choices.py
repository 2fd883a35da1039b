"""Which inputs an output of a sorting or a maximum may be, on a box.

Such an activation copies entries, and which ones depends on the input. All comparisons are strict, so that ties leave
both ways open. Nothing is rounded, but for sums of weights.
"""

from __future__ import annotations

import numpy as np

from lipcert.network.enclosure import Float
from lipcert.network.graph import Node, Shape
from lipcert.network.operators import Extremum, MaxPool, Sort
from lipcert.proof.local.affine import Box
from lipcert.proof.local.arithmetic import over
from lipcert.proof.local.proposal import Ints, Mask
from lipcert.proof.local.selected import pool_places


def positions(low: Float, high: Float) -> Mask:
    """Return (..., n, n) whether entry i of a group (the last axis) may stand at place p in ascending order.

    Entry i has at least as many below it as have boxes wholly below its own, and as many above it likewise.
    """
    size = low.shape[-1]
    least = (high[..., None, :] < low[..., :, None]).sum(axis=-1)
    most = size - 1 - (low[..., None, :] > high[..., :, None]).sum(axis=-1)
    place = np.arange(size)
    found: Mask = (place >= least[..., None]) & (place <= most[..., None])
    return found


def winners(places: Ints, low: Float, high: Float, sign: int) -> Mask:
    """Return (B, K, m) which candidates may be the largest (sign 1) or the smallest (sign -1).

    Args:
        places: (K, m) of the candidates among n inputs, -1 for none.
        low, high: (B, n) boxes of the inputs.
        sign: see above.
    """
    if sign < 0:
        low, high = -high, -low
    absent = places < 0
    floor = np.where(absent, -np.inf, low[:, places]).max(axis=1, keepdims=True)
    found: Mask = (high[:, places] >= floor) & ~absent
    return found


def candidates(node: Node, shapes: list[Shape]) -> tuple[Ints, int]:
    """Return which inputs each output of a maximum may be, places (K, m), -1 for none, and the sign for `winners`.

    Args:
        node: a maximum. shapes: of its inputs, which are flattened one behind the other.
    """
    match node.op:
        case MaxPool():
            return pool_places(node.op, shapes[0]), 1
        case Extremum():
            return np.arange(len(shapes) * node.size).reshape(len(shapes), -1), 1 if node.op.maximum else -1
    raise TypeError(f"{node.op.kind} is no maximum")


def weights_before(node: Node, shapes: list[Shape], boxes: list[Box], weights: Float) -> list[Float]:
    """Return weights of the inputs of a node that copies entries: upper bounds, zero where they are zero.

    The difference of an output is a mean of those of the inputs that it may be, and the square is convex:

    * sorting: one input for each output, so a mean of permutations. An input's weight is the largest of those of its
      possible places;
    * maxima: an input's weight is the sum over the outputs that it may be.

    Args:
        node: a sorting or a maximum. shapes: of its inputs.
        boxes: of its inputs, (B, *shape) each.
        weights: (B, *its shape) of the squared differences of its outputs, not negative.
    """
    if isinstance(node.op, Sort):
        return [np.where(positions(*boxes[0]), weights[..., None, :], 0.0).max(axis=-1)]
    places, sign = candidates(node, shapes)
    low, high = (np.concatenate([box[side].reshape(len(box[side]), -1) for box in boxes], axis=1) for side in (0, 1))
    parts = winners(places, low, high, sign) * weights.reshape(len(weights), 1, -1)
    sums = np.zeros((len(low), low.shape[1] + 1))  # the last is for what is no candidate
    for k, here in enumerate(places):  # no place twice in a row
        sums[:, here] += parts[:, k]
    sums = np.where(sums == 0, 0.0, over(sums, len(places)))[:, :-1]
    return [part.reshape(-1, *shape) for part, shape in zip(np.split(sums, len(boxes), axis=1), shapes, strict=True)]
