"""Layers of torch: dense, convolution, normalisation, pooling, reductions, sorting, softmax."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np

from lipcert.network.enclosure import Enclosure
from lipcert.network.operators import Conv, ConvTranspose, Dense, Extremum, Pads, Softmax
from lipcert.network.readers import common, pooling
from lipcert.network.readers.common import PRODUCT_REASON, rearrange, reshape, scale, select
from lipcert.network.readers.pooling import Window
from lipcert.network.readers.torch_values import COMPUTED, MIXES, Missing, Refused, Step, Traced, Value

POSITIONS = Missing("uses the positions of maxima or of a sorting, which jump: no slope bound")
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
    rank = _spatial_rank(step, x, weight.mid.ndim - 2)
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
    rank = _spatial_rank(step, x, weight.mid.ndim - 2)
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


def _spatial_rank(step: Step, x: int, rank: int) -> int:
    if step.rank(x) != rank + 1:
        raise Refused(f"is called without a batch axis on a value with {step.rank(x) + 1} axes; add one in front")
    return rank


# --- batch norm ---------------------------------------------------------------------------------------------


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
    if step.get("train"):
        raise Refused("drops entries at random in training mode; call model.eval() before exporting")
    several = len(step.target._schema.returns) > 1
    return [Traced(step.x), Missing(TRAINING)] if several else step.x


# --- pooling ------------------------------------------------------------------------------------------------


def _window(step: Step, rank: int) -> Window:
    _spatial_rank(step, step.x, rank)
    size = step.integers("kernel_size", rank)
    stride = size if not step.get("stride") else step.integers("stride", rank)
    padding = tuple((p, p) for p in step.integers("padding", rank))
    return Window(size, stride, padding, step.integers("dilation", rank, 1), bool(step.get("ceil_mode")))


def _avg_pool(rank: int) -> Callable[[Step], int]:
    def handler(step: Step) -> int:
        divisor = step.get("divisor_override")
        if divisor is not None and (not isinstance(divisor, int) or divisor <= 0):
            raise Refused(f"divides by {divisor}, which is no positive integer")
        count = divisor or ("padded" if step.get("count_include_pad", True) else "inside")
        return pooling.average_pool(step.builder, step.x, _window(step, rank), count, step.name)

    return handler


def _max_pool(rank: int) -> Callable[[Step], Value]:
    def handler(step: Step) -> Value:
        return _with_positions(step, pooling.max_pool(step.builder, step.x, _window(step, rank), step.name))

    return handler


def _with_positions(step: Step, y: int) -> Value:
    return [Traced(y), POSITIONS] if len(step.target._schema.returns) > 1 else y


def _adaptive_edges(step: Step, rank: int) -> list[tuple[range, range]]:
    """Return, for each spatial axis, where the windows of adaptive pooling start and end."""
    spatial = step.builder.nodes[step.x].shape[1:]
    _spatial_rank(step, step.x, rank)
    counts = step.integers("output_size", rank)
    return [
        ([i * n // k for i in range(k)], [-(-(i + 1) * n // k) for i in range(k)])  # type: ignore[misc]
        for n, k in zip(spatial, counts, strict=True)
    ]


def _even_window(step: Step, rank: int) -> Window | None:
    """Return the window of an adaptive pooling whose output divides its input, or None."""
    spatial, counts = step.builder.nodes[step.x].shape[1:], step.integers("output_size", rank)
    if any(n % k for n, k in zip(spatial, counts, strict=True)):
        return None
    size = tuple(n // k for n, k in zip(spatial, counts, strict=True))
    return Window(size, size, ((0, 0),) * rank, (1,) * rank)


def _adaptive_avg_pool(rank: int) -> Callable[[Step], int]:
    def handler(step: Step) -> int:
        edges = _adaptive_edges(step, rank)
        if (window := _even_window(step, rank)) is not None:
            return pooling.average_pool(step.builder, step.x, window, "padded", step.name)
        sets, counts = _rectangles(edges, step.builder.nodes[step.x].shape[1:])
        return pooling.average_sets(step.builder, step.x, sets, counts, step.name)

    return handler


def _rectangles(edges: list[tuple[range, range]], spatial: tuple[int, ...]) -> tuple[common.Ints, common.Ints]:
    """Return the flat positions in each window, filled up with -1, and how many there are."""
    places = np.arange(np.prod(spatial)).reshape(spatial)
    out = tuple(len(starts) for starts, _ in edges)
    members = [
        places[tuple(slice(e[0][i], e[1][i]) for e, i in zip(edges, where, strict=True))].ravel()
        for where in np.ndindex(*out)
    ]
    counts = np.array([len(m) for m in members])
    sets = np.full((len(members), counts.max()), -1)
    for row, found in zip(sets, members, strict=True):
        row[: len(found)] = found
    return sets.reshape(*out, -1), counts.reshape(out)


def _adaptive_max_pool(rank: int) -> Callable[[Step], Value]:
    def handler(step: Step) -> Value:
        _spatial_rank(step, step.x, rank)
        window = _even_window(step, rank)
        if window is None:
            raise Refused("adaptive max pooling whose output size does not divide its input is not supported")
        return _with_positions(step, pooling.max_pool(step.builder, step.x, window, step.name))

    return handler


# --- reductions, sorting, softmax ---------------------------------------------------------------------------


def _reduce(how: Literal["mean", "sum"]) -> Callable[[Step], int]:
    def handler(step: Step) -> int:
        y = pooling.reduce(step.builder, step.x, step.axes(step.get("dim"), step.x), how, step.name)
        return reshape(step.builder, y, step.shape, f"{step.name}.squeeze")

    return handler


def _extreme(maximum: bool, pointwise: Callable[[Step], Value]) -> Callable[[Step], Value]:
    """Return a handler for the largest (or smallest) entry along axes, and for max(a, b)."""

    def handler(step: Step) -> Value:
        if "other" in step.arguments:
            return pointwise(step)
        axes = step.axes(step.get("dim"), step.x)
        shape = step.builder.nodes[step.x].shape
        if len(axes) == 1 and shape[axes[0]] == 2:  # as a pair, so that MaxMin can be recognised
            halves = [select(step.builder, step.x, axes[0], k, f"{step.name}.{k}") for k in (0, 1)]
            y = step.builder.add(Extremum(maximum), *halves, name=step.name)
        else:
            y = pooling.reduce(step.builder, _signed(step, step.x, maximum), axes, "max", step.name)
            y = _signed(step, y, maximum)
        return _with_positions(step, reshape(step.builder, y, step.shape, f"{step.name}.squeeze"))

    return handler


def _signed(step: Step, node: int, keep: bool) -> int:
    """Append -x: the minimum is minus the maximum of that."""
    minus = Enclosure.exact(-1.0)
    return node if keep else scale(step.builder, node, minus, Enclosure.exact(0.0), f"{step.name}.minus")


def _sort(step: Step) -> Value:
    x = step.node("self")
    axis = step.axis(step.get("dim", -1), x)
    size = step.builder.nodes[x].shape[axis]
    y = common.sort_axis(step.builder, x, axis, size, step.name, bool(step.get("descending")))
    return _with_positions(step, y)


def _topk(step: Step) -> Value:
    """Append the first k entries of a sorting; unsorted output is refused, its order is not specified."""
    x = step.node("self")
    axis, k = step.axis(step.get("dim", -1), x), int(step.number("k"))
    if not step.get("sorted", True):
        raise Refused("returns the largest entries in no fixed order; use sorted=True")
    size = step.builder.nodes[x].shape[axis]
    ordered = common.sort_axis(step.builder, x, axis, size, step.name, bool(step.get("largest", True)))
    first = select(step.builder, ordered, axis, np.arange(k), f"{step.name}.first")
    return [Traced(first), POSITIONS]


def _softmax(log: bool) -> Callable[[Step], int]:
    def handler(step: Step) -> int:
        x = step.node("self")
        return step.add(Softmax(step.axis(step.arguments["dim"], x), log), x)

    return handler


def handlers(maximum: Callable[[Step], Value], minimum: Callable[[Step], Value]) -> Mapping[str, Callable[[Step], Value]]:
    """Return the table; the two arguments are the handlers of max(a, b) and min(a, b)."""
    table: dict[str, Callable[[Step], Value]] = {
        "linear": _linear,
        "addmm": _addmm,
        **dict.fromkeys(("mm", "matmul", "mv", "bmm"), _matmul),
        **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _conv),
        **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _conv_transpose),
        "convolution": _convolution,
        "batch_norm": _batch_norm,
        "_native_batch_norm_legit_no_training": _batch_norm,
        **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout", "native_dropout"), _dropout),
        **dict.fromkeys(("mean", "sum"), None),
    }
    return MappingProxyType(table)


_ = COMPUTED
