"""What the interior-point method does with float64 arrays: numpy and LAPACK on the CPU, torch on a GPU.

All arrays of one `System` are of one kind. What both spell alike (@, *, slices, `.T`, `.sum(1)`) is written plainly;
the rest is here. On the CPU calls of torch take five to ten times as long as those of numpy where matrices have some
dozens of rows, and its factorisations (MKL) 1.5 to 2.5 times as long up to 2000 rows (AMD EPYC, one thread).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.linalg.blas import dtrsv
from scipy.linalg.lapack import dpotrf, dpotri, dtrtrs

from lipcert.network.enclosure import Float

Array = Any
"""A float64 array of numpy or of torch."""


def array(values: Float, device: str) -> Array:
    """The numbers on a device: numpy's own for ``cpu``, else one of torch."""
    values = np.array(values, dtype=np.float64)
    return values if device == "cpu" else torch.tensor(values, device=device)


def like(values: Float, other: Array) -> Array:
    """The numbers where another array is."""
    return values if isinstance(other, np.ndarray) else torch.tensor(values, device=other.device)


def to_numpy(a: Array) -> Float:
    """The same numbers in numpy."""
    return np.asarray(a if isinstance(a, np.ndarray) else a.cpu().numpy(), dtype=np.float64)


def eigen(symmetric: Array) -> tuple[Float, Array]:
    """Eigenvalues, ascending and in numpy, and eigenvectors where the matrix is."""
    if isinstance(symmetric, np.ndarray):
        values, vectors = np.linalg.eigh(symmetric)
        return values, vectors
    values, vectors = torch.linalg.eigh(symmetric)
    return to_numpy(values), vectors


def empty(shape: tuple[int, ...], like: Array) -> Array:
    """An array to be written to."""
    return np.empty(shape) if isinstance(like, np.ndarray) else like.new_empty(shape)


def zeros(shape: tuple[int, ...], like: Array) -> Array:
    """Zeros."""
    return np.zeros(shape) if isinstance(like, np.ndarray) else like.new_zeros(shape)


def unit(size: int, place: int, like: Array) -> Array:
    """A vector with a single 1."""
    vector = zeros((size,), like)
    vector[place] = 1.0
    return vector


def join(parts: Sequence[Array]) -> Array:
    """The arrays one after the other."""
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else torch.cat(list(parts))


def copy(a: Array) -> Array:
    """The same numbers in an array of their own."""
    return a.copy() if isinstance(a, np.ndarray) else a.clone()


def diagonal_matrix(entries: Array) -> Array:
    """diag(entries)."""
    return np.diag(entries) if isinstance(entries, np.ndarray) else torch.diag(entries)


def places_of(mask: Array) -> Array:
    """The places of a vector where it is not zero."""
    return np.flatnonzero(mask) if isinstance(mask, np.ndarray) else mask.nonzero()[:, 0]


def add_to_diagonal(a: Array, value: float) -> None:
    """Add a number to the diagonal, in place."""
    diagonal = np.einsum("ii->i", a) if isinstance(a, np.ndarray) else a.diagonal()
    diagonal += value


def product_into(a: Array, b: Array, out: Array) -> Array:
    """A B, written to `out`."""
    return np.matmul(a, b, out=out) if isinstance(a, np.ndarray) else torch.matmul(a, b, out=out)


def less_product(a: Array, b: Array, c: Array) -> Array:
    """a - b c, entry by entry."""
    if not isinstance(a, np.ndarray):
        return torch.addcmul(a, b, c, value=-1.0)
    product = b * c
    return np.subtract(a, product, out=product)


def cholesky(lower: Array) -> Array | None:
    """L with L L' = A, from the lower triangle of A; None where A is not positive definite or not finite.

    On a GPU, where looking means waiting, L is returned unseen; where there is none its last entry is NaN.
    """
    if isinstance(lower, np.ndarray):
        upper, info = dpotrf(lower.T, lower=0, clean=1)  # A' by columns is A by rows
        return upper.T if info == 0 and math.isfinite(upper[-1, -1]) else None
    root, status = torch.linalg.cholesky_ex(lower)
    if root.is_cuda:
        root[-1, -1] = torch.where(status == 0, root[-1, -1], math.nan)
        return root
    return root if int(status) == 0 and math.isfinite(float(root[-1, -1])) else None


def all_seen(roots: Sequence[Array]) -> bool:
    """Whether all results of `cholesky` are factors."""
    if isinstance(roots[0], np.ndarray) or not roots[0].is_cuda:
        return True
    return bool(torch.isfinite(torch.stack([root[-1, -1] for root in roots])).all())


def solve_lower(root: Array, right: Array) -> Array:
    """L^-1 B."""
    if isinstance(root, np.ndarray):
        return dtrtrs(root.T, right, lower=0, trans=1)[0]
    return torch.linalg.solve_triangular(root, right, upper=False)


def solve_upper(root: Array, right: Array) -> Array:
    """L'^-1 B."""
    if isinstance(root, np.ndarray):
        return dtrtrs(root.T, right, lower=0, trans=0)[0]
    return torch.linalg.solve_triangular(root.T, right, upper=True)


def inverse(root: Array) -> Array:
    """(L L')^-1, symmetric to the last bit."""
    if not isinstance(root, np.ndarray):
        return torch.cholesky_inverse(root)
    upper = dpotri(root.T, lower=0)[0]  # zero below, as `cholesky` leaves it
    whole = upper + upper.T
    whole.reshape(-1)[:: len(whole) + 1] *= 0.5
    return whole


def solve_vector(root: Array, right: Array) -> Array:
    """(L L')^-1 b for one vector."""
    if isinstance(root, np.ndarray):
        return _solve_vector(root, right)
    if root.is_cuda:
        return torch.cholesky_solve(right[:, None], root)[:, 0]
    return torch.from_numpy(_solve_vector(root.numpy(), right.numpy()))


def _solve_vector(root: Float, right: Float) -> Float:
    # LAPACK solves for matrices: for one column that takes ten times as long as a matrix times a vector
    by_columns = bool(root.flags.f_contiguous)
    lower = {"a": root if by_columns else root.T, "lower": by_columns}
    half = dtrsv(x=right, trans=not by_columns, **lower)
    return np.asarray(dtrsv(x=half, trans=by_columns, overwrite_x=True, **lower))
