r"""Norms from absolute values: exact for l1 and linf, a sound fallback for l2.

For a linear operator A with entries a_ij:

* linf: ||A|| = max_i sum_j |a_ij|, that is |A| applied to ones; l1: the same of the adjoint;
* l2: ||A||_2 <= || |A| ||_2, and for any x > 0, || |A| ||_2^2 = rho(|A|'|A|) <= max_j (|A|'|A| x)_j / x_j
  (Collatz 1942, Wielandt 1950). From x = 1 this is at most ||A||_1 ||A||_inf; a few power steps bring it to
  the norm of |A|, never above the Frobenius norm in the limit. It is exact for operators without negative
  entries (average pooling) up to the convergence of x, and any x gives a bound.

The operators are applied by `network.linear`, so every border, stride, dilation and group is that of the
evaluator. Where a circular kernel wraps onto itself, the sum of absolute values bounds the absolute value
of the sum. All terms are non-negative, so `inflate` counts the rounding.
"""

from __future__ import annotations

import math

import numpy as np

from lipcert.network.enclosure import Float
from lipcert.network.linear import apply_adjoint, apply_linear
from lipcert.network.operators import Affine, AvgPool, Conv, ConvTranspose, Dense, Gather
from lipcert.proof.rounding import inflate, sqrt_up

Shape = tuple[int, ...]

_STEPS = 12  # power steps; a matter of tightness only
_FLOOR = 2.0**-400  # keeps x positive, far above what underflow can touch


class Magnitude:
    """|A| and its adjoint, rounded up. Weights are of order 1 (see `norms.scaling`)."""

    def __init__(self, op: Affine, in_shape: Shape, out_shape: Shape, weight: Float | None) -> None:
        """Take the non-negative numbers of the operator: |centre|, |centre| + radius, or the radius alone."""
        self.op, self.weight = op, weight
        self.in_shape, self.out_shape = in_shape, out_shape
        self.terms = max_terms(op, in_shape)

    def forward(self, x: Float) -> Float:
        """Return an upper bound of |A| x for x >= 0 of the input's shape."""
        return inflate(apply_linear(self.op, x[None], self.weight, self.out_shape)[0], self.terms)

    def adjoint(self, y: Float) -> Float:
        """Return an upper bound of |A|' y for y >= 0 of the output's shape."""
        return inflate(apply_adjoint(self.op, y[None], self.weight, self.in_shape)[0], self.terms)

    def linf(self) -> float:
        """Return the largest row sum, rounded up."""
        return float(self.forward(np.ones(self.in_shape)).max(initial=0.0))

    def l1(self) -> float:
        """Return the largest column sum, rounded up."""
        return float(self.adjoint(np.ones(self.out_shape)).max(initial=0.0))

    def l2(self) -> float:
        """Return the Collatz-Wielandt bound of the l2 norm."""
        x = np.ones(self.in_shape)
        if not apply_linear(self.op, x[None], self.weight, self.out_shape).any():
            return 0.0  # sums of non-negative weights, so all weights in use are zero
        for _ in range(_STEPS):
            x = self.adjoint(self.forward(x))
            x = np.maximum(x / x.max(initial=_FLOOR), _FLOOR)
        ratio = self.adjoint(self.forward(x)) / x
        return sqrt_up(float(inflate(ratio, 1).max(initial=0.0)))


def max_terms(op: Affine, in_shape: Shape) -> int:
    """Return the largest number of products and quotients that an entry of A x or A' y adds up."""
    match op:
        case Dense():
            return max(op.weight.shape)
        case Conv() | ConvTranspose():
            first, second, *kernel = op.weight.shape
            channels = max(first // op.groups, second)
            return channels * math.prod(kernel) * (_copies(op, in_shape) if isinstance(op, Conv) else 1)
        case AvgPool():
            return math.prod(op.window) + 1
        case Gather():
            return op.index.size
        case _:
            return 1


def _copies(op: Conv, in_shape: Shape) -> int:
    """Return in how many places of the padded image an input entry may stand."""
    if not op.circular:
        return 1
    return math.prod(
        math.ceil((max(0, a) + n + max(0, b)) / n) for (a, b), n in zip(op.padding, in_shape[1:], strict=True)
    )
