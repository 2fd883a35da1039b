"""`gershgorin`: one multiplier per neuron from row sums, the scaling of AOL and SLL.

The cap D_i = sum_j |S_ij| q_j / q_i, S = W P W', for `chain.inverse_of`: by Gershgorin, D >= S for every q > 0. Here
q is the root of S's diagonal.

Source: AOL (Prach & Lampert 2022), SLL (Araujo et al. 2023): T_i = sum_j |W'W|_ij q_j / q_i.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from lipcert.bounds.chain import inverse_of
from lipcert.bounds.multiplier_method import LayerwiseMethod
from lipcert.network.enclosure import Float


class Gershgorin(LayerwiseMethod):
    """Layer by layer, one multiplier per neuron, no factorisation."""

    name: ClassVar[str] = "gershgorin"
    summary: ClassVar[str] = "one multiplier per neuron from scaled row sums (AOL, SLL)"
    cost: ClassVar[str] = "three matrix products per layer, n^3"

    def layer(self, gain: Float, alpha: Float, beta: Float) -> Float:
        """Return the multipliers for the cap of scaled row sums."""
        scale = np.sqrt(np.maximum(np.diag(gain), 0.0))
        safe = np.where(scale > 0, scale, 1.0)
        return inverse_of(np.abs(gain) @ safe / safe, alpha, beta)
