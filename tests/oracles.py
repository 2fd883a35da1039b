"""What a network's Lipschitz constant is at least."""

from __future__ import annotations

import numpy as np

from lipcert.network import Network
from lipcert.testing.jacobian import DERIVATIVES, exact_jacobian, operator_norm

__all__ = ["DERIVATIVES", "exact_jacobian", "lower_bound_by_sampling", "operator_norm"]


def lower_bound_by_sampling(network: Network, norm: str, rng: np.random.Generator, samples: int = 16) -> float:
    """Return a lower bound of the Lipschitz constant: the largest Jacobian norm at random points.

    Lowered by 2^-40 relative, far more than the rounding errors of Jacobians of networks this small, so that a
    correct upper bound is never below it.
    """
    best = 0.0
    for sample in range(samples):
        x = rng.normal(size=network.input_shape) * (0.1, 1.0, 1.0, 5.0)[sample % 4]
        best = max(best, operator_norm(exact_jacobian(network, x), norm))
    return best * (1.0 - 2.0**-40)
