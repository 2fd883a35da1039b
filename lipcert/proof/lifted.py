"""The lifted form: every network of affine operators and elementwise activations as one linear system.

    xi = (x, v_1, ..., v_K)                 blocks: the input and the output of each activation node
    z_k = sum_j R_kj v_j  (+ constants)      pre-activation of block k; j runs over earlier blocks
    v_k = phi_k(z_k)                         slopes in [alpha_k, beta_k], entry by entry
    y = sum_j C_j v_j  (+ constants)

Constants drop out of differences and are left out. Activations whose slope is fixed everywhere (alpha = beta) are
linear up to a constant, and are no blocks but factors of the rows behind them. Chains, residual sums,
concatenations, pooling by averages and convolutions differ only in which R_kj are there. The matrices are composed in
`Enclosure` arithmetic along the affine stretches between activations, so they hold the exact real coefficients.

Source: LipSDP (Fazlyab et al. 2019) for chains; the graph form is the same statement with other sparsity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from lipcert.network.activations import slope_interval
from lipcert.network.enclosure import Enclosure, Float
from lipcert.network.graph import Network, Node, Shape
from lipcert.network.linear import coefficients, dense_matrix
from lipcert.network.operators import (
    Affine,
    AvgPool,
    Concat,
    Conv,
    Dense,
    Elementwise,
    Gather,
    Reshape,
    Scale,
    Sum,
)
from lipcert.proof.refusal import Refused

MAX_ENTRIES = 2**27  # entries of one dense operator or composed matrix: 1 GiB in float64

Row = Mapping[int, Enclosure]  # block -> matrix (n, size of block)


@dataclass(frozen=True, eq=False)
class Block:
    """One activation node.

    Attributes:
        node: index in the normal form; its slopes are not all fixed.
        alpha, beta: (n,) slope intervals, rounded outward.
        row: R_kj by block j < k, each (n, n_j).
    """

    node: int
    alpha: Float
    beta: Float
    row: Row

    @property
    def size(self) -> int:
        """Number of neurons."""
        return len(self.alpha)


@dataclass(frozen=True, eq=False)
class Lifted:
    """The lifted form of a network; block 0 is the input, block k >= 1 is ``blocks[k - 1]``."""

    inputs: int
    blocks: tuple[Block, ...]
    output: Row

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of all blocks, the input first."""
        return (self.inputs, *(block.size for block in self.blocks))


def lift(network: Network) -> Lifted:
    """Return the lifted form of a normal form.

    Cost: one matrix product per affine operator that follows another without an activation between; dense
    operators are used as they are.

    Raises:
        Refused: an activation is not elementwise, or a matrix is too large to be held densely.
    """
    size = network.nodes[0].size
    rows: list[Row] = [{0: identity(size)}]
    blocks: list[Block] = []
    for index, node in enumerate(network.nodes[1:], start=1):
        inputs = [rows[i] for i in node.inputs]
        if isinstance(node.op, Elementwise):
            alpha, beta = (np.broadcast_to(side, node.shape).ravel() for side in slope_interval(node.op))
            blocks.append(Block(index, alpha, beta, inputs[0]))
            rows.append({len(blocks): identity(node.size)})
        else:
            rows.append(_affine_row(network, node, inputs))
    return Lifted(size, tuple(blocks), rows[-1])


def identity(size: int) -> Enclosure:
    """Return the identity matrix."""
    _within_budget(size * size, "an identity")
    return Enclosure(np.eye(size))


def _within_budget(entries: int, where: str) -> None:
    if entries > MAX_ENTRIES:
        raise Refused(f"the lifted form of {where} has {entries:.2g} entries, above {MAX_ENTRIES:.2g}: cut the network")


def _affine_row(network: Network, node: Node, inputs: list[Row]) -> Row:
    match node.op:
        case Sum():
            return _sum(inputs, node.op.signs)
        case Concat():
            for matrix in (matrix for row in inputs for matrix in row.values()):
                _within_budget(node.size * matrix.shape[1], f"'{node.name}'")
            return _concat(node, [network.nodes[i].shape for i in node.inputs], inputs)
        case Affine():
            before = network.nodes[node.inputs[0]].shape
            for matrix in inputs[0].values():
                _within_budget(node.size * matrix.shape[1], f"'{node.name}'")
            return {j: _apply(node, before, matrix) for j, matrix in inputs[0].items()}
    raise Refused(f"{node.op.kind} at '{node.name}' is neither affine nor elementwise")


