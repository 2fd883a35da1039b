"""The absolute-value rule in ball arithmetic; see `proof.rules.absolute` for the theorems.

Each entry is kept as the upper end of its ball, an exact number, so that maxima are certain.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from flint import arb, arb_mat, ctx

from lipcert.network.activations import slope_interval
from lipcert.network.graph import Network, Node, Shape
from lipcert.network.linear import unfold
from lipcert.network.operators import (
    Affine,
    Concat,
    Elementwise,
    Extremum,
    Gather,
    MaxPool,
    Reshape,
    Scale,
    Softmax,
    Sort,
    Sum,
)
from lipcert.proof.certificate import Witness
from lipcert.proof.claims import Norm
from lipcert.proof.exact.balls import largest, upper
from lipcert.proof.exact.operators import matrix_of
from lipcert.proof.refusal import Refused
from lipcert.proof.rules.absolute import Absolute
from lipcert.proof.rules.base import Derivation, Rule

Ends = npt.NDArray[Any]  # of exact flint.arb, in a node's shape
BITS = 256


class ExactAbsolute(Rule):
    """Entrywise propagation of |dx| (linf), or of column sums backwards (l1)."""

    id: ClassVar[str] = Absolute.id
    norms: ClassVar[frozenset[Norm]] = Absolute.norms

    def prove(self, network: Network, norm: Norm, witness: Witness) -> Derivation:
        """Derive the bound; cost: the matrix of every affine operator, applied once."""
        if witness:
            raise Refused("the absolute rule takes no witness")
        with ctx.workprec(BITS):
            ends = _forwards(network) if norm == "linf" else _backwards(network)
            return Derivation(upper(largest(ends.ravel())))


def _ends(values: list[Any], shape: Shape) -> Ends:
    ends = np.empty(len(values), dtype=object)
    ends[:] = [value.upper() for value in values]
    return ends.reshape(shape)


def _ones(shape: Shape) -> Ends:
    return _ends([arb(1)] * int(np.prod(shape)), shape)


def _forwards(network: Network) -> Ends:
    values = [_ones(network.input_shape)]
    for node in network.nodes[1:]:
        values.append(_forward(network, node, [values[i] for i in node.inputs]))
    return values[-1]


def _forward(network: Network, node: Node, inputs: list[Ends]) -> Ends:
    op, first = node.op, inputs[0]
    match op:
        case Affine():
            return _apply(node, network.nodes[node.inputs[0]].shape, first)
        case Elementwise():
            return _times(first, _slopes(op, node.shape))
        case Sum():
            return _ends(list(np.sum(inputs, axis=0).ravel()), node.shape)
        case Concat():
            return np.concatenate(inputs, axis=op.axis)
        case Extremum():
            return np.asarray(np.maximum.reduce(inputs))
        case Sort():
            return np.broadcast_to(first.max(axis=-1, keepdims=True), node.shape)
        case MaxPool():
            flat = np.append(first.ravel(), arb(0))
            return np.asarray(flat[_windows(op, first.shape, node.shape)].max(axis=0).reshape(node.shape))
        case Softmax():
            factor = arb(2) if op.log else arb(1) / 2
            return np.broadcast_to(_times(first.max(axis=op.axis, keepdims=True), factor), node.shape)
    raise Refused(f"the absolute rule has no theorem for {op.kind} at '{node.name}'")


def _backwards(network: Network) -> Ends:
    sums: list[Ends | None] = [None] * len(network.nodes)
    sums[-1] = _ones(network.output_shape)
    for index in range(len(network.nodes) - 1, 0, -1):
        node, arriving = network.nodes[index], sums[index]
        if arriving is None:
            continue
        shapes = [network.nodes[i].shape for i in node.inputs]
        for i, part in zip(node.inputs, _backward(node, arriving, shapes), strict=True):
            before = sums[i]
            sums[i] = part if before is None else _ends(list((before + part).ravel()), part.shape)
    return _times(_ones(network.input_shape), arb(0)) if sums[0] is None else sums[0]


def _backward(node: Node, u: Ends, shapes: list[Shape]) -> list[Ends]:
    op = node.op
    match op:
        case Affine():
            return [_apply_adjoint(node, shapes[0], u)]
        case Elementwise():
            return [_times(u, _slopes(op, node.shape))]
        case Sum() | Extremum():
            return [u] * len(shapes)
        case Concat():
            cuts = np.cumsum([shape[op.axis] for shape in shapes])[:-1]
            return list(np.split(u, cuts, axis=op.axis))
        case Sort():
            return [np.broadcast_to(u.max(axis=-1, keepdims=True), u.shape)]
        case MaxPool():
            sums = [arb(0)] * (int(np.prod(shapes[0])) + 1)
            for members in _windows(op, shapes[0], node.shape):
                for target, value in zip(members.tolist(), u.ravel(), strict=True):
                    sums[target] += value
            return [_ends(sums[:-1], shapes[0])]
        case Softmax():
            factor = arb(max(1, node.shape[op.axis] - 1)) if op.log else arb(1) / 2
            return [np.broadcast_to(_times(u.max(axis=op.axis, keepdims=True), factor), u.shape)]
    raise Refused(f"the absolute rule has no theorem for {op.kind} at '{node.name}'")


def _times(values: Ends, factors: Any) -> Ends:
    return _ends(list((values * factors).ravel()), values.shape)


def _apply(node: Node, before: Shape, x: Ends) -> Ends:
    match node.op:
        case Reshape():
            return x.reshape(node.shape)
        case Gather():
            return np.append(x.ravel(), arb(0))[node.op.index]
        case Scale():
            return _times(x, _factors(node.op, node.shape))
    return _product(matrix_of(node, before).magnitude(), x, node.shape)


def _apply_adjoint(node: Node, before: Shape, u: Ends) -> Ends:
    match node.op:
        case Reshape():
            return u.reshape(before)
        case Scale():
            return _times(u, _factors(node.op, node.shape))
        case Gather():
            sums = [arb(0)] * (int(np.prod(before)) + 1)
            for target, value in zip(node.op.index.ravel().tolist(), u.ravel(), strict=True):
                sums[target] += value  # index -1, a constant, is the last
            return _ends(sums[:-1], before)
    return _product(matrix_of(node, before).magnitude().transpose(), u, before)


def _product(matrix: Any, x: Ends, shape: Shape) -> Ends:
    return _ends((matrix * arb_mat(x.size, 1, list(x.ravel()))).entries(), shape)


def _factors(op: Scale, shape: Shape) -> Ends:
    sizes = [abs(arb(m)) + arb(r) for m, r in zip(op.factor.mid.ravel(), op.factor.radius.ravel(), strict=True)]
    return np.broadcast_to(_ends(sizes, op.factor.shape), shape)


def _slopes(op: Elementwise, shape: Shape) -> Ends:
    alpha, beta = slope_interval(op)
    sizes = np.maximum(np.abs(alpha), np.abs(beta))
    return np.broadcast_to(_ends([arb(x) for x in sizes.ravel().tolist()], sizes.shape), shape)


def _windows(op: MaxPool, before: Shape, after: Shape) -> npt.NDArray[np.int64]:
    """Return the entries of each window, (window size, out_size): flat indices, one past the end for padding."""
    size = int(np.prod(before))
    tags = np.arange(1.0, size + 1.0).reshape(1, *before)  # padding is 0
    members = unfold(tags, op.window, op.stride, op.padding, op.dilation, after[1:])[0].astype(np.int64) - 1
    spatial = len(op.window)
    moved = np.moveaxis(members, range(1, 1 + spatial), range(spatial))
    return np.where(moved < 0, size, moved).reshape(int(np.prod(op.window)), -1)
