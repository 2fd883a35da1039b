r"""How far a floating-point pass can be from the real network, node by node, in the l2 norm.

Let h be the real value of a node's input, h^ the computed one, ||h^ - h|| <= e, and u the unit roundoff of the pass
(see `precision`). Then the computed output is within

    slope * e  +  relative * ||h^||  +  absolute

of the real output. `slope` is the node's verified l2 Lipschitz factor (several inputs: see `join_errors`). The other
two bound the rounding of the node itself:

*Affine*, y = A h + b with A, b known within radii. A dot product with k terms, bias and a division, in any order,
with or without fused multiply-add, satisfies |fl(y) - (A^ h^ + b^)| <= gamma_t (|A^| |h^| + |b^|), where t = k + 2,
or t = c + m + 2 for m parts of c terms that are added up afterwards, gamma_t = t u / (1 - t u) (Higham, ch. 3), and
A^ is A cast to the pass's precision. So

    relative = gamma_t || |A^| || + || |A^ - A| ||,     absolute = gamma_t ||b^|| + ||b^ - b||.

*Underflow*: with eta the smallest normal number, each flushed result costs at most eta, each flushed operand eta
times its partner, which adds eta sqrt(in out) to `relative` and eta (sqrt(in) || |A| || + 3 t sqrt(out)) to `absolute`;
it holds whether or not the processor flushes subnormal numbers to zero.

*Elementwise*: `ELEMENTWISE` gives p, q with |fl(f)(z) - f(z)| <= u (p |z| + q) at every float z, assuming that exp,
expm1, log1p, tanh, erf, sin and cos are computed to within 64 u of their values. Library functions are far better
(vector libraries promise 1 to 4 ulp, the fastest in use about 20 u); the factor covers other back ends.

*Sums*: gamma_k of the sum of the norms. Index maps, concatenation, maxima and sorting do not round.

*Overflow*: no partial result exceeds `magnitude` (||h^|| + 1) twofold; where that reaches 2^126 (2^1022) the error
counts as infinite, so an infinity that a later ReLU hides is never missed.

*Shorter formats* (`precision`): where sums are not in the format itself, the operands of products are cut by a
relative error c, sums have the unit w, and the result is rounded once more:

    (1 + c)^2 (1 + gamma_t(w)) (1 + u) - 1    in place of    gamma_t(u).

The network's input is rounded to the format first, if float32 is finer: it is a node that rounds.

The model does not cover Winograd, FFT or Strassen algorithms. They, TF32 and bfloat16 are kept out of our own passes
by `torch_precision.full_precision`, and `has_full` looks whether they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from lipcert.bounds.torch_kernels import parts_of
from lipcert.network.activations import SOFTPLUS_GAP
from lipcert.network.enclosure import Enclosure, Float
from lipcert.network.graph import Network, Node, Shape
from lipcert.network.linear import coefficients, offset, row_terms
from lipcert.network.operators import (
    Affine,
    AvgPool,
    Conv,
    ConvTranspose,
    Dense,
    Elementwise,
    Gather,
    Reshape,
    Scale,
    Softmax,
    Sum,
)
from lipcert.proof.norms import operator_norm
from lipcert.proof.rounding import norms_up
from lipcert.robustness.passes.precision import Precision, compound, gamma_up, up

Sizes = tuple[float, float]
ELEMENTARY = 64.0  # error of an elementary function, in units of u times its value


@dataclass(frozen=True)
class NodeModel:
    """Coefficients of one node, all rounded up (see the module); `exact` where the node does not round at all."""

    slope: float
    relative: float = 0.0
    absolute: float = 0.0
    magnitude: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether the output is a rearrangement or selection of the input."""
        return self.magnitude == 0.0


def model_nodes(
    network: Network, factors: Mapping[int, float], precision: Precision, chunk: int | None = None
) -> tuple[NodeModel, ...]:
    """Return the coefficients of every node of a network.

    Args:
        network: as it is executed, operator by operator.
        factors: verified l2 Lipschitz factor of every node but the input (steps of the product rule).
        precision: of the pass.
        chunk: longest dot product of a dense layer that is computed in one go; longer ones are sums of such.
    """
    models = [_input(network.nodes[0], precision)]
    for index, node in enumerate(network.nodes[1:], start=1):
        source = network.nodes[node.inputs[0]].shape
        if isinstance(node.op, Affine) and not isinstance(node.op, (Reshape, Gather)):
            chain = _chain_length(node.op, chunk)
            models.append(_affine(node, source, factors[index], precision, chain))
        else:
            models.append(_model(node, factors[index], precision))
    return tuple(models)


