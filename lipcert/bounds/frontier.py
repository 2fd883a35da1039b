r"""Covariance bounds carried through any lifted network, block by block: the dual of eliminating it from the front.

Let P be a covariance bound of the blocks xi that later rows still read, the *frontier*: d xi d xi' <= P |dx|^2. Block
k adds v = phi(R xi), S = R P R', with 1 / (2 lambda) on the diagonal of D. The multiplier rule's matrix gains

    [ R' 2 lambda alpha beta R        -R' lambda (alpha + beta) ]
    [ -lambda (alpha + beta) R                     2 lambda     ]

and with m = (alpha + beta) / 2, r = (beta - alpha) / 2, K = D - r S r > 0 its inverse is the joint bound

    Cov(xi) = P + P R' r K^-1 r R P,   Cov(v, xi) = m R Cov(xi),   Cov(v) = m R Cov(xi) R' m + D.

(The Schur complement of 2 lambda is P^-1 - R' 2 lambda r^2 R, as (alpha + beta)^2 / 2 - 2 alpha beta = 2 r^2; its
inverse is Cov(xi) by Woodbury.) A block that no later row reads is left out: covariances of what is left stay as they
are. In a chain the frontier is one layer, and Cov(v) is `chain.propagate`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

from lipcert.bounds.chain import LANCZOS, propagate, propagate_narrow, solve_positive
from lipcert.network.enclosure import Float
from lipcert.proof.lifted import Lifted, Row


@dataclass(frozen=True, eq=False)
class Frontier:
    """A covariance bound of some blocks.

    Attributes:
        blocks: ascending. sizes: of each. covariance: P, of the blocks one after the other, symmetric.
    """

    blocks: tuple[int, ...]
    sizes: tuple[int, ...]
    covariance: Float

    @classmethod
    def of_input(cls, size: int) -> Frontier:
        """Return the frontier before the first block."""
        return cls((0,), (size,), np.eye(size))

    def matrix(self, row: Row) -> Float:
        """Return the centre of a row over the blocks of the frontier; others are left out."""
        rows = next(iter(row.values())).shape[0]
        parts = [
            row[b].mid if b in row else np.zeros((rows, size)) for b, size in zip(self.blocks, self.sizes, strict=True)
        ]
        return parts[0] if len(parts) == 1 else np.hstack([np.zeros((rows, 0)), *parts])

    def gain(self, row: Row) -> Float:
        """Return S = R P R', symmetric."""
        reads = [b for b in self.blocks if b in row]
        part = self.keeping(reads)
        matrix = part.matrix(row)
        gain = matrix @ part.covariance @ matrix.T
        return np.asarray(0.5 * (gain + gain.T))

    def keeping(self, blocks: Sequence[int]) -> Frontier:
        """Return the frontier without all other blocks."""
        if tuple(blocks) == self.blocks:
            return self
        ends = np.cumsum(self.sizes)
        kept = [i for i, b in enumerate(self.blocks) if b in blocks]
        index = np.concatenate([np.arange(ends[i] - self.sizes[i], ends[i]) for i in kept] or [np.zeros(0, dtype=int)])
        sizes = tuple(self.sizes[i] for i in kept)
        return Frontier(tuple(self.blocks[i] for i in kept), sizes, self.covariance[np.ix_(index, index)])


