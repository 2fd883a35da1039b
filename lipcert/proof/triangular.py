"""Products and solutions with lower-triangular matrices, by halving: the zeros above the diagonal cost nothing.

Plain numpy, stacks of matrices (..., n, n) throughout. Each entry of a product is a sum of the products of the entries
that are not zero, in some order, so the usual bound gamma_n |A||B| holds.
"""

from __future__ import annotations

import numpy as np

from lipcert.network.enclosure import Float

_BASE = 96  # systems and products up to this size are not cut


def solve_lower(root: Float, right: Float) -> Float:
    """Return an approximate solution of L X = B; no error is counted. Cost: n^2 m for m columns."""
    n = root.shape[-1]
    if n <= _BASE:
        return np.asarray(np.linalg.solve(root, right), dtype=np.float64)
    h = n // 2
    first = solve_lower(root[..., :h, :h], right[..., :h, :])
    rest = right[..., h:, :] - root[..., h:, :h] @ first
    return np.concatenate([first, solve_lower(root[..., h:, h:], rest)], axis=-2)


def times_lower(left: Float, root: Float) -> Float:
    """Return B L'. Cost: m n^2 for m rows."""
    n = root.shape[-1]
    if n <= _BASE:
        return left @ root.swapaxes(-1, -2)
    h = n // 2
    first = times_lower(left[..., :h], root[..., :h, :h])
    second = left[..., :h] @ root[..., h:, :h].swapaxes(-1, -2)
    second += times_lower(left[..., h:], root[..., h:, h:])
    return np.concatenate([first, second], axis=-1)


def gram_lower(root: Float) -> Float:
    """Return L L', symmetric to the last bit. Cost: n^3 / 3."""
    n = root.shape[-1]
    if n <= _BASE:
        return root @ root.swapaxes(-1, -2)
    h = n // 2
    side, corner = root[..., h:, :h], root[..., h:, h:]
    product = np.empty(root.shape)
    product[..., :h, :h] = gram_lower(root[..., :h, :h])
    product[..., h:, :h] = times_lower(side, root[..., :h, :h])
    product[..., :h, h:] = product[..., h:, :h].swapaxes(-1, -2)
    product[..., h:, h:] = side @ side.swapaxes(-1, -2) + gram_lower(corner)
    return product
