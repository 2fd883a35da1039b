"""Inner products of linear functions with points, in whatever order the functions lie in memory."""

from __future__ import annotations

import torch
from torch import Tensor


def products(functions: Tensor, points: Tensor) -> Tensor:
    """Return (B, S) inner products.

    Those of images may lie with the channels last, as convolutions leave them: the points are reordered then, which
    are smaller.

    Args:
        functions: (B, S, *shape).
        points: (B or 1, *shape).
    """
    if functions.ndim == 5 and functions.stride(2) == 1:
        functions, points = functions.permute(0, 1, 3, 4, 2), points.permute(0, 2, 3, 1)
    flat, columns = functions.flatten(2), points.flatten(1)
    found: Tensor = torch.bmm(flat, columns[..., None])[..., 0] if len(columns) == len(flat) else flat @ columns[0]
    return found
