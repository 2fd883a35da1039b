"""Chains: lifted forms in which every activation layer reads the one before it, as most multiplier methods need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.network.operators import Activation, Affine, Concat, Elementwise, Sum
from lipcert.proof.lifted import MAX_ENTRIES, Lifted


@dataclass(frozen=True, eq=False)
class Chain:
    """y = C phi_l(W_l ... phi_1(W_1 x)), at the centres of all enclosures.

    Attributes:
        weights: W_1 .. W_l, each (n_k, n_{k-1}).
        last: C.
        alpha, beta: slope intervals per layer, each (n_k,).
    """

    weights: list[Float]
    last: Float
    alpha: list[Float]
    beta: list[Float]


def chain_of(lifted: Lifted) -> Chain:
    """Return a lifted form as a chain.

    Raises:
        ValueError: it is not one (see `obstacle`).
    """
    rows = [block.row for block in lifted.blocks] + [lifted.output]
    if any(set(row) != {k} for k, row in enumerate(rows)):
        raise ValueError("the network is not a chain")
    matrices = [row[k].mid for k, row in enumerate(rows)]
    alpha = [block.alpha for block in lifted.blocks]
    beta = [block.beta for block in lifted.blocks]
    return Chain(matrices[:-1], matrices[-1], alpha, beta)


def obstacle(network: Network) -> str | None:
    """Return why a normal form has no lifted chain of affordable size, or None; looks at shapes only."""
    for index, node in enumerate(network.nodes[1:], start=1):
        if isinstance(node.op, Activation) and not isinstance(node.op, Elementwise):
            return f"{node.op.kind} at '{node.name}' is not elementwise"
        if isinstance(node.op, (Sum, Concat)):
            return f"'{node.name}' joins branches: the network is not a chain"
        if len(network.consumers[index]) > 1:
            return f"'{node.name}' is used more than once: the network is not a chain"
        before = network.nodes[node.inputs[0]].size
        if isinstance(node.op, Affine) and before * node.size > MAX_ENTRIES:
            return f"'{node.name}' is too large for a dense matrix ({node.size} x {before})"
    if not any(isinstance(node.op, Elementwise) for node in network.nodes):
        return "the network has no elementwise activation"
    return None


def layer_gain(before: Float, weight: Float) -> Float:
    """Return S = W P W', symmetric."""
    gain = weight @ before @ weight.T
    return 0.5 * (gain + gain.T)


def propagate(gain: Float, inverse: Float, alpha: Float, beta: Float) -> Float:
    r"""Carry a covariance bound through one activation layer.

    With m = (alpha + beta) / 2, r = (beta - alpha) / 2, Dm = diag(inverse), K = Dm - R S R > 0:

        P = M (S + S R K^-1 R S) M + Dm

    gain: S, (n, n). inverse: 1 / (2 lambda), (n,). Derived by eliminating a layer from the multiplier rule's
    matrix, which leaves P as the inverse of its Schur complement; for slopes [0, 1] and D = 2 Dm it is
    D (2 D - S)^-1 D.
    """
    m, r = 0.5 * (alpha + beta), 0.5 * (beta - alpha)
    inner = np.diag(inverse) - r[:, None] * gain * r
    solved = np.linalg.solve(inner, r[:, None] * gain)
    covariance = gain + (gain * r) @ solved
    result = m[:, None] * covariance * m + np.diag(inverse)
    return 0.5 * (result + result.T)
