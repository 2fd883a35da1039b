"""The absolute-value rule for l1 and linf: |W_l| ... |W_1| instead of the product of their norms.

Theorem (linf). If |x - x'| <= 1 entrywise, then |z - z'| <= b entrywise at every node, where b is all ones at the
input, |A| b behind an affine operator, max(|alpha|, |beta|) b behind an elementwise activation, the sum behind a
sum, the concatenation, the entrywise maximum behind a maximum or a window, the largest entry of b behind a sort,
and half (log-softmax: twice) the largest entry behind a softmax. The bound is the largest entry of b at the
output. Proof: entry by entry, |A d| <= |A| |d|; for max pooling and sorting, |max a - max b| <= max |a - b| and
sorting is non-expansive in linf; for softmax see `composition`.

Theorem (l1). Write d for the difference of two evaluations. Going backwards through the nodes, keep weights u >= 0
on the nodes not yet passed such that |dy|_1 <= sum u . |d|. They start as all ones on the output y; passing a node
adds to the weights of its inputs: |A|' u for an affine operator, max(|alpha|, |beta|) u for an elementwise
activation, u to each input of a sum, a part of u to each input of a concatenation, u to each input of a maximum
(|max a_i - max b_i| <= sum |a_i - b_i|), to an entry under max pooling the sum of u over the windows it lies in,
the largest entry of u on the axis for a sort (non-expansive in l1), and half (log-softmax: max(1, n - 1) times)
the largest entry for a softmax. At the end |dy|_1 <= u . |dx|, and the bound is the largest entry of u there.

In exact arithmetic both are at most the product of the norms, often far below. Witness: none. The last bits depend
on the order in which BLAS adds.
Source: for dense chains e.g. Virmaux & Scaman 2018, sec. 5 (linf); here over graphs.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from lipcert.network.activations import slope_interval
from lipcert.network.enclosure import Enclosure, Float
from lipcert.network.graph import Network, Node, Shape
from lipcert.network.linear import apply_adjoint, apply_linear, coefficients, unfold
from lipcert.network.operators import (
    Affine,
    Concat,
    Conv,
    Elementwise,
    Extremum,
    Gather,
    MaxPool,
    Reshape,
    Softmax,
    Sort,
    Sum,
)
from lipcert.proof.certificate import Witness
from lipcert.proof.claims import Norm
from lipcert.proof.norms.magnitude import max_terms
from lipcert.proof.refusal import Refused
from lipcert.proof.rounding import inflate
from lipcert.proof.rules.base import Derivation, Rule


class Absolute(Rule):
    """Entrywise propagation of |dx| (linf), or of column sums backwards (l1). Witness: no arrays."""

    id: ClassVar[str] = "absolute/v1"
    norms: ClassVar[frozenset[Norm]] = frozenset({"l1", "linf"})

    def prove(self, network: Network, norm: Norm, witness: Witness) -> Derivation:
        """Derive the bound; cost: one forward (or backward) pass of a single sample."""
        if witness:
            raise Refused("the absolute rule takes no witness")
        with np.errstate(all="ignore"):  # what is not finite is refused by `inflate`
            entries = _forwards(network) if norm == "linf" else _backwards(network)
        return Derivation(float(entries.max(initial=0.0)))


def _forwards(network: Network) -> Float:
    values: list[Float] = [np.ones(network.input_shape)]
    for node in network.nodes[1:]:
        values.append(_forward(network, node, [values[i] for i in node.inputs]))
    return values[-1]


def _forward(network: Network, node: Node, inputs: list[Float]) -> Float:
    op, first = node.op, inputs[0]
    match op:
        case Affine():
            result: Float = apply_linear(op, first[None], _magnitude(op), node.shape)[0]
            if isinstance(op, (Reshape, Gather)):  # nothing is computed
                return result
            return inflate(result, max_terms(op, network.nodes[node.inputs[0]].shape))
        case Elementwise():
            return inflate(first * _slopes(op), 1)
        case Sum():
            return inflate(np.asarray(np.sum(inputs, axis=0)), len(inputs))
        case Concat():
            return np.concatenate(inputs, axis=op.axis)
        case Extremum():
            return np.asarray(np.maximum.reduce(inputs))
        case Sort():
            return np.broadcast_to(first.max(axis=-1, keepdims=True), first.shape)
        case MaxPool():
            windows = unfold(first[None], op.window, op.stride, op.padding, op.dilation, node.shape[1:])[0]
            return np.asarray(windows.max(axis=tuple(range(1, 1 + len(op.window)))))
        case Softmax():
            factor = 2.0 if op.log else 0.5
            return np.broadcast_to(inflate(factor * first.max(axis=op.axis, keepdims=True), 1), first.shape)
    raise Refused(f"the absolute rule has no theorem for {op.kind} at '{node.name}'")


def _backwards(network: Network) -> Float:
    sums: list[Float | None] = [None] * len(network.nodes)
    sums[-1] = np.ones(network.output_shape)
    for index in range(len(network.nodes) - 1, 0, -1):
        node, arriving = network.nodes[index], sums[index]
        if arriving is None:
            continue
        shapes = [network.nodes[i].shape for i in node.inputs]
        for i, part in zip(node.inputs, _backward(node, arriving, shapes), strict=True):
            before = sums[i]
            sums[i] = part if before is None else inflate(before + part, 1)
    return np.zeros(network.input_shape) if sums[0] is None else sums[0]


def _backward(node: Node, u: Float, shapes: list[Shape]) -> list[Float]:
    op = node.op
    match op:
        case Affine():
            result = apply_adjoint(op, u[None], _magnitude(op), shapes[0])[0]
            return [inflate(result, max_terms(op, shapes[0]))]
        case Elementwise():
            return [inflate(u * _slopes(op), 1)]
        case Sum() | Extremum():
            return [u] * len(shapes)
        case Concat():
            cuts = np.cumsum([shape[op.axis] for shape in shapes])[:-1]
            return list(np.split(u, cuts, axis=op.axis))
        case Sort():
            return [np.broadcast_to(u.max(axis=-1, keepdims=True), u.shape)]
        case MaxPool():
            return [_windows_adjoint(op, u, shapes[0])]
        case Softmax():
            factor = float(max(1, node.shape[op.axis] - 1)) if op.log else 0.5
            return [np.broadcast_to(inflate(factor * u.max(axis=op.axis, keepdims=True), 1), u.shape)]
    raise Refused(f"the absolute rule has no theorem for {op.kind} at '{node.name}'")


def _windows_adjoint(op: MaxPool, u: Float, shape: Shape) -> Float:
    """Add u over all windows that an entry lies in: the adjoint of a convolution with a kernel of ones."""
    channels = shape[0]
    ones = np.ones((channels, 1, *op.window))
    kernel, zero = Enclosure.exact(ones), Enclosure.exact(0.0)
    conv = Conv(kernel, zero, op.stride, op.padding, op.dilation, groups=channels)
    return inflate(apply_adjoint(conv, u[None], ones, shape)[0], int(np.prod(op.window)))


def _magnitude(op: Affine) -> Float | None:
    numbers = coefficients(op)
    return None if numbers is None else numbers.magnitude()


def _slopes(op: Elementwise) -> Float:
    alpha, beta = slope_interval(op)
    return np.maximum(np.abs(alpha), np.abs(beta))
