r"""Secants of activations, seen from the values at the samples, with every rounding counted.

Let z be in [c, c'], z' in a box that holds it, z' != z. Of a curved activation all slopes on the box count (`curved`).
Of a piecewise linear one: along a piece of f that does not hold z, the secant
(f(z') - f(z)) / (z' - z) is monotone in z'; along the one that holds z, it is the slope of the piece, which the secant
to one of its ends has too. So the extreme secants over z' are those to ends of the box and to kinks inside; and over z,
by the same argument, those from c, c' and kinks between them. A secant is a mean of the slopes between its points,
which bounds it where the quotient of two small numbers says little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lipcert.network.enclosure import UNIT, Float
from lipcert.network.operators import Elementwise
from lipcert.proof.local import curved
from lipcert.proof.local.affine import Box
from lipcert.proof.local.arithmetic import above, below, over, sum_error
from lipcert.proof.local.straight import STRAIGHT, kinks, pieces, values


@dataclass(frozen=True)
class Sector:
    """dv = m dz + w with |w| <= r |dz|: arrays (B, *shape). NaN where the box was none.

    Attributes:
        middle: m. radius: r, exactly zero where the activation is linear on the box.
    """

    middle: Float
    radius: Float


def anchored_sector(op: Elementwise, centre: Box, box: Box) -> Sector:
    """Return where the secants from the centre to points of the box lie.

    Args:
        op: an activation; of curved ones the slopes on all of the box count, see `curved`.
        centre: bounds (B, *shape) of the values at the samples.
        box: bounds of the values on the regions.
    """
    low, high = np.minimum(box[0], centre[0]), np.maximum(box[1], centre[1])
    if op.name in STRAIGHT:
        alpha, beta = _secants(op, centre, (low, high))
    else:
        alpha, beta = curved.slopes_between(op, low, high)
    middle = alpha + (beta - alpha) / 2
    radius = np.maximum(beta - middle, middle - alpha)
    return Sector(middle, np.where(alpha == beta, 0.0, np.nextafter(radius, np.inf)))


def _secants(op: Elementwise, centre: Box, box: Box) -> tuple[Float, Float]:
    """Return the least and the largest secant; the box holds the centre."""
    least, most = slopes_between(op, *box)
    alpha, beta = _secant(op, _ends(op, *centre)[:, None], _ends(op, *box)[None])
    return np.maximum(alpha.min(axis=(0, 1)), least), np.minimum(beta.max(axis=(0, 1)), most)


def slopes_between(op: Elementwise, low: Float, high: Float) -> tuple[Float, Float]:
    """Return the least and the largest slope on [low, high]; on points, those beside them. NaN where low > high."""
    bounds = [np.array(-np.inf), *kinks(op), np.array(np.inf)]
    alpha, beta = np.full(low.shape, np.inf), np.full(low.shape, -np.inf)
    point = low == high
    for k, slope in enumerate(pieces(op)):
        touches, meets = (low <= bounds[k + 1]) & (bounds[k] <= high), (low < bounds[k + 1]) & (bounds[k] < high)
        here = np.where(point, touches, meets)
        alpha, beta = np.where(here, np.minimum(alpha, slope), alpha), np.where(here, np.maximum(beta, slope), beta)
    box = low <= high
    return np.where(box, alpha, np.nan), np.where(box, beta, np.nan)


def _ends(op: Elementwise, low: Float, high: Float) -> Float:
    return np.stack([low, high, *(np.minimum(np.maximum(kink, low), high) for kink in kinks(op))])


def _secant(op: Elementwise, start: Float, end: Float) -> tuple[Float, Float]:
    """Return bounds of one secant; of points too close to each other, the slopes between them.

    With rise = fl(f(end) - f(start)), off by E at most, and run = (end - start)(1 + d), |d| <= u: the quotient of the
    computed ones is off by E / |run| (1 + 2u) + 3u |q| at most.
    """
    (y, lost), (y_0, lost_0) = values(op, end), values(op, start)
    rise, run = y - y_0, end - start
    safe = np.where(run == 0, 1.0, run)
    quotient = rise / safe
    error = over((lost + lost_0 + sum_error(rise)) / np.abs(safe) + 4.0 * UNIT * np.abs(quotient), 8)
    least, most = slopes_between(op, np.minimum(start, end), np.maximum(start, end))
    low, high = below(quotient, error), above(quotient, error)
    return (
        np.where(run == 0, least, np.maximum(least, low)),
        np.where(run == 0, most, np.minimum(most, high)),
    )