@dataclass(frozen=True, eq=False)
class Addition:
    """A block about to join the frontier.

    Attributes:
        block: its number. row: what it reads. gain: S. alpha, beta: its slopes. keep: blocks that later rows read.
    """

    block: int
    row: Row
    gain: Float
    alpha: Float
    beta: Float
    keep: tuple[int, ...]

    def join(self, frontier: Frontier, inverse: Float) -> Frontier:
        """Return the frontier with the block, for D = diag(inverse), without the blocks that are not kept.

        Cost: n^3 for the block's n neurons, and n^2 w + n w^2 for w entries that stay beside it.

        Raises:
            numpy.linalg.LinAlgError: K is not positive definite.
        """
        kept = [b for b in frontier.blocks if b in self.keep]
        read = frontier.keeping([b for b in frontier.blocks if b in self.row])
        if not kept and 2 * sum(read.sizes) <= len(self.gain):
            own = propagate_narrow(self._half(read), inverse, self.alpha, self.beta)
        else:
            own = propagate(self.gain, inverse, self.alpha, self.beta)
        joined = (*kept, self.block) if self.block in self.keep else tuple(kept)
        if not kept:
            return Frontier((self.block,), (len(own),), own).keeping(joined)
        m, r = 0.5 * (self.alpha + self.beta), 0.5 * (self.beta - self.alpha)
        stays = frontier.keeping(kept)
        across = self._across(frontier, kept)  # R P, columns of what stays
        solved = solve_positive(np.diag(inverse) - r[:, None] * self.gain * r, r[:, None] * across)
        left = stays.covariance + (across.T * r) @ solved
        below = m[:, None] * (across + (self.gain * r) @ solved)
        covariance = np.block([[0.5 * (left + left.T), below.T], [below, own]])
        sizes = (*stays.sizes, len(own))
        return Frontier((*stays.blocks, self.block), sizes, covariance).keeping(joined)

    def _half(self, read: Frontier) -> Float:
        """Return R L for P = L L': its columns are as many as what the row reads has neurons."""
        return np.asarray(read.matrix(self.row) @ np.linalg.cholesky(read.covariance))

    def outlook(self, frontier: Frontier, reader: Row) -> Callable[[Float], float]:
        """Return the norm of the gain of a row that reads the block too, once that has joined, as a function of 1 / (2
        lambda); a convex one, as it is the largest eigenvalue of sums of D and K^-1. About 1e-3 accurate.

        Cost of a value: n^3 / 3, and some dozen products with S and R P, which are all that is held.
        """
        kept = [b for b in frontier.blocks if b in self.keep and b in reader]
        stays, across = frontier.keeping(kept), self._across(frontier, kept)
        beside, own = stays.matrix(reader), reader[self.block].mid
        m, r = (0.5 * (self.beta + sign * self.alpha)[:, None] for sign in (1.0, -1.0))

        def norm(inverse: Float) -> float:
            factor = scipy.linalg.cho_factor(np.diag(inverse) - r * self.gain * r.T, lower=True)

            def product(x: Float) -> Float:
                left, right = beside.T @ x, own.T @ x
                seen = across @ left + self.gain @ (m * right)
                changed = r * scipy.linalg.cho_solve(factor, r * seen)
                stayed = stays.covariance @ left + across.T @ (m * right + changed)
                joined = m * (seen + self.gain @ changed) + inverse[:, None] * right
                return np.asarray(beside @ stayed + own @ joined)

            return _norm(product, len(own))

        return norm

    def _across(self, frontier: Frontier, kept: Sequence[int]) -> Float:
        ends = np.cumsum(frontier.sizes)
        columns = [np.zeros((len(frontier.covariance), 0))] + [
            frontier.covariance[:, end - size : end]
            for b, size, end in zip(frontier.blocks, frontier.sizes, ends, strict=True)
            if b in kept
        ]
        return frontier.matrix(self.row) @ np.hstack(columns)


def _norm(product: Callable[[Float], Float], size: int) -> float:
    """Return the largest eigenvalue of a positive semidefinite operator on columns, by Lanczos where it is large.

    Raises:
        numpy.linalg.LinAlgError: it is not finite.
    """
    start = np.random.default_rng(0).standard_normal(size)
    if not np.isfinite(product(start[:, None])).all():
        raise np.linalg.LinAlgError("not finite")
    if size > LANCZOS:
        operator = LinearOperator((size, size), lambda x: product(x.reshape(size, -1)).reshape(x.shape), dtype=float)
        try:
            return float(eigsh(operator, k=1, which="LA", v0=start, tol=1e-3, return_eigenvectors=False)[0])
        except ArpackError:
            pass
    return float(np.linalg.eigvalsh(product(np.eye(size)))[-1])


def last_reader(lifted: Lifted) -> list[int]:
    """Return for each block the last row that reads it: a block, or the number of blocks for the output; else 0."""
    last = [0] * len(lifted.sizes)
    rows = [block.row for block in lifted.blocks] + [lifted.output]
    for reader, row in enumerate(rows, start=1):
        for block in row:
            last[block] = reader
    return last
