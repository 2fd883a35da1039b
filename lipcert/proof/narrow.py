r"""Lifted forms of wide inputs, with as many inputs as rows that read them.

Theorem. Let W be the rows that read the input (of pre-activations and of the output, one below the other), and L lower
triangular with a positive diagonal and L L' >= W W'. If ||y - y'|| <= F^(-1/2) ||u - u'|| follows from the slopes alone
for the form that reads L u in the place of W x, then ||y - y'|| <= F^(-1/2) ||x - x'|| for the form itself; and so for
every other inequality between d y and ||d x||.

Proof. For a difference d x let d u = L^-1 W d x. Then L d u = W d x: everything else is as before. W' (L L')^-1 W <= I
as L L' >= W W', so ||d u||^2 = d x' W' (L L')^-1 W d x <= ||d x||^2.

L is the Cholesky factor of W W' with its diagonal raised by a share of some m gamma_n, for m rows and n inputs. That
E = L L' - W W' is positive semidefinite is shown by E_ii w_i >= sum_{j /= i} |E_ij| w_j for some w > 0 (Gershgorin for
D E D, D = diag(w)), all entries enclosed; 1 / w_i is the norm of row i. Where it fails the form stays as it is.

For 784 inputs before a layer of 16 neurons, the matrix of the multiplier rule is of order 16 there and not of 784.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lipcert.network.enclosure import UNIT, Enclosure, Float, gamma
from lipcert.proof.lifted import Lifted, Row
from lipcert.proof.refusal import Refused
from lipcert.proof.rounding import matmul_up


def narrowed(lifted: Lifted) -> Lifted:
    """Return a form with fewer inputs of which every bound holds for the one given, or that one where there is none.

    Cost: products of m x n and n x m matrices for m rows that read n inputs.
    """
    rows = [*(block.row for block in lifted.blocks), lifted.output]
    readers = [k for k, row in enumerate(rows) if 0 in row]
    if not readers or sum(rows[k][0].shape[0] for k in readers) >= lifted.inputs:
        return lifted
    whole = _stacked([rows[k][0] for k in readers])
    used = np.flatnonzero(((whole.mid != 0) | (whole.radius != 0)).any(axis=1))  # rows of zeros read nothing
    factor = _factor(whole.map(lambda a: a[used]))
    if factor is None:
        return lifted
    full = np.zeros((whole.shape[0], len(factor)))
    full[used] = factor
    ends = np.cumsum([rows[k][0].shape[0] for k in readers])
    parts = dict(zip(readers, np.split(full, ends[:-1]), strict=True))
    moved: list[Row] = [{**row, 0: Enclosure(parts[k])} if k in parts else row for k, row in enumerate(rows)]
    blocks = tuple(replace(block, row=row) for block, row in zip(lifted.blocks, moved[:-1], strict=True))
    return Lifted(len(factor), blocks, moved[-1])


def _stacked(parts: list[Enclosure]) -> Enclosure:
    mid = np.vstack([part.mid for part in parts])
    return Enclosure(mid, None if all(part.is_exact for part in parts) else np.vstack([part.radius for part in parts]))


def _factor(rows: Enclosure) -> Float | None:
    """Return L of the theorem, or None where it cannot be shown to be one."""
    m = rows.shape[0]
    with np.errstate(all="ignore"):  # what is not finite shows nothing
        gram = rows @ rows.map(np.transpose)
        norms = np.sqrt(gram.mid.diagonal())
        spread = (gram.radius @ (1.0 / norms)) * norms + 4.0 * m * gamma(m + 2) * norms**2
        try:
            factor = np.asarray(np.linalg.cholesky(gram.mid + np.diag(2.0 * spread)), dtype=np.float64)
            shown = _is_dominant(Enclosure(factor) @ Enclosure(factor.T.copy()) - gram, 1.0 / norms)
        except (np.linalg.LinAlgError, Refused):
            return None
    return factor if m and (factor.diagonal() > 0).all() and shown else None


def _is_dominant(matrix: Enclosure, weights: Float) -> bool:
    """Whether E_ii w_i >= sum_{j /= i} |E_ij| w_j for every symmetric E within the radii; weights: w > 0."""
    others = matrix.magnitude()
    np.fill_diagonal(others, matrix.radius.diagonal())
    own = matrix.mid.diagonal() * weights * (1.0 - 4.0 * UNIT)  # two roundings; subnormals are below any right side
    return bool((weights > 0).all() and (own >= matmul_up(others, weights[:, None])[:, 0]).all())
