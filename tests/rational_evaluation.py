"""A network evaluated in rational numbers: what real arithmetic gives, to the last digit."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np

from lipcert.network.evaluate import evaluate_node
from lipcert.network.linear import apply_linear, coefficients, offset
from lipcert.network.operators import Affine, AvgPool, Elementwise

ZERO = Fraction(0)
FUNCTIONS = {
    "relu": lambda x: max(x, ZERO),
    "leaky_relu": lambda x, slope: x if x >= 0 else slope * x,
    "abs": abs,
    "clip": lambda x, low, high: min(max(x, low), high),
    "softshrink": lambda x, width: x - min(max(x, -width), width),
}


def rational(numbers):
    """Return an array of floats as one of Fractions; infinite ones stay as they are."""
    found = np.empty(np.shape(numbers), dtype=object)
    for place, value in np.ndenumerate(np.asarray(numbers)):
        found[place] = Fraction(value) if not isinstance(value, float) or np.isfinite(value) else value
    return found


def _number(enclosure, sign):
    """The centre, or the end of an enclosure on one side."""
    return rational(enclosure.mid) + sign * rational(enclosure.radius)


def values(network, x, sign=0):
    """Return the values (N, *shape) of all nodes at points x (N, *input_shape), arrays of Fractions.

    sign: 0 for the centres of all enclosures, 1 or -1 for their upper or lower ends.
    """
    found = [rational(x)]
    for node in network.nodes[1:]:
        inputs, op = [found[i] for i in node.inputs], node.op
        if isinstance(op, Affine):
            numbers, constant = coefficients(op), offset(op)
            weight = None if numbers is None else _number(numbers, sign)
            exact = replace(op, counts=rational(op.counts)) if isinstance(op, AvgPool) else op
            y = apply_linear(exact, inputs[0], weight, node.shape)
            y = y if constant is None else y + _number(constant, sign)
        elif isinstance(op, Elementwise):
            y = np.frompyfunc(FUNCTIONS[op.name], 1 + len(op.params), 1)(inputs[0], *map(rational, op.params))
        else:
            y = evaluate_node(node, inputs)
        found.append(rational(y))
    return found


def margins(network, x, labels, sign=0):
    """Return (N, classes) margins of the labels, Fractions; zero for the label itself."""
    outputs = values(network, x, sign)[-1].reshape(len(x), -1)
    return outputs[np.arange(len(x)), labels][:, None] - outputs
