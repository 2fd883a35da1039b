r"""The curved activations: enclosures of their values, and of their second derivatives between points.

As `bounds.local.curves`, with every number enclosed. Everything is made of exp, log(1 + t) and erf (`functions`). With
y = |x| and t = e^-y <= 1, the sigmoid is 1 / (1 + t) or t / (1 + t), its derivative t / (1 + t)^2, and its second one
-+ t (1 - t) / (1 + t)^3: no cancellation, no overflow. These are identities for y = x and y = -x, whatever the sign of
the other, so an x that is only known up to a radius needs no cases.

On a cell between two points f'' lies between its values there, where it is monotone: every zero of f''' is a point too
(`stationary`). The decimals miss the true ones by 2^-50 at most, and |f'''| < 8 there: `_MISSED` counts that. Where the
zeros have no closed form, |f'''| <= third widens the values by third times half the cell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from lipcert.network.activations import SELU_ALPHA, SELU_SCALE
from lipcert.network.enclosure import Enclosure, Float, round_up
from lipcert.proof.local.functions import TWO_OVER_ROOT_PI, erf, exp, log1p

Function = Callable[..., Enclosure]
"""(x, *parameters) -> an enclosure of x's shape."""

_MISSED = 2.0**-46
_ONE, _TWO, _HALF = Enclosure.exact(1.0), Enclosure.exact(2.0), Enclosure.exact(0.5)
_ROOT_HALF = _HALF.sqrt()
_ROOT_2_OVER_PI = TWO_OVER_ROOT_PI * _ROOT_HALF
_CUBIC = Enclosure(np.array(0.044715), np.array(2.0**-57))  # the decimal and the float64
_ALPHA, _SCALE = Enclosure.exact(SELU_ALPHA), Enclosure.exact(SELU_SCALE)
_TANH_TOP = 0.6584789484624084  # artanh(1 / sqrt 3)
_SIGMOID_TOP = 1.3169578969248167  # log(2 + sqrt 3)


@dataclass(frozen=True)
class Bend:
    """A curved activation.

    Attributes:
        value, second: f, and f'' wherever `where` says that it is not zero.
        kinks: points where f' or f'' jumps; at those of f'' alone, `second` encloses the values of both sides.
        stationary: points of the module's text.
        third: a bound of |f'''| between points, 0 where f'' is monotone there.
        where: (left, right) ends of a piece outside which f'' is zero.
    """

    value: Function
    second: Function
    kinks: tuple[float, ...] = ()
    stationary: tuple[float, ...] = ()
    third: float = 0.0
    where: tuple[float, float] = (-math.inf, math.inf)

    def between(self, x: Float, parameters: tuple[Enclosure, ...]) -> tuple[Float, Float]:
        """Return lower and upper bounds (K - 1, ...) of f'' between points (K, ...), ascending, with all kinks."""
        found = self.second(Enclosure(np.clip(x, *self.where)), *parameters)
        least, most = found.mid - found.radius, found.mid + found.radius
        slack = round_up(0.5 * self.third * np.diff(x, axis=0) + 2.0**-50 * np.abs(found.mid).max(axis=0) + _MISSED, 8)
        low, high = np.minimum(least[:-1], least[1:]) - slack, np.maximum(most[:-1], most[1:]) + slack
        zero = (x[:-1] >= self.where[1]) | (x[1:] <= self.where[0])
        return np.where(zero, 0.0, np.nextafter(low, -np.inf)), np.where(zero, 0.0, np.nextafter(high, np.inf))


def _turned(x: Enclosure) -> tuple[Float, Enclosure]:
    """Return signs, and t = e^(-sign x)."""
    sign = np.where(x.mid >= 0, 1.0, -1.0)
    return sign, exp(Enclosure(-sign * x.mid, x.radius))


def _sigmoid(x: Enclosure) -> Enclosure:
    sign, t = _turned(x)
    top = Enclosure(np.where(sign > 0, 1.0, t.mid), np.where(sign > 0, 0.0, t.radius))
    return top / (_ONE + t)


def _sigmoid_first(x: Enclosure) -> Enclosure:
    _, t = _turned(x)
    return t / ((_ONE + t) * (_ONE + t))


def _sigmoid_second(x: Enclosure) -> Enclosure:
    sign, t = _turned(x)
    return Enclosure(-sign) * t * (_ONE - t) / ((_ONE + t) * (_ONE + t) * (_ONE + t))


def _tanh(x: Enclosure) -> Enclosure:
    return _TWO * _sigmoid(_TWO * x) - _ONE


def _tanh_second(x: Enclosure) -> Enclosure:
    return Enclosure.exact(8.0) * _sigmoid_second(_TWO * x)


def _softplus(x: Enclosure) -> Enclosure:
    sign, t = _turned(x)
    positive = Enclosure(np.where(sign > 0, x.mid, 0.0), np.where(sign > 0, x.radius, 0.0))
    return positive + log1p(t)


def _gelu(x: Enclosure) -> Enclosure:
    return _HALF * x * (_ONE + erf(x * _ROOT_HALF))


def _gelu_second(x: Enclosure) -> Enclosure:
    square = x * x
    return _HALF * _ROOT_2_OVER_PI * exp(-(_HALF * square)) * (_TWO - square)


