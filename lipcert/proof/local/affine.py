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

from functools import cached_property

import numpy as np

from lipcert.network.enclosure import TINY, Float, gamma, round_up
from lipcert.network.graph import Node, Shape
from lipcert.network.linear import apply_adjoint, apply_linear, coefficients, column_terms, offset, row_terms
from lipcert.network.operators import Affine, AvgPool, Conv, Dense, Gather, Reshape, Scale
from lipcert.proof.local.arithmetic import above, below, dual_norms, middle, over
from lipcert.proof.local.entries import Entries, Places, merges

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
        self._matrices: dict[np.dtype[np.float64], Float | None] = {}
        self._kernels: dict[tuple[np.dtype[np.float64], bool], Float] = {}

    @cached_property
    def has_bias(self) -> bool:
        """Whether the centre of the constant part is not zero everywhere."""
        return bool(self.bias.any())

    @property
    def weight(self) -> Float | None:
        """W^ as the operator stores it, None where its structure says it all."""
        return self._weight

    def transposed(self, dtype: np.dtype[np.float64]) -> Float | None:
        """Return W^' as a matrix, where functions are sent back by matrix products; else None. Made once.

        Of a dense layer (in, out); of a convolution over two axes (kernel rows * columns * in, out).

        Args:
            dtype: float64; where nothing is proved, float32 too.
        """
        if dtype not in self._matrices:
            matrix = self._matrix()
            self._matrices[dtype] = None if matrix is None else matrix.astype(dtype, copy=False)
        return self._matrices[dtype]

    def _matrix(self) -> Float | None:
        op = self.op
        if isinstance(op, Dense) and len(self.source) == 1 and self._weight is not None:
            return self._weight.T
        if not isinstance(op, Conv) or self._weight is None or len(op.stride) != 2:
            return None
        if op.groups != 1 or op.circular or any(d != 1 for d in op.dilation):
            return None
        return np.ascontiguousarray(self._weight.transpose(2, 3, 1, 0).reshape(-1, self.target[0]))

    def kernels(self, dtype: np.dtype[np.float64]) -> Float:
        """Return W^ of a convolution over two axes that is `transposed`: (kernel rows, out, kernel columns * in)."""
        return self._by_rows(dtype, turned=False)

    def turned(self, dtype: np.dtype[np.float64]) -> Float:
        """Return the same of the transpose, with the kernel turned: (kernel rows, in, kernel columns * out)."""
        return self._by_rows(dtype, turned=True)

    def _by_rows(self, dtype: np.dtype[np.float64], turned: bool) -> Float:
        if (dtype, turned) not in self._kernels:
            assert isinstance(self.op, Conv) and self._weight is not None
            weight = self._weight[:, :, ::-1, ::-1].swapaxes(0, 1) if turned else self._weight
            rows = weight.transpose(2, 0, 3, 1).reshape(weight.shape[2], weight.shape[0], -1)
            self._kernels[dtype, turned] = np.ascontiguousarray(rows, dtype=dtype)
        return self._kernels[dtype, turned]

    @property
    def keeps_order(self) -> bool:
        """Whether the node only gives its entries another shape."""
        return isinstance(self.op, Reshape)

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

    def uncertain(self, magnitude: Float) -> Float:
        """Return (B, *target) upper bounds of what the radii of W may change; zero where W is exact.

        magnitude: (B, *source) upper bounds of the inputs' absolute values.
        """
        if self._radius is None:
            return np.zeros((len(magnitude), *self.target))
        return over(self._apply(magnitude, self._radius), row_terms(self.op) + 1)

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

    def box_adjoint(self, low: Float, high: Float) -> Box:
        """Return the box of W' y from that of y, (B, *target)."""
        if self.moves and self.terms <= 1:
            return self._apply_adjoint(low, None), self._apply_adjoint(high, None)
        mid, radius = middle(low, high)
        count = self.terms + 2
        spread = radius + gamma(count) * np.abs(mid)
        total = self._apply_adjoint(np.where(spread == 0, 0.0, round_up(spread, 4)), self._size)
        if self._radius is not None:
            total = total + self._apply_adjoint(round_up(np.abs(mid) + radius), self._radius)
        value, error = self._apply_adjoint(mid, self._weight), over(total, 3 * count + 8)
        return below(value, error), above(value, error)

    def image(self, a: Float) -> Float:
        """Return fl(W^ a) of the shape (B, S, m) for a (B, S, n)."""
        return self._apply(a.reshape(-1, *self.source), self._weight).reshape(*a.shape[:2], -1)

    def charge_image(self, magnitude: Float) -> Float:
        """Return (B, n) what fl(W^ a).y may differ from y.W a for each unit of |a|, if |y| <= magnitude (B, *target).

        But for underflow, which costs `row_terms` TINY for each unit of the magnitude.
        """
        terms = row_terms(self.op) + 2
        total = gamma(terms) * self._apply_adjoint(magnitude, self._size)
        if self._radius is not None:
            total = total + self._apply_adjoint(magnitude, self._radius)
        return over(total, 3 * self.terms + 8).reshape(len(magnitude), -1)

    def rows(self, index: Places) -> Float | None:
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
        if self._largest is None or not isinstance(self.op, (Dense, Conv, Scale)) or merges(self.op, self.source):
            return None
        if isinstance(self.op, Dense):
            return np.broadcast_to(dual_norms(self._largest, "linf" if norm == "linf" else "l2"), self.target)
        ones = np.ones((1, *self.source))
        return self.magnify(ones)[0] if norm == "linf" else round_up(np.sqrt(self.squared(ones)[0]))

    def magnify(self, x: Float) -> Float:
        """Return upper bounds of |W| x for x >= 0 of the shape (B, *source)."""
        return over(self._apply(x, self._largest), row_terms(self.op) + 1)

    def magnify_adjoint(self, y: Float) -> Float:
        """Return upper bounds of |W|' y for y >= 0 of the shape (B, *target)."""
        return over(self._apply_adjoint(y, self._largest), self.terms + 1)

    def squared(self, x: Float) -> Float:
        """Return upper bounds of sum_j W_ij^2 x_j for x >= 0 of the shape (B, *source)."""
        if merges(self.op, self.source):
            return over(np.square(self.magnify(np.sqrt(over(x, 1)))), 2)
        if isinstance(self.op, AvgPool):
            return over(self.magnify(x) / self.op.counts, 1)
        return over(self._apply(x, self._squares), row_terms(self.op) + 1)

    @cached_property
    def radius_norm(self) -> float:
        """An upper bound of the l2 norm of what the radii allow: the root of those of l1 and linf."""
        if self._radius is None:
            return 0.0
        rows, columns = np.ones((1, *self.source)), np.ones((1, *self.target))
        largest = over(self._apply(rows, self._radius).max(), row_terms(self.op))
        widest = over(self._apply_adjoint(columns, self._radius).max(), self.terms)
        return float(round_up(np.sqrt(round_up(largest * widest) + TINY), 2))

    @cached_property
    def entries(self) -> Entries:
        """Entries of W^, exactly."""
        return Entries(self.op, self.source, self.target)

    @cached_property
    def _largest(self) -> Float | None:
        """Upper bounds of |W|, None where the structure says it all."""
        if self._size is None or self._radius is None:
            return self._size
        return round_up(self._size + self._radius)

    @cached_property
    def _squares(self) -> Float | None:
        """Upper bounds of the squares of W, zero where W is."""
        if self._largest is None:
            return None
        return np.where(self._largest == 0, 0.0, round_up(np.square(self._largest) + TINY))

    def _apply_adjoint(self, y: Float, weight: Float | None) -> Float:
        return apply_adjoint(self.op, y, weight, self.source)

    def _apply(self, x: Float, weight: Float | None) -> Float:
        return apply_linear(self.op, x, weight, self.target)
