"""`lipsdp-layer`: LipSDP with one multiplier for each layer, by general conic solvers.

The program of `lipsdp-cvxpy` with Lambda_k = t_k I: far fewer unknowns, the same matrices. In exact arithmetic it is
never below `lipsdp`, whose multipliers are free; where all slopes of a layer are the same it is never above
`eclipse-fast` and `lip-lt`, which use such multipliers (see there).

Source: LipSDP-Layer, Fazlyab et al. 2019.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from lipcert.bounds.lipsdp_cvxpy import LipSdpCvxpy


class LipSdpLayer(LipSdpCvxpy):
    """The best bound of the multiplier rule with one multiplier per layer."""

    name: ClassVar[str] = "lipsdp-layer"
    summary: ClassVar[str] = "one multiplier per layer, all jointly optimal, by general conic solvers"
    cost: ClassVar[str] = "one conic program with a matrix of side 2 n per layer, as `lipsdp-cvxpy`"

    def unknowns(self, sizes: list[int]) -> list[Any]:
        """Return t_k for all neurons of layer k."""
        import cvxpy as cp

        return [cp.Variable(nonneg=True) * np.ones(size) for size in sizes]
