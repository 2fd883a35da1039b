"""The transposed convolution over two spatial axes, laid out so that a CPU is fast at it.

Linear functions sent back through a convolution are many images of few channels. With the channels last in memory the
kernels of torch are up to three times as fast; towards one or a few channels a matrix product is faster still, whose
columns are then added up in place.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_FEW = 16  # entries of a kernel towards all channels, up to which the matrix product is faster


def spread(
    y: Tensor, weight: Tensor, stride: tuple[int, ...], before: tuple[int, ...], size: tuple[int, ...]
) -> Tensor:
    """Return the canvas of the transposed convolution, cut to `size` entries from `before` on each axis.

    Args:
        y: (N, out, *places).
        weight: (out, in, *kernel).
        stride, before, size: one number per spatial axis; entries of the cut that no window reaches are 0.

    Returns:
        (N, in, *size).
    """
    kernel = weight.shape[2:]
    reach = [(n - 1) * s + k for n, s, k in zip(y.shape[2:], stride, kernel, strict=True)]
    extra = [n + 2 * b - r for n, b, r in zip(size, before, reach, strict=True)]
    fits = all(0 <= e < s and 0 <= b < k for e, s, b, k in zip(extra, stride, before, kernel, strict=True))
    if not fits:
        canvas = functional.conv_transpose2d(y, weight, None, stride)
        cuts = [(-b, b + n - r) for b, n, r in zip(before, size, reach, strict=True)]
        return functional.pad(canvas, [cut for pair in reversed(cuts) for cut in pair])
    if y.device.type == "cpu":
        if weight[0].numel() <= _FEW:
            columns = weight.flatten(1).T @ y.flatten(2)
            return functional.fold(columns, size, tuple(kernel), padding=before, stride=stride)
        y = y.contiguous(memory_format=torch.channels_last)
    return functional.conv_transpose2d(y, weight, None, stride, before, tuple(extra))
