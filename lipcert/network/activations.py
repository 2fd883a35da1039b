r"""The elementwise activations: what each computes, and between which slopes it stays.

The *slope interval* [alpha, beta] of an activation f holds every difference quotient (f(a) - f(b)) / (a - b) over
the whole real line. All functions here are continuous and piecewise differentiable, so a quotient is a mean of
f' over [b, a], and the closure of the values of f' is the interval. Slopes are those of the real function of the
parameters that stand in the operator, rounded outward where they had to be computed; a test proves the decimal
constants below with ball arithmetic.

Not here, because their slopes have no bound: steps (hard shrink, threshold, sign), exp, sqrt, products of two
values. Parameters that would make a row discontinuous or unbounded are refused.

ONNX's Selu(alpha, gamma) is ``elu(alpha)`` followed by a `Scale`; torch's hard sigmoid is ``clip(0, 6)`` of x + 3,
followed by a `Scale` of 1/6, which is no float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from lipcert.errors import Unsupported, UnsupportedError, UsageError
from lipcert.network.enclosure import Float
from lipcert.network.operators import Elementwise

SELU_ALPHA = 1.6732632423543772848170429916717  # Klambauer et al. 2017, as torch holds them
SELU_SCALE = 1.0507009873554804934193349852946

# Largest slopes, each a decimal rounded up. With s = sigmoid, gelu, gelu_tanh and silu are f(x) = x g(x) where
# g(-x) = 1 - g(x); so f(x) - f(-x) = x, f'(x) + f'(-x) = 1, and the smallest slope is 1 minus the largest.
#
# gelu: g is the normal distribution function, f' = g + x g', f'' = g' (2 - x^2). f' rises up to sqrt 2 and falls
# to its limit 1 behind: the maximum is (1 + erf 1) / 2 + e^-1 / sqrt(pi) = 1.12890414518515478...
GELU_SLOPE = 1.12890414518516
# silu: f' = s + x s (1 - s), f'' = s (1 - s) (2 - x tanh(x/2)). One positive root x* = 2.39935728052..., where
# tanh(x*/2) = 2 / x* makes f' = 1/2 + x*/4 = 1.09983932012886691...
SILU_SLOPE = 1.09983932012887
# gelu_tanh: g = (1 + tanh u) / 2, u = sqrt(2/pi) (x + 0.044715 x^3). The maximum of f' at 1.41850400879... has no
# closed form: 1.12899306865877176...
GELU_TANH_SLOPE = 1.12899306865878
# mish: with w = e^x, tanh(log(1 + w)) = (w^2 + 2 w) / (w^2 + 2 w + 2). f' has its maximum 1.08849816125172786...
# at 1.49057117948... and its minimum -0.11252612238946256... at -2.25637639636...
MISH_SLOPES = (-0.112526122389463, 1.08849816125173)
# erf: f' = 2 / sqrt(pi) e^(-x^2) is largest at 0: 1.12837916709551257...
ERF_SLOPE = 1.12837916709552

# torch computes softplus as x where beta x > threshold (20), a jump. Here softplus is the smooth function; for
# thresholds of at least 20 the deployed one differs from it by at most this constant / |beta|, since
# log(1 + e^t) - t = log(1 + e^-t) <= e^-20. It belongs to the error of the deployed forward pass.
SOFTPLUS_GAP = 2.06115362244e-9


def _finite(*parameters: Float) -> bool:
    return all(bool(np.isfinite(p).all()) for p in parameters)


@dataclass(frozen=True)
class ScalarActivation:
    """A real function of one real variable, with parameters.

    Attributes:
        parameters: names of the parameters, in the order of `Elementwise.params`.
        function: numpy float64, (x, *parameters) -> f(x), shapes broadcast; no overflow at any finite float32.
        slopes: (*parameters) -> (alpha, beta), enclosing all slopes, of the parameters' broadcast shape.
        admissible: whether `slopes` holds for the parameters (NaN is refused before).
        needs: what admissible parameters are, for people.
    """

    parameters: tuple[str, ...]
    function: Callable[..., Float]
    slopes: Callable[..., tuple[Float, Float]]
    admissible: Callable[..., bool] = _finite
    needs: str = "finite parameters"


def slope_interval(op: Elementwise, where: str = "an activation") -> tuple[Float, Float]:
    """Return (alpha, beta), which enclose all slopes of the activation on the real line.

    Args:
        op: the activation.
        where: name of its node, for the error message.

    Returns:
        float64 arrays, broadcastable to the node's shape (0-d where the parameters are). Level: verified.

    Raises:
        UnsupportedError: the activation is unknown, or its slopes are not bounded for these parameters.
        UsageError: a parameter is NaN, or their number is wrong.
    """
    row = TABLE.get(op.name)
    if row is None:
        raise UnsupportedError([Unsupported(where, op.name, "no slope interval is proved for this activation")])
    parameters = [np.asarray(p, dtype=np.float64) for p in op.params]
    if len(parameters) != len(row.parameters):
        raise UsageError(f"'{where}': {op.name} takes parameters {row.parameters}, not {len(parameters)} of them")
    if any(np.isnan(p).any() for p in parameters):
        raise UsageError(f"'{where}': a parameter of {op.name} is NaN; repair or re-export the checkpoint")
    if not row.admissible(*parameters):
        raise UnsupportedError([Unsupported(where, op.name, f"the slope is bounded only with {row.needs}")])
    alpha, beta = row.slopes(*parameters)
    return np.asarray(alpha), np.asarray(beta)


def slope_bound(op: Elementwise, where: str = "an activation") -> float:
    """Return an upper bound of the Lipschitz constant; arguments and errors as in `slope_interval`."""
    alpha, beta = slope_interval(op, where)
    return float(max(np.abs(alpha).max(initial=0.0), np.abs(beta).max(initial=0.0)))


# --- functions ----------------------------------------------------------------------------------------------


def _erf(x: Float) -> Float:
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(x), dtype=np.float64)


def _erfc(x: Float) -> Float:
    return np.asarray(np.frompyfunc(math.erfc, 1, 1)(x), dtype=np.float64)


def _sigmoid(x: Float) -> Float:
    small = np.exp(-np.abs(x))  # at most 1: no overflow
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def _softplus(x: Float, beta: Float) -> Float:
    return np.asarray(np.logaddexp(0.0, beta * x) / beta)


def _elu(x: Float, alpha: Float) -> Float:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0)))


def _celu(x: Float, alpha: Float) -> Float:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0) / alpha))


def _clip(x: Float, low: Float, high: Float) -> Float:
    return np.minimum(np.maximum(x, low), high)


def _mish(x: Float) -> Float:
    v = np.exp(-np.abs(x))  # numerator and denominator times e^-2x where x >= 0: no overflow
    top = np.where(x >= 0, 1.0 + 2.0 * v, v * (v + 2.0))
    gate: Float = top / (top + np.where(x >= 0, 2.0 * v * v, 2.0))
    return x * gate


def _gelu_tanh(x: Float) -> Float:
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * x * (1.0 + 0.044715 * x * x)))


# --- slopes -------------------------------------------------------------------------------------------------


def _between(alpha: float, beta: float) -> Callable[[], tuple[Float, Float]]:
    return lambda: (np.array(alpha), np.array(beta))


def _unit_slopes(*parameters: Float) -> tuple[Float, Float]:
    """Slopes [0, 1] whatever the parameters."""
    shape = np.broadcast_shapes(*(p.shape for p in parameters))
    return np.zeros(shape), np.ones(shape)


def _two_slopes(one: float, alpha: Float) -> tuple[Float, Float]:
    """f' takes values between `one` and `alpha`, both reached or approached."""
    return np.minimum(one, alpha), np.maximum(one, alpha)


