r"""Affine nodes applied to boxes and to linear functions, with every rounding counted.

Let y = W h + b with |W - W^| <= R, |b - b^| <= r (an `Enclosure` each), and |fl(x.y) - x.y| <= gamma_t |x|.|y| + t eta
for dot products of t terms in any order, fused or not (Higham, ch. 3); eta = 2^-1075.

*Forwards*, h in a box of centre m and radius d:

    |y - fl(W^ m + b^)| <= |W^| (d + gamma_{t+2} |m|) + R (|m| + d) + gamma_{t+2} |b^| + r,

one product with |W^| for both of its terms.

*Backwards*, a linear function a.y of the outputs: the computed coefficients fl(W^' a) miss the exact ones by
gamma_t |W^|' |a|, which for |h| <= M costs at most gamma_t (|W^|' |a|).M = |a|.(gamma_t |W^| M). So no second product
with a matrix of coefficients is needed: the vector

    charge = gamma_t |W^| M + R M + gamma_m |b^| + r

is made once for each node and sample, and |a|.charge bounds everything that is lost on the way through the node: the
rounding of the coefficients, what the radii of W and b allow, and the rounding of the product a.b^ over m outputs.
"""

from __future__ import annotations

import numpy as np

from lipcert.network.enclosure import Float, gamma, round_up
from lipcert.network.graph import Node, Shape
from lipcert.network.linear import apply_adjoint, apply_linear, coefficients, column_terms, offset, row_terms
from lipcert.network.operators import Affine, Conv, Dense, Gather, Reshape, Scale
from lipcert.proof.local.arithmetic import above, below, dual_norms, middle, over

Box = tuple[Float, Float]  # lower and upper bounds of a node, (B, *shape) each


class AffineStep:
    """One affine node.

    Args of the constructor:
        node: the node.
        source: shape of its input.

    Attributes:
        op, source, target: the operator, the shapes of its input and output.
        terms: of the sums that its adjoint adds up.
        bias: of the shape `target`, the centre of the constant part.
    """

    def __init__(self, node: Node, source: Shape) -> None:
        assert isinstance(node.op, Affine)
        self.op, self.source, self.target = node.op, source, node.shape
        self.terms = column_terms(node.op, source)
        numbers, constant = coefficients(node.op), offset(node.op)
        self._weight = None if numbers is None else numbers.mid
        self._size = None if numbers is None else np.abs(numbers.mid)
        self._radius = None if numbers is None else numbers.rad
        self.bias = np.zeros(node.shape) if constant is None else np.broadcast_to(constant.mid, node.shape)
        self._bias_radius = 0.0 if constant is None else constant.radius

    @property
    def moves(self) -> bool:
        """Whether the node only moves entries, so that nothing is rounded forwards."""
        return isinstance(self.op, (Reshape, Gather))

    def box(self, low: Float, high: Float) -> Box:
        """Return the box of the outputs from that of the inputs."""
        if self.moves:
            return self._apply(low, self._weight), self._apply(high, self._weight)
        mid, radius = middle(low, high)
        count = row_terms(self.op) + 2
        spread = radius + gamma(count) * np.abs(mid)
        total = self._apply(np.where(spread == 0, 0.0, round_up(spread, 4)), self._size)
        if self._radius is not None:
            total = total + self._apply(round_up(np.abs(mid) + radius), self._radius)
        total = total + (gamma(count) * np.abs(self.bias) + self._bias_radius)
        value, error = self._apply(mid, self._weight) + self.bias, over(total, 3 * count + 8)
        return below(value, error), above(value, error)

    def charge(self, magnitude: Float) -> Float:
        """Return (B, m) what passing linear functions back costs for each unit of their coefficients (see the module).

        magnitude: (B, *source) upper bounds of the inputs' absolute values.
        """
        if self.moves and self.terms <= 1:
            return np.zeros((len(magnitude), self.bias.size))
        total = gamma(self.terms + 2) * self._apply(magnitude, self._size)
        if self._radius is not None:
            total = total + self._apply(magnitude, self._radius)
        total = total + (gamma(self.bias.size + 2) * np.abs(self.bias) + self._bias_radius)
        return over(total, 3 * row_terms(self.op) + 8).reshape(len(magnitude), -1)

    def adjoint(self, a: Float) -> Float:
        """Return fl(W^' a) of the shape (B, S, n) for coefficients a (B, S, m)."""
        flat = apply_adjoint(self.op, a.reshape(-1, *self.target), self._weight, self.source)
        return flat.reshape(*a.shape[:2], -1)

    def rows(self, index: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Float | None:
        """Return rows (B, S, n) of W^ at positions (B, S), or None where they are not at hand; nothing is rounded."""
        if isinstance(self.op, Dense) and len(self.source) == 1:
            assert self._weight is not None
            found: Float = self._weight[index]
            return found
        return None

    def reaches(self, norm: str) -> Float | None:
        """Return upper bounds, of the shape `target`, of the dual norms of the rows of W; None where none is at hand.

        For l1 balls they are those of the l2 ball around them. Rows of convolutions are sums over their entries: the
        squares are added up by the operator itself, with squared coefficients.
        """
        if self._weight is None or self._size is None or not isinstance(self.op, (Dense, Conv, Scale)):
            return None
        if isinstance(self.op, Conv) and self.op.circular:
            return None
        largest = self._size if self._radius is None else round_up(self._size + self._radius)
        if isinstance(self.op, Dense):
            return np.broadcast_to(dual_norms(largest, "linf" if norm == "linf" else "l2"), self.target)
        ones, count = np.ones((1, *self.source)), row_terms(self.op)
        if norm == "linf":
            return over(self._apply(ones, largest)[0], count)
        return round_up(np.sqrt(over(self._apply(ones, np.square(largest))[0], count + 1)))

    def _apply(self, x: Float, weight: Float | None) -> Float:
        return apply_linear(self.op, x, weight, self.target)
