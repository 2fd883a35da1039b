"""`gershgorin`: one multiplier per neuron from row sums, the scaling of AOL and SLL.

For slopes [0, 1], any diagonal D >= S = W P W' keeps 2 D - S >= D, so P = D (2 D - S)^-1 D <= D. Gershgorin:
D_i = sum_j |S_ij| q_j / q_i >= S for every q > 0. In the notation of `chain.propagate`, 1 / (2 lambda) = r beta D.

Source: AOL (Prach & Lampert 2022), SLL (Araujo et al. 2023): T_i = sum_j |W'W|_ij q_j / q_i.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from lipcert.bounds.eclipse_fast import FLOOR
from lipcert.bounds.multiplier_method import LayerwiseMethod
from lipcert.network.enclosure import Float


class Gershgorin(LayerwiseMethod):
    """Layer by layer, one multiplier per neuron, no factorisation."""

    name: ClassVar[str] = "gershgorin"
    summary: ClassVar[str] = "one multiplier per neuron from scaled row sums (AOL, SLL)"
    cost: ClassVar[str] = "three matrix products per layer, n^3"

    def layer(self, gain: Float, alpha: Float, beta: Float) -> Float:
        """Return r b times the scaled row sums of |S|, with q the root of S's diagonal."""
        radius, slope = 0.5 * (beta - alpha), np.maximum(np.abs(alpha), np.abs(beta))
        scale = np.sqrt(np.maximum(np.diag(gain), 0.0))
        safe = np.where(scale > 0, scale, 1.0)
        rows = np.abs(gain) @ safe / safe
        floor = max(float(rows.max(initial=0.0)), float(np.finfo(np.float64).tiny)) * FLOOR
        return np.asarray(radius.max() * slope.max() * np.maximum(rows, floor) * (1.0 + FLOOR) + floor)
