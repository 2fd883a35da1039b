r"""From a global bound to a certified radius for each sample.

Let m_j = f_y - f_j be the margin of class y over rival j, and K_yj a Lipschitz constant of that function. For all
x' with ||x' - x|| <= r, m_j(x') >= m_j(x) - K_yj r, so x keeps its class while r < m_j(x) / K_yj for every j: the
radius is the minimum over *all* rivals, and a tie (margin 0) is a loss.

K_yj, with q dual to the ball's norm p (1/p + 1/q = 1), by Hoelder's inequality:

* the features h before a linear head W are L-Lipschitz from p to p:
  |(w_y - w_j)(h - h')| <= ||w_y - w_j||_q L ||x - x'||;
* the logits are L-Lipschitz from p to p: the same with w_i = e_i: ||e_y - e_j||_q is sqrt 2, 2 and 1 for l2, linf, l1.

Every step is rounded to the safe side; level of the radii: that of L and of the margins.
Source: Tsuzuku et al. 2018; Singla et al. 2022 for the per-rival form.
"""

from __future__ import annotations

import numpy as np

from lipcert.network.enclosure import UNIT, Float, round_up
from lipcert.network.operators import Dense
from lipcert.proof.claims import Norm
from lipcert.proof.rounding import inflate, norms_up, product_up, sqrt_up, total_up

LARGEST = float(np.finfo(np.float64).max)


def head_constants(head: Dense, bound: float, norm: Norm) -> Float:
    """Return K, (classes, classes): upper bounds of the margins' Lipschitz constants behind a linear head.

    head: the last linear layer, weight (classes, n). bound: Lipschitz bound of its input in `norm`.
    Cost: 3 classes^2 n flops.
    """
    weight, radius = head.weight.mid, head.weight.radius
    rows = []
    for row, spread in zip(weight, radius, strict=True):
        difference = np.nextafter(np.abs(weight - row), np.inf) + (radius + spread)
        difference = round_up(difference) if not head.weight.is_exact else difference
        rows.append(_dual_norm(difference, norm))
    return inflate(np.array(rows) * bound, 1)


def logit_constants(classes: int, bound: float, norm: Norm) -> Float:
    """Return K, (classes, classes), where `bound` is a Lipschitz bound of all logits in `norm`."""
    factor = {"l1": 1.0, "l2": sqrt_up(2.0), "linf": 2.0}[norm]
    return np.full((classes, classes), product_up(factor, bound))


def _dual_norm(difference: Float, norm: Norm) -> Float:
    """Return upper bounds of the dual norms of the rows of a non-negative array."""
    if norm == "l1":
        return np.asarray(difference.max(axis=1))
    return norms_up(difference) if norm == "l2" else total_up(difference)


def margins_down(logits: Float, labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]], errors: Float) -> Float:
    """Return lower bounds of the true margins over each rival, (N, classes); infinite for the class itself.

    logits: (N, classes) float64 as computed. labels: (N,). errors: (N,), upper bounds of the l2 distance between
    computed and true logits; a margin is off by at most sqrt 2 times that.
    """
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    room = round_up(errors * sqrt_up(2.0))[:, None]
    with np.errstate(invalid="ignore"):
        margins = np.nextafter(np.nextafter(own - logits, -np.inf) - room, -np.inf)
    margins = np.where(np.isfinite(margins), margins, -np.inf)  # NaN or overflow: nothing is known
    np.put_along_axis(margins, labels[:, None], np.inf, axis=1)
    return margins


def radii(margins: Float, labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]], constants: Float) -> Float:
    """Return certified radii, (N,) float64, rounded down; 0 where some margin is not positive.

    margins: (N, classes) from `margins_down`. constants: (classes, classes) from one of the functions above. Within
    any smaller distance, and at the radius itself, no rival reaches the class's logit.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratios = margins / constants[labels]
    ratios = np.where(margins > 0, np.where(constants[labels] > 0, ratios, LARGEST), 0.0)
    np.put_along_axis(ratios, labels[:, None], LARGEST, axis=1)
    smallest = ratios.min(axis=1, initial=LARGEST)
    # strictly inside: at the rounded radius the margin is still positive, so a tie is excluded
    return np.maximum(np.minimum(smallest, LARGEST) * (1.0 - 4.0 * UNIT), 0.0)