def _input(node: Node, precision: Precision) -> NodeModel:
    """Return the model of rounding the input to the format."""
    if not precision.casts_inputs:
        return NodeModel(1.0)
    return NodeModel(1.0, precision.unit, up(precision.tiny * math.sqrt(node.size)), 1.0)


def _model(node: Node, slope: float, precision: Precision) -> NodeModel:
    op = node.op
    match op:
        case Sum():
            count = len(node.inputs)
            flushed = up(count * precision.tiny * math.sqrt(node.size))
            return NodeModel(slope, gamma_up(count, precision.unit), flushed, float(count))
        case Elementwise():
            return _elementwise(op, node.size, slope, precision)
        case Softmax():
            return _softmax(op, node, slope, precision)
        case _:  # index maps, maxima, sorting, concatenation
            return NodeModel(slope)


def _affine(node: Node, source: Shape, slope: float, precision: Precision, chain: int) -> NodeModel:
    """Return the model of an affine node whose outputs take at most `chain` chained roundings."""
    op, entries, results = node.op, math.prod(source), node.size
    assert isinstance(op, Affine)
    size = operator_norm(op, source, node.shape, "l2")  # of |A|, radii included
    cast = _cast_error(op, precision)
    chained = _dot_error(chain, precision)
    shift = offset(op)
    bias, bias_radius = (0.0, 0.0) if shift is None else _bias_norms(shift, node.shape)
    lost = 3.0 * chain * (precision.tiny if precision.sums is None else precision.sums.tiny) + 2.0 * precision.tiny
    flushed = precision.tiny * math.sqrt(entries) * size + lost * math.sqrt(results)
    relative = compound(chained, cast) * size + _radius_norm(op, source, node.shape)
    return NodeModel(
        slope=slope,
        relative=up(relative + precision.tiny * math.sqrt(entries) * math.sqrt(results)),
        absolute=up(compound(chained, cast) * bias + bias_radius + flushed),
        magnitude=up(size + bias + 1.0),
    )


def _dot_error(chain: int, precision: Precision) -> float:
    """Return the relative error of a dot product of `chain` roundings, and of rounding its result to the format."""
    sums = precision.sums
    if sums is None:
        return gamma_up(chain, precision.unit)
    return compound(sums.cut, sums.cut, gamma_up(chain, sums.unit), precision.unit)


def _chain_length(op: Affine, chunk: int | None) -> int:
    """Return t: products and sums of a dot product in any order, the bias, and a division or the sum of chunks."""
    count, size = parts_of(row_terms(op), chunk if isinstance(op, Dense) else None)
    return size + 2 if count == 1 else size + count + 2


def _cast_error(op: Affine, precision: Precision) -> float:
    """Return the relative error of bringing the operator's numbers to the pass's precision."""
    known = [numbers.mid for numbers in (coefficients(op), offset(op)) if numbers is not None]
    known += [op.counts] if isinstance(op, AvgPool) else []
    return 0.0 if all(map(precision.holds, known)) else 2.0 * precision.unit


def _radius_norm(op: Affine, source: Shape, shape: Shape) -> float:
    """Return an upper bound of the norm of the matrix of radii."""
    numbers = coefficients(op)
    if numbers is None or numbers.rad is None:
        return 0.0
    match op:
        case Scale():
            return operator_norm(replace(op, factor=Enclosure(numbers.rad)), source, shape, "l2")
        case Dense() | Conv() | ConvTranspose():
            return operator_norm(replace(op, weight=Enclosure(numbers.rad)), source, shape, "l2")
    raise TypeError(f"{op.kind} has no radii")


def _bias_norms(bias: Enclosure, shape: Shape) -> Sizes:
    """Return upper bounds of the l2 norms of a bias and of its radii, repeated to the output's shape."""

    def norm(entries: Float) -> float:
        scale = float(entries.max(initial=0.0))
        if scale == 0.0:
            return 0.0
        return up(float(norms_up(np.broadcast_to(entries / scale, shape).reshape(-1))) * scale)

    return norm(bias.magnitude()), norm(bias.radius)


