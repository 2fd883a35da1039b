"""Entries of a node of one sample bounded by linear functions sent back, many at a time, in plain float64.

What a step may lose by rounding is known for each unit of the coefficients (`drift`), and the steps here have to be the
ones counted there. Whether those losses are bounded beforehand or added up on the way is the caller's choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lipcert.network.enclosure import Float
from lipcert.network.operators import Affine, Concat, Dense, Sum
from lipcert.proof.local.affine import Box
from lipcert.proof.local.arithmetic import below, over
from lipcert.proof.local.backward import Relaxation
from lipcert.proof.local.boxes import Steps
from lipcert.proof.local.images import by_neighbourhood, laid_out
from lipcert.proof.local.laid import Laid
from lipcert.proof.local.least import Least
from lipcert.proof.local.proposal import Ints
from lipcert.proof.local.selected import Selected
from lipcert.proof.local.sliding import pull_affine
from lipcert.proof.local.straight import Lines
from lipcert.proof.local.windows import Windows

BUDGET = 2**23  # bytes for the coefficients of functions sent back at a time: what caches hold
_FEWEST = 32  # functions at a time
MOST = 128  # functions of an inner image at a time: fewer see smaller rectangles, more make longer runs of memory

Parts = list[tuple[int, Windows]]  # functions of nodes


class Columns:
    """Sends entries of nodes of one sample back.

    Args of the constructor:
        steps: the network.
        least: of functions on the ball of the sample.
        sample: which one it is of the B samples of all that follows.
        relaxed: boxes of all nodes before the one to start from (only nodes without lines need them), and lines of
            activation nodes. Both may grow later.
        charges: by node, (B, size) what functions lose for each unit of their coefficients; none if that is not to be
            counted here. May grow later.
    """

    def __init__(
        self,
        steps: Steps,
        least: Least,
        sample: int,
        relaxed: tuple[Sequence[Box], Mapping[int, Relaxation]],
        charges: Sequence[Float] = (),
    ) -> None:
        self._steps, self._sample, self._charges = steps, sample, charges
        self._boxes, self._lines = relaxed
        self._least, self._laid = least, dict[int, Laid]()

    def bounds(self, index: int, rows: Ints) -> tuple[Float, Float]:
        """Return lower and upper bounds (S,) of entries of a node at positions (S,): see `charges` for what is lost."""
        shape = self._steps.nodes[index].shape
        largest = max(node.size for node in self._steps.nodes[: index + 1])
        most = BUDGET if len(shape) != 3 or self._steps.is_first(index) else MOST
        at_once = max(_FEWEST, min(most, BUDGET // (self._least.dtype.itemsize * largest))) // 2
        order = by_neighbourhood(rows, shape, max(1, round((at_once / shape[0]) ** 0.5)))
        low, high = np.empty(len(rows)), np.empty(len(rows))
        for start in range(0, len(rows), at_once):
            some = order[start : start + at_once]
            found, lost = self._send(*self._entries(index, rows[some]))
            low[some], high[some] = np.split(below(found, lost), 2)
        return low, -high

    def _entries(self, index: int, rows: Ints) -> tuple[int, Windows, tuple[Float, Float]]:
        """Return entries of a node as functions of a node at or before it, constants (S,), and losses (S,) so far."""
        node, step = self._steps.nodes[index], self._steps.affine.get(index)
        matrix = step.transposed(self._least.dtype) if step is not None and isinstance(node.op, Dense) else None
        if step is None or matrix is None:
            found = Windows.near(rows, node.shape, self._least.dtype, self._steps.costs.growth(index))
            return index, found, (np.zeros(len(rows)), np.zeros(len(rows)))
        lost = self._charges[index][self._sample, rows] if self._charges else np.zeros(len(rows))
        return node.inputs[0], Windows.whole(matrix[:, rows], step.source), (step.bias.reshape(-1)[rows], lost)

    def _send(self, start: int, functions: Windows, begun: tuple[Float, Float]) -> tuple[Float, Float]:
        """Return (2 S,) least values of functions of a node and of their negatives, and losses.

        begun: constants (S,) that belong to the functions, and losses so far.
        """
        pending, (constant, lost) = {start: functions}, begun
        linear = True  # until then, what holds of a function holds of its negative
        for index in range(start, -1, -1):
            if linear and (index == 0 or not isinstance(self._steps.nodes[index].op, (Affine, Sum, Concat))):
                linear, constant, lost = False, np.concatenate([constant, -constant]), np.concatenate([lost, lost])
                pending = {k: t.both_signs() for k, t in pending.items()}
            here = pending.pop(index, None)
            if here is None:
                continue
            lost = self._with_loss(lost, index, here)
            if index == 0:
                return constant + self._least.of(here), lost
            shift, parts = self._pull(index, here)
            constant = constant + shift
            for source, part in parts:
                pending[source] = pending[source].plus(part) if source in pending else part
        return constant, lost

    def _with_loss(self, lost: Float, index: int, functions: Windows) -> Float:
        """Return losses (S,) with those of functions that pass a node; as they are where that is not counted."""
        if not self._charges:
            return lost
        each = laid_out(self._charges[index][self._sample], self._steps.nodes[index].shape)
        sizes = functions.like(np.abs(functions.values))
        return over(lost + sizes.dot(each), len(functions.rows) + 4)

    def _pull(self, index: int, functions: Windows) -> tuple[Float, Parts]:
        """Return constants (S,), and functions of the inputs of a node."""
        node, none = self._steps.nodes[index], np.zeros(functions.values.shape[3])
        match node.op:
            case Affine():
                step = self._steps.affine[index]
                shift = functions.dot(laid_out(step.bias, node.shape)) if step.has_bias else none
                return shift, [(node.inputs[0], pull_affine(step, functions))]
            case Sum():
                parts = [functions if sign > 0 else functions.like(-functions.values) for sign in node.op.signs]
                return none, list(zip(node.inputs, parts, strict=True))
            case Concat():
                return none, self._pull_concat(index, functions, node.op.axis)
            case _ if index not in self._lines:
                low, high = (laid_out(end[self._sample], node.shape) for end in self._boxes[index])
                over, under = (functions.like(part(functions.values, 0.0)) for part in (np.maximum, np.minimum))
                return over.dot(low) + under.dot(high), []
        relaxation = self._lines[index]
        if isinstance(relaxation, Lines):
            return self._pull_lines(index, relaxation, functions)
        return self._pull_selected(index, relaxation, functions)

    def _pull_concat(self, index: int, functions: Windows, axis: int) -> Parts:
        node, count = self._steps.nodes[index], functions.values.shape[3]
        shapes = [self._steps.nodes[i].shape for i in node.inputs]
        ends = np.cumsum([shape[axis] for shape in shapes])[:-1]
        parts = np.split(functions.full().reshape(*node.shape, count), ends, axis=axis)
        return [
            (i, Windows.whole(part.reshape(-1, count), shape))
            for i, part, shape in zip(node.inputs, parts, shapes, strict=True)
        ]

    def _pull_lines(self, index: int, lines: Lines, functions: Windows) -> tuple[Float, Parts]:
        if index not in self._laid:
            self._laid[index] = Laid.of(lines, self._sample, self._steps.nodes[index].shape)
        shift, found = self._laid[index].pull(functions)
        return shift, [(self._steps.nodes[index].inputs[0], found)]

    def _pull_selected(self, index: int, parts: list[Selected], functions: Windows) -> tuple[Float, Parts]:
        inputs, a, b = self._steps.nodes[index].inputs, functions.full(), self._sample
        shapes = [self._steps.nodes[i].shape for i in inputs]
        sizes = [self._steps.nodes[i].size for i in inputs]
        found, shift = np.zeros((sum(sizes), a.shape[1]), dtype=a.dtype), np.zeros(a.shape[1])
        for part in parts:
            some = a[part.outputs]
            over, under = np.maximum(some, 0.0), np.minimum(some, 0.0)
            shift = shift + part.low_constant[b, 0] @ over + part.high_constant[b, 0] @ under
            for places, low, high in zip(part.places, part.low[:, b], part.high[:, b], strict=True):
                for sign, weight in ((over, low), (under, high)):
                    used = np.flatnonzero((places >= 0) & (weight != 0))
                    found[places[used]] += sign[used] * weight[used, None].astype(a.dtype, copy=False)
        split = np.split(found, np.cumsum(sizes)[:-1])
        return shift, [(i, Windows.whole(p, shape)) for i, p, shape in zip(inputs, split, shapes, strict=True)]
