"""Affine nodes applied to coefficients in windows: forwards, and backwards by the transposed linear part.

A convolution is a matrix product for each row of its kernel, over windows of the input that are views of it: a row of
a window and its channels are one run of memory. So is the transposed one of stride 1, with the kernel turned; of other
strides, and of many channels, it is one product and a sum of what windows share.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.lib.stride_tricks import as_strided

from lipcert.network.enclosure import Float
from lipcert.network.graph import Shape
from lipcert.network.operators import Conv, Dense, Scale
from lipcert.proof.local.affine import AffineStep
from lipcert.proof.local.images import image_shape, laid_out
from lipcert.proof.local.windows import Windows

_MANY = 24  # channels, from which the sum costs less than the products


def push_affine(step: AffineStep, windows: Windows) -> Windows:
    """Return the coefficients of symbols at the output of an affine node, from those at its input."""
    op, dtype = step.op, windows.values.dtype
    if isinstance(op, Conv) and step.transposed(dtype) is not None:
        return _push_windows(op, step.kernels(dtype), windows, step.target)
    if isinstance(op, Scale):
        return windows.times(_factors(step))
    full, matrix = windows.full(), step.transposed(dtype)
    if isinstance(op, Dense) and matrix is not None:
        return Windows.whole(matrix.T @ full, step.target)
    if step.keeps_order:
        return Windows.whole(full, step.target)
    found = step.image(np.ascontiguousarray(full.T)[None])[0]
    return Windows.whole(found.T.astype(dtype, copy=False), step.target)


def pull_affine(step: AffineStep, windows: Windows) -> Windows:
    """Return functions of the input of an affine node: the transposed linear part of functions of its output."""
    op, dtype = step.op, windows.values.dtype
    matrix = step.transposed(dtype)
    if isinstance(op, Conv) and matrix is not None:
        return _pull_windows(step, windows)
    if isinstance(op, Dense) and matrix is not None:
        return Windows.whole(matrix @ windows.full(), step.source)
    if isinstance(op, Scale):
        return windows.times(_factors(step))
    if step.keeps_order:
        return Windows.whole(windows.full(), step.source)
    found = step.adjoint(np.ascontiguousarray(windows.full().T)[None])[0]
    return Windows.whole(found.T.astype(dtype, copy=False), step.source)


def _factors(step: AffineStep) -> Float:
    assert step.weight is not None
    return laid_out(np.broadcast_to(step.weight, step.source).reshape(-1), step.source)


def _push_windows(op: Conv, kernels: Float, windows: Windows, target: Shape) -> Windows:
    """Apply a convolution; kernels: (kernel rows, out, kernel columns * in)."""
    sizes, starts, before = [], [], []
    for k in range(2):
        extent, kernel, stride, pad = windows.values.shape[k], op.weight.shape[2 + k], op.stride[k], op.padding[k][0]
        sizes.append((extent + kernel - 2) // stride + 1)
        starts.append(-((kernel - 1 - pad - windows.at[k]) // stride))  # the first output that sees the window
        before.append(stride * starts[k] - pad)
    h, w = ((n - 1) * s + k for n, s, k in zip(sizes, op.stride, op.weight.shape[2:], strict=True))
    canvas = windows.placed((h, w), (before[0], before[1])).values
    found = Windows(_slide(canvas, kernels, (sizes[0], sizes[1]), op.stride), (starts[0], starts[1]), target)
    large = not windows.is_shared and all(n >= limit for n, limit in zip(sizes, image_shape(target)[:2], strict=True))
    return found.made_whole() if large else found.inside()


def _pull_windows(step: AffineStep, windows: Windows) -> Windows:
    """Apply the transpose of a convolution."""
    op, dtype = step.op, windows.values.dtype
    assert isinstance(op, Conv)
    size, kernel = image_shape(step.source), op.weight.shape[2:]
    h, w = ((n - 1) * s + k for n, s, k in zip(windows.values.shape[:2], op.stride, kernel, strict=True))
    y, x = (start * s - pad[0] for start, s, pad in zip(windows.at, op.stride, op.padding, strict=True))
    if op.stride == (1, 1) and op.weight.shape[1] < _MANY:
        (up, left), values = (kernel[0] - 1, kernel[1] - 1), windows.values
        canvas = np.zeros((h + up, w + left, *values.shape[2:]), dtype=dtype)
        canvas[up:h, left:w] = values
        values = _slide(canvas, step.turned(dtype), (h, w), (1, 1))
    else:
        matrix = step.transposed(dtype)
        assert matrix is not None
        values = _spread(op, matrix, windows.values)
    found = Windows(values, (y, x), step.source)
    large = not windows.is_shared and h >= size[0] and w >= size[1]
    return found.made_whole() if large else found.inside()


def _slide(canvas: Float, kernels: Float, size: tuple[int, int], stride: tuple[int, ...]) -> Float:
    """Return (*size, out, S) the products of kernels (rows, out, columns * C) with windows of a canvas (h, w, C, S)."""
    rows, columns, steps = len(kernels), kernels.shape[2], canvas.strides
    seen = as_strided(
        canvas,
        (rows, *size, columns, canvas.shape[3]),
        (steps[0], steps[0] * stride[0], steps[1] * stride[1], steps[2], steps[3]),
        writeable=False,
    )
    found: Float = np.matmul(kernels[0], seen[0])
    for i in range(1, rows):
        found += np.matmul(kernels[i], seen[i])
    return found


def _spread(op: Conv, matrix: Float, values: Float) -> Float:
    """Add up what the windows of a convolution take; matrix: (kernel rows * columns * in, out)."""
    (down, right), kernel, channels = op.stride, op.weight.shape[2:], op.weight.shape[1]
    h, w, _, count = values.shape
    canvas = np.zeros(((h - 1) * down + kernel[0], (w - 1) * right + kernel[1], channels, count), dtype=matrix.dtype)
    for y in range(h):  # a row at a time stays in the cache
        parts = np.matmul(matrix, values[y]).reshape(w, *kernel, channels, count)
        for i, j in product(range(kernel[0]), range(kernel[1])):
            canvas[y * down + i, j : j + right * (w - 1) + 1 : right] += parts[:, i, j]
    return canvas
