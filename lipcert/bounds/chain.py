"""Chains: lifted forms in which every activation layer reads the one before it, as most multiplier methods need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse.linalg

from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.network.operators import Activation, Affine, Concat, Elementwise, Sum
from lipcert.proof.lifted import MAX_ENTRIES, Lifted, wraps

ROOM = 2.0**-26  # relative, of `inverse_of`; proofs of layers up to some 8000 neurons need less
LANCZOS = 400  # neurons from which on an eigenvalue is found by Lanczos
EMPTY = 2.0**-300  # the cap of a layer that passes nothing on


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
    for index, node in enumerate(network.nodes):
        if isinstance(node.op, (Sum, Concat)):
            return f"'{node.name}' joins branches: the network is not a chain"
        if len(network.consumers[index]) > 1:
            return f"'{node.name}' is used more than once: the network is not a chain"
    return lifted_obstacle(network)


def lifted_obstacle(network: Network) -> str | None:
    """Return why a normal form has no lifted form of affordable size, or None; looks at shapes only."""
    reads: list[frozenset[int]] = [frozenset({0})]  # the blocks that each node's row reads, by their nodes
    for index, node in enumerate(network.nodes[1:], start=1):
        if isinstance(node.op, Activation) and not isinstance(node.op, Elementwise):
            return f"{node.op.kind} at '{node.name}' is not elementwise"
        blocks = frozenset().union(*(reads[i] for i in node.inputs))
        before = network.nodes[node.inputs[0]]
        widest = max(before.size, *(network.nodes[b].size for b in blocks))
        if widest * node.size > MAX_ENTRIES:
            return f"'{node.name}' is too large for a dense matrix ({node.size} x {widest})"
        if isinstance(node.op, Affine) and wraps(node.op, before.shape):
            return f"the kernel of '{node.name}' wraps around onto itself"
        reads.append(frozenset({index}) if isinstance(node.op, Elementwise) else blocks)
    if not any(isinstance(node.op, Elementwise) for node in network.nodes):
        return "the network has no elementwise activation that is not linear"
    return None


def layer_gain(before: Float, weight: Float) -> Float:
    """Return S = W P W', symmetric."""
    gain = weight @ before @ weight.T
    return 0.5 * (gain + gain.T)


def top_eigenvalue(matrix: Float) -> float:
    """Return the largest eigenvalue of a symmetric matrix; by Lanczos, n^2 per step, where it is large.

    Raises:
        numpy.linalg.LinAlgError: it is not finite.
    """
    if not np.isfinite(matrix).all():
        raise np.linalg.LinAlgError("not finite")
    if len(matrix) <= LANCZOS or not matrix.any():
        return float(np.linalg.eigvalsh(matrix)[-1])
    start = np.random.default_rng(0).standard_normal(len(matrix))
    try:
        found = scipy.sparse.linalg.eigsh(matrix, k=1, which="LA", v0=start, tol=1e-10, return_eigenvectors=False)
    except scipy.sparse.linalg.ArpackError:
        return float(np.linalg.eigvalsh(matrix)[-1])
    return float(found[0]) * (1.0 + 1e-9)


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
    solved = solve_positive(inner, r[:, None] * gain)
    covariance = gain + (gain * r) @ solved
    result = m[:, None] * covariance * m + np.diag(inverse)
    return 0.5 * (result + result.T)


def propagate_narrow(half: Float, inverse: Float, alpha: Float, beta: Float) -> Float:
    r"""Return the same as `propagate` for S = U U' with fewer columns than rows, by Woodbury.

        P = M U (I - U' R Dm^-1 R U)^-1 U' M + Dm

    half: U, (n, d). Cost: n^2 d.
    """
    m, r = 0.5 * (alpha + beta), 0.5 * (beta - alpha)
    inner = np.eye(half.shape[1]) - half.T @ ((r * r / inverse)[:, None] * half)
    solved = scipy.linalg.solve_triangular(np.linalg.cholesky(inner), half.T * m, lower=True, check_finite=False)
    return np.asarray(solved.T @ solved + np.diag(inverse))


def solve_positive(matrix: Float, right: Float) -> Float:
    """Return the solution of a symmetric positive definite system.

    Raises:
        numpy.linalg.LinAlgError: the matrix is not positive definite, or not finite.
    """
    factor = np.linalg.cholesky(matrix)
    solved = scipy.linalg.cho_solve((factor, True), right, check_finite=False)
    return np.asarray(solved, dtype=np.float64)


def inverse_of(cap: Float, alpha: Float, beta: Float) -> Float:
    r"""Return 1 / (2 lambda) per neuron from a diagonal D >= S, never losing more than D itself loses.

    With m, r as in `propagate` and b = |m| + r, the larger slope in size, take c = (r b + ROOM w^2) D, w the largest
    b of the layer. K = Dm - R S R >= c - r^2 D = (r |m| + ROOM w^2) D > 0, and as S <= D,

        P <= m^2 D c / (c - r^2 D) + c <= (b^2 + ROOM w^2) D

    (for ROOM = 0 the two terms are m^2 D b / |m| = |m| b D and r b D). ROOM keeps neurons that are linear (r = 0) or of
    symmetric slopes (m = 0) strictly inside the domain.

    cap: D, (n,), not negative. alpha, beta: (n,) slope intervals. Returns (n,), positive.
    """
    m, r = 0.5 * (alpha + beta), 0.5 * (beta - alpha)
    slope = np.abs(m) + r
    widest = float(slope.max(initial=0.0)) or 1.0
    top = float(cap.max(initial=0.0))
    positive = np.maximum(cap, ROOM * top if top > 0 else EMPTY)
    return np.asarray((r * slope + ROOM * widest**2) * positive)
