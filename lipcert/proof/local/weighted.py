r"""Functions from which weighted cuts are taken off (Lagrange multipliers of the graphs of activations).

On a box [l, u] of z every neuron v = phi(z) obeys, for any numbers p and q,

    p v + q z >= t,    t <= min of p phi(z) + q z on [l, u],                                               (1)

so f >= f - sum (p v + q z - t): what is left is another function of the network, which may be easier to bound. Every
linear cut is of this form: v >= 0 (p = 1, q = 0), v >= z, the chord above, the ends of the box (p = 0), and with them
the side of a kink that a part keeps to; p the whole coefficient of v, with q = -slope p, is a line of CROWN, and
further q are the multipliers of beta-CROWN.

The t of (1), for any activation: with s = -q / p, phi(z) - s z lies between the intercepts b and B of the lines of
slope s below and above (`curved`), so p phi(z) + q z >= (p b where p > 0, p B elsewhere) + (q + p s) z, and the last
term, next to nothing or all of q where p = 0, counts with the ends of the box. What is rounded in q + p s costs at most
so much times |z|.

Sources: beta-CROWN (Wang et al. 2021); Lagrangian decomposition (Dvijotham et al. 2018).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lipcert.network.enclosure import Float, gamma
from lipcert.network.operators import Elementwise
from lipcert.proof.local.affine import Box
from lipcert.proof.local.arithmetic import below, over, product_error, sum_error
from lipcert.proof.local.backward import Account, add_product
from lipcert.proof.local.boxes import Steps
from lipcert.proof.local.curved import lines
from lipcert.proof.local.region import linear_on_box


@dataclass(frozen=True, eq=False)
class Weighted:
    """S functions f - sum (p v + q z - t) of one region, f functions of the output.

    Attributes:
        steps: the network.
        weights: by elementwise node, (1, S, size) each: p and q. No node is read or written by two of them, and none
            is the output.
        others: by node, (1, S, size) their coefficients -p and -q.
    """

    steps: Steps
    weights: Mapping[int, tuple[Float, Float]]
    others: Mapping[int, Float]

    @staticmethod
    def of(steps: Steps, weights: Mapping[int, tuple[Float, Float]]) -> Weighted:
        """Take what weights (S, *shape) by node may be taken: none where a node would have coefficients twice."""
        kept = dict[int, tuple[Float, Float]]()
        others = dict[int, Float]()
        for index, pair in sorted(weights.items()):
            source = steps.nodes[index].inputs[0]
            if not {index, source} & {*others, len(steps.nodes) - 1}:
                p, q = (array.reshape(1, len(array), -1) for array in pair)
                kept[index], others[index], others[source] = (p, q), -p, -q
        return Weighted(steps, kept, others)

    def least(self, boxes: Sequence[Box]) -> list[Float]:
        """Return, for every node with weights, (1, S) lower bounds of the sums of its t on boxes of all nodes."""
        found = []
        for index, (p, q) in self.weights.items():
            node = self.steps.nodes[index]
            assert isinstance(node.op, Elementwise)
            found.append(least(node.op, boxes[node.inputs[0]], p, q))
        return found

    def at(self, values: Sequence[Box]) -> list[Float]:
        """Return lower bounds (1, S) of the sums of -p v and of -q z, given bounds of all nodes at a point."""
        return [
            linear_on_box(a, *(end.reshape(len(end), -1) for end in values[index])) for index, a in self.others.items()
        ]


def least(op: Elementwise, box: Box, p: Float, q: Float) -> Float:
    """Return (1, S) lower bounds of sums of t of (1), for p and q (1, S, size) and a box (1, *shape) of z."""
    low, high = box
    with np.errstate(all="ignore"):
        slope = np.where(p != 0, -q / np.where(p != 0, p, 1.0), 0.0)
        slope = np.where(np.isfinite(slope), slope, 0.0)
        wide = slope.reshape(*slope.shape[:2], *low.shape[1:])
        lined = lines(op, low, high, (wide, wide))
        part = p * slope
        rest = q + part
        account = Account.zero(p)
        add_product(account, np.maximum(p, 0.0), lined.low_intercept)
        add_product(account, np.minimum(p, 0.0), lined.high_intercept)
        ends = low.reshape(1, -1), high.reshape(1, -1)
        lost = product_error(p, slope, part) + sum_error(rest)
        account.spend(over((lost @ np.maximum(-ends[0], ends[1])[..., None])[..., 0], p.shape[2] + 4))
        return account.below(linear_on_box(rest, *ends))


def total(parts: Sequence[Float]) -> Float:
    """Return lower bounds of sums of numbers, given lower bounds of each."""
    value = np.sum(parts, axis=0)
    return below(value, over(gamma(len(parts)) * np.sum(np.abs(parts), axis=0), len(parts) + 2))
