"""Bounds from multipliers on one region: sectors node by node, then the reach of every function.

At every activation, multipliers of the neurons before it bound how its input moves (`reach`), which may narrow the box,
and with it the sector. That costs a matrix for every such node, so it is done where the boxes as they are do not prove
enough. Whatever multipliers are proposed, what is derived holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lipcert.network.enclosure import TINY, UNIT, Float
from lipcert.network.operators import Activation, Elementwise
from lipcert.proof.local.affine import Box
from lipcert.proof.local.arithmetic import above, below, over
from lipcert.proof.local.backward import NO_OTHERS
from lipcert.proof.local.boxes import Steps
from lipcert.proof.local.differences import Differences, Rows, spans
from lipcert.proof.local.margins import differences, margins_on_boxes
from lipcert.proof.local.proposal import Ints
from lipcert.proof.local.reach import Noises, Seen, reach
from lipcert.proof.local.surroundings import Surroundings
from lipcert.proof.local.tilted import Tilted, tilted_sector
from lipcert.proof.refusal import Refused


@dataclass(frozen=True, eq=False)
class Anchor:
    """What differences are taken from: the values of all nodes at a point, or others that suit a region better.

    Where an activation is linear on a region, its output at a point outside may be that of the same line: differences
    from it are linear too. Affine nodes are as in the network.

    Attributes:
        steps: the network. centre: boxes (1, *shape) of the values of all nodes.
        ball: the l2 ball, seen from the point.
        continued: by activation node, (1, *shape) slopes of lines that outputs were taken from; NaN where of the
            activation itself.
    """

    steps: Steps
    centre: Sequence[Box]
    ball: Seen
    continued: Mapping[int, Float] = field(default_factory=dict)

    @staticmethod
    def at_sample(around: Surroundings) -> Anchor:
        """Return the one sample that there is."""
        return Anchor(around.steps, around.centre, Seen(around.region.eps, np.zeros(around.steps.nodes[0].size)))


class Anchored:
    """One region's noises, grown node by node.

    Args of the constructor:
        anchor: any point, and the ball that the region is a part of.
        boxes: of all nodes on the region, (1, *shape) each.
        multipliers: by activation node, (1, *shape): e of `bounds.local.covariance`; any positive numbers.
        slopes: middle slopes of ReLUs, likewise, see `tilted`; any numbers.

    Attributes:
        anchor, boxes: as given.

    Raises:
        Refused: an activation is not elementwise.
    """

    def __init__(
        self,
        anchor: Anchor,
        boxes: Sequence[Box],
        multipliers: Mapping[int, Float],
        slopes: Mapping[int, Float] = NO_OTHERS,
    ) -> None:
        steps = anchor.steps
        for node in steps.nodes:
            if isinstance(node.op, Activation) and not isinstance(node.op, Elementwise):
                raise Refused(f"there are no multipliers for '{node.name}', which is not elementwise")
        self.anchor, self.boxes, self._steps, self._centre = anchor, list(boxes), steps, anchor.centre
        self._multipliers, self._slopes = multipliers, slopes
        self._spans = spans(boxes, anchor.centre)
        self._differences = Differences(steps, self._spans)
        self._rows: list[Rows] = []
        self._noises: list[tuple[Float, ...]] = []
        for index, node in enumerate(steps.nodes):
            if isinstance(node.op, Elementwise):
                self._grow(index, node.op)

    @np.errstate(all="ignore")
    def moves(self, a: Float, others: Mapping[int, Float] = NO_OTHERS) -> Box:
        """Return bounds (S,) of how linear functions move from the anchor; infinite where there are none.

        Args:
            a: (1, S, size) their coefficients on the output. others: (1, S, size of the node) on other nodes.
        """
        return self._moves(self._differences.of_functions(len(self._steps.nodes) - 1, a, others))

    @np.errstate(all="ignore")
    def _grow(self, index: int, op: Elementwise) -> None:
        """Take the unstable neurons of an activation node."""
        source = self._steps.nodes[index].inputs[0]
        sector = self._sector(index, op)
        unstable = np.flatnonzero(sector.radius.reshape(-1) != 0)
        if not len(unstable):
            self._differences.add(index, sector.middle, unstable)
            return
        rows = self._differences.of_entries(source, unstable)
        if self._rows:
            self._look_at(source, unstable, rows)
            sector = self._sector(index, op)
        kept = sector.radius.reshape(-1)[unstable] != 0
        neurons = unstable[kept]
        self._differences.add(index, sector.middle, neurons)
        self._rows.append(rows.take(kept))
        e = self._multipliers.get(index, np.full(sector.radius.shape, np.nan))
        middle, radius, rise, slope, e = (part.reshape(-1)[neurons] for part in (*vars(sector).values(), e))
        scale, size = np.sqrt(radius * e), self._differences.magnitude
        lift = rise / np.square(scale) / 2.0
        lift = np.where(rise == 0, 0.0, lift + 8.0 * UNIT * np.abs(lift) + TINY)  # at least; four roundings at most
        width = over(size(index)[0, neurons] + np.abs(middle) * size(source)[0, neurons], 4)
        self._noises.append((radius, scale, lift, slope, width))

    def _sector(self, index: int, op: Elementwise) -> Tilted:
        source = self._steps.nodes[index].inputs[0]
        found = tilted_sector(op, self._centre[source], self.boxes[source], self._slopes.get(index))
        return found.straightened(self.anchor.continued.get(index))

    def _look_at(self, source: int, positions: Ints, rows: Rows) -> None:
        """Look at the rows of unstable neurons before their sectors are settled."""

    def _moves(self, functions: Rows) -> Box:
        count = sum(len(rows.error) for rows in self._rows)
        functions = functions.widened(count)
        nothing = functions.take(np.zeros(len(functions.error), dtype=np.bool_))
        rows = Rows.join([nothing, *self._rows], count)
        parts = (np.concatenate([np.zeros(0), *known]) for known in zip(*self._noises, strict=True))
        radius, scale, lift, slope, width = parts if self._noises else np.zeros((5, 0))
        return reach(Noises(rows, radius, scale, lift, slope, width), functions, self.anchor.ball)


class Narrowing(Anchored):
    """The same with the boxes narrowed node by node, as far as the multipliers of the nodes before prove them wide.

    Attributes:
        boxes: of all nodes, narrowed.
    """

    def _look_at(self, source: int, positions: Ints, rows: Rows) -> None:
        """Intersect the box of a node at some entries with how far they move from the anchor."""
        moves = self._moves(rows)
        low, high = (end.reshape(-1).copy() for end in self.boxes[source])
        least, most = (end.reshape(-1)[positions] for end in self._centre[source])
        low[positions] = np.maximum(low[positions], below(least, -moves[0]))
        high[positions] = np.minimum(high[positions], above(most, moves[1]))
        shape = self.boxes[source][0].shape
        self.boxes[source] = low.reshape(shape), high.reshape(shape)


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
    for kind, multipliers in ((kind, multipliers) for multipliers in sets for kind in (Anchored, Narrowing)):
        noises = kind(Anchor.at_sample(around), boxes, multipliers)
        found = below(at_centre, -noises.moves(rows)[0])
        best = np.maximum(best, np.where(np.isfinite(found), found, -np.inf))
        boxes = noises.boxes
        if (best > 0).all():
            break
    return best
