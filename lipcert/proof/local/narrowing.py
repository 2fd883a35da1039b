"""Boxes narrowed by zonotopes sent forwards, and by linear functions sent back to the input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lipcert.network.enclosure import Float, round_up
from lipcert.network.operators import Activation, Elementwise, Reshape
from lipcert.proof.local.affine import Box
from lipcert.proof.local.arithmetic import above, below
from lipcert.proof.local.backward import Account, Backward, Relaxation
from lipcert.proof.local.boxes import Steps
from lipcert.proof.local.columns import Columns
from lipcert.proof.local.curved import is_bent, value_range
from lipcert.proof.local.drift import Drift, terms
from lipcert.proof.local.least import Least, charge
from lipcert.proof.local.proposal import Ints
from lipcert.proof.local.region import Mask, Region
from lipcert.proof.local.zonotope import Zonotopes

_MATTERS = 1e-6  # of the width of a box: what rounding may cost it


def is_tight(steps: Steps, region: Region, index: int) -> bool:
    """Whether a backward pass from a node has nothing to add to its box: see `bounds.local.crown`."""
    at = steps.behind_reshapes(index)
    if at == 0 or isinstance(steps.nodes[at].op, Elementwise):
        return True
    if not steps.is_first(at):
        return False
    return region.norm == "linf" or (region.box is None and steps.affine[at].reaches(region.norm) is not None)


class Look:
    """Narrows boxes of nodes, in node order, by zonotopes alone.

    Args of the constructor:
        steps, region: the network and the balls.
        boxes: of all nodes so far. Grows.
        lines: not used.
    """

    def __init__(self, steps: Steps, region: Region, boxes: Sequence[Box], lines: Mapping[int, Relaxation]) -> None:
        self._steps, self._region, self._boxes = steps, region, boxes
        self._zonotopes = Zonotopes(steps, lambda b: region.take(slice(b, b + 1)), boxes)

    def narrow(self, index: int) -> Box:
        """Return the box of a node, narrower where it matters."""
        box = self._boxes[index]
        matters = np.asarray(undecided(self._steps, index, box).any(axis=1) & self._region.valid)
        return self._zonotopes.narrowed(index, box, matters)


class Narrowing:
    """Narrows boxes of nodes, in node order, by functions sent back from their undecided entries.

    Where that is cheap, zonotopes decide entries first. Each sample is treated alone. What rounding may cost is bounded
    beforehand; where that is too much, it is counted on the way.

    Args of the constructor:
        steps, region: the network and the balls.
        boxes: of all nodes so far. Grows.
        lines: of activation nodes, by index. Grows.
    """

    def __init__(self, steps: Steps, region: Region, boxes: Sequence[Box], lines: Mapping[int, Relaxation]) -> None:
        self._steps, self._region, self._relaxed = steps, region, (boxes, lines)
        self._drift = Drift(steps, charge(region, terms(steps)))
        self._columns: dict[tuple[int, bool], Columns] = {}
        self._zonotopes = Zonotopes(steps, lambda b: region.take(slice(b, b + 1)), boxes)

    def narrow(self, index: int) -> Box:
        """Return the box of a node, narrower where it matters."""
        boxes, lines = self._relaxed
        box, valid = boxes[index], self._region.valid[:, None]
        mask = np.asarray(undecided(self._steps, index, box) & valid)
        cheap = self._zonotopes.pay(index, mask)
        if cheap.any():
            box = self._zonotopes.narrowed(index, box, cheap)
            mask = np.asarray(undecided(self._steps, index, box) & valid)
        if not mask.any():
            return box
        while len(self._drift.found) <= index:
            self._drift.grow(boxes, lines.get(len(self._drift.found)))
        low, high = (end.reshape(len(mask), -1).copy() for end in box)
        for b in np.flatnonzero(mask.any(axis=1)).tolist():
            rows = np.flatnonzero(mask[b])
            least, most = self._bounds(b, index, rows, high[b, rows] - low[b, rows])
            low[b, rows] = np.maximum(low[b, rows], np.where(np.isfinite(least), least, -np.inf))
            high[b, rows] = np.minimum(high[b, rows], np.where(np.isfinite(most), most, np.inf))
        return low.reshape(box[0].shape), high.reshape(box[0].shape)

    def _bounds(self, b: int, index: int, rows: Ints, width: Float) -> tuple[Float, Float]:
        """Return bounds (S,) of entries of a node of one sample, rounding counted."""
        cost, floor = self._drift.found[index][b, rows], self._drift.floor[b]
        counted = not bool((cost <= _MATTERS * width).all())
        if (b, counted) not in self._columns:
            charges = self._drift.charges if counted else ()
            least = Least(self._region.take(slice(b, b + 1)))
            self._columns[b, counted] = Columns(self._steps, least, b, self._relaxed, charges)
        low, high = self._columns[b, counted].bounds(index, rows)
        lost = round_up(floor + (0.0 if counted else cost))
        return below(low, lost), above(high, lost)


def improved(back: Backward, region: Region, index: int, rows: Ints, box: Box) -> Box:
    """Return the box of a node, its entries at positions (B, S) intersected with bounds of functions sent back."""
    ends = [end.reshape(len(region), -1).copy() for end in box]
    for end, bounds, tighter in zip(ends, _entries(back, region, index, rows), (np.maximum, np.minimum), strict=True):
        np.put_along_axis(end, rows, tighter(np.take_along_axis(end, rows, axis=1), bounds), axis=1)
    return ends[0].reshape(box[0].shape), ends[1].reshape(box[1].shape)


def _entries(back: Backward, region: Region, index: int, rows: Ints) -> tuple[Float, Float]:
    """Return lower and upper bounds (B, S) of entries of a node at positions (B, S)."""
    at, own, shift, lost = back.entries(index, rows)
    a = np.concatenate([own, -own], axis=1)
    account = Account.zero(a)
    account.add(np.concatenate([shift, -shift], axis=1), np.concatenate([lost, lost], axis=1))
    low, high = np.split(account.below(region.minimum(back.send(at, a, account))), 2, axis=1)
    return low, -high


def _is_read(steps: Steps, index: int) -> bool:
    """Whether an activation reads a node, reshaped or not."""
    users = [(user, steps.nodes[user].op) for user in steps.network.consumers[index]]
    return any(isinstance(op, Activation) or (isinstance(op, Reshape) and _is_read(steps, user)) for user, op in users)


def undecided(steps: Steps, index: int, box: Box) -> Mask:
    """Return (B, size) at which entries of a node a narrower box would make lines of an activation better."""
    low, high = box
    found = np.zeros(low.shape, dtype=np.bool_)
    for user in steps.network.consumers[index]:
        op = steps.nodes[user].op
        if isinstance(op, Elementwise):
            found |= is_bent(op, low, high)
            if _is_read(steps, user):  # the image of the box is a box that matters too
                least, most = value_range(op, low, high)
                found |= least < most
        elif isinstance(op, Activation):
            found |= high > low
    return found.reshape(len(low), -1)
