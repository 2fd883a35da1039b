r"""The matrices of the multiplier rule at one point (`reach`), on the side of their rows or of the inputs.

Rows are z = G dx + N w, sigma the scales of the noises, d > 0 of the neurons, X of the functions. Asked for is
diag(d, X) - Y Y' >= 0 with Y = [G, N diag(sigma)]. By Schur complements of the identity and of diag(d_1), which are
equivalences,

    diag(d, X) - Y Y' >= 0   <=>   [[I, Y'], [Y, diag(d, X)]] >= 0
                             <=>   [[I - G_1' diag(1/d_1) G_1, G_r'], [G_r, diag(d_r, X) - N_r diag(sigma^2) N_r']] >= 0

where the rows 1 are neurons without noise, such as those of a first layer, and r are the others. The right side is the
smaller one where there are more rows 1 than inputs.

Both are F = (numbers that are exact) - (products A A'), up to X, with A of known zeros, which cost nothing: rows of N
end where the noise of later nodes begins, rows of G from a convolution hold a window. Rounding: |fl(A A') - A A'| <=
gamma_k |A||A|' with one rounding of each entry of A counted in k, and one for each difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lipcert.network.enclosure import TINY, UNIT, Float, gamma, round_up
from lipcert.proof.local.arithmetic import over
from lipcert.proof.local.differences import Rows
from lipcert.proof.local.proposal import Ints, Mask

SHARE = 2.0**-24  # t of `reach`, a power of two
_WIDEST = 2.0**100  # of A; then what underflow loses in an entry of it costs less than _LOST in one of A A'
_LOST = 2.0**-900
LARGEST = 6144  # rows of F
_SPARSE = 8  # a row is worth a product of its own where so small a part of it is not zero
_MANY = 64  # rows that end at the same column, for a cut there


@dataclass(frozen=True, eq=False)
class Form:
    """F without X.

    Attributes:
        matrix: (m, m), its last S rows those of the functions.
        room: (m - S,) the exact numbers on the diagonal of the others, which a proof may give a little of.
        factors: A, of blocks on the diagonal one after the other, each as matrices that stand side by side.
    """

    matrix: Float
    room: Float
    factors: Sequence[Sequence[Float]]

    @property
    def terms(self) -> int:
        """How many roundings an entry of F may take."""
        return sum(int(a.shape[1]) for factor in self.factors for a in factor) + 6

    def with_functions(self, target: Float) -> Float:
        """Return F with X."""
        found, at = self.matrix.copy(), len(self.room)
        found[at:, at:] += target
        return found

    def spread(self, matrix: Float) -> Float | None:
        """Return t_i = sum_j r_ij s_j / s_i, rounded up, of the radii r of F; None for no positive diagonal.

        Args:
            matrix: F with X. The weights s are powers of two.
        """
        entries = np.diagonal(matrix)
        if not (entries > 0).all():
            return None
        weight = np.ldexp(1.0, -(np.frexp(entries)[1] // 2))
        terms = self.terms
        parts, start = [], 0
        for factor in self.factors:
            mine = weight[start : start + len(factor[0])]
            sizes = [np.abs(a) for a in factor]
            products = sum(size @ over(size.T @ mine, len(mine)) for size in sizes)
            parts.append(over(np.asarray(products), terms))
            start += len(mine)
        # one rounding of each entry that is a difference; all of a row are counted
        rest = 2.0 * UNIT * over(np.abs(matrix) @ weight, len(matrix)) + terms * _LOST * weight.sum()
        spread: Float = over(gamma(terms) * np.concatenate(parts) + rest, 8) / weight
        return round_up(spread + TINY)


def form(neurons: Rows, radius: Float, scale: Float, functions: Rows) -> Form | None:
    """Return the smaller form; None where the numbers are not of a size for which underflow is counted.

    Args:
        neurons: the u unstable neurons. radius: (u,) r, positive. scale: (u,) sigma, proposed.
        functions: S of the same noises.
    """
    if not (np.isfinite(scale) & (scale > 0)).all():
        return None
    plain = np.asarray(~neurons.noise.any(axis=1))
    count, size = len(radius) + len(functions.error), neurons.inputs.shape[1]
    if count - max(0, int(plain.sum()) - size) > LARGEST:
        return None
    if plain.sum() > size:
        found = _on_inputs(neurons, radius, scale, functions, plain)
    else:
        found = _on_rows(neurons, radius, scale, functions)
    fine = np.isfinite(found.matrix).all() and (found.room > TINY).all() and np.isfinite(found.room).all()
    return found if fine and all((np.abs(a) <= _WIDEST).all() for factor in found.factors for a in factor) else None


def _on_rows(neurons: Rows, radius: Float, scale: Float, functions: Rows) -> Form:
    rows, count = Rows.join([neurons, functions]), len(radius)
    noise = rows.noise * scale
    matrix = -gram_of_windows(rows.inputs) - gram_of_stairs(noise)
    room = _diagonal(radius, scale)
    matrix[np.arange(count), np.arange(count)] += room
    return Form(matrix, room, [[rows.inputs, noise]])


def _on_inputs(neurons: Rows, radius: Float, scale: Float, functions: Rows, plain: Mask) -> Form:
    rest, size = Rows.join([neurons.take(~plain), functions]), neurons.inputs.shape[1]
    # d_1 is one over the square of these exactly: at most sigma^2 / (r^2 (1 + t))
    roots = round_up(radius[plain] / scale[plain] * (1.0 + SHARE), 4)
    first, noise = np.ascontiguousarray((neurons.inputs[plain] * roots[:, None]).T), rest.noise * scale
    room = np.concatenate([np.ones(size), _diagonal(radius[~plain], scale[~plain])])
    matrix = np.zeros((size + len(rest.error),) * 2)
    matrix[:size, :size] = -(first @ first.T)
    matrix[size:, :size], matrix[:size, size:] = rest.inputs, rest.inputs.T
    matrix[size:, size:] = -gram_of_stairs(noise)
    matrix[np.arange(len(room)), np.arange(len(room))] += room
    return Form(matrix, room, [[first], [noise]])


def _diagonal(radius: Float, scale: Float) -> Float:
    """Return d, at most sigma^2 / (r^2 (1 + t)): five roundings at most."""
    found: Float = np.nextafter(np.square(scale / radius) / (1.0 + SHARE) * (1.0 - 8.0 * UNIT), 0.0)
    return found


def gram_of_windows(rows: Float) -> Float:
    """Return A A' for rows of which many may be zero but for a window that they share with others."""
    size = rows.shape[1]
    few = np.flatnonzero((rows != 0).sum(axis=1) * _SPARSE <= size)
    if not len(few) or not size:
        return rows @ rows.T
    _, kinds = np.unique(np.packbits(rows[few] != 0, axis=1), axis=0, return_inverse=True)
    order = np.argsort(kinds.reshape(-1), kind="stable")
    cuts = np.flatnonzero(np.diff(kinds.reshape(-1)[order])) + 1
    found, columns = np.zeros((len(rows), len(rows))), np.ascontiguousarray(rows.T)
    for mine in np.split(few[order], cuts):
        window = np.flatnonzero(rows[mine[0]])
        found[:, mine] = (rows[np.ix_(mine, window)] @ columns[window]).T
    rest = np.setdiff1d(np.arange(len(rows)), few)
    found[np.ix_(few, rest)] = found[np.ix_(rest, few)].T
    found[np.ix_(rest, rest)] = rows[rest] @ rows[rest].T
    return found


def gram_of_stairs(rows: Float) -> Float:
    """Return A A' for rows that are zero from some column on."""
    found = np.zeros((len(rows), len(rows)))
    if not rows.shape[1]:
        return found
    ends = np.where(rows.any(axis=1), rows.shape[1] - (rows[:, ::-1] != 0).argmax(axis=1), 0)
    steps = np.unique(np.concatenate([[0], _rounded(ends)]))
    for low, high in pairwise(steps.tolist()):
        mine = np.flatnonzero(ends > low)
        part = np.ascontiguousarray(rows[mine, low:high])
        found[np.ix_(mine, mine)] += part @ part.T
    return found


def _rounded(ends: Ints) -> Ints:
    """Return few column counts that are good places to cut: those where many rows end."""
    values, counts = np.unique(ends, return_counts=True)
    return np.union1d(values[counts >= _MANY], ends.max(initial=0))
