"""Solving with the Schur matrix H (the Hessian of the barrier).

H mixes scales (1/mu^2 in the directions that Z loses, 1 elsewhere), so it is first scaled to unit diagonal,
which for a positive definite matrix is within a factor n of the best diagonal scaling (van der Sluis 1969).
One factorisation: N^3/3 flops; one solve: 2 N^2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lipcert.bounds.lipsdp._arrays import Array, add_to_diagonal, all_seen, cholesky, copy, solve_vector
from lipcert.bounds.threads import all_threads


@dataclass(frozen=True)
class Schur:
    """Cholesky factor of S H S with S = diag(scale) = diag(H)^-1/2."""

    root: Array
    scale: Array

    @classmethod
    def of(cls, lower: Array) -> Schur | None:
        """Factorise from the lower triangle, which is overwritten; None where it cannot be done."""
        diagonal = copy(lower.diagonal())
        if not bool((diagonal > 0).all()) or not math.isfinite(float(diagonal.max())):
            return None
        scale = diagonal**-0.5
        lower *= scale[:, None]
        lower *= scale
        shift = 0.0
        # Rounding may cost H its definiteness in the last steps; a shift of some ulp only shortens them.
        for attempt in range(4):
            with all_threads(len(lower)):
                root = cholesky(lower)
            if root is not None and all_seen([root]):
                return cls(root, scale)
            extra = 1e-14 * 30.0**attempt
            add_to_diagonal(lower, extra - shift)
            shift = extra
        return None

    def solve(self, rhs: Array) -> Array:
        """H^-1 rhs for one right-hand side."""
        return self.scale * solve_vector(self.root, self.scale * rhs)
