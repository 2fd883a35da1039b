"""Margins from multipliers, one sample at a time: sectors and boxes node by node, then the reach of every margin.

At every activation, multipliers of the neurons before it bound its input, |dz_i| <= reach, which narrows the box, and
with it the sector. Whatever multipliers are proposed, what is derived holds (`reach`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lipcert.network.enclosure import Float
from lipcert.network.operators import Activation, Elementwise
from lipcert.proof.local.affine import Box
from lipcert.proof.local.arithmetic import above, below
from lipcert.proof.local.differences import Differences, Rows, spans
from lipcert.proof.local.margins import differences, margins_on_boxes
from lipcert.proof.local.proposal import Ints
from lipcert.proof.local.reach import reach
from lipcert.proof.local.secants import anchored_sector
from lipcert.proof.local.surroundings import Surroundings
from lipcert.proof.refusal import Refused


class Anchored:
    """One sample's noises, grown node by node.

    Args of the constructor:
        around: the sample, on an l2 ball.
        boxes: of all nodes on the ball, (1, *shape) each.
        multipliers: by activation node, (1, *shape): e of `bounds.local.covariance`; any positive numbers.

    Attributes:
        boxes: of all nodes, narrowed.

    Raises:
        Refused: an activation is not elementwise.
    """

    def __init__(self, around: Surroundings, boxes: Sequence[Box], multipliers: Mapping[int, Float]) -> None:
        steps = around.steps
        for node in steps.nodes:
            if isinstance(node.op, Activation) and not isinstance(node.op, Elementwise):
                raise Refused(f"there are no multipliers for '{node.name}', which is not elementwise")
        self._steps, self.boxes, self._centre, self._eps = steps, list(boxes), around.centre, around.region.eps
        self._multipliers = multipliers
        self._spans = spans(boxes, around.centre)
        self._differences = Differences(steps, self._spans)
        self._rows: list[Rows] = []
        self._radii: list[Float] = []
        self._scales: list[Float] = []
        for index, node in enumerate(steps.nodes):
            if isinstance(node.op, Elementwise):
                self._grow(index, node.op)

    @np.errstate(all="ignore")
    def lengths(self, a: Float) -> Float:
        """Return (S,) upper bounds of how far linear functions (1, S, size) of the output move; infinite where none."""
        rows = self._differences.of_functions(len(self._steps.nodes) - 1, a)
        return self._lengths(rows)

    @np.errstate(all="ignore")
    def _grow(self, index: int, op: Elementwise) -> None:
        """Narrow the input of an activation node, and take its unstable neurons."""
        source = self._steps.nodes[index].inputs[0]
        sector = anchored_sector(op, self._centre[source], self.boxes[source])
        unstable = np.flatnonzero(sector.radius.reshape(-1) != 0)
        if not len(unstable):
            self._differences.add(index, sector.middle, unstable)
            return
        rows = self._differences.of_entries(source, unstable)
        if self._rows:
            self._narrow(source, unstable, self._lengths(rows))
            sector = anchored_sector(op, self._centre[source], self.boxes[source])
        kept = sector.radius.reshape(-1)[unstable] != 0
        neurons = unstable[kept]
        self._differences.add(index, sector.middle, neurons)
        self._rows.append(rows.take(kept))
        self._radii.append(sector.radius.reshape(-1)[neurons])
        e = self._multipliers.get(index, np.full(sector.radius.shape, np.nan)).reshape(-1)[neurons]
        self._scales.append(np.sqrt(self._radii[-1] * e))

    def _narrow(self, source: int, positions: np.ndarray[tuple[int, ...], np.dtype[np.int64]], length: Float) -> None:
        """Intersect the box of a node at some entries with centre +- length."""
        low, high = (end.reshape(-1).copy() for end in self.boxes[source])
        least, most = (end.reshape(-1)[positions] for end in self._centre[source])
        low[positions] = np.maximum(low[positions], below(least, length))
        high[positions] = np.minimum(high[positions], above(most, length))
        shape = self.boxes[source][0].shape
        self.boxes[source] = low.reshape(shape), high.reshape(shape)

    def _lengths(self, functions: Rows) -> Float:
        radius, scale = (np.concatenate([np.zeros(0), *parts]) for parts in (self._radii, self._scales))
        functions = functions.widened(len(radius))
        neurons = Rows.join(
            [functions.take(np.zeros(len(functions.error), dtype=np.bool_))]
            + [rows.widened(len(radius)) for rows in self._rows]
        )
        return reach(neurons, radius, scale, functions, self._eps)


def margins_by_multipliers(
    around: Surroundings, boxes: Sequence[Box], labels: Ints, sets: Sequence[Mapping[int, Float]]
) -> Float:
    """Return (1, classes - 1) lower bounds of the margins of one sample: those at its centre less how far they move.

    Args:
        around: of one sample, on an l2 ball.
        boxes: as of `Anchored`.
        labels: (1,).
        sets: of multipliers, as of `Anchored`, tried in turn until all margins are positive.
    """
    steps = around.steps
    at_centre, rows = margins_on_boxes(steps, list(around.centre), labels), differences(labels, steps.nodes[-1].size)
    best = np.full(at_centre.shape, -np.inf)
    for multipliers in sets:
        noises = Anchored(around, boxes, multipliers)
        found = below(at_centre, noises.lengths(rows))
        best = np.maximum(best, np.where(np.isfinite(found), found, -np.inf))
        boxes = noises.boxes
        if (best > 0).all():
            break
    return best
