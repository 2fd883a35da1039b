"""Solving with the Schur matrix H (the Hessian of the barrier).

H mixes scales (1/mu^2 in the directions that Z loses, 1 elsewhere), so it is first scaled to unit diagonal,
which for a positive definite matrix is within a factor n of the best diagonal scaling (van der Sluis 1969).
One factorisation: N^3/3 flops; one solve: 2 N^2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.linalg.blas import dtrsv

from lipcert.bounds.threads import all_threads


@dataclass(frozen=True)
class Schur:
    """Cholesky factor of S H S with S = diag(scale) = diag(H)^-1/2."""

    root: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def of(cls, lower: torch.Tensor) -> Schur | None:
        """Factorise from the lower triangle, which is overwritten; None where it cannot be done."""
        diagonal = lower.diagonal().clone()
        if not bool(torch.isfinite(diagonal).all()) or bool((diagonal <= 0).any()):
            return None
        scale = diagonal.rsqrt()
        lower.mul_(scale[:, None]).mul_(scale)
        shift = 0.0
        # Rounding may cost H its definiteness in the last steps; a shift of some ulp only shortens them.
        for attempt in range(4):
            with all_threads(len(lower)):
                root, info = torch.linalg.cholesky_ex(lower)
            if int(info) == 0:
                return cls(root, scale)
            extra = 1e-14 * 30.0**attempt
            lower.diagonal().add_(extra - shift)
            shift = extra
        return None

    def solve(self, rhs: torch.Tensor) -> torch.Tensor:
        """H^-1 rhs for one right-hand side."""
        scaled = self.scale * rhs
        if self.root.is_cuda:
            return self.scale * torch.cholesky_solve(scaled[:, None], self.root)[:, 0]
        # torch (and LAPACK) solve for matrices: for one column that takes ten times as long as a matrix times a vector
        root, by_columns = self.root.numpy(), self.root.stride(0) == 1
        lower = {"a": root if by_columns else root.T, "lower": by_columns}
        half = dtrsv(x=scaled.numpy(), trans=not by_columns, **lower)
        return self.scale * torch.from_numpy(dtrsv(x=half, trans=by_columns, overwrite_x=True, **lower))
