"""Pooling and reductions of every convention, written with `AvgPool`, `MaxPool` and index maps.

Divisors are exact integers, so every pooling is exact. Shapes are per sample: (C, *spatial).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lipcert.errors import UsageError
from lipcert.network.builder import Builder
from lipcert.network.graph import Shape
from lipcert.network.operators import AvgPool, Ints, MaxPool, Operator, Pads
from lipcert.network.readers.common import rearrange, reshape


@dataclass(frozen=True)
class Window:
    """Geometry of a pooling window over the spatial axes of (C, *spatial); one entry per spatial axis.

    Attributes:
        size: extent of the window.
        stride: step between windows.
        padding: (before, after).
        dilation: step inside the window.
        ceil: whether a last window that only partly fits is kept (it is dropped where it would start behind
            the input and its leading padding, as PyTorch and ONNX do).
    """

    size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pads
    dilation: tuple[int, ...]
    ceil: bool = False

    def positions(self, axis: int, extent: int) -> Ints:
        """Return the input positions of all windows along one axis, (count, size).

        Positions below 0 or at least `extent` lie in the padding.
        """
        k, s, d, (before, after) = self.size[axis], self.stride[axis], self.dilation[axis], self.padding[axis]
        free = extent + before + after - d * (k - 1) - 1
        count = (-(-free // s) if self.ceil else free // s) + 1
        if self.ceil and (count - 1) * s >= extent + before:
            count -= 1
        if count < 1:
            raise UsageError(f"the window {self.size} is larger than its padded input of extent {extent}")
        return (np.arange(count) * s - before)[:, None] + d * np.arange(k)[None, :]

    def fitted(self, spatial: Shape) -> Pads:
        """Return the padding with which counting only whole windows gives the same number of windows."""
        if not self.ceil:
            return self.padding
        last = [int(self.positions(axis, extent)[-1, -1]) for axis, extent in enumerate(spatial)]
        return tuple(
            (before, max(0, end + 1 - extent))
            for (before, _), end, extent in zip(self.padding, last, spatial, strict=True)
        )


def average_pool(
    builder: Builder,
    x: int,
    window: Window,
    count: Literal["inside", "padded"] | int = "padded",
    name: str = "",
) -> int:
    """Append average pooling over the spatial axes of (C, *spatial).

    Args:
        builder: where the nodes go.
        x: index of a node.
        window: the geometry.
        count: what a window's sum is divided by: the entries inside the input, those inside the padded input
            (`count_include_pad`; what `ceil` adds beyond the padding never counts), or a fixed divisor.
        name: name of the new node.
    """
    spatial = builder.nodes[x].shape[1:]
    counts = np.ones(())
    for axis, extent in enumerate(spatial):
        before, after = window.padding[axis] if count == "padded" else (0, 0)
        places = window.positions(axis, extent)
        here = ((places >= -before) & (places < extent + after)).sum(axis=1)
        counts = counts[..., None] * here
    if isinstance(count, int):
        counts = np.full(counts.shape, float(count))
    if (counts == 0).any():
        raise UsageError(f"'{name}': a pooling window lies entirely in the padding")
    if all(d == 1 for d in window.dilation):
        op: Operator = AvgPool(window.size, window.stride, window.fitted(spatial), counts.astype(np.float64))
        return builder.add(op, x, name=name)
    sets = _window_sets(window, spatial)
    return average_sets(builder, x, sets, counts, name)


def average_sets(builder: Builder, x: int, sets: Ints, counts: Any, name: str = "") -> int:
    """Append, for each channel, the sums over given sets of spatial positions, divided by `counts`.

    Args:
        builder: where the nodes go.
        x: index of a node of shape (C, *spatial).
        sets: (*out, k) flat spatial positions; -1 adds nothing. Covers dilated and adaptive pooling.
        counts: (*out) exact numbers to divide by.
        name: name of the new node.
    """
    channels, (*out, k) = builder.nodes[x].shape[0], sets.shape

    def windows(index: Ints) -> Ints:
        with_nothing = np.append(index.reshape(channels, -1), np.full((channels, 1), -1), axis=1)
        return with_nothing[:, sets.ravel()]

    y = rearrange(builder, x, windows, f"{name}.windows")
    divisors = np.broadcast_to(np.asarray(counts, dtype=np.float64), out).ravel()
    pooled = builder.add(AvgPool((k,), (k,), ((0, 0),), divisors), y, name=name)
    return reshape(builder, pooled, (channels, *out), f"{name}.shape")


def max_pool(builder: Builder, x: int, window: Window, name: str = "") -> int:
    """Append max pooling over the spatial axes of (C, *spatial); padded positions never win."""
    spatial = builder.nodes[x].shape[1:]
    for axis, extent in enumerate(spatial):
        places = window.positions(axis, extent)
        if not ((places >= 0) & (places < extent)).any(axis=1).all():
            raise UsageError(f"'{name}': a pooling window lies entirely in the padding")
    op = MaxPool(window.size, window.stride, window.fitted(spatial), window.dilation)
    return builder.add(op, x, name=name)


def _window_sets(window: Window, spatial: Shape) -> Ints:
    """Return the flat spatial positions of every window, (*out, prod(size)), -1 in the padding."""
    rank = len(spatial)
    flat, inside = np.zeros((1,) * 2 * rank, dtype=np.int64), np.ones((1,) * 2 * rank, dtype=bool)
    for axis, extent in enumerate(spatial):
        places = window.positions(axis, extent)
        shape = [1] * (2 * rank)
        shape[axis], shape[rank + axis] = places.shape
        flat = flat * extent + places.reshape(shape)
        inside = inside & ((places >= 0) & (places < extent)).reshape(shape)
    sets = np.where(inside, flat, -1)
    return sets.reshape(*sets.shape[:rank], -1)


def reduce(
    builder: Builder,
    x: int,
    axes: Sequence[int],
    how: Literal["mean", "sum", "max"],
    name: str = "",
) -> int:
    """Append the mean, sum or maximum over per-sample axes, which keep size 1 in the result."""
    shape = builder.nodes[x].shape
    gone = sorted({axis % len(shape) for axis in axes})
    kept = [axis for axis in range(len(shape)) if axis not in gone]
    rows, columns = (int(np.prod([shape[a] for a in group], dtype=np.int64)) for group in (kept, gone))
    y, size = x, shape[1:]
    if kept != [0]:  # not a window over the spatial axes as it stands
        y = rearrange(builder, x, lambda i: i.transpose(*kept, *gone).reshape(rows, columns), f"{name}.axes")
        size = (columns,)
    window = Window(size, (1,) * len(size), ((0, 0),) * len(size), (1,) * len(size))
    if how == "max":
        y = max_pool(builder, y, window, name)
    else:
        y = average_pool(builder, y, window, columns if how == "mean" else 1, name)
    return reshape(builder, y, [1 if a in gone else size for a, size in enumerate(shape)], f"{name}.shape")
