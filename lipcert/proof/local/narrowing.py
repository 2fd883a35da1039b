"""Boxes narrowed by linear functions sent back to the input."""

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
from lipcert.proof.local.least import charge
from lipcert.proof.local.proposal import Ints
from lipcert.proof.local.region import Mask, Region

BUDGET = 2**27  # bytes for the coefficients of functions sent back at a time
_COPIES = 12  # arrays of the size of the coefficients that live at once
_MATTERS = 1e-7  # of the width of a box: what rounding may cost it


def is_tight(steps: Steps, region: Region, index: int) -> bool:
    """Whether a backward pass from a node has nothing to add to its box: see `bounds.local.crown`."""
    at = steps.behind_reshapes(index)
    if at == 0 or isinstance(steps.nodes[at].op, Elementwise):
        return True
    if not steps.is_first(at):
        return False
    return region.norm == "linf" or (region.box is None and steps.affine[at].reaches(region.norm) is not None)


class Narrowing:
    """Narrows boxes of nodes, in node order, by functions sent back from their undecided entries.

    Each sample is treated alone. Where what rounding may cost matters (`drift`), functions are sent back another time
    with their own account (`backward`).

    Args of the constructor:
        steps, region: the network and the balls.
        boxes: of all nodes so far. Grows.
        lines: of activation nodes, by index. Grows.
    """

    def __init__(self, steps: Steps, region: Region, boxes: Sequence[Box], lines: Mapping[int, Relaxation]) -> None:
        self._steps, self._region, self._boxes, self._lines = steps, region, boxes, lines
        self._back, self._drift = Backward(steps, boxes, lines), Drift(steps, charge(region, terms(steps)))
        self._columns: dict[int, Columns] = {}

    def narrow(self, index: int) -> Box:
        """Return the box of a node, narrower where it matters."""
        box, count = self._boxes[index], len(self._region)
        mask = np.asarray(_undecided(self._steps, index, box) & self._region.valid[:, None])
        if not mask.any():
            return box
        while len(self._drift.found) <= index:
            self._drift.grow(self._boxes, self._lines.get(len(self._drift.found)))
        low, high = (end.reshape(count, -1).copy() for end in box)
        cost = round_up(self._drift.found[index] + self._drift.floor[:, None])
        heavy = np.asarray((mask & ~(cost <= _MATTERS * (high - low))).any(axis=1))
        for b in np.flatnonzero(mask.any(axis=1) & ~heavy).tolist():
            rows = np.flatnonzero(mask[b])
            least, most = self._of_sample(b).bounds(index, rows)
            least, most = below(least, cost[b, rows]), above(most, cost[b, rows])
            low[b, rows] = np.maximum(low[b, rows], np.where(np.isfinite(least), least, -np.inf))
            high[b, rows] = np.minimum(high[b, rows], np.where(np.isfinite(most), most, np.inf))
        found = low.reshape(box[0].shape), high.reshape(box[1].shape)
        return self._with_accounts(index, mask & heavy[:, None], found) if heavy.any() else found

    def _of_sample(self, b: int) -> Columns:
        if b not in self._columns:
            self._columns[b] = Columns(self._steps, self._region, b, self._boxes, self._lines)
        return self._columns[b]

    def _with_accounts(self, index: int, mask: Mask, box: Box) -> Box:
        """Return the box of a node, narrower where the mask (B, size) says so."""
        count = int(mask.sum(axis=1).max(initial=0))
        rows = np.argsort(~mask, axis=1, kind="stable")[:, :count]
        largest = max(node.size for node in self._steps.nodes[: index + 1])
        width = max(1, BUDGET // (2 * len(self._region) * _COPIES * largest * 8))
        for start in range(0, count, width):
            better = improved(self._back, self._region, index, rows[:, start : start + width], box)
            low, high = (np.where(mask.reshape(old.shape), new, old) for new, old in zip(better, box, strict=True))
            box = low, high
        return box


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


def _undecided(steps: Steps, index: int, box: Box) -> Mask:
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
