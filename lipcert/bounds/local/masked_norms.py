r"""Upper bounds of l2 norms of affine maps whose outputs and inputs are weighted, sample by sample.

N = L^(1/2) A R^(1/2) with diagonal L, R >= 0, of each sample its own: weight 0 drops a row or a column. The least of

* ||A|| sqrt(max L max R), with the certified norm of A;
* Collatz-Wielandt: for nonnegative B, rho(B) <= max_i (B t)_i / t_i with any t > 0. B = R |A|' L |A|, similar to
  |N|'|N|, where R > 0; only |A| and its adjoint are applied;
* where few rows or few columns have weight: the largest eigenvalue of the Gram matrix of these, in float64, plus what
  rounding may have cost. Convolutions form only the rows (or columns) that are left.

Power iteration bounds a norm from below and has no place here.
Source: Huang et al. 2021 for the masks; the three bounds are classical.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lipcert.bounds.local.view import View
from lipcert.bounds.torch_linear import LinearMap
from lipcert.network.operators import Dense

SMALL = 512  # rows or columns whose Gram matrix is worth its eigenvalues
BYTES = 2**28  # for the rows of one chunk of samples
_ROUNDS = 3  # of Collatz-Wielandt
_FLOOR = 1e-6  # of t, relative to its largest entry
_UNIT = 2.0**-53
_BACKWARD = (
    64  # the eigenvalue solver's backward error is taken as this times n units of the trace (about 1 in practice)
)


def masked_norm(view: View, index: int, left: Tensor, right: Tensor) -> Tensor:
    """Return (B,) upper bounds of ||L^(1/2) A R^(1/2)||. Level: numerical.

    Args:
        view, index: the network and an affine node.
        left: (B, *its shape), not negative, the diagonals of L.
        right: (B, *shape of its input), the diagonals of R.
    """
    linear = view.maps[index]
    top = left.flatten(1).amax(dim=1) * right.flatten(1).amax(dim=1)
    found = torch.minimum(_product(view.operator_norm(index), root(top)), root(_collatz(linear, left, right)))
    exact = root(_gram(linear, left, right)).to(found.dtype)
    return torch.minimum(found, exact * (1.0 + 2.0 * torch.finfo(exact.dtype).eps))


def matrix_norms(matrix: Tensor) -> Tensor:
    """Return (B,) upper bounds of the l2 norms of matrices (B, S, n), S small; infinite where not all is finite."""
    ones = matrix.new_ones((len(matrix), matrix.shape[1] + matrix.shape[2]), dtype=torch.float64)
    found = root(_largest(matrix.double(), ones[:, : matrix.shape[1]], ones[:, matrix.shape[1] :])).to(matrix.dtype)
    return found * (1.0 + 2.0 * torch.finfo(matrix.dtype).eps)


def _product(norm: float, weight: Tensor) -> Tensor:
    return torch.where(weight == 0, 0.0, norm * weight)


def root(x: Tensor) -> Tensor:
    """Return square roots whose gradient at 0 is 0."""
    return torch.where(x == 0, 0.0, torch.where(x == 0, 1.0, x).sqrt())


def _collatz(linear: LinearMap, left: Tensor, right: Tensor) -> Tensor:
    """Return (B,) squares of norms."""
    alive = right > 0
    t, best = torch.ones_like(right), right.new_full((len(right),), torch.inf)
    for _ in range(_ROUNDS):
        image = linear.magnify_adjoint(left * linear.magnify(right * t))
        ratio = torch.where(alive, image / t, 0.0)
        best = torch.minimum(best, ratio.flatten(1).amax(dim=1))
        size = image.detach().flatten(1).amax(dim=1).reshape(-1, *(1,) * (image.ndim - 1))
        t = torch.where(size > 0, (image.detach() / size).clamp(min=_FLOOR), 1.0)
    return best


def _gram(linear: LinearMap, left: Tensor, right: Tensor) -> Tensor:
    """Return (B,) squares of norms, float64; infinite where neither side is small."""
    rows, columns = ((side.flatten(1) > 0).sum(dim=1) for side in (left, right))
    found = left.new_full((len(left),), torch.inf, dtype=torch.float64)
    for by_rows in (True, False):
        count, other = (rows, columns) if by_rows else (columns, rows)
        mine = (count <= other if by_rows else count < other) & (count <= SMALL)
        samples = mine.nonzero()[:, 0]
        samples = samples[count[samples].argsort(stable=True)]
        for part in _chunks(linear, count[samples], samples):
            found = found.index_put((part,), _part(linear, left[part], right[part], by_rows))
    return found


def _chunks(linear: LinearMap, counts: Tensor, samples: Tensor) -> list[Tensor]:
    """Cut samples, ascending in the number of their rows, into chunks that fit the memory budget."""
    each = 16 * (linear.offset.numel() + int(torch.tensor(linear.source).prod()))
    sizes, chunks, start = counts.tolist(), [], 0
    for end in range(1, len(sizes) + 1):
        if end == len(sizes) or (end + 1 - start) * max(1, sizes[end]) * each > BYTES:
            chunks.append(samples[start:end])
            start = end
    return chunks


def _part(linear: LinearMap, left: Tensor, right: Tensor, by_rows: bool) -> Tensor:
    mine, other = (left.flatten(1), right.flatten(1)) if by_rows else (right.flatten(1), left.flatten(1))
    picks, kept = _alive(mine), _alive(other)
    matrix = linear.rows(picks) if by_rows else _columns(linear, picks)
    matrix = matrix.flatten(2).gather(2, kept[:, None].expand(-1, picks.shape[1], -1)).double()
    return _largest(matrix, mine.gather(1, picks).double(), other.gather(1, kept).double())


def _alive(weights: Tensor) -> Tensor:
    """Return (B, u) places with weight first, u the largest number of them, at least 1."""
    mask = weights > 0
    count = max(1, int(mask.sum(dim=1).amax()))
    return mask.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :count]


def _columns(linear: LinearMap, picks: Tensor) -> Tensor:
    """Return (B, S, *target) some columns of A."""
    if isinstance(linear.op, Dense) and len(linear.source) == 1:
        return linear.weight.T[picks]
    size = int(torch.tensor(linear.source).prod())
    basis = torch.zeros((*picks.shape, size), dtype=linear.offset.dtype, device=picks.device)
    basis = basis.scatter(2, picks[..., None], 1.0).reshape(-1, *linear.source)
    return linear.apply(basis).reshape(*picks.shape, *linear.target)


def _largest(matrix: Tensor, mine: Tensor, other: Tensor) -> Tensor:
    """Return (B,) upper bounds of the largest eigenvalue of D^(1/2) M E M' D^(1/2), D and E the diagonals given."""
    weighted = root(mine)[..., None] * matrix * root(other)[:, None]
    gram = weighted @ weighted.mT
    fine = torch.isfinite(gram).flatten(1).all(dim=1)
    gram = torch.where(fine[:, None, None], gram, 0.0)
    trace = gram.diagonal(dim1=1, dim2=2).sum(dim=1)
    rounding = _UNIT * (matrix.shape[2] + 8 + _BACKWARD * matrix.shape[1])
    return torch.where(fine, torch.linalg.eigvalsh(gram)[:, -1].clamp(min=0.0) + rounding * trace, torch.inf)