def _erf_second(x: Enclosure) -> Enclosure:
    return -(_TWO * TWO_OVER_ROOT_PI * x * exp(-(x * x)))


def _silu_second(x: Enclosure) -> Enclosure:
    return _TWO * _sigmoid_first(x) + x * _sigmoid_second(x)


def _gelu_tanh_inner(x: Enclosure) -> Enclosure:
    """2 u; gelu_tanh is x sigmoid(2 u)."""
    return _TWO * _ROOT_2_OVER_PI * x * (_ONE + _CUBIC * x * x)


def _gelu_tanh_second(x: Enclosure) -> Enclosure:
    """f = x g(v), v = 2 u: f'' = 2 g' v' + x (g' v'' + g'' v'^2)."""
    scale, v = _TWO * _ROOT_2_OVER_PI, _gelu_tanh_inner(x)
    first = scale * (_ONE + Enclosure.exact(3.0) * _CUBIC * x * x)
    second = Enclosure.exact(6.0) * scale * _CUBIC * x
    g, gg = _sigmoid_first(v), _sigmoid_second(v)
    return _TWO * g * first + x * (g * second + gg * first * first)


def _mish_second(x: Enclosure) -> Enclosure:
    """f = x g, g = tanh(p), p = softplus(x): f'' = 2 g' + x g''; g' = sech^2 p', g'' = sech^2 (p'' - 2 g p'^2)."""
    p, s = _softplus(x), _sigmoid(x)
    sech = Enclosure.exact(4.0) * _sigmoid_first(_TWO * p)
    bend = _sigmoid_first(x) - _TWO * _tanh(p) * s * s
    return sech * (_TWO * s + x * bend)


def _softsign(x: Enclosure) -> Enclosure:
    return x / (_ONE + Enclosure(np.abs(x.mid)))


def _softsign_second(x: Enclosure) -> Enclosure:
    """Either sign: f'' jumps at zero, from 2 to -2."""
    size = _ONE + Enclosure(np.abs(x.mid))
    return Enclosure(np.zeros_like(x.mid), (_TWO / (size * size * size)).magnitude())


def _left(x: Enclosure, value: Enclosure) -> Enclosure:
    """Return x where it is positive, and the value elsewhere; x is exact."""
    mid, radius = np.broadcast_arrays(value.mid, value.radius)
    return Enclosure(np.where(x.mid > 0, x.mid, mid), np.where(x.mid > 0, 0.0, radius))


def _below_zero(x: Enclosure) -> Enclosure:
    return Enclosure(np.minimum(x.mid, 0.0))


def _elu(x: Enclosure, alpha: Enclosure) -> Enclosure:
    return _left(x, alpha * (exp(_below_zero(x)) - _ONE))


def _celu(x: Enclosure, alpha: Enclosure) -> Enclosure:
    return _left(x, alpha * (exp(_below_zero(x) / alpha) - _ONE))


def _hardswish(x: Enclosure) -> Enclosure:
    moved = x + Enclosure.exact(3.0)
    return x * Enclosure(np.clip(moved.mid, 0.0, 6.0), moved.radius) / Enclosure.exact(6.0)


_LEFT, _TOPS = (-math.inf, 0.0), (-_TANH_TOP, _TANH_TOP)

BENDS: Mapping[str, Bend] = MappingProxyType(
    {
        "sigmoid": Bend(_sigmoid, _sigmoid_second, stationary=(-_SIGMOID_TOP, _SIGMOID_TOP)),
        "tanh": Bend(_tanh, _tanh_second, stationary=_TOPS),
        "tanhshrink": Bend(lambda x: x - _tanh(x), lambda x: -_tanh_second(x), stationary=_TOPS),
        "softplus": Bend(
            lambda x, beta: _softplus(beta * x) / beta,
            lambda x, beta: beta * _sigmoid_first(beta * x),
            stationary=(0.0,),
        ),
        "logsigmoid": Bend(lambda x: -_softplus(-x), lambda x: -_sigmoid_first(x), stationary=(0.0,)),
        "gelu": Bend(_gelu, _gelu_second, stationary=(-2.0, 0.0, 2.0)),
        "erf": Bend(erf, _erf_second, stationary=(-math.sqrt(0.5), math.sqrt(0.5))),
        "silu": Bend(lambda x: x * _sigmoid(x), _silu_second, third=0.32),
        "gelu_tanh": Bend(lambda x: x * _sigmoid(_gelu_tanh_inner(x)), _gelu_tanh_second, third=0.8),
        "mish": Bend(lambda x: x * _tanh(_softplus(x)), _mish_second, third=0.6),
        "elu": Bend(_elu, lambda x, alpha: alpha * exp(x), kinks=(0.0,), where=_LEFT),
        "celu": Bend(_celu, lambda x, alpha: exp(x / alpha) / alpha, kinks=(0.0,), where=_LEFT),
        "selu": Bend(lambda x: _SCALE * _elu(x, _ALPHA), lambda x: _SCALE * _ALPHA * exp(x), kinks=(0.0,), where=_LEFT),
        "softsign": Bend(_softsign, _softsign_second, kinks=(0.0,)),
        "hardswish": Bend(
            _hardswish,
            lambda x: _ONE.broadcast_to(x.shape) / Enclosure.exact(3.0),
            kinks=(-3.0, 3.0),
            where=(-3.0, 3.0),
        ),
    }
)
