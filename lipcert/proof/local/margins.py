"""Margins of the label against every rival, and what boxes alone prove of them."""

from __future__ import annotations

import numpy as np

from lipcert.network.enclosure import Float
from lipcert.network.operators import Affine
from lipcert.proof.local.affine import Box
from lipcert.proof.local.backward import Account, Backward
from lipcert.proof.local.boxes import Steps
from lipcert.proof.local.proposal import Ints
from lipcert.proof.local.region import linear_on_box


def rivals(labels: Ints, classes: int) -> Ints:
    """Return (B, classes - 1) the classes other than the label, in order."""
    others = np.arange(classes - 1)[None]
    return others + (others >= labels[:, None])


def differences(labels: Ints, classes: int) -> Float:
    """Return (B, classes - 1, classes) coefficients of the margins on the outputs."""
    found = np.zeros((len(labels), classes - 1, classes))
    np.put_along_axis(found, rivals(labels, classes)[..., None], -1.0, axis=2)
    found[np.arange(len(labels)), :, labels] = 1.0
    return found


def margins_on_boxes(steps: Steps, found: list[Box], labels: Ints) -> Float:
    """Return (B, classes - 1) margins from boxes; the affine nodes at the end are taken with the differences."""
    last = at = len(steps.nodes) - 1
    while isinstance(steps.nodes[at].op, Affine):
        at = steps.nodes[at].inputs[0]
    a = differences(labels, steps.nodes[last].size)
    account = Account.zero(a)
    a = Backward(steps, found, {}).send(last, a, account, at)
    return account.below(linear_on_box(a, *(end.reshape(len(labels), -1) for end in found[at])))
