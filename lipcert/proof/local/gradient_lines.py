r"""Linear functions of gradients sent towards the output with every rounding counted (Shi et al. 2022).

The backward pass is itself a network, from the coefficients of a function to its gradient, whose activations are
b = s g with g in a known box and s in [alpha, beta]. For a piece of it,

    min(alpha g, beta g) <= s g <= max(alpha g, beta g),

concave below and convex above, so chords bound it; any slope is admissible for them, and the intercept is what the
ends of the box of g need. A function a.g at a node is sent on as `backward` does in the other direction: a.(W' y) =
(W a).y, with the allowance |a|.(gamma |W^|' M + R' M) for |y| <= M. At the output the coefficients are known. Where a
node has no lines (sorting, maxima), the boxes of what it adds count.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lipcert.network.enclosure import TINY, UNIT, Float, round_up
from lipcert.network.linear import row_terms
from lipcert.network.operators import Affine, Concat, Elementwise, Sum
from lipcert.proof.local.affine import Box
from lipcert.proof.local.arithmetic import above, product_error, sum_error
from lipcert.proof.local.backward import Account, add_product, weighed
from lipcert.proof.local.gradients import Gradients
from lipcert.proof.local.region import linear_on_box
from lipcert.proof.local.straight import Lines


class Forward:
    """Sends functions of gradients on, for one sample and S functions of the output.

    Args of the constructor:
        graph: what nodes do to gradients.
        boxes: of the gradients (S, *shape) at all nodes behind the ones to start from; at the last they are points.
    """

    def __init__(self, graph: Gradients, boxes: Mapping[int, Box]) -> None:
        self._graph, self._steps, self._boxes = graph, graph.steps, boxes
        self._lines: dict[int, Lines] = {}

    def least(self, start: int, a: Float) -> Float:
        """Return (S, J) lower bounds of linear functions of the gradients at a node.

        Args:
            start: the node.
            a: (1 or S, J, size) coefficients, of J functions for each of the S.
        """
        last = len(self._steps.nodes) - 1
        count = len(self._boxes[last][0])
        zeros = np.zeros((count, a.shape[1]))
        account, sent = Account(zeros, zeros, np.isfinite(a).all(axis=2) & np.isfinite(zeros)), {start: a}
        for index in range(start + 1, last + 1):
            if any(i in sent for i in self._steps.nodes[index].inputs):
                sent[index] = self._push(index, sent, account)
        if last not in sent:
            return account.below(zeros)
        known = self._boxes[last][0].reshape(count, -1)
        return account.below(linear_on_box(sent[last], known, known))

    def _magnitude(self, index: int) -> Float:
        low, high = self._boxes[index]
        found: Float = np.maximum(-low, high).reshape(len(low), -1)
        return found

    def _push(self, index: int, sent: Mapping[int, Float], account: Account) -> Float:
        """Return coefficients (1 or S, J, size) on the gradients at a node, of what is known of those at its inputs."""
        node = self._steps.nodes[index]
        match node.op:
            case Affine():
                return self._push_affine(index, sent[node.inputs[0]], account)
            case Elementwise():
                return self._push_lines(index, sent[node.inputs[0]], account)
        width = account.constant.shape
        parts = [sent.get(i, np.zeros((1, width[1], self._steps.nodes[i].size))) for i in node.inputs]
        match node.op:
            case Sum():
                total = np.zeros((1, width[1], node.size))
                for sign, part in zip(node.op.signs, parts, strict=True):
                    total = total + sign * part
                    account.spend(weighed(np.abs(total), 2.0 * UNIT * self._magnitude(index)))
                return total
            case Concat():
                rows = max(len(part) for part in parts)
                shapes = [(rows, width[1], *self._steps.nodes[i].shape) for i in node.inputs]
                wide = [np.broadcast_to(part, (rows, *part.shape[1:])) for part in parts]
                laid = [part.reshape(shape) for part, shape in zip(wide, shapes, strict=True)]
                return np.concatenate(laid, axis=node.op.axis + 2).reshape(rows, width[1], -1)
        for part, box in zip(parts, self._graph.send_back(index, self._boxes[index]), strict=True):
            low, high = (end.reshape(len(end), 1, -1) for end in box)
            add_product(account, np.maximum(part, 0.0), low)
            add_product(account, np.minimum(part, 0.0), high)
        return np.zeros((1, width[1], node.size))

    def _push_affine(self, index: int, a: Float, account: Account) -> Float:
        step, behind = self._steps.affine[index], self._magnitude(index)
        charge = step.charge_image(behind.reshape(-1, *step.target))
        lost = row_terms(step.op) * TINY * behind.sum(axis=1)
        account.spend(weighed(np.abs(a), charge) + round_up(2.0 * lost)[:, None])
        found = step.image(a)
        account.watch(found)
        return found

    def _push_lines(self, index: int, a: Float, account: Account) -> Float:
        if index not in self._lines:
            self._lines[index] = _chords(self._graph.slopes(index), self._boxes[index])
        lines, behind = self._lines[index], self._magnitude(index)
        add_product(account, np.maximum(a, 0.0), lines.low_intercept)
        add_product(account, np.minimum(a, 0.0), lines.high_intercept)
        found = a * np.where(a > 0, lines.low_slope, lines.high_slope)
        lost = round_up(2.0 * TINY * behind.sum(axis=1))[:, None]
        account.spend(weighed(np.abs(found), 2.0 * UNIT * behind) + lost)
        account.watch(found)
        return found


def _chords(slopes: Box, box: Box) -> Lines:
    """Return lines (S, 1, n) below and above s g, for s in [alpha, beta] and g in the box."""
    count = len(box[0])
    high_slope, high_intercept = (x.reshape(count, 1, -1) for x in _above(slopes, box))
    low_slope, low_intercept = (-x.reshape(count, 1, -1) for x in _above((-slopes[1], -slopes[0]), box))
    return Lines(low_slope, low_intercept, high_slope, high_intercept)


def _above(slopes: Box, box: Box) -> tuple[Float, Float]:
    """Return slopes and intercepts of lines above max(alpha g, beta g): convex, so the ends of the box decide."""
    tops = [np.maximum(*(_product_up(slope, end) for slope in slopes)) for end in box]
    width = box[1] - box[0]
    slope = np.where(width > 0, (tops[1] - tops[0]) / np.where(width > 0, width, 1.0), 0.0)
    slope = np.where(np.isfinite(slope), slope, 0.0)
    intercepts = []
    for top, end in zip(tops, box, strict=True):
        product = slope * end
        rest = top - product
        intercepts.append(above(rest, round_up(product_error(slope, end, product) + sum_error(rest), 2)))
    return slope, np.maximum(*intercepts)


def _product_up(a: Float, b: Float) -> Float:
    product = a * b
    return above(product, product_error(a, b, product))
