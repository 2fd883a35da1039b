"""Which inputs an output of a sorting or a maximum may be, on a box.

Such an activation copies entries, and which ones depends on the input. Where boxes decide an order, it is linear.
All comparisons are strict, so that ties leave both ways open.
"""

from __future__ import annotations

from torch import Tensor


def positions(low: Tensor, high: Tensor) -> Tensor:
    """Return which entry of a group (the last axis) may stand where in ascending order.

    Args:
        low, high: (..., n) boxes.

    Returns:
        (..., n, n) bool: [i, p] whether entry i may be the p-th. Entry i has at least as many below it as have
        boxes wholly below its own, and as many above it likewise.
    """
    place = low.new_ones(low.shape[-1]).cumsum(dim=0) - 1
    least = (high[..., None, :] < low[..., :, None]).sum(dim=-1)
    most = low.shape[-1] - 1 - (low[..., None, :] > high[..., :, None]).sum(dim=-1)
    return (place >= least[..., None]) & (place <= most[..., None])


def winners(candidates: Tensor, low: Tensor, high: Tensor, sign: int) -> Tensor:
    """Return which candidates may be the largest (sign 1) or smallest (sign -1).

    Args:
        candidates: (K, m) places among n inputs, -1 for none.
        low, high: (B, n) boxes of the inputs.
        sign: see above.

    Returns:
        (B, K, m) bool.
    """
    if sign < 0:
        low, high = -high, -low
    absent = (candidates < 0)[None]
    places = candidates.clamp(min=0)
    floor = low[:, places].masked_fill(absent, -float("inf")).amax(dim=1, keepdim=True)
    return (high[:, places] >= floor) & ~absent


def spread_back(candidates: Tensor, values: Tensor, size: int) -> Tensor:
    """Return (B, ..., size) sums, at each input, of the values (B, ..., K, m) of all places where it is a candidate."""
    flat = values.flatten(-2)
    places = candidates.clamp(min=0).flatten().expand_as(flat)
    return flat.new_zeros((*flat.shape[:-1], size)).scatter_add(-1, places, flat)
