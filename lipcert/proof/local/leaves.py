"""Margins on parts of regions: CROWN on their boxes, and what anchors, multipliers and weighted cuts prove besides.

A leaf of a tree (`parts`) is treated like a sample of its own whose boxes are known to be narrower. Of the functions f
less weighted cuts (`weighted`) two bounds are tried: CROWN's lines, and on l2 balls

    f - sum (p v + q z - t)  >=  its value at the anchor + how far it moves at most,

from differences whose secants are seen from the leaf's anchor (`anchored`, `reach`). The anchor may be any point: where
a neuron is linear on the part, its line is continued to the anchor; another one whose value there is outside its box
has the sector of both. A part without points has any margins: that is known where boxes that all earlier finite boxes
gave are crossed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lipcert.network.enclosure import Enclosure, Float
from lipcert.network.operators import Elementwise
from lipcert.proof.local.affine import Box
from lipcert.proof.local.anchored import Anchor, Anchored, Narrowing
from lipcert.proof.local.arithmetic import above, below, product_error
from lipcert.proof.local.backward import Account, Backward, relax
from lipcert.proof.local.boxes import propagate, taken
from lipcert.proof.local.margins import differences
from lipcert.proof.local.parts import Ints, Mask, Parts
from lipcert.proof.local.reach import Seen
from lipcert.proof.local.region import linear_on_box
from lipcert.proof.local.secants import slopes_between
from lipcert.proof.local.surroundings import Surroundings
from lipcert.proof.local.weighted import Weighted, total

AT_ONCE = 32  # parts whose boxes are derived together
_THROUGH_ZERO = frozenset({"relu", "leaky_relu", "abs"})  # activations whose pieces are lines through zero

Bounded = Callable[[Surroundings, Sequence[Box], Ints], tuple[list[Box], Float]]
"""From samples, boxes known to hold on parts, and labels: narrower ones, and margins (D, classes - 1) on the parts."""


@dataclass(frozen=True, eq=False)
class Leaf:
    """One part of the region of one sample.

    Attributes:
        around: the sample. label: (1,).
        wide: boxes of the part, (1, *shape) of each node: those of the region, cut down to the part.
        boxes: narrower ones, finite.
        anchor: with the lines of neurons that are linear on `wide` continued.
    """

    around: Surroundings
    label: Ints
    wide: Sequence[Box]
    boxes: Sequence[Box]
    anchor: Anchor


def margins_on_parts(around: Surroundings, boxes: Sequence[Box], labels: Ints, parts: Parts, bounded: Bounded) -> Float:
    """Return (B, classes - 1) lower bounds of margins: the least of those on the parts of a tree, of the best tree.

    Args:
        around: B samples. boxes: of all nodes on their regions.
        labels: (B,).
        parts: of the right form, see `Parts.require`.
        bounded: what proves boxes and margins of parts without anything else that is proposed.
    """
    classes = around.steps.nodes[-1].size
    least = np.full((len(parts.samples), classes - 1), np.inf)
    for start in range(0, len(parts.places), AT_ONCE):
        leaves = np.arange(start, min(start + AT_ONCE, len(parts.places)))
        rows = parts.samples[parts.places[leaves]]
        here = around.take(rows)
        wide = parts.clipped(taken(boxes, rows), leaves)
        found, bounds = bounded(here, wide, labels[rows])
        sound, empty = state(found)
        open_ = sound & ~(bounds > 0).all(axis=1)
        places = np.flatnonzero(np.isin(parts.leaves, leaves[open_]))
        behind = parts.leaves[places] - start
        anchors = _anchors(here.take(behind), taken(wide, behind), parts.shifts[places])
        for row, place, anchor in zip(behind.tolist(), places.tolist(), anchors, strict=True):
            one = slice(row, row + 1)
            leaf = Leaf(here.take(one), labels[rows[one]], taken(wide, one), taken(found, one), anchor)
            improve(bounds[row], leaf, parts, place)
        bounds = np.where(empty[:, None], np.inf, np.where(sound[:, None], bounds, -np.inf))
        np.minimum.at(least, parts.places[leaves], bounds)
    best = np.full((len(labels), classes - 1), -np.inf)
    np.maximum.at(best, parts.samples, least)
    return best


@np.errstate(all="ignore")
def _anchors(around: Surroundings, boxes: Sequence[Box], shifts: Float) -> Iterator[Anchor]:
    """Yield anchors of parts (D,), given their boxes and the shifts (D, n) from their samples."""
    steps, points = around.steps, around.region.centre
    shifted = Enclosure.exact(points) + Enclosure.exact(shifts.reshape(points.shape))
    values = [(below(shifted.mid, shifted.radius), above(shifted.mid, shifted.radius))]
    continued = dict[int, Float]()
    for index, node in enumerate(steps.nodes[1:], start=1):
        values.append(propagate(steps, index, [values[i] for i in node.inputs]))
        if isinstance(node.op, Elementwise) and node.op.name in _THROUGH_ZERO:
            source = node.inputs[0]
            continued[index] = line = _line(node.op, boxes[source])
            values[index] = _on_line(line, values[source], values[index])
    for k, shift in enumerate(shifts):
        one = slice(k, k + 1)
        lines = {index: line[one] for index, line in continued.items()}
        yield Anchor(steps, taken(values, one), Seen(around.region.eps, shift), lines)


def _line(op: Elementwise, box: Box) -> Float:
    """Return the slope of an activation that is linear on a box, NaN elsewhere."""
    least, most = slopes_between(op, *box)
    return np.where(least == most, least, np.nan)


def _on_line(line: Float, z: Box, other: Box) -> Box:
    """Return bounds of lines through zero at z; where there is none, another box."""
    ends = [(product, product_error(line, end, product)) for end in z for product in (line * end,)]
    low = np.minimum(*(below(*end) for end in ends))
    high = np.maximum(*(above(*end) for end in ends))
    return np.where(np.isnan(line), other[0], low), np.where(np.isnan(line), other[1], high)


def state(boxes: Sequence[Box]) -> tuple[Mask, Mask]:
    """Return which parts (D,) have boxes (D, *shape) of all nodes that are finite, and which have no points."""
    sound, empty = (np.full(len(boxes[0][0]), value) for value in (True, False))
    for low, high in boxes:
        low, high = (end.reshape(len(end), -1) for end in (low, high))
        known = np.asarray((np.isfinite(low) & np.isfinite(high)).all(axis=1))
        empty |= sound & known & (low > high).any(axis=1)
        sound &= known & (low <= high).all(axis=1)
    return sound, empty


@np.errstate(all="ignore")
def improve(bounds: Float, leaf: Leaf, parts: Parts, position: int) -> None:
    """Raise bounds (classes - 1,) of margins on a leaf, in place, that are not positive and have functions.

    Args:
        bounds: that hold.
        leaf: a part.
        parts: what is proposed. position: of the leaf in `Parts.leaves`.
    """
    steps, size = leaf.around.steps, len(bounds) + 1
    mine = np.flatnonzero(parts.functions[:, 0] == position)
    mine = mine[~(bounds[parts.functions[mine, 1]] > 0)]
    if not len(mine):
        return
    rivals = parts.functions[mine, 1]
    a = differences(leaf.label, size)[:, rivals]
    weighted = Weighted.of(steps, {node: (p[mine], q[mine]) for node, (p, q) in parts.weights.items()})
    for tried in _bounds(leaf, a, weighted, parts, position):
        np.maximum.at(bounds, rivals, np.where(np.isfinite(tried[0]), tried[0], -np.inf))
        if (bounds[rivals] > 0).all():
            return


def _bounds(leaf: Leaf, a: Float, weighted: Weighted, parts: Parts, position: int) -> Iterator[Float]:
    """Yield (1, S) bounds of functions less cuts, cheap ones first.

    Narrower boxes change how multipliers act: what was found for the wider ones may prove less with them.
    """
    if parts.multipliers and leaf.around.region.norm == "l2":
        chosen = [{node: e[position][None] for node, e in part.items()} for part in (parts.multipliers, parts.slopes)]
        yield _by_multipliers(leaf, a, weighted, Anchored(leaf.anchor, leaf.wide, *chosen))
        yield _by_multipliers(leaf, a, weighted, Narrowing(leaf.anchor, leaf.boxes, *chosen))
    yield _by_lines(leaf, a, weighted)


def _by_lines(leaf: Leaf, a: Float, weighted: Weighted) -> Float:
    """Return (1, S) bounds of functions less cuts from lines."""
    steps, account = leaf.around.steps, Account.zero(a)
    lines = {index: relaxed for index in range(1, len(steps.nodes)) if (relaxed := relax(steps, index, leaf.boxes))}
    back = Backward(steps, leaf.boxes, lines)
    coefficients = back.send(len(steps.nodes) - 1, a, account, 0, weighted.others)
    return total([account.below(leaf.around.region.minimum(coefficients)), *weighted.least(leaf.boxes)])


def _by_multipliers(leaf: Leaf, a: Float, weighted: Weighted, noises: Anchored) -> Float:
    """Return (1, S) bounds of functions less cuts from how far they move from the anchor."""
    values = leaf.anchor.centre
    start = linear_on_box(a, *(end.reshape(1, -1) for end in values[-1]))
    moved = noises.moves(a, weighted.others)[0][None]
    return total([start, *weighted.at(values), *weighted.least(noises.boxes), moved])
