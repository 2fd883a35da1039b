"""The linear part of each affine operator, applied in numpy to a batch, and its adjoint.

One place for the meaning of convolution, pooling and index maps; the evaluator, the norm bounds and the
dense test oracle all use it. `weight` is passed separately, so that the same code serves the centres, the
magnitudes |W| (for l1/linf bounds) and anything else of that shape.

Cost: a convolution is one matrix product over unfolded windows, 2 * out_size * (in/groups) * prod(kernel)
flops per sample, and the same number of bytes times 8 / (2 * out/groups) for the unfolded windows.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np

from lipcert.network.enclosure import Enclosure, Float
from lipcert.network.operators import (
    Affine,
    AvgPool,
    Conv,
    ConvTranspose,
    Dense,
    Gather,
    Operator,
    Pads,
    Reshape,
    Scale,
)

Shape = tuple[int, ...]


def coefficients(op: Affine) -> Enclosure | None:
    """Return the numbers of the linear part of an operator, or None where its structure says it all."""
    match op:
        case Dense() | Conv() | ConvTranspose():
            return op.weight
        case Scale():
            return op.factor
        case _:
            return None


def offset(op: Affine) -> Enclosure | None:
    """Return the constant part of an operator, broadcastable to its output shape, or None."""
    match op:
        case Dense() | Conv() | ConvTranspose():
            return op.bias
        case Scale():
            return op.shift
        case _:
            return None


def row_terms(op: Operator) -> int:
    """Return how many products (or terms) an output entry of an operator adds up at most; 1 where it is not affine."""
    match op:
        case Dense():
            return op.weight.shape[1]
        case Conv():
            return math.prod(op.weight.shape[1:])
        case ConvTranspose():
            return op.weight.shape[0] // op.groups * math.prod(op.weight.shape[2:])
        case AvgPool():
            return math.prod(op.window)
        case _:
            return 1


def column_terms(op: Affine, in_shape: Shape) -> int:
    """Return how many products (or terms) an entry of the adjoint's result adds up at most."""
    match op:
        case Dense():
            return op.weight.shape[0]
        case Conv():
            terms = op.weight.shape[0] // op.groups * math.prod(op.weight.shape[2:])
            if op.circular:  # padded positions that wrap around to the same entry
                sizes = zip(op.padding, in_shape[1:], strict=True)
                terms *= math.prod(-(-(before + size + after) // size) for (before, after), size in sizes)
            return terms
        case ConvTranspose():
            return math.prod(op.weight.shape[1:])
        case AvgPool():
            return math.prod(op.window)
        case Gather():
            return int(np.bincount(op.index[op.index >= 0], minlength=1).max())
        case _:
            return 1


def apply_linear(op: Affine, x: Float, weight: Float | None, out_shape: Shape) -> Float:
    """Apply the linear part to a batch.

    x: (N, *in_shape) float64. weight: the numbers to use for `coefficients(op)`. Returns (N, *out_shape).
    """
    match op:
        case Dense():
            assert weight is not None
            return x @ weight.T
        case Conv():
            assert weight is not None
            return _conv(op, x, weight, out_shape)
        case ConvTranspose():
            assert weight is not None
            return _fold(_spread(x, weight, op.groups), op.stride, op.dilation, op.padding, out_shape)
        case Scale():
            assert weight is not None
            return x * weight
        case AvgPool():
            windows = unfold(x, op.window, op.stride, op.padding, (1,) * len(op.window))
            sums: Float = windows.sum(axis=tuple(range(2, 2 + len(op.window))))
            return sums / op.counts
        case Gather():
            flat = np.concatenate([x.reshape(len(x), -1), np.zeros((len(x), 1))], axis=1)
            return flat[:, op.index]
        case Reshape():
            return x.reshape(len(x), *out_shape)
    raise TypeError(f"{op.kind} has no linear part")


def apply_adjoint(op: Affine, y: Float, weight: Float | None, in_shape: Shape) -> Float:
    """Apply the transposed linear part to a batch.

    y: (N, *out_shape) float64. weight: as in `apply_linear`. Returns (N, *in_shape).
    """
    match op:
        case Dense():
            assert weight is not None
            return y @ weight
        case Conv():
            assert weight is not None
            return _conv_adjoint(op, y, weight, in_shape)
        case ConvTranspose():
            assert weight is not None
            windows = unfold(y, weight.shape[2:], op.stride, op.padding, op.dilation, in_shape[1:])
            return _contract(windows, weight, op.groups)
        case Scale():
            assert weight is not None
            return y * weight
        case AvgPool():
            spread = np.broadcast_to(
                (y / op.counts)[(slice(None), slice(None), *(None,) * len(op.window))],
                (*y.shape[:2], *op.window, *y.shape[2:]),
            )
            return _fold(spread, op.stride, (1,) * len(op.window), op.padding, in_shape)
        case Gather():
            flat = np.zeros((int(np.prod(in_shape, dtype=np.int64)) + 1, len(y)))
            np.add.at(flat, op.index.ravel(), y.reshape(len(y), -1).T)
            return flat[:-1].T.reshape(len(y), *in_shape)
        case Reshape():
            return y.reshape(len(y), *in_shape)
    raise TypeError(f"{op.kind} has no linear part")


def dense_matrix(op: Affine, in_shape: Shape, out_shape: Shape) -> Float:
    """Return the linear part as a matrix (out_size, in_size) of centres.

    Entries are exact wherever each is a single coefficient: every operator except circular convolutions whose
    kernel exceeds the image (sums), and average pools (1 / count, rounded to nearest).
    """
    size = int(np.prod(in_shape, dtype=np.int64))
    numbers = coefficients(op)
    basis = np.eye(size).reshape(size, *in_shape)
    columns = apply_linear(op, basis, None if numbers is None else numbers.mid, out_shape)
    return columns.reshape(size, -1).T


def _pad(x: Float, padding: Pads, circular: bool = False) -> Float:
    """Pad (or crop, where negative) the spatial axes of (N, C, *spatial)."""
    widths = [(0, 0), (0, 0), *((max(0, a), max(0, b)) for a, b in padding)]
    x = np.pad(x, widths, mode="wrap" if circular else "constant")
    crop = tuple(slice(max(0, -a), size - max(0, -b)) for (a, b), size in zip(padding, x.shape[2:], strict=True))
    return x[:, :, *crop]


def unfold(
    x: Float,
    window: Shape,
    stride: Shape,
    padding: Pads,
    dilation: Shape,
    out: Shape | None = None,
    circular: bool = False,
) -> Float:
    """Return all windows of (N, C, *spatial), or the first `out` of each axis, as a view (N, C, *window, *out)."""
    rank = len(window)
    padded = _pad(x, padding, circular)
    reach = tuple(d * (k - 1) + 1 for k, d in zip(window, dilation, strict=True))
    views = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, 2 + rank)))
    ends = (None,) * rank if out is None else tuple(s * (o - 1) + 1 for s, o in zip(stride, out, strict=True))
    starts = tuple(slice(0, end, s) for end, s in zip(ends, stride, strict=True))
    views = views[:, :, *starts, *(slice(None, None, d) for d in dilation)]
    return np.moveaxis(views, range(2 + rank, 2 + 2 * rank), range(2, 2 + rank))


