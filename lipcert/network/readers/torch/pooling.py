"""Pooling, reductions, sorting and softmax of torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np

from lipcert.network.enclosure import Enclosure
from lipcert.network.operators import Extremum, Ints, Softmax
from lipcert.network.readers import common, pooling
from lipcert.network.readers.common import reshape, scale, select
from lipcert.network.readers.pooling import Window
from lipcert.network.readers.torch.arithmetic import extremum
from lipcert.network.readers.torch.layers import spatial_rank
from lipcert.network.readers.torch.values import Missing, Refused, Step, Traced, Value

POSITIONS = Missing("uses the positions of maxima or of a sorting, which jump: no slope bound")
Edges = tuple[list[int], list[int]]  # where the windows along one axis start, and where they end

# --- windows ------------------------------------------------------------------------------------------------


def _window(step: Step, rank: int) -> Window:
    spatial_rank(step, step.x, rank)
    size = step.integers("kernel_size", rank)
    stride = size if not step.get("stride") else step.integers("stride", rank)
    padding = tuple((p, p) for p in step.integers("padding", rank))
    return Window(size, stride, padding, step.integers("dilation", rank, 1), bool(step.get("ceil_mode")))


def _avg_pool(rank: int) -> Callable[[Step], int]:
    def handler(step: Step) -> int:
        divisor = step.get("divisor_override")
        if divisor is not None and (not isinstance(divisor, int) or divisor <= 0):
            raise Refused(f"divides by {divisor}, which is no positive integer")
        ways: Literal["padded", "inside"] = "padded" if step.get("count_include_pad", True) else "inside"
        count = divisor or ways
        return pooling.average_pool(step.builder, step.x, _window(step, rank), count, step.name)

    return handler


def _max_pool(rank: int) -> Callable[[Step], Value]:
    def handler(step: Step) -> Value:
        return _with_positions(step, pooling.max_pool(step.builder, step.x, _window(step, rank), step.name))

    return handler


def _with_positions(step: Step, y: int) -> Value:
    return [Traced(y), POSITIONS] if len(step.target._schema.returns) > 1 else y


def _adaptive_edges(step: Step, rank: int) -> list[Edges]:
    """Return, for each spatial axis, where the windows of adaptive pooling start and end."""
    spatial = step.builder.nodes[step.x].shape[1:]
    spatial_rank(step, step.x, rank)
    counts = step.integers("output_size", rank)
    return [
        ([i * n // k for i in range(k)], [-(-(i + 1) * n // k) for i in range(k)])
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


def _rectangles(edges: list[Edges], spatial: tuple[int, ...]) -> tuple[Ints, Ints]:
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
        spatial_rank(step, step.x, rank)
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


def _extreme(maximum: bool) -> Callable[[Step], Value]:
    """Return a handler for the largest (or smallest) entry along axes, and for max(a, b)."""
    of_two = extremum(maximum)

    def handler(step: Step) -> Value:
        if "other" in step.arguments:
            return of_two(step)
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


_RANKS = (1, 2, 3)
HANDLERS: Mapping[str, Callable[[Step], Value]] = MappingProxyType(
    {
        **{f"avg_pool{r}d": _avg_pool(r) for r in _RANKS},
        **{f"max_pool{r}d": _max_pool(r) for r in _RANKS},
        **{f"max_pool{r}d_with_indices": _max_pool(r) for r in _RANKS},
        **{f"adaptive_avg_pool{r}d": _adaptive_avg_pool(r) for r in _RANKS},
        **{f"_adaptive_avg_pool{r}d": _adaptive_avg_pool(r) for r in _RANKS},
        **{f"adaptive_max_pool{r}d": _adaptive_max_pool(r) for r in _RANKS},
        "mean": _reduce("mean"),
        "sum": _reduce("sum"),
        **dict.fromkeys(("max", "amax"), _extreme(True)),
        **dict.fromkeys(("min", "amin"), _extreme(False)),
        **dict.fromkeys(("sort", "msort"), _sort),
        "topk": _topk,
        **dict.fromkeys(("softmax", "_softmax"), _softmax(False)),
        **dict.fromkeys(("log_softmax", "_log_softmax"), _softmax(True)),
    }
)
