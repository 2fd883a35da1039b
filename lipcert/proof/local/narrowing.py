"""Boxes narrowed by linear functions sent back to the input."""

from __future__ import annotations

import numpy as np

from lipcert.network.enclosure import Float
from lipcert.network.operators import Activation, Elementwise, Reshape
from lipcert.proof.local.affine import Box
from lipcert.proof.local.backward import Account, Backward
from lipcert.proof.local.boxes import Steps
from lipcert.proof.local.curved import is_bent, value_range
from lipcert.proof.local.proposal import Ints
from lipcert.proof.local.region import Mask, Region

BUDGET = 2**27  # bytes for the coefficients of functions sent back at a time
_COPIES = 12  # arrays of the size of the coefficients that live at once


def is_tight(steps: Steps, region: Region, index: int) -> bool:
    """Whether a backward pass from a node has nothing to add to its box: see `bounds.local.crown`."""
    at = steps.behind_reshapes(index)
    if at == 0 or isinstance(steps.nodes[at].op, Elementwise):
        return True
    if not steps.is_first(at):
        return False
    return region.norm == "linf" or (region.box is None and steps.affine[at].reaches(region.norm) is not None)


def narrow(steps: Steps, back: Backward, region: Region, index: int, box: Box) -> Box:
    """Return the box of a node, its undecided entries narrowed by functions sent back.

    Each sample has rows for as many entries as the one with most; what it does not need is not used, so that a bound
    does not depend on the other samples.
    """
    mask = _undecided(steps, index, box) & region.valid[:, None]
    count = int(mask.sum(axis=1).max(initial=0))
    rows = np.argsort(~mask, axis=1, kind="stable")[:, :count]
    largest = max(node.size for node in steps.nodes[: index + 1])
    width = max(1, BUDGET // (2 * len(region) * _COPIES * largest * 8))
    for start in range(0, count, width):
        better = improved(back, region, index, rows[:, start : start + width], box)
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