def _contract(windows: Float, weight: Float, groups: int) -> Float:
    """Contract windows (N, C, *k, *out) with weight (O, C / groups, *k) to (N, O, *out), group by group."""
    rank = weight.ndim - 2
    n, channels = windows.shape[:2]
    out = windows.shape[2 + rank :]
    columns = windows.reshape(n, groups, channels // groups * int(np.prod(weight.shape[2:])), int(np.prod(out)))
    rows = weight.reshape(groups, weight.shape[0] // groups, -1)
    return (rows @ columns).reshape(n, weight.shape[0], *out)


def _conv(op: Conv, x: Float, weight: Float, out_shape: Shape) -> Float:
    windows = unfold(x, weight.shape[2:], op.stride, op.padding, op.dilation, out_shape[1:], op.circular)
    return _contract(windows, weight, op.groups)


def _spread(y: Float, weight: Float, groups: int) -> Float:
    """Adjoint of `_contract`: (N, O, *out) with weight (O, C / groups, *k) to windows (N, C, *k, *out)."""
    n, out = len(y), y.shape[2:]
    rows = weight.reshape(groups, weight.shape[0] // groups, -1)
    columns = rows.transpose(0, 2, 1) @ y.reshape(n, groups, weight.shape[0] // groups, int(np.prod(out)))
    return columns.reshape(n, groups * weight.shape[1], *weight.shape[2:], *out)


def _fold(windows: Float, stride: Shape, dilation: Shape, padding: Pads, shape: Shape) -> Float:
    """Adjoint of `unfold` with zero padding: add windows (N, C, *k, *out) into (N, *shape)."""
    rank = len(stride)
    kernel, out = windows.shape[2 : 2 + rank], windows.shape[2 + rank :]
    reach = tuple(d * (k - 1) + s * (o - 1) + 1 for k, o, s, d in zip(kernel, out, stride, dilation, strict=True))
    canvas = np.zeros((*windows.shape[:2], *reach), dtype=windows.dtype)
    by_position = np.moveaxis(windows, range(2, 2 + rank), range(rank))
    for position in product(*(range(k) for k in kernel)):
        target = tuple(
            slice(d * p, d * p + s * (o - 1) + 1, s) for p, o, s, d in zip(position, out, stride, dilation, strict=True)
        )
        canvas[:, :, *target] += by_position[position]
    # entry i of the result is entry i + before of the canvas, and zero where no window reached
    back = tuple((-a, a + size - n) for (a, _), size, n in zip(padding, shape[1:], reach, strict=True))
    return _pad(canvas, back)


def _conv_adjoint(op: Conv, y: Float, weight: Float, in_shape: Shape) -> Float:
    windows = _spread(y, weight, op.groups)
    if not op.circular:
        return _fold(windows, op.stride, op.dilation, op.padding, in_shape)
    full = tuple(a + size + b for (a, b), size in zip(op.padding, in_shape[1:], strict=True))
    canvas = _fold(windows, op.stride, op.dilation, ((0, 0),) * len(full), (in_shape[0], *full))
    for axis, ((before, _), size) in enumerate(zip(op.padding, in_shape[1:], strict=True), start=2):
        lines = np.moveaxis(canvas, axis, 0)
        folded = np.zeros((size, *lines.shape[1:]))
        np.add.at(folded, (np.arange(len(lines)) - before) % size, lines)
        canvas = np.moveaxis(folded, 0, axis)
    return canvas
