"""`eclipse-fast`: one multiplier per layer in closed form.

The cap D = ||S|| I, S = W P W', for `chain.inverse_of`: layer by layer P <= b^2 ||S||, so the bound is never above
the product of the norms and the slopes.

Source: ECLipsE-Fast, Xu & Sivaranjani, NeurIPS 2024 (slopes [0, 1]); the general slopes are derived in `chain`.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from lipcert.bounds.chain import inverse_of, top_eigenvalue
from lipcert.bounds.multiplier_method import LayerwiseMethod
from lipcert.network.enclosure import Float


class EclipseFast(LayerwiseMethod):
    """Layer by layer, one scalar each."""

    name: ClassVar[str] = "eclipse-fast"
    summary: ClassVar[str] = "one multiplier per layer, in closed form (ECLipsE-Fast)"
    cost: ClassVar[str] = "one eigenvalue problem per layer, n^3"

    def layer(self, gain: Float, alpha: Float, beta: Float) -> Float:
        """Return the multipliers for the cap ||S||."""
        return inverse_of(np.full(len(gain), top_eigenvalue(gain)), alpha, beta)
