"""Index maps in torch: the cheapest kernel that moves the same entries."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lipcert.network.graph import Shape
from lipcert.network.operators import Ints

Move = Callable[[Tensor], Tensor]


def move_kernel(index: Ints, source: Shape, device: torch.device) -> Move:
    """Return a batched kernel for the `Gather` with this index: (N, *source) -> (N, *index.shape).

    A permutation of axes and zero padding (or cropping) take torch's own kernels; the rest is a selection.
    """
    order = _permutation(index, source)
    if order is not None:
        return lambda x: x.permute(0, *(axis + 1 for axis in order))
    widths = _padding(index, source)
    if widths is not None:
        flat = [side for pair in reversed(widths) for side in pair]  # torch counts from the last axis
        return lambda x: functional.pad(x, flat)
    return _selection(index, device)


def _permutation(index: Ints, source: Shape) -> tuple[int, ...] | None:
    if len(source) > 5 or sorted(index.shape) != sorted(source):
        return None
    flat = np.arange(index.size).reshape(source)
    for order in permutations(range(len(source))):
        moved = flat.transpose(order)
        if moved.shape == index.shape and np.array_equal(moved, index):
            return order
    return None


def _padding(index: Ints, source: Shape) -> list[tuple[int, int]] | None:
    """Return (before, after) per axis where the map pads with zeros or crops, on each axis in one of both ways."""
    inside = np.argwhere(index >= 0)
    if index.ndim != len(source) or not len(inside):
        return None
    first = inside[0]
    origin = np.array(np.unravel_index(int(index[tuple(first)]), source))
    before = first - origin
    widths = [(int(b), int(n - s - b)) for b, n, s in zip(before, index.shape, source, strict=True)]
    crop = tuple(slice(max(-a, 0), s - max(-b, 0)) for (a, b), s in zip(widths, source, strict=True))
    flat = np.arange(int(np.prod(source, dtype=np.int64))).reshape(source)[crop]
    padded = np.pad(flat, [(max(a, 0), max(b, 0)) for a, b in widths], constant_values=-1)
    return widths if np.array_equal(padded, index) else None


def _selection(index: Ints, device: torch.device) -> Move:
    places = torch.from_numpy(np.maximum(index, 0).ravel()).to(device)
    empty = torch.from_numpy(index < 0).to(device)

    def select(x: Tensor) -> Tensor:
        return x.flatten(1).index_select(1, places).reshape(len(x), *index.shape)

    return (lambda x: select(x).masked_fill(empty, 0.0)) if bool(empty.any()) else select
