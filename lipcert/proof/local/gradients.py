r"""Boxes of gradients of functions of the output, node by node backwards (RecurJac style), every rounding counted.

Let d be the difference of a point of the region from the sample. For functions c of the output there are numbers g at
every node with c.df = g.dx at the input, and what is sent on satisfies: at an elementwise activation g' = s g with a
slope s seen from the sample (`secants`); at an affine node g' = W' g; where nodes are used more than once, they add up.
A sorting gives each input a mean of the g of the positions that it may have (`choices`); a maximum gives it those of
the outputs that it may be, times numbers in [0, 1], and all of them where nothing else may win. The g depend on the
point; the boxes hold them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lipcert.network.enclosure import Float, gamma
from lipcert.network.operators import Activation, Affine, Concat, Elementwise, Sort, Sum
from lipcert.proof.local.affine import Box
from lipcert.proof.local.arithmetic import above, below, over, product_error, sum_error
from lipcert.proof.local.boxes import Steps
from lipcert.proof.local.choices import candidates, positions, winners
from lipcert.proof.local.secants import Sector


class Gradients:
    """What nodes do to gradients, around one sample.

    Args of the constructor:
        steps: the network.
        values: boxes of all nodes on the region, (1, *shape) each.
        sectors: of all elementwise nodes, seen from the sample.
    """

    def __init__(self, steps: Steps, values: Sequence[Box], sectors: Mapping[int, Sector]) -> None:
        self.steps, self._values = steps, values
        self._slopes = {i: (below(s.middle, s.radius), above(s.middle, s.radius)) for i, s in sectors.items()}

    def slopes(self, index: int) -> Box:
        """Return bounds (1, *shape) of the slopes of an elementwise node."""
        return self._slopes[index]

    def send_back(self, index: int, box: Box) -> list[Box]:
        """Return what a node adds to the gradients at its inputs, from the box of those at its outputs, (S, *shape)."""
        node, (low, high) = self.steps.nodes[index], box
        match node.op:
            case Affine():
                return [self.steps.affine[index].box_adjoint(low, high)]
            case Sum():
                return [(low, high) if sign > 0 else (-high, -low) for sign in node.op.signs]
            case Concat():
                cuts = np.cumsum([self.steps.nodes[i].shape[node.op.axis] for i in node.inputs])[:-1].tolist()
                ends = [np.split(end, cuts, axis=node.op.axis + 1) for end in box]
                return list(zip(*ends, strict=True))
            case Elementwise():
                return [interval_product(self._slopes[index], box)]
            case Sort():
                allowed = positions(*self._values[node.inputs[0]])
                least = np.where(allowed, low[..., None, :], np.inf).min(axis=-1)
                return [(least, np.where(allowed, high[..., None, :], -np.inf).max(axis=-1))]
            case _:
                return self._maxima(index, box)

    def _maxima(self, index: int, box: Box) -> list[Box]:
        node = self.steps.nodes[index]
        assert isinstance(node.op, Activation)
        shapes = [self.steps.nodes[i].shape for i in node.inputs]
        places, sign = candidates(node, shapes)
        may = winners(places, *_flat([self._values[i] for i in node.inputs]), sign)
        alone = may.sum(axis=1, keepdims=True) == 1
        low, high = (end.reshape(len(end), 1, -1) for end in box)
        least = np.where(may, np.where(alone, low, np.minimum(low, 0.0)), 0.0)
        most = np.where(may, np.where(alone, high, np.maximum(high, 0.0)), 0.0)
        size = sum(int(np.prod(shape)) for shape in shapes)
        ends = below(*_added(places, least, size)), above(*_added(places, most, size))
        lows, highs = (np.split(end, len(shapes), axis=1) for end in ends)
        return [
            (low.reshape(-1, *shape), high.reshape(-1, *shape))
            for low, high, shape in zip(lows, highs, shapes, strict=True)
        ]


def _flat(boxes: Sequence[Box]) -> Box:
    """Return several boxes flattened, one behind the other."""
    low, high = (np.concatenate([box[side].reshape(len(box[side]), -1) for box in boxes], axis=1) for side in (0, 1))
    return low, high


def _added(places: np.ndarray[tuple[int, ...], np.dtype[np.int64]], parts: Float, size: int) -> tuple[Float, Float]:
    """Return sums (S, size) of parts (S, K, m) at places (K, m), -1 for none, and what they may be off by."""
    sums, sizes = np.zeros((len(parts), size + 1)), np.zeros((len(parts), size + 1))
    for k, here in enumerate(places):  # no place twice in a row
        sums[:, here] += parts[:, k]
        sizes[:, here] += np.abs(parts[:, k])
    alone = len(places) == 1
    error = (
        np.zeros_like(sums) if alone else np.where(sizes == 0, 0.0, over(gamma(len(places)) * sizes, len(places) + 2))
    )
    return sums[:, :-1], error[:, :-1]


def interval_product(left: Box, right: Box) -> Box:
    """Return the box of the products of numbers in two boxes."""
    lows, highs = [], []
    for a in left:
        for b in right:
            product = a * b
            error = product_error(a, b, product)
            lows.append(below(product, error))
            highs.append(above(product, error))
    return np.minimum.reduce(lows), np.maximum.reduce(highs)


def interval_sum(left: Box, right: Box) -> Box:
    """Return the box of the sums of numbers in two boxes."""
    low, high = (a + b for a, b in zip(left, right, strict=True))
    return below(low, sum_error(low)), above(high, sum_error(high))
