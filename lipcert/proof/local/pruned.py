r"""Margins from products of norms without the neurons that are constant on the ball (after Huang et al. 2021).

Write d for the difference between a point of the region and the sample, in l2. A function c of the output is followed
backwards with a fixed slope m_i for each elementwise neuron, dv = m dz + w with |w_i| <= r_i |dz_i| (`secants`):

    c.df = g.dx + sum_k a_k.w_k + rho,      |rho| <= what rounding of the coefficients costs (`backward`).

With no slopes at all, the coefficients a of the last activations are the whole of it (w = dv), which is Huang's bound.
With the middles of the sectors, neurons that are linear on the region have r = 0 and vanish. What remains of a node,
w_i = s_i e_i with s_i^2 = r_i and |e| <= eps times the measure of r (`measures`), is in a box besides, as dv and dz
are; so a_k.w_k is at least its least value on an ellipsoid and a box, and g.dx that on the ball and its box. The
better of the two ways counts.

Nodes that copy entries (sorting, maxima) are not passed: w = dv there, with their own moves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lipcert.network.enclosure import Float, round_up
from lipcert.network.operators import Activation, Affine, Elementwise
from lipcert.proof.local.affine import AffineStep, Box
from lipcert.proof.local.arithmetic import above, below
from lipcert.proof.local.backward import Account, Backward
from lipcert.proof.local.boxes import Steps, inside, propagate
from lipcert.proof.local.differences import spans
from lipcert.proof.local.margins import differences, margins_on_boxes
from lipcert.proof.local.masked_norms import root
from lipcert.proof.local.measures import Measures
from lipcert.proof.local.proposal import Ints
from lipcert.proof.local.region import least_on_ellipsoid
from lipcert.proof.local.secants import Sector, anchored_sector
from lipcert.proof.local.straight import Lines
from lipcert.proof.local.surroundings import Surroundings

AT_ONCE = 2**27  # bytes for the coefficients of functions sent back at a time
_COPIES = 12  # arrays of the size of the coefficients that live at once


@dataclass(frozen=True, eq=False)
class Pruned:
    """A network around B samples.

    Attributes:
        around: the samples, on l2 balls.
        boxes: of all nodes on the balls, each narrowed by how far the nodes before it move.
        sectors: of all elementwise nodes, seen from the samples.
        measures: of all nodes.
    """

    around: Surroundings
    boxes: list[Box]
    sectors: Mapping[int, Sector]
    measures: Measures

    @staticmethod
    def of(around: Surroundings, norms: Mapping[int, float], known: Sequence[Box] = ()) -> Pruned:
        """Find boxes, sectors and measures node by node.

        Args:
            around: the samples.
            norms: upper bounds of the l2 norms of some affine nodes.
            known: boxes of all nodes that hold too.
        """
        steps, boxes, sectors = around.steps, [around.region.ends], dict[int, Sector]()
        measures = Measures(steps, norms, boxes, sectors)
        for index, node in enumerate(steps.nodes[1:], start=1):
            box = around.narrowed(index, propagate(steps, index, [boxes[i] for i in node.inputs]))
            if known:
                box = inside(box, known[index])
            if isinstance(node.op, Affine) and not steps.affine[index].moves:
                box = _narrowed(around, measures, index, box)
            boxes.append(box)
            if isinstance(node.op, Elementwise):
                sectors[index] = anchored_sector(node.op, around.centre[node.inputs[0]], boxes[node.inputs[0]])
        return Pruned(around, boxes, sectors, measures)

    def margins(self, labels: Ints) -> Float:
        """Return (B, classes - 1) lower bounds of the margins; minus infinity where nothing is proved."""
        steps = self.around.steps
        at_centre = margins_on_boxes(steps, list(self.around.centre), labels)
        rows, best = differences(labels, steps.nodes[-1].size), margins_on_boxes(steps, self.boxes, labels)
        width = max(1, AT_ONCE // (8 * len(rows) * _COPIES * max(node.size for node in steps.nodes)))
        for slopes in ({}, {index: sector.middle for index, sector in self.sectors.items()}):
            way = Way(self, slopes)
            for start in range(0, rows.shape[1], width):
                some = slice(start, start + width)
                best[:, some] = np.maximum(best[:, some], way.least(rows[:, some], at_centre[:, some]))
        return best


@dataclass(frozen=True, eq=False)
class Rest:
    """What remains of a node: w_i = s_i e_i with |e| <= far, in a box.

    Attributes:
        scale: (B, n) s. far: (B, 1). low, high: (B, n), zero where the scale is.
    """

    scale: Float
    far: Float
    low: Float
    high: Float


class Way:
    """Functions of the output followed backwards with fixed slopes.

    Args of the constructor:
        pruned: the network around B samples.
        slopes: by elementwise node, m (B, *shape); activations without are not passed.
    """

    def __init__(self, pruned: Pruned, slopes: Mapping[int, Float]) -> None:
        self._pruned, self._slopes = pruned, slopes
        self._spans = spans(pruned.boxes, pruned.around.centre)
        self._followed = Followed(pruned.around.steps, self._spans, slopes)
        self._rests: dict[int, Rest] = {}

    def least(self, rows: Float, start: Float) -> Float:
        """Return lower bounds of start (B, S) + rows.df, for functions (B, S, size) of the output."""
        region, account = self._pruned.around.region, Account.zero(rows)
        gradient = self._followed.send(len(self._spans) - 1, rows, account)
        eps, one = np.full((len(rows), 1), region.eps), np.ones((len(rows), gradient.shape[2]))
        account.add(least_on_ellipsoid(gradient, *region.steps, eps, one), np.zeros(start.shape))
        for index, a in self._followed.parts.items():
            if index not in self._rests:
                self._rests[index] = self._rest(index)
            rest = self._rests[index]
            account.add(least_on_ellipsoid(a, rest.low, rest.high, rest.far, rest.scale), np.zeros(start.shape))
        return account.below(start)

    def _rest(self, index: int) -> Rest:
        """Return what remains of an activation node: dv, or dv - m dz."""
        measures, source = self._pruned.measures, self._pruned.around.steps.nodes[index].inputs[0]
        slope, (low, high) = self._slopes.get(index), self._spans[index]
        if slope is None:
            moves = measures.moves(index)
            weights, length = moves.spread, moves.length
        else:
            weights = self._pruned.sectors[index].radius
            length = measures.measure(source, weights)
            products = [slope * end for end in self._spans[source]]
            least, most = np.minimum(*products), np.maximum(*products)
            low, high = -round_up(most - low, 3), round_up(high - least, 3)
        alive = weights != 0
        scale, low, high = (np.where(alive, x, 0.0).reshape(len(low), -1) for x in (root(weights), low, high))
        return Rest(scale, round_up(self._pruned.around.region.eps * length)[:, None], low, high)


class Followed(Backward):
    """Sends functions of differences back, and keeps what arrives at activations. Constants drop out.

    Args of the constructor:
        steps: the network.
        spans: boxes of the differences of all nodes, (B, *shape) each.
        slopes: by elementwise node, m (B, *shape); activations without are not passed.

    Attributes:
        parts: by activation node, coefficients (B, S, n) of what remains of it, of the last functions sent.
    """

    def __init__(self, steps: Steps, spans: Sequence[Box], slopes: Mapping[int, Float]) -> None:
        lines = {}
        for index, slope in slopes.items():
            flat = slope.reshape(len(slope), 1, -1)
            lines[index] = Lines(flat, np.zeros_like(flat), flat, np.zeros_like(flat))
        super().__init__(steps, spans, lines)
        self.parts: dict[int, Float] = {}

    def _add_offset(self, step: AffineStep, a: Float, account: Account) -> None:
        """Constants drop out of differences."""

    def _pull(self, index: int, a: Float, account: Account) -> list[Float | None]:
        node = self._steps.nodes[index]
        if isinstance(node.op, Activation):
            self.parts[index] = a
            if index not in self._lines:
                return [None for _ in node.inputs]
        return super()._pull(index, a, account)


def _narrowed(around: Surroundings, measures: Measures, index: int, box: Box) -> Box:
    """Return the box of an affine node, |dz_i| <= eps L (sum_j W_ij^2 v_j)^(1/2) used."""
    step, before = around.steps.affine[index], measures.moves(around.steps.nodes[index].inputs[0])
    far = round_up(around.region.eps * before.length).reshape(-1, *(1,) * len(step.target))
    radius = round_up(far * root(step.squared(before.spread)))
    least, most = around.centre[index]
    return np.maximum(box[0], below(least, radius)), np.minimum(box[1], above(most, radius))
