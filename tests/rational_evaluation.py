"""A network evaluated in rational numbers: what real arithmetic gives, to the last digit.

Transcendental activations: to 2000 bits.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
from flint import arb, ctx, fmpq

from lipcert.network.activations import SELU_ALPHA, SELU_SCALE
from lipcert.network.evaluate import evaluate_node
from lipcert.network.linear import apply_linear, coefficients, offset
from lipcert.network.operators import Affine, AvgPool, Elementwise

ZERO = Fraction(0)
DIGITS = 2000  # bits of transcendental functions: enough for e^-1000 beside 1


def _sigmoid(x):
    return 1 / (1 + (-x).exp())


def _softplus(x):
    """log(1 + e^x), for any x, without huge numbers."""
    return x + (-x).exp().log1p() if x > 0 else x.exp().log1p()


def _gelu_tanh(x):
    return x * _sigmoid(2 * (2 / arb.pi()).sqrt() * x * (1 + arb(0.044715) * x * x))


BALLS = {
    "sigmoid": _sigmoid,
    "tanh": arb.tanh,
    "tanhshrink": lambda x: x - x.tanh(),
    "softplus": lambda x, beta: _softplus(beta * x) / beta,
    "logsigmoid": lambda x: -_softplus(-x),
    "silu": lambda x: x * _sigmoid(x),
    "gelu": lambda x: x * (1 + (x / arb(2).sqrt()).erf()) / 2,
    "gelu_tanh": _gelu_tanh,
    "mish": lambda x: x * _softplus(x).tanh(),
    "erf": arb.erf,
}
LEFT = {  # below zero; x, or a multiple of it, above
    "elu": (lambda x, alpha: alpha * x.expm1(), 1.0),
    "celu": (lambda x, alpha: alpha * (x / alpha).expm1(), 1.0),
    "selu": (lambda x: arb(SELU_SCALE) * arb(SELU_ALPHA) * x.expm1(), SELU_SCALE),
}


def _by_balls(function):
    """Return a function of Fractions, right to so many bits."""

    def rational_function(*numbers):
        with ctx.workprec(DIGITS):
            value = function(*(arb(fmpq(number.numerator, number.denominator)) for number in numbers))
            mantissa, exponent = value.mid().man_exp()
        return Fraction(int(mantissa)) * Fraction(2) ** int(exponent)

    return rational_function


def _with_straight_right(left, slope):
    curved = _by_balls(left)
    return lambda x, *parameters: Fraction(slope) * x if x > 0 else curved(x, *parameters)


FUNCTIONS = {
    **{name: _with_straight_right(*sides) for name, sides in LEFT.items()},
    **{name: _by_balls(function) for name, function in BALLS.items()},
    "softsign": lambda x: x / (1 + abs(x)),
    "hardswish": lambda x: x * min(max(x + 3, ZERO), Fraction(6)) / 6,
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
