"""Proposals for operator norms in l2, and the loop that turns them into verified bounds.

A proposal is a numerical estimate from below (Lanczos, LAPACK) plus a little room; `proof.norms` proves or
refuses it. How the estimate was made does not matter for soundness: a poor one costs a retry with more
room.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from lipcert.network.enclosure import TINY, Enclosure, Float
from lipcert.network.linear import apply_adjoint, apply_linear, dense_matrix
from lipcert.network.operators import Affine, Conv, ConvTranspose, Dense
from lipcert.proof.norms import Plan, operator_norm, plan_for, scaled
from lipcert.proof.norms.frequency import Circle, grid_factor, symbols
from lipcert.proof.norms.geometry import Kernel
from lipcert.proof.refusal import Refused
from lipcert.proof.rounding import product_up, scale_up, sum_up

Shape = tuple[int, ...]
Matrix = Dense | Conv | ConvTranspose  # the operators whose l2 norm needs a witness

ROOMS = (5e-9, 1e-7, 1e-5, 1e-3, 1e-1)  # relative; verification needs 1e-11 (small) to 3e-9 (4096 x 4096)
_SMALL = 500  # matrices up to this side go to LAPACK
_SPREAD = 1e-12  # room for the last bits of a closed form, which depend on the machine
_STEPS = 16  # of power iteration on each symbol
_CANDIDATES = 16  # symbols whose norm is then computed well


@dataclass(frozen=True)
class CertifiedNorm:
    """A verified upper bound of an l2 operator norm.

    Attributes:
        value: the bound; `operator_norm` proves it again from the weights alone.
        technique: ``dense`` and ``blocks`` are the norm up to `room`, ``frequency`` is slightly above it,
            ``magnitude`` (the fallback) often far above; ``simple`` is a closed form.
        room: by how much the proposal had to be raised.
    """

    value: float
    technique: str
    room: float


def certified_norm(op: Affine, in_shape: Shape, out_shape: Shape) -> CertifiedNorm:
    """Return a verified upper bound of the l2 norm of an affine operator's linear part.

    Raises:
        Refused: the weights have NaN or infinite numbers, or the arithmetic is not IEEE.
    """
    technique = _technique(op, in_shape, out_shape)
    if technique == "simple":
        return CertifiedNorm(operator_norm(op, in_shape, out_shape, "l2"), technique, 0.0)
    if technique != "magnitude":
        estimate = propose_norm(op, in_shape, out_shape)
        for room in ROOMS:
            try:
                value = operator_norm(op, in_shape, out_shape, "l2", product_up(estimate, 1.0 + room))
            except Refused:
                continue
            return CertifiedNorm(value, technique, room)
    bound = operator_norm(op, in_shape, out_shape, "l2")
    return CertifiedNorm(product_up(bound, 1.0 + _SPREAD), "magnitude", _SPREAD)


def propose_norm(op: Affine, in_shape: Shape, out_shape: Shape) -> float:
    """Return an estimate (level ``estimate``) of the smallest l2 bound that `operator_norm` can prove.

    It is the norm itself for dense matrices and convolutions by blocks, and the largest symbol for those by
    frequency. Scaling the weights by a power of two scales it exactly.
    """
    numbers = scaled(op.weight) if isinstance(op, Matrix) else None
    if numbers is None or not isinstance(op, Matrix):
        return operator_norm(op, in_shape, out_shape, "l2")
    plan = plan_for(op, in_shape, out_shape, numbers.mid)
    value = _estimate(replace(op, weight=Enclosure(numbers.mid)), in_shape, out_shape, plan)
    if numbers.rad is not None:
        spread = replace(op, weight=Enclosure(numbers.rad))
        value = sum_up([value, operator_norm(spread, in_shape, out_shape, "l2")])
    return scale_up(value, numbers.exponent)


def _technique(op: Affine, in_shape: Shape, out_shape: Shape) -> str:
    numbers = scaled(op.weight) if isinstance(op, Matrix) else None
    return "simple" if numbers is None else plan_for(op, in_shape, out_shape, numbers.mid).technique


def _estimate(op: Matrix, in_shape: Shape, out_shape: Shape, plan: Plan) -> float:
    if plan.technique == "frequency" and plan.kernel is not None:
        factor = math.prod(grid_factor(circle) for circle in plan.circles)
        return _largest_symbol(plan.kernel, plan.circles) / factor
    if isinstance(op, Dense):
        return _dense_norm(op.weight.mid if op.weight.shape[0] <= op.weight.shape[1] else op.weight.mid.T)
    return _conv_norm(op, in_shape, out_shape)


def _dense_norm(matrix: Float) -> float:
    """Return the norm of a matrix with no more rows than columns."""
    if len(matrix) <= _SMALL:
        return float(np.linalg.norm(matrix, 2))
    gram = matrix @ matrix.T
    return math.sqrt(_largest(lambda x: gram @ x, len(gram)))


def _conv_norm(op: Conv | ConvTranspose, in_shape: Shape, out_shape: Shape) -> float:
    sizes = math.prod(in_shape), math.prod(out_shape)
    if min(sizes) <= _SMALL and max(sizes) <= 8 * _SMALL:
        return float(np.linalg.norm(dense_matrix(op, in_shape, out_shape), 2))

    def forward(x: Float) -> Float:
        return apply_linear(op, x.reshape(1, *in_shape), op.weight.mid, out_shape).ravel()

    def adjoint(y: Float) -> Float:
        return apply_adjoint(op, y.reshape(1, *out_shape), op.weight.mid, in_shape).ravel()

    if sizes[0] <= sizes[1]:
        return math.sqrt(_largest(lambda x: adjoint(forward(x)), sizes[0]))
    return math.sqrt(_largest(lambda y: forward(adjoint(y)), sizes[1]))


def _largest(product: Callable[[Float], Float], size: int) -> float:
    """Return the largest eigenvalue of a positive semidefinite operator, from a random start (fixed seed)."""
    start = np.random.default_rng(0).standard_normal(size)
    operator = LinearOperator((size, size), product, dtype=np.float64)
    try:
        values = eigsh(operator, k=1, ncv=min(size, 48), tol=1e-8, v0=start, return_eigenvectors=False)
        return max(float(values[0]), 0.0)
    except ArpackNoConvergence:
        for _ in range(100):  # a power step never overestimates; the rooms make up for it
            start = product(start / np.linalg.norm(start))
        return float(np.linalg.norm(start))


def _largest_symbol(kernel: Kernel, circles: tuple[Circle, ...]) -> float:
    """Return the largest norm of a symbol: quick estimates of all of them, good ones of the most promising."""
    best: list[tuple[float, Float]] = []
    for stack in symbols(kernel, circles):
        flat = stack.reshape(-1, *stack.shape[-2:])
        flat = flat if flat.shape[1] <= flat.shape[2] else flat.swapaxes(1, 2)
        estimates = _power_estimates(flat)
        best += [(float(estimates[i]), flat[i].copy()) for i in np.argsort(estimates)[-_CANDIDATES:]]
        best = sorted(best, key=lambda pair: pair[0])[-_CANDIDATES:]
    return max(_dense_norm(matrix) for _, matrix in best)


def _power_estimates(stack: Float) -> Float:
    """Return an estimate of the square of each norm by a few steps with four random vectors."""
    x = np.random.default_rng(0).standard_normal((len(stack), stack.shape[1], 4))
    for _ in range(_STEPS):
        x = stack @ (stack.swapaxes(1, 2) @ x)
        x = x / np.maximum(np.sqrt(np.square(x).sum(axis=1, keepdims=True)), TINY)
    image = stack.swapaxes(1, 2) @ x
    best: Float = np.square(image).sum(axis=1).max(axis=1)
    return best