def _softmax(op: Softmax, node: Node, slope: float, precision: Precision) -> NodeModel:
    """Shift by the maximum, exp, sum, divide (or log and subtract).

    With s = z - max z <= 0: fl(s) = s (1 + u), exp(s (1 + u)) = exp(s) (1 + |s| u + 65 u), |s| exp(s) <= 1, the sum
    of n terms adds n u, so each of the results in [0, 1] is within (2 * 65 + n + 4) u. For the logarithm, s is within
    2 u (|z_i| + |max z|), the logarithm of the sum within (64 log n + 65 + n + 2) u, and |max z| <= ||z||.
    """
    n, size = node.shape[op.axis], node.size
    q = 2.0 * ELEMENTARY + n + 8.0 if not op.log else ELEMENTARY * (math.log(n) + 2.0) + n + 8.0
    p = 0.0 if not op.log else 6.0 + 6.0 * math.sqrt(size)
    return _rounded(p, q, size, slope, precision)


def _elementwise(op: Elementwise, size: int, slope: float, precision: Precision) -> NodeModel:
    p, q = ELEMENTWISE[op.name](*(_largest(values) for values in op.params))
    if op.name == "softplus":  # deployed forms are linear beyond a threshold
        beta = float(np.abs(op.params[0]).min())
        q = (130.0 + SOFTPLUS_GAP / precision.unit) / beta
    if op.name in ("relu", "abs"):
        return NodeModel(slope)
    return _rounded(p, q, size, slope, precision, *(_largest(values) for values in op.params))


def _rounded(p: float, q: float, size: int, slope: float, precision: Precision, *params: float) -> NodeModel:
    spread = 1.0 + max(params, default=0.0)
    return NodeModel(
        slope=slope,
        relative=up(precision.unit * p + 8.0 * precision.tiny * spread),
        absolute=up((precision.unit * q + 8.0 * precision.tiny * spread) * math.sqrt(size)),
        magnitude=up(8.0 * spread * (1.0 + math.sqrt(size))),
    )


def _largest(values: Float) -> float:
    """Return the largest finite magnitude; an infinite parameter (an open clip) rounds nothing."""
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max(initial=0.0))


# name -> (largest |parameter|, ...) -> (p, q); the derivation of each entry stands beside it. E = 64.
ELEMENTWISE: Mapping[str, Callable[..., Sizes]] = MappingProxyType(
    {
        "relu": lambda: (0.0, 0.0),
        "abs": lambda: (0.0, 0.0),
        # the slope is cast, then multiplied: 2 u |slope z|
        "leaky_relu": lambda slope: (3.0 * slope, 0.0),
        # z < 0: |alpha expm1 z| <= |alpha z|, within (E + 2) u; z > 0: exact
        "elu": lambda alpha: (70.0 * alpha, 0.0),
        # as elu with 1.0508 * 1.6733 < 1.76
        "selu": lambda: (130.0, 0.0),
        # z / alpha within 2 u: expm1 has slopes at most 1 below 0, so 3 u |z|; then as elu with |alpha expm1| <= |z|
        "celu": lambda alpha: (75.0, 0.0),
        # |z| / 2 times the error of 1 + erf: E u for erf, |t| erf'(t) <= 0.49 times 2 u for its argument, u (1 + erf)
        "gelu": lambda: (80.0, 0.0),
        # the same with tanh: |t| (1 - tanh(t)^2) <= 0.45 times 8 u for its argument
        "gelu_tanh": lambda: (80.0, 0.0),
        "silu": lambda: (80.0, 0.0),  # |z| times the error of sigmoid
        # softplus within 130 u + u |z|; |z| (1 - tanh(softplus)^2) <= 1; tanh E u; product u
        "mish": lambda: (250.0, 0.0),
        # 1 / (1 + exp(-z)): exp within E u relative, s (1 - s) <= 1/4, sum and quotient 2 u
        "sigmoid": lambda: (0.0, 80.0),
        "tanh": lambda: (70.0, 0.0),  # |tanh z| <= |z|
        # max(t, 0) + log1p(exp(-|t|)), t = beta z within 2 u: exp and log1p E u each, values at most 1
        "softplus": lambda beta: (10.0, 0.0),  # q depends on the least |beta|: see _elementwise
        "softsign": lambda: (5.0, 0.0),
        "clip": lambda low, high: (0.0, 2.0 * max(low, high)),  # the ends are cast
        "hardsigmoid": lambda alpha, beta: (5.0 * alpha, 5.0 * beta),
        "hardswish": lambda: (10.0, 0.0),  # (z + 3) within 6 u where it is not clipped, products 3 u
        "logsigmoid": lambda: (4.0, 140.0),  # as softplus
        "tanhshrink": lambda: (80.0, 0.0),
        "softshrink": lambda width: (3.0, 3.0 * width),
        "erf": lambda: (80.0, 0.0),  # |erf z| <= 1.13 |z|
        "sin": lambda: (0.0, 70.0),
        "cos": lambda: (0.0, 70.0),
    }
)
