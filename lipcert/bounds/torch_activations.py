"""The elementwise activations in torch: one entry for each row of `network.activations.TABLE`.

Each computes the same real function, is differentiable by autograd, and gives no NaN at finite inputs. The
rounding error of each entry is modelled in `robustness.rounding_model`; change both together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from lipcert.network.activations import SELU_ALPHA, SELU_SCALE

Function = Callable[..., Tensor]


def _elu(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.where(x > 0, x, alpha * torch.expm1(x.clamp(max=0.0)))


def _selu(x: Tensor) -> Tensor:
    return SELU_SCALE * torch.where(x > 0, x, SELU_ALPHA * torch.expm1(x.clamp(max=0.0)))


def _celu(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.where(x > 0, x, alpha * torch.expm1(x.clamp(max=0.0) / alpha))


def _softplus(x: Tensor, beta: Tensor) -> Tensor:
    t = beta * x
    return (t.clamp(min=0.0) + torch.log1p(torch.exp(-t.abs()))) / beta


def _logsigmoid(x: Tensor) -> Tensor:
    return x.clamp(max=0.0) - torch.log1p(torch.exp(-x.abs()))


def _mish(x: Tensor) -> Tensor:
    return x * torch.tanh(x.clamp(min=0.0) + torch.log1p(torch.exp(-x.abs())))


def _gelu_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * x * (1.0 + 0.044715 * x * x)))


def _clip(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(x, low), high)


FUNCTIONS: Mapping[str, Function] = MappingProxyType(
    {
        "relu": functional.relu,
        "leaky_relu": lambda x, slope: torch.where(x >= 0, x, slope * x),
        "elu": _elu,
        "selu": _selu,
        "celu": _celu,
        "gelu": functional.gelu,
        "gelu_tanh": _gelu_tanh,
        "silu": lambda x: x * torch.sigmoid(x),
        "mish": _mish,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "softplus": _softplus,
        "softsign": lambda x: x / (1.0 + x.abs()),
        "clip": _clip,
        "abs": torch.abs,
        "hardsigmoid": lambda x, alpha, beta: (alpha * x + beta).clamp(0.0, 1.0),
        "hardswish": lambda x: x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
        "logsigmoid": _logsigmoid,
        "tanhshrink": lambda x: x - torch.tanh(x),
        "softshrink": lambda x, width: x - torch.minimum(torch.maximum(x, -width), width),
        "erf": torch.erf,
        "sin": torch.sin,
        "cos": torch.cos,
    }
)
