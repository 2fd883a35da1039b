r"""What rounding may cost linear functions on their way back to the input, known before they are sent.

`backward` charges every step for the coefficients that it meets: with a those of node j, at most |a|.e_j for a vector
e_j of the step. But |a| is never larger than what the matrices' magnitudes make of the first coefficients, so all
charges together can be bounded without any: let

    E_j = e_j + sum over the inputs i of j of  |A_ji|' E_i,

A_ji the linear function that takes coefficients of j to coefficients of i, with its own rounding. Then |a|.E_j, added
up over the nodes where a function waits, plus what was charged so far, never grows while it is sent back: a function
that starts as entry r of node k costs at most E_k[r]. That is one pass forwards, and the functions themselves may be
sent by plain float64 arithmetic, in any order and layout. The price is that |A| |A'| replaces |A A'|, a factor for each
layer, on numbers of the size 1e-14. Where that matters, |a|.e_j is added up on the way after all (`columns`).

The charges e_j, for coefficients a of node j, M >= |h| of its inputs, and N terms at most in any sum of constants:

* affine nodes: `AffineStep.charge` and gamma_N |b|;
* lines s x + t: a' = a s_low + min(a, 0) (s_high - s_low) is 4 roundings of terms of size |a| (|s_low| + |s_high|) at
  most, and a.t is gamma_N |a|.|t|;
* maxima: see `selected`; nodes without lines: gamma_N |a|.M of their own;
* k functions that meet in a node: (k - 1) u |a|.M of it.

Products that underflow lose 2^-1075 each, whatever a: they are added up in `floor`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lipcert.network.enclosure import TINY, UNIT, Float, gamma, round_up
from lipcert.network.operators import Affine, Concat, Sum
from lipcert.proof.local.affine import Box
from lipcert.proof.local.arithmetic import over
from lipcert.proof.local.backward import Relaxation
from lipcert.proof.local.boxes import Steps
from lipcert.proof.local.selected import Selected
from lipcert.proof.local.straight import Lines

_SLACK = 64  # roundings of a few factors each


class Drift:
    """Grows the vectors E of all nodes, in node order.

    Args of the constructor:
        steps: the network.
        first: (B, size) E of the input, what `least` may lose for each unit of the coefficients there.

    Attributes:
        found: by node, (B, size) E.
        charges: by node, (B, size) e.
        floor: (B,) what underflow may cost besides.
    """

    def __init__(self, steps: Steps, first: Float) -> None:
        self._steps, self._terms = steps, terms(steps)
        self.found, self.charges = [first], [first]
        self.floor = np.full(len(first), 8.0 * sum(node.size for node in steps.nodes) * TINY)

    def grow(self, boxes: Sequence[Box], relaxation: Relaxation | None) -> None:
        """Add the vector of the next node.

        Args:
            boxes: of all nodes up to it.
            relaxation: of it.
        """
        index = len(self.found)
        inputs, sizes = self._steps.nodes[index].inputs, [_magnitude(box) for box in boxes]
        own, before = self._step(index, [sizes[i] for i in inputs], sizes[index], relaxation)
        meeting = max(0, len(self._steps.network.consumers[index]) - 1)
        self.charges.append(over(own + 2.0 * meeting * UNIT * sizes[index], _SLACK))
        self.found.append(over(self.charges[index] + before, _SLACK + 4 * meeting))
        lost = sum(sizes[i].sum(axis=1) + self.found[i].sum(axis=1) for i in inputs)
        count = self._steps.affine[index].terms if index in self._steps.affine else _SLACK
        self.floor = over(self.floor + 4.0 * count * TINY * lost, self._steps.nodes[index].size + _SLACK)

    def _step(self, index: int, inputs: list[Float], size: Float, relaxation: Relaxation | None) -> tuple[Float, Float]:
        """Return e of a node, but for functions that meet in it, and what is added to it for E, (B, size) each.

        inputs, size: magnitudes (B, n).
        """
        node = self._steps.nodes[index]
        before, constants = [self.found[i] for i in node.inputs], gamma(self._terms)
        match node.op:
            case Affine():
                step = self._steps.affine[index]
                moved = step.magnify(before[0].reshape(-1, *step.source)).reshape(len(size), -1)
                charge = step.charge(inputs[0].reshape(-1, *step.source))
                return charge + constants * np.abs(step.bias.reshape(-1)), over(moved, step.terms + 1)
            case Sum():
                return np.zeros_like(size), round_up(np.sum(before, axis=0), len(before))
            case Concat():
                shapes = [self._steps.nodes[i].shape for i in node.inputs]
                parts = [part.reshape(-1, *shape) for part, shape in zip(before, shapes, strict=True)]
                return np.zeros_like(size), np.concatenate(parts, axis=node.op.axis + 1).reshape(len(size), -1)
            case _ if relaxation is None:
                return constants * size, np.zeros_like(size)
            case _ if isinstance(relaxation, Lines):
                low, high = (np.abs(slope[:, 0]) for slope in (relaxation.low_slope, relaxation.high_slope))
                intercept = np.maximum(np.abs(relaxation.low_intercept), np.abs(relaxation.high_intercept))[:, 0]
                return 8.0 * UNIT * (low + high) * inputs[0] + constants * intercept, np.maximum(low, high) * before[0]
            case _:
                return self._of_selected(relaxation, np.concatenate(before, 1), np.concatenate(inputs, 1), size)

    def _of_selected(self, parts: list[Selected], before: Float, inputs: Float, size: Float) -> tuple[Float, Float]:
        own, added = np.zeros_like(size), np.zeros_like(size)
        count = 2 + sum(len(part.places) for part in parts)
        for part in parts:
            constant = np.maximum(np.abs(part.low_constant), np.abs(part.high_constant))[:, 0]
            own[:, part.outputs] = gamma(self._terms) * constant
            for places, low, high in zip(part.places, part.low, part.high, strict=True):
                weight, at = np.maximum(np.abs(low), np.abs(high)), np.maximum(places, 0)
                weight = np.where(places >= 0, weight, 0.0)
                own[:, part.outputs] += gamma(4 * count) * weight * inputs[:, at]
                added[:, part.outputs] += weight * before[:, at]
        return over(own, count + _SLACK), over(added, count + _SLACK)


def terms(steps: Steps) -> int:
    """Return an upper bound of how many terms are added up, one way or another, in constants of one function."""
    return max(node.size for node in steps.nodes) + 2 * len(steps.nodes) + _SLACK


def _magnitude(box: Box) -> Float:
    low, high = box
    return np.maximum(-low, high).reshape(len(low), -1)