def _elu_slopes(alpha: Float) -> tuple[Float, Float]:
    """f' is 1 for x > 0 and alpha e^x, between 0 and alpha, for x < 0."""
    return np.minimum(0.0, alpha), np.maximum(1.0, alpha)


def _clip_slopes(low: Float, high: Float) -> tuple[Float, Float]:
    """The identity where nothing is clipped, constant where low >= high."""
    return np.where(np.isinf(low) & np.isinf(high), 1.0, 0.0), np.where(low >= high, 0.0, 1.0)


TABLE: Mapping[str, ScalarActivation] = MappingProxyType(
    {
        "relu": ScalarActivation((), lambda x: np.maximum(x, 0.0), _between(0.0, 1.0)),
        "leaky_relu": ScalarActivation(
            ("slope",), lambda x, slope: np.where(x >= 0, x, slope * x), lambda slope: _two_slopes(1.0, slope)
        ),
        "elu": ScalarActivation(("alpha",), _elu, _elu_slopes),
        # f' is SELU_SCALE for x > 0, and up to SELU_SCALE * SELU_ALPHA for x < 0
        "selu": ScalarActivation(
            (),
            lambda x: SELU_SCALE * _elu(x, np.array(SELU_ALPHA)),
            _between(0.0, math.nextafter(SELU_SCALE * SELU_ALPHA, math.inf)),
        ),
        # f' = e^(x / alpha) <= 1 for x < 0 < alpha; unbounded for alpha < 0
        "celu": ScalarActivation(
            ("alpha",), _celu, _unit_slopes, lambda a: _finite(a) and bool((a > 0).all()), "alpha > 0, finite"
        ),
        "gelu": ScalarActivation(
            (), lambda x: 0.5 * x * _erfc(-x * math.sqrt(0.5)), _between(-0.12890414518516, GELU_SLOPE)
        ),
        "gelu_tanh": ScalarActivation((), _gelu_tanh, _between(-0.12899306865878, GELU_TANH_SLOPE)),
        "silu": ScalarActivation((), lambda x: x * _sigmoid(x), _between(-0.09983932012887, SILU_SLOPE)),
        "mish": ScalarActivation((), _mish, _between(*MISH_SLOPES)),
        # f' = s (1 - s) for sigmoid, 1 - tanh^2 for tanh
        "sigmoid": ScalarActivation((), _sigmoid, _between(0.0, 0.25)),
        "tanh": ScalarActivation((), np.tanh, _between(0.0, 1.0)),
        # f' = sigmoid(beta x), for beta of either sign
        "softplus": ScalarActivation(
            ("beta",), _softplus, _unit_slopes, lambda b: _finite(b) and bool((b != 0).all()), "beta != 0, finite"
        ),
        # f' = 1 / (1 + |x|)^2
        "softsign": ScalarActivation((), lambda x: x / (1.0 + np.abs(x)), _between(0.0, 1.0)),
        "clip": ScalarActivation(
            ("low", "high"),
            _clip,
            _clip_slopes,
            lambda low, high: bool((low < np.inf).all() and (high > -np.inf).all()),
            "low < inf and high > -inf",
        ),
        "abs": ScalarActivation((), np.abs, _between(-1.0, 1.0)),
        # clip(alpha x + beta, 0, 1), as in ONNX
        "hardsigmoid": ScalarActivation(
            ("alpha", "beta"),
            lambda x, alpha, beta: np.minimum(np.maximum(alpha * x + beta, 0.0), 1.0),
            lambda alpha, beta: _two_slopes(0.0, alpha + 0.0 * beta),
        ),
        # f' = (2 x + 3) / 6 on [-3, 3], 0 before and 1 behind
        "hardswish": ScalarActivation(
            (), lambda x: x * np.minimum(np.maximum(x + 3.0, 0.0), 6.0) / 6.0, _between(-0.5, 1.5)
        ),
        # f' = sigmoid(-x)
        "logsigmoid": ScalarActivation((), lambda x: -np.logaddexp(0.0, -x), _between(0.0, 1.0)),
        # f' = tanh(x)^2
        "tanhshrink": ScalarActivation((), lambda x: x - np.tanh(x), _between(0.0, 1.0)),
        # x minus its clip to [-width, width]; a negative width makes torch's form jump
        "softshrink": ScalarActivation(
            ("width",),
            lambda x, width: x - np.minimum(np.maximum(x, -width), width),
            _unit_slopes,
            lambda width: _finite(width) and bool((width >= 0).all()),
            "width >= 0, finite",
        ),
        "erf": ScalarActivation((), _erf, _between(0.0, ERF_SLOPE)),
        "sin": ScalarActivation((), np.sin, _between(-1.0, 1.0)),
        "cos": ScalarActivation((), np.cos, _between(-1.0, 1.0)),
    }
)
