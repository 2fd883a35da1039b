"""`eclipse-fast`: one multiplier per layer in closed form.

With one common slope interval and S = W P W' of norm s, the multiplier 1 / (2 c) gives
P = m^2 (S + r^2 S^2 / (c - r^2 S)) + c. Its largest eigenvalue belongs to s; with t = c - r^2 s it is
m^2 s + m^2 r^2 s^2 / t + t + r^2 s, least at t = m r s, where it is beta^2 s: nothing is lost at the top. So
c = r s (r + m) = r beta s. For neurons with different slopes, c_i uses r_i and b_i = max(|alpha_i|, |beta_i|).

Source: ECLipsE-Fast, Xu & Sivaranjani, NeurIPS 2024 (slopes [0, 1]); the general slopes are derived here.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from lipcert.bounds.multiplier_method import LayerwiseMethod
from lipcert.network.enclosure import Float

FLOOR = 2.0**-40  # relative: keeps layers that are (nearly) linear or dead strictly inside the domain


class EclipseFast(LayerwiseMethod):
    """Layer by layer, one scalar each."""

    name: ClassVar[str] = "eclipse-fast"
    summary: ClassVar[str] = "one multiplier per layer, in closed form (ECLipsE-Fast)"
    cost: ClassVar[str] = "one eigenvalue problem per layer, n^3"

    def layer(self, gain: Float, alpha: Float, beta: Float) -> Float:
        """Return r b ||S|| per neuron, b the larger slope in size."""
        top = float(np.linalg.eigvalsh(gain)[-1])
        radius, slope = 0.5 * (beta - alpha), np.maximum(np.abs(alpha), np.abs(beta))
        widest = max(float(slope.max()), FLOOR)
        scale = max(top, float(np.finfo(np.float64).tiny))
        return np.asarray(np.maximum(radius.max() * slope, FLOOR * widest**2) * scale * (1.0 + FLOOR))
