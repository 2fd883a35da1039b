r"""How each elementwise activation bends: where it has kinks, and its second derivative between them.

That is all that linear bounds of it need (see `lines`). Between two kinks f is twice differentiable. On a cell
[a, b] without a kink inside, f'' stays between its values at a, at b and at the stationary points of f'' (zeros of
f''') inside; where those have no closed form, |f'''| <= third widens the values at a and b by third (b - a) / 2,
since f''(x) >= max(f''(a) - third (x - a), f''(b) - third (b - x)).

The decimals below are zeros of f''' to 16 digits (missing one by d changes f'' by O(d^2)), and bounds of |f'''|
rounded up; a test compares them with ball arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from lipcert.network.activations import SELU_ALPHA, SELU_SCALE

Second = Callable[..., Tensor]

_ROOT_2_PI = math.sqrt(2.0 / math.pi)
_TANH_TOP = 0.6584789484624083  # tanh^2 = 1/3: the zeros of tanh'''; artanh(1 / sqrt 3)


@dataclass(frozen=True)
class Curve:
    """The bends of one activation.

    Attributes:
        kinks: (*parameters) -> the points where f' or f'' jumps, in any order.
        second: (x, *parameters) -> f'' on each piece between kinks, from left to right; None for straight pieces.
        stationary: points inside the pieces where f'' may have an extremum.
        third: an upper bound of |f'''| beyond what `stationary` says, 0 where that says it all.
        turns: points where f turns from rising to falling or back, other than kinks.
        period: of the turns, or None where `turns` are all.
        meets: (slope, *parameters) -> points among which are all those between kinks where f' is the slope; None
            where they have no closed form. Never NaN.
    """

    kinks: Callable[..., tuple[Tensor, ...]] = lambda *_: ()
    second: tuple[Second | None, ...] = (None,)
    stationary: tuple[float, ...] = ()
    third: float = 0.0
    turns: tuple[float, ...] = ()
    period: float | None = None
    meets: Callable[..., tuple[Tensor, ...]] | None = None

    @property
    def is_straight(self) -> bool:
        """Whether f is linear between its kinks."""
        return all(piece is None for piece in self.second)

    def extremes(self, low: Tensor, high: Tensor, parameters: tuple[Tensor, ...]) -> list[Tensor]:
        """Return points of [low, high] among which f takes its least and its largest value there."""
        found = [kink.to(low).expand_as(low) for kink in self.kinks(*parameters)]
        for turn in self.turns:
            if self.period is None:
                found.append(torch.full_like(low, turn))
            else:  # the first one from `low` on
                found.append(turn + self.period * torch.ceil((low - turn) / self.period))
        return [low, high, *(torch.minimum(torch.maximum(point, low), high) for point in found)]

    def bend(self, piece: int, a: Tensor, b: Tensor, parameters: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return lower and upper bounds of f'' on cells [a, b] of a piece."""
        second = self.second[piece]
        if second is None:
            return torch.zeros_like(a), torch.zeros_like(a)
        left, right = second(a, *parameters), second(b, *parameters)
        low, high = torch.minimum(left, right), torch.maximum(left, right)
        for point in self.stationary:
            top = second(a.new_tensor(point), *parameters)
            inside = (a < point) & (point < b)
            low = torch.where(inside, torch.minimum(low, top), low)
            high = torch.where(inside, torch.maximum(high, top), high)
        slack = 0.5 * self.third * (b - a)
        return low - slack, high + slack


def _at_zero(*_: Tensor) -> tuple[Tensor, ...]:
    return (torch.zeros(()),)


def _hard_sigmoid_kinks(alpha: Tensor, beta: Tensor) -> tuple[Tensor, ...]:
    flat = alpha == 0  # a constant: no kink anywhere
    safe = torch.where(flat, 1.0, alpha)
    return torch.where(flat, 0.0, -beta / safe), torch.where(flat, 0.0, (1.0 - beta) / safe)


def _share(slope: Tensor, largest: float | Tensor = 1.0) -> Tensor:
    """Return a slope as a part of the largest one, brought into (0, 1]."""
    return (slope / largest).clamp(torch.finfo(slope.dtype).tiny, 1.0)


def _both(x: Tensor) -> tuple[Tensor, ...]:
    return x, -x


def _sigmoid_second(x: Tensor) -> Tensor:
    s = torch.sigmoid(x)
    return s * (1.0 - s) * (1.0 - 2.0 * s)


def _tanh_second(x: Tensor) -> Tensor:
    t = torch.tanh(x)
    return -2.0 * t * (1.0 - t * t)


def _softplus_second(x: Tensor, beta: Tensor) -> Tensor:
    s = torch.sigmoid(beta * x)
    return beta * s * (1.0 - s)


def _gelu_second(x: Tensor) -> Tensor:
    return torch.exp(-0.5 * x * x) * (2.0 - x * x) / math.sqrt(2.0 * math.pi)


def _silu_second(x: Tensor) -> Tensor:
    s = torch.sigmoid(x)
    return s * (1.0 - s) * (2.0 + x * (1.0 - 2.0 * s))


def _gelu_tanh_second(x: Tensor) -> Tensor:
    """f = x g, g = (1 + tanh u) / 2: f'' = 2 g' + x g''."""
    u = _ROOT_2_PI * (x + 0.044715 * x**3)
    d, dd = _ROOT_2_PI * (1.0 + 0.134145 * x * x), _ROOT_2_PI * 0.26829 * x
    t = torch.tanh(u)
    first = 0.5 * (1.0 - t * t) * d
    second = 0.5 * (1.0 - t * t) * (dd - 2.0 * t * d * d)
    return 2.0 * first + x * second


def _mish_second(x: Tensor) -> Tensor:
    """f = x tanh(p), p = softplus(x): f'' = 2 g' + x g'' with g = tanh(p), p' = s, p'' = s (1 - s)."""
    s = torch.sigmoid(x)
    t = torch.tanh(x.clamp(min=0.0) + torch.log1p(torch.exp(-x.abs())))
    sech = 1.0 - t * t
    return 2.0 * sech * s + x * sech * (s * (1.0 - s) - 2.0 * t * s * s)


CURVES: Mapping[str, Curve] = MappingProxyType(
    {
        "relu": Curve(_at_zero, (None, None)),
        "leaky_relu": Curve(_at_zero, (None, None)),
        "abs": Curve(_at_zero, (None, None)),
        "clip": Curve(lambda low, high: (low, high), (None, None, None)),
        "hardsigmoid": Curve(_hard_sigmoid_kinks, (None, None, None)),
        "softshrink": Curve(lambda width: (-width, width), (None, None, None)),
        "hardswish": Curve(
            lambda: (torch.tensor(-3.0), torch.tensor(3.0)),
            (None, lambda x: torch.full_like(x, 1.0 / 3.0), None),
            turns=(-1.5,),
        ),
        # f' = alpha e^x
        "elu": Curve(
            _at_zero,
            (lambda x, alpha: alpha * torch.exp(x), None),
            meets=lambda s, alpha: (_share(s, torch.where(alpha == 0, 1.0, alpha)).log(),),
        ),
        "selu": Curve(
            _at_zero,
            (lambda x: SELU_SCALE * SELU_ALPHA * torch.exp(x), None),
            meets=lambda s: (_share(s, SELU_SCALE * SELU_ALPHA).log(),),
        ),
        "celu": Curve(
            _at_zero,
            (lambda x, alpha: torch.exp(x / alpha) / alpha, None),
            meets=lambda s, alpha: (alpha * _share(s).log(),),
        ),
        # f''' = s (1 - s) (1 - 6 s + 6 s^2) = 0 at s = (3 +- sqrt 3) / 6, x = +- log(2 + sqrt 3)
        # f' = (1 - r^2) / 4 with r = 2 s - 1 = tanh(x / 2)
        "sigmoid": Curve(
            second=(_sigmoid_second,),
            stationary=(-1.3169578969248167, 1.3169578969248167),
            meets=lambda s: _both(2.0 * torch.atanh((1.0 - _share(s, 0.25)).sqrt())),
        ),
        # f' = 1 - tanh^2
        "tanh": Curve(
            second=(_tanh_second,),
            stationary=(-_TANH_TOP, _TANH_TOP),
            meets=lambda s: _both(torch.atanh((1.0 - _share(s)).sqrt())),
        ),
        # f' = tanh^2
        "tanhshrink": Curve(
            second=(lambda x: -_tanh_second(x),),
            stationary=(-_TANH_TOP, _TANH_TOP),
            meets=lambda s: _both(torch.atanh(_share(s).sqrt())),
        ),
        # f'' = -2 x f', f' = 2 / sqrt(pi) e^(-x^2), f''' = (4 x^2 - 2) f'
        "erf": Curve(
            second=(lambda x: -4.0 / math.sqrt(math.pi) * x * torch.exp(-x * x),),
            stationary=(-math.sqrt(0.5), math.sqrt(0.5)),
            meets=lambda s: _both((-_share(s, 2.0 / math.sqrt(math.pi)).log()).sqrt()),
        ),
        # f'' = beta s (1 - s) at beta x, largest at 0
        "softplus": Curve(second=(_softplus_second,), stationary=(0.0,)),
        "logsigmoid": Curve(second=(lambda x: -torch.sigmoid(x) * torch.sigmoid(-x),), stationary=(0.0,)),
        "softsign": Curve(
            _at_zero, (lambda x: 2.0 / (1.0 - x.clamp(max=0.0)) ** 3, lambda x: -2.0 / (1.0 + x.clamp(min=0.0)) ** 3)
        ),
        # f''' = density(x) x (x^2 - 4)
        "gelu": Curve(second=(_gelu_second,), stationary=(-2.0, 0.0, 2.0), turns=(-0.75179152469356446,)),
        "silu": Curve(second=(_silu_second,), third=0.32, turns=(-1.2784645427610738,)),
        "gelu_tanh": Curve(second=(_gelu_tanh_second,), third=0.8, turns=(-0.75246142207101626,)),
        "mish": Curve(second=(_mish_second,), third=0.6, turns=(-1.1924312145154952,)),
        "sin": Curve(
            second=(lambda x: -torch.sin(x),), third=1.0, turns=(-math.pi / 2, math.pi / 2), period=2 * math.pi
        ),
        "cos": Curve(second=(lambda x: -torch.cos(x),), third=1.0, turns=(0.0, math.pi), period=2 * math.pi),
    }
)
