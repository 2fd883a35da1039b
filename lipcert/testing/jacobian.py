"""Jacobians of small networks by the chain rule: the oracle that upper bounds are held against.

The derivatives of the activations are written here once more, not taken from the code under test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from lipcert.network import Network
from lipcert.network.enclosure import Float
from lipcert.network.evaluate import evaluate_nodes
from lipcert.network.graph import Node
from lipcert.network.linear import apply_linear, coefficients, unfold
from lipcert.network.operators import Affine, Concat, Elementwise, Extremum, MaxPool, Softmax, Sort, Sum


def _sigmoid(x: Float) -> Float:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def _normal(x: Float) -> Float:
    return np.asarray(np.vectorize(lambda t: 0.5 * math.erfc(-t / math.sqrt(2.0)))(x))


def _gelu_tanh_slope(x: Float) -> Float:
    c, a = math.sqrt(2.0 / math.pi), 0.044715
    t = np.tanh(c * (x + a * x**3))
    return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * c * (1.0 + 3.0 * a * x * x)


def _mish_slope(x: Float) -> Float:
    t = np.tanh(np.logaddexp(0.0, x))
    return t + x * (1.0 - t * t) * _sigmoid(x)


_SELU = (1.0507009873554805, 1.6732632423543772)

DERIVATIVES: dict[str, Callable[..., Float]] = {
    "relu": lambda x: np.where(x > 0, 1.0, 0.0),
    "leaky_relu": lambda x, slope: np.where(x > 0, 1.0, slope),
    "elu": lambda x, alpha: np.where(x > 0, 1.0, alpha * np.exp(np.minimum(x, 0.0))),
    "selu": lambda x: _SELU[0] * np.where(x > 0, 1.0, _SELU[1] * np.exp(np.minimum(x, 0.0))),
    "celu": lambda x, alpha: np.where(x > 0, 1.0, np.exp(np.minimum(x, 0.0) / alpha)),
    "gelu": lambda x: _normal(x) + x * np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi),
    "gelu_tanh": _gelu_tanh_slope,
    "silu": lambda x: _sigmoid(x) * (1.0 + x * _sigmoid(-x)),
    "mish": _mish_slope,
    "sigmoid": lambda x: _sigmoid(x) * _sigmoid(-x),
    "tanh": lambda x: 1.0 - np.tanh(x) ** 2,
    "softplus": lambda x, beta: _sigmoid(beta * x),
    "softsign": lambda x: (1.0 + np.abs(x)) ** -2,
    "clip": lambda x, low, high: np.where((x > low) & (x < high), 1.0, 0.0),
    "abs": np.sign,
    "hardsigmoid": lambda x, alpha, beta: np.where(np.abs(alpha * x + beta - 0.5) < 0.5, alpha, 0.0),
    "hardswish": lambda x: np.where(x <= -3, 0.0, np.where(x >= 3, 1.0, (2.0 * x + 3.0) / 6.0)),
    "logsigmoid": lambda x: _sigmoid(-x),
    "tanhshrink": lambda x: np.tanh(x) ** 2,
    "softshrink": lambda x, width: np.where(np.abs(x) > width, 1.0, 0.0),
    "erf": lambda x: 2.0 / math.sqrt(math.pi) * np.exp(-x * x),
    "sin": np.cos,
    "cos": lambda x: -np.sin(x),
}


def exact_jacobian(network: Network, x: Float) -> Float:
    """Return the Jacobian (out_size, in_size) at x of shape input_shape, by forward-mode products in float64.

    Exact up to rounding wherever the network is differentiable, which is almost everywhere; on a kink, one of
    the limits of nearby Jacobians for each operator. Enclosed numbers are taken at their centres.
    """
    size = network.nodes[0].size
    values = [value[0] for value in evaluate_nodes(network, np.asarray(x)[None])]
    tangents = [np.eye(size).reshape(size, *network.input_shape)]  # one row per input direction
    for node in network.nodes[1:]:
        tangents.append(_tangent(node, [values[i] for i in node.inputs], [tangents[i] for i in node.inputs]))
    return tangents[-1].reshape(size, -1).T


def _tangent(node: Node, values: Sequence[Float], tangents: Sequence[Float]) -> Float:
    op, x, t = node.op, values[0], tangents[0]
    match op:
        case Affine():
            weight = coefficients(op)
            return apply_linear(op, t, None if weight is None else weight.mid, node.shape)
        case Sum():
            return np.asarray(sum(s * t for s, t in zip(op.signs, tangents, strict=True)))
        case Concat():
            return np.concatenate(tangents, axis=op.axis + 1)
        case Elementwise():
            return t * DERIVATIVES[op.name](x, *op.params)
        case Sort():
            return np.take_along_axis(t, np.argsort(x, axis=-1)[None], axis=-1)
        case Extremum():
            winner = (np.argmax if op.maximum else np.argmin)(np.stack(values), axis=0)
            return np.asarray(np.take_along_axis(np.stack(tangents), winner[None, None], axis=0)[0])
        case MaxPool():
            return _max_pool_tangent(op, x, t)
        case Softmax():
            powers = np.exp(x - x.max(axis=op.axis, keepdims=True))
            p = powers / powers.sum(axis=op.axis, keepdims=True)
            centred: Float = t - (p * t).sum(axis=op.axis + 1, keepdims=True)
            return centred if op.log else p * centred
    raise TypeError(f"no derivative of {op}")


def _max_pool_tangent(op: MaxPool, x: Float, t: Float) -> Float:
    rank = len(op.window)
    nothing = ((0, 0),) * rank

    def windows(a: Float, outside: float) -> Float:
        padded = np.pad(a, [(0, 0), (0, 0), *op.padding], constant_values=outside)
        view = unfold(padded, op.window, op.stride, nothing, op.dilation)
        return view.reshape(*view.shape[:2], -1, *view.shape[2 + rank :])

    winner = windows(x[None], -np.inf).argmax(axis=2)[:, :, None]
    return np.take_along_axis(windows(t, 0.0), winner, axis=2)[:, :, 0]


def operator_norm(matrix: Float, norm: str) -> float:
    """Operator norm of a dense matrix from one norm to the same: its value in float64."""
    if norm == "l2":
        return float(np.linalg.svd(matrix, compute_uv=False)[0])
    return float(np.abs(matrix).sum(axis={"l1": 0, "linf": 1}[norm]).max())
