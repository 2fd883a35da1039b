"""The matrix of an affine operator, each entry exact or a ball: what `network.linear` does, as numbers."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import prod

import numpy as np
from flint import arb

from lipcert.network.enclosure import Enclosure
from lipcert.network.graph import Node, Shape
from lipcert.network.linear import dense_matrix
from lipcert.network.operators import Affine, AvgPool, Conv, Dense
from lipcert.proof.exact.balls import MAX_ENTRIES, Matrix, balls, scale_rows
from lipcert.proof.lifted import operator_matrix, wraps
from lipcert.proof.refusal import Refused, TooLarge


def matrix_of(node: Node, before: Shape) -> Matrix:
    """Return the linear part (out_size, in_size) of an affine node at flint's working precision.

    Raises:
        TooLarge: it is too large for the exact engine.
        Refused: counts of an average pool are not positive numbers.
    """
    op = node.op
    assert isinstance(op, Affine)
    if node.size * prod(before) > MAX_ENTRIES:
        size = f"{node.size} x {prod(before)}"
        raise TooLarge(f"'{node.name}' ({size}) is too large for the exact engine (at most {MAX_ENTRIES} entries)")
    if isinstance(op, AvgPool):
        if not (np.isfinite(op.counts).all() and (op.counts > 0).all()):
            raise Refused(f"the counts of '{node.name}' are not positive numbers")
        ones = AvgPool(op.window, op.stride, op.padding, np.ones_like(op.counts))
        sums = balls(dense_matrix(ones, before, node.shape))
        counts = np.broadcast_to(op.counts, node.shape).ravel().tolist()
        return Matrix(scale_rows(sums, [1 / arb(count) for count in counts]))
    if isinstance(op, Conv) and wraps(op, before):
        return _wrapped(op, node, before)
    return Matrix.of(operator_matrix(node, before))


def weight_or_matrix(node: Node, before: Shape) -> Matrix:
    """Return a matrix with the operator's norms: a dense layer's leading axes only repeat its weight."""
    return Matrix.of(node.op.weight) if isinstance(node.op, Dense) else matrix_of(node, before)


def _wrapped(op: Conv, node: Node, before: Shape) -> Matrix:
    """Add the matrices of the single taps: each of their entries is one weight, but several taps meet in one place."""
    total: Matrix | None = None
    for tap in product(*(range(k) for k in op.weight.shape[2:])):
        mask = np.zeros(op.weight.shape[2:])
        mask[tap] = 1.0
        parts = [
            dense_matrix(replace(op, weight=Enclosure(side * mask)), before, node.shape)
            for side in (op.weight.mid, op.weight.radius)
        ]
        term = Matrix.of(Enclosure(parts[0], parts[1]))
        total = term if total is None else total + term
    assert total is not None
    return total