def _sum(inputs: list[Row], signs: tuple[int, ...]) -> Row:
    total: dict[int, Enclosure] = {}
    for row, sign in zip(inputs, signs, strict=True):
        for j, matrix in row.items():
            term = matrix if sign > 0 else -matrix
            total[j] = total[j] + term if j in total else term
    return total


def _concat(node: Node, shapes: list[Shape], inputs: list[Row]) -> Row:
    """Place the rows of each input where concatenation puts its entries."""
    assert isinstance(node.op, Concat)
    offsets = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
    tags = [o + np.arange(int(np.prod(s))).reshape(s) for o, s in zip(offsets[:-1], shapes, strict=True)]
    order = np.concatenate(tags, axis=node.op.axis).ravel()
    home = np.argsort(order)  # row of the concatenated tensor for each stacked row
    total: dict[int, Enclosure] = {}
    for row, offset in zip(inputs, offsets[:-1], strict=True):
        for j, matrix in row.items():
            place = home[offset : offset + matrix.shape[0]]
            mid = np.zeros((node.size, matrix.shape[1])) if j not in total else total[j].mid.copy()
            rad = np.zeros((node.size, matrix.shape[1])) if j not in total else total[j].radius.copy()
            mid[place], rad[place] = matrix.mid, matrix.radius
            total[j] = Enclosure(mid, rad)
    return total


def _apply(node: Node, before: Shape, matrix: Enclosure) -> Enclosure:
    """Apply an affine operator to every column of a matrix."""
    op = node.op
    assert isinstance(op, Affine)
    if isinstance(op, Reshape):
        return matrix
    if isinstance(op, Gather):
        rows = op.index.ravel()
        inside = (rows >= 0)[:, None]
        return matrix.map(lambda a: np.where(inside, a[rows], 0.0))
    if isinstance(op, Scale):
        return matrix * op.factor.broadcast_to(node.shape).reshape(-1, 1)
    operator = operator_matrix(node, before)
    if _is_identity(matrix):
        return operator
    return operator @ matrix


def _is_identity(matrix: Enclosure) -> bool:
    rows, columns = matrix.shape
    if rows != columns or not matrix.is_exact:
        return False
    return bool((matrix.mid.diagonal() == 1.0).all()) and int(np.count_nonzero(matrix.mid)) == rows


def operator_matrix(node: Node, before: Shape) -> Enclosure:
    """Return the matrix of an affine operator, its entries enclosed.

    Raises:
        Refused: it is too large, or its entries are sums of coefficients.
    """
    op = node.op
    assert isinstance(op, Affine)
    if isinstance(op, Dense) and len(before) == 1:
        return op.weight
    _within_budget(node.size * int(np.prod(before)), f"'{node.name}'")
    if isinstance(op, AvgPool):
        ones = AvgPool(op.window, op.stride, op.padding, np.ones_like(op.counts))
        sums = Enclosure.exact(dense_matrix(ones, before, node.shape))
        counts = np.broadcast_to(op.counts, node.shape).reshape(-1, 1)
        return sums / Enclosure.exact(counts.copy())
    if wraps(op, before):
        raise Refused(f"the kernel of '{node.name}' wraps around onto itself")
    mid = dense_matrix(op, before, node.shape)
    numbers = coefficients(op)
    if numbers is None or numbers.is_exact:
        return Enclosure(mid)
    return Enclosure(mid, _radius_matrix(op, numbers, before, node.shape))


def wraps(op: Affine, before: Shape) -> bool:
    """Whether two taps of a circular convolution fall on one input entry, so that entries of its matrix are sums.

    Taps p = 0 .. k - 1 of a window stand at start + d p, modulo the size n.
    """
    if not (isinstance(op, Conv) and op.circular):
        return False
    taps = zip(op.weight.shape[2:], op.dilation, before[1:], strict=True)
    return any(len({d * p % n for p in range(k)}) < k for k, d, n in taps)


def _radius_matrix(op: Affine, numbers: Enclosure, before: Shape, after: Shape) -> Float:
    """Return the radii in the places of the coefficients: each entry of the matrix is a single coefficient."""
    assert not isinstance(op, Scale)
    return dense_matrix(replace(op, weight=Enclosure(numbers.radius)), before, after)  # type: ignore[call-arg]
