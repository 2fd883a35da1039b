"""The network as numpy float64 computes it: the reference for readers and tests, not a deployed forward pass."""

from __future__ import annotations

import numpy as np

from lipcert.network.activations import TABLE
from lipcert.network.enclosure import Float
from lipcert.network.graph import Network, Node
from lipcert.network.linear import apply_linear, coefficients, offset, unfold
from lipcert.network.operators import Affine, Concat, Elementwise, Extremum, MaxPool, Softmax, Sort, Sum


def evaluate(network: Network, x: Float) -> Float:
    """Evaluate a batch in float64 at the centres of all enclosures.

    x: (N, *input_shape). Returns (N, *output_shape). Level of the values: none, they carry rounding errors.
    """
    return evaluate_nodes(network, x)[-1]


def evaluate_nodes(network: Network, x: Float) -> list[Float]:
    """Evaluate a batch as `evaluate` does and return the values of all nodes, (N, *node.shape) each."""
    values: list[Float] = [np.asarray(x, dtype=np.float64)]
    for node in network.nodes[1:]:
        values.append(evaluate_node(node, [values[i] for i in node.inputs]))
    return values


def evaluate_node(node: Node, inputs: list[Float]) -> Float:
    """Evaluate one node on the values (N, *shape) of its inputs, as `evaluate` does."""
    op, first = node.op, inputs[0]
    match op:
        case Affine():
            numbers, constant = coefficients(op), offset(op)
            y = apply_linear(op, first, None if numbers is None else numbers.mid, node.shape)
            return y if constant is None else y + constant.mid
        case Sum():
            return np.asarray(np.sum([s * v for s, v in zip(op.signs, inputs, strict=True)], axis=0))
        case Concat():
            return np.concatenate(inputs, axis=op.axis + 1)
        case Elementwise():
            return TABLE[op.name].function(first, *op.params)
        case Sort():
            return np.sort(first, axis=-1)
        case Extremum():
            return np.asarray((np.maximum if op.maximum else np.minimum).reduce(inputs))
        case MaxPool():
            return _max_pool(op, first)
        case Softmax():
            return _softmax(op, first)
    raise TypeError(f"no evaluation rule for {op.kind}")


def _max_pool(op: MaxPool, x: Float) -> Float:
    padded = np.pad(x, [(0, 0), (0, 0), *op.padding], constant_values=-np.inf)
    windows = unfold(padded, op.window, op.stride, ((0, 0),) * len(op.window), op.dilation)
    return np.asarray(windows.max(axis=tuple(range(2, 2 + len(op.window)))))


def _softmax(op: Softmax, x: Float) -> Float:
    shifted = x - x.max(axis=op.axis + 1, keepdims=True)  # at most 0: no overflow
    powers: Float = np.exp(shifted)
    total: Float = powers.sum(axis=op.axis + 1, keepdims=True)
    return shifted - np.log(total) if op.log else powers / total
