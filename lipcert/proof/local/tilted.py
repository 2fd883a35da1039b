r"""Sectors of a ReLU around an anchor, of any middle slope, tilted by what is linear in the differences.

Let z* be the anchor's value, z in [l, u] any other, dz = z - z*, dv = v - v*, and m in [0, 1] any number.

* z* >= 0, m >= 1/2: with b = 2 m - 1, r = 1 - m and y = v - z = dv - dz >= 0,

      (dv - m dz)^2 - r^2 dz^2 = (dv - dz)(dv - b dz) = y (v - z* - b dz) = - y (z* + b (z - z*)),

  as y v = 0. Where y > 0, z >= l, so that is at most p y with p = b (z* - l) - z*.

* z* <= 0, m <= 1/2: with b = 1 - 2 m, r = m and y = v = dv >= 0,

      (dv - m dz)^2 - r^2 dz^2 = v (v - 2 m dz) = v (b z + (1 - b) z*),

  as v^2 = v z. Where v > 0, z <= u, so that is at most p y with p = b (u - z*) + z*.

In both y = k dz + w, w = dv - m dz, with k = m - 1 or k = m: w^2 <= r^2 dz^2 + p (k dz + w), and p may be larger, as
y >= 0. The secants seen from the anchor are p = 0; other m give what products of z - l or u - z with y say, the
constraints of the triangle's sides, summed. p decreases in z* in the first case and increases in the second, so bounds
of z* give bounds of p.

Source: quadratic constraints of ReLUs with local bounds (Raghunathan, Steinhardt & Liang 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lipcert.network.enclosure import Float, round_up
from lipcert.network.operators import Elementwise
from lipcert.proof.local.affine import Box
from lipcert.proof.local.secants import anchored_sector

LEAST = 2.0**-20  # of r: a larger one is as valid, and zero would say that a neuron is linear


@dataclass(frozen=True)
class Tilted:
    """w = dv - m dz obeys w^2 <= r^2 dz^2 + p (k dz + w): arrays (B, *shape).

    Attributes:
        middle: m. radius: r, exactly zero where the activation is linear on box and anchor.
        rise: p, zero where m is that of the secants. slope: k.
    """

    middle: Float
    radius: Float
    rise: Float
    slope: Float

    def straightened(self, line: Float | None) -> Tilted:
        """Return the same, linear where slopes of lines are given."""
        if line is None:
            return self
        linear = ~np.isnan(line)
        rest = (np.where(linear, 0.0, part) for part in (self.radius, self.rise, self.slope))
        return Tilted(np.where(linear, line, self.middle), *rest)


def tilted_sector(op: Elementwise, centre: Box, box: Box, middle: Float | None) -> Tilted:
    """Return sectors of proposed middle slopes where these serve, and those of the secants elsewhere.

    Args:
        op, centre, box: as of `anchored_sector`.
        middle: m (B, *shape), any numbers; None for the secants'.
    """
    secants = anchored_sector(op, centre, box)
    nothing = np.zeros_like(secants.middle)
    if middle is None or op.name != "relu":
        return Tilted(secants.middle, secants.radius, nothing, nothing)
    unstable = secants.radius > 0
    right = unstable & (centre[0] >= 0) & (middle >= 0.5) & (middle <= 1)
    left = unstable & ~right & (centre[1] <= 0) & (middle >= 0) & (middle <= 0.5)
    share = round_up(np.abs(2.0 * middle - 1.0))
    over_low = np.nextafter(round_up(share * np.maximum(centre[0] - box[0], 0.0)) - centre[0], np.inf)
    over_high = np.nextafter(round_up(share * np.maximum(box[1] - centre[1], 0.0)) + centre[1], np.inf)
    return Tilted(
        np.where(right | left, middle, secants.middle),
        np.where(right, np.maximum(1.0 - middle, LEAST), np.where(left, np.maximum(middle, LEAST), secants.radius)),
        np.where(right, over_low, np.where(left, over_high, nothing)),
        np.where(right, middle - 1.0, np.where(left, middle, nothing)),
    )
