"""Layers of torch with parameters: dense, convolution, batch norm; and those that do nothing in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from lipcert.network.enclosure import Enclosure
from lipcert.network.operators import Conv, ConvTranspose, Dense, Pads
from lipcert.network.readers import common
from lipcert.network.readers.common import PRODUCT_REASON, rearrange, reshape
from lipcert.network.readers.torch.values import MIXES, Missing, Refused, Step, Traced, Value

TRAINING = "computes in training mode, with statistics of the batch; call model.eval() before exporting"

# --- dense --------------------------------------------------------------------------------------------------


def _dense(step: Step, x: int, weight: Enclosure, bias: Enclosure | None, name: str | None = None) -> int:
    """Append y = W x + b on the last axis; weight (m, n)."""
    if step.rank(x) == 0:
        raise Refused(MIXES)
    bias = Enclosure.exact(np.zeros(weight.shape[0])) if bias is None else bias
    if bias.mid.ndim > 1:
        raise Refused("adds a bias with more than one axis")
    return step.builder.add(Dense(weight, bias), x, name=name or step.name)


def _linear(step: Step) -> int:
    return _dense(step, step.node("input"), step.constant("weight"), step.maybe("bias"))


def _transposed(weight: Enclosure) -> Enclosure:
    if weight.mid.ndim != 2:
        raise Refused("multiplies by a stack of matrices; only one matrix for all samples is supported")
    return weight.map(lambda a: np.ascontiguousarray(a.T))


def _addmm(step: Step) -> int:
    """Append beta * bias + alpha * (x @ W)."""
    alpha, beta = (Enclosure.exact(step.scalar(name)) for name in ("alpha", "beta"))
    bias = step.constant("self")
    bias = bias.reshape(*bias.shape[1:]) if bias.mid.ndim == 2 and bias.shape[0] == 1 else bias
    return _dense(step, step.node("mat1"), _transposed(step.constant("mat2")) * alpha, bias * beta)


def _matmul(step: Step) -> int:
    """Append x @ W, x @ v, or W @ x on the last two axes of each sample."""
    left, right = step.arguments.values()
    if isinstance(left, Traced) and isinstance(right, Traced):
        raise Refused(PRODUCT_REASON)
    first, second = step.arguments
    if isinstance(left, Traced):
        weight = step.constant(second)
        rows = weight.reshape(1, -1) if weight.mid.ndim == 1 else _transposed(weight)
        return reshape(step.builder, _dense(step, left.node, rows, None), step.shape, f"{step.name}.shape")
    if step.rank(right.node) < 2 or step.constant(first).mid.ndim != 2:
        raise Refused(MIXES)
    turned = rearrange(step.builder, right.node, lambda i: np.swapaxes(i, -1, -2), f"{step.name}.turn")
    y = _dense(step, turned, step.constant(first), None)
    return rearrange(step.builder, y, lambda i: np.swapaxes(i, -1, -2), f"{step.name}.back")


# --- convolution --------------------------------------------------------------------------------------------


def _conv(step: Step) -> int:
    x, weight = step.node("input"), step.constant("weight")
    rank = spatial_rank(step, x, weight.mid.ndim - 2)
    stride, dilation = step.integers("stride", rank, 1), step.integers("dilation", rank, 1)
    padding = _conv_padding(step, weight.shape[2:], dilation)
    groups = int(step.get("groups", 1))
    bias = _conv_bias(step, weight.shape[0], rank)
    return step.add(Conv(weight, bias, stride, padding, dilation, groups), x)


def _conv_padding(step: Step, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> Pads:
    mode = step.get("padding")
    if mode == "same":  # the odd one goes behind
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    if mode == "valid":
        return ((0, 0),) * len(kernel)
    return tuple((p, p) for p in step.integers("padding", len(kernel)))


def _conv_transpose(step: Step) -> int:
    x, weight = step.node("input"), step.constant("weight")
    rank = spatial_rank(step, x, weight.mid.ndim - 2)
    groups = int(step.get("groups", 1))
    op = ConvTranspose(
        weight,
        _conv_bias(step, weight.shape[1] * groups, rank),
        step.integers("stride", rank, 1),
        tuple((p, p) for p in step.integers("padding", rank)),
        step.integers("output_padding", rank),
        step.integers("dilation", rank, 1),
        groups,
    )
    return step.add(op, x)


def _convolution(step: Step) -> int:
    return _conv_transpose(step) if step.get("transposed") else _conv(step)


def _conv_bias(step: Step, channels: int, rank: int) -> Enclosure:
    bias = step.maybe("bias")
    bias = Enclosure.exact(np.zeros(channels)) if bias is None else bias
    return bias.reshape(-1, *(1,) * rank)


def spatial_rank(step: Step, x: int, rank: int) -> int:
    """Return the number of spatial axes, which must be those of a value (C, *spatial)."""
    if step.rank(x) != rank + 1:
        raise Refused(f"is called without a batch axis on a value with {step.rank(x) + 1} axes; add one in front")
    return rank


# --- evaluation mode ---------------------------------------------------------------------------------------------


def _batch_norm(step: Step) -> Value:
    if step.get("training") or step.get("running_mean") is None or step.get("running_var") is None:
        raise Refused(TRAINING)
    mean, variance = step.constant("running_mean"), step.constant("running_var")
    factor, shift = step.maybe("weight"), step.maybe("bias")
    affine = (
        Enclosure.exact(np.ones(mean.shape)) if factor is None else factor,
        Enclosure.exact(np.zeros(mean.shape)) if shift is None else shift,
    )
    y = common.batch_norm(step.builder, step.x, affine, (mean, variance), step.number("eps"), step.name)
    several = len(step.target._schema.returns) > 1
    return [Traced(y), Missing(TRAINING), Missing(TRAINING)] if several else y


def _dropout(step: Step) -> Value:
    if step.get("train") is not False:  # None stands for training too
        raise Refused("drops entries at random in training mode; call model.eval() before exporting")
    several = len(step.target._schema.returns) > 1
    return [Traced(step.x), Missing(TRAINING)] if several else step.x


def _same(step: Step) -> Value:
    """Return the argument: a cast to the dtype that it has (others are refused before)."""
    return step.x


_RANKS = (1, 2, 3)
HANDLERS: Mapping[str, Callable[[Step], Value]] = MappingProxyType(
    {
        "linear": _linear,
        "addmm": _addmm,
        **dict.fromkeys(("mm", "matmul", "bmm"), _matmul),
        **dict.fromkeys((f"conv{r}d" for r in _RANKS), _conv),
        **dict.fromkeys((f"conv_transpose{r}d" for r in _RANKS), _conv_transpose),
        "convolution": _convolution,
        **dict.fromkeys(("batch_norm", "_native_batch_norm_legit_no_training"), _batch_norm),
        **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout", "native_dropout"), _dropout),
        **dict.fromkeys(("to", "_to_copy", "type_as", "positive"), _same),
    }
)
