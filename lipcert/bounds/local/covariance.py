r"""What multipliers of a region prove (the multiplier rule on a `noise` model).

For multipliers 1 / (r_i e_i) > 0 of the noises (|w_i| <= r_i |dz_i|) the theorem of `proof.rules.multipliers` reads:
if |dx|^2 + sum_i (w_i^2 - r_i^2 dz_i^2) / (r_i e_i) >= (c.dy)^2 / L^2 for all dx, w, then |c.dy| <= L |dx|. Carried
forwards node by node, with C the covariance bound of all rows that are still to come, C_0 = G G', and q = r^(1/2),

    K = diag(e) - q C_kk q > 0,      C <- C + C_.k q K^-1 q C_k. + N_k diag(r e) N_k',

and L_j^2 = C_jj for every output row j at the end: one set of multipliers bounds all rivals. At each node
|dz_i| <= eps sqrt(C_ii) besides.

A node with more unstable neurons than C = Y Y' has columns is eliminated on the side of the columns: K > 0 where
M = I - Y_k' q diag(1/e) q Y_k > 0, and Y <- [Y M^(-1/2), N_k diag(r e)^(1/2)] gives the same C.

*Responses*. With A = diag(e / r) - Y Y' over all neurons, C_jj = |Y_j|^2 + b' A^-1 b, b = Y Y_j'. It is attained where
the neurons move by z = diag(e / r) mu, mu = A^-1 b, and the noises act on output j with s = N' (mu, 1). A^-1 comes from
the same blocks, last node first. These are also the derivatives: with lambda_i = 1 / (r_i e_i),
d C_jj / d lambda_i = r_i^2 (z_i^2 - e_i^2 s_i^2).

Level: numerical. Source: LipSDP (Fazlyab et al. 2019) with sectors of a region (Hashemi et al. 2021).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lipcert.bounds.local.noise import Front, NoiseModel

ROOM = 2.0  # of the first multipliers over the smallest uniform ones
_POWERS = 12  # iterations that estimate a largest eigenvalue

Logs = list[Tensor]  # of each node, (B, u_k) log e
Measure = Callable[[Tensor], tuple[Tensor, Tensor]]
"""(B, S, S) covariance of the outputs -> (B, S') squares of constants, (B, S, S') unit functions that have them."""
_Choose = Callable[[int, "_Gram | _Columns"], Tensor]  # which node, and the state before it -> e


@dataclass(frozen=True, eq=False)
class Covariance:
    """What some multipliers prove.

    Attributes:
        lengths: (B, S') constants of the outputs, as measured; infinite where the multipliers are outside the domain.
        widths: of each node, (B, u_k) sqrt(C_ii): |dz_i| <= eps times it; infinite likewise.
        inside: (B,) whether all K are positive definite.
    """

    lengths: Tensor
    widths: tuple[Tensor, ...]
    inside: Tensor
    _functions: Tensor
    _blocks: tuple[_Block, ...]

    def responses(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return z and s of each node, (B, u_k, S') each (see the module); of no use outside the domain."""
        moved, acting, columns = list[Tensor](), list[Tensor](), self._functions
        for block in reversed(self._blocks):
            acting.append(block.noise.mT @ columns)
            moved.append(block.moved(columns))
            columns = torch.cat([moved[-1] * (block.radius / block.e)[..., None], columns], dim=1)
        return moved[::-1], acting[::-1]


def each_row(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Measure every output row on its own."""
    unit = torch.eye(covariance.shape[1], dtype=covariance.dtype, device=covariance.device)
    return covariance.diagonal(dim1=1, dim2=2), unit.expand_as(covariance)


def all_rows(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Measure all output rows as one map into l2: the largest eigenvalue, (B, 1)."""
    values, vectors = torch.linalg.eigh(covariance)
    return values[:, -1:], vectors[:, :, -1:]


def carry(model: NoiseModel, logs: Logs, measure: Measure = each_row) -> Covariance:
    """Return what multipliers prove; cost per node u^3 / 3 + u^2 t + u t^2 for t rows behind it."""
    return _carry(model, lambda k, _: logs[k].exp(), measure)


def first(model: NoiseModel, measure: Measure = each_row) -> tuple[Logs, Covariance]:
    """Return log e of uniform multipliers per node, inside the domain where its eigenvalue is estimated well."""
    logs: Logs = []

    def choose(k: int, state: _Gram | _Columns) -> Tensor:
        radius = model.radii[k]
        e = (ROOM * state.largest(radius)).clamp(min=1e-200)[:, None].expand_as(radius)
        logs.append(e.log())
        return e

    return logs, _carry(model, choose, measure)


def _carry(model: NoiseModel, choose: _Choose, measure: Measure) -> Covariance:
    """Carry the covariance through all nodes, with multipliers chosen on the way."""
    state: _Gram | _Columns = _Columns(model.inputs, model.front)
    if not model.radii or model.radii[0].shape[1] <= model.inputs.shape[2]:
        state = _Gram(model.gram)
    inside = torch.isfinite(model.inputs).flatten(1).all(dim=1)
    widths, blocks = [], []
    for k, (radius, noise) in enumerate(zip(model.radii, model.noise, strict=True)):
        if isinstance(state, _Columns) and radius.shape[1] <= state.rows.shape[2]:
            state = state.gram()
        widths.append(state.widths(radius.shape[1]))
        state, block, definite = state.eliminate(radius, noise, choose(k, state))
        blocks.append(block)
        inside = inside & definite
    c = state.gram().c
    fine = inside & torch.isfinite(c).flatten(1).all(dim=1)
    unit = torch.eye(c.shape[1], dtype=c.dtype, device=c.device)
    squares, functions = measure(torch.where(fine[:, None, None], c, unit))
    lengths = torch.where(fine[:, None], squares.clamp(min=1e-300).sqrt(), torch.inf)
    kept = tuple(torch.where(fine[:, None], width, torch.inf) for width in widths)
    return Covariance(lengths, kept, fine, functions, tuple(blocks))


@dataclass(frozen=True, eq=False)
class _Block:
    """A node that was eliminated: its r and e, its noise (B, t, u) on the t rows behind it, and what gives z.

    `left` (B, u, m), `root` (B, m, m) and `right` (B, m, t) are such that z = left root'^-1 right c for the
    coefficients c (B, t, S') of the rows behind it; without `left` it is diag(e / r^(1/2)).
    """

    radius: Tensor
    e: Tensor
    noise: Tensor
    left: Tensor | None
    root: Tensor
    right: Tensor

    def moved(self, columns: Tensor) -> Tensor:
        half: Tensor = torch.linalg.solve_triangular(self.root.mT, self.right @ columns, upper=True)
        if self.left is not None:
            return self.left @ half
        scale = torch.where(self.radius > 0, self.e / self.radius.sqrt(), 0.0)
        return scale[..., None] * half


@dataclass(frozen=True, eq=False)
class _Gram:
    """The covariance bound C (B, t, t) of the rows to come."""

    c: Tensor

    def gram(self) -> _Gram:
        return self

    def widths(self, count: int) -> Tensor:
        return self.c[:, :count, :count].diagonal(dim1=1, dim2=2).clamp(min=0.0).sqrt()

    def largest(self, radius: Tensor) -> Tensor:
        u, q = radius.shape[1], radius.sqrt()[..., None]
        return _largest_eigenvalue(q, lambda x: q * (self.c[:, :u, :u] @ (q * x)))

    def eliminate(self, radius: Tensor, noise: Tensor, e: Tensor) -> tuple[_Gram, _Block, Tensor]:
        u = radius.shape[1]
        q = radius.sqrt()
        root, definite = _root(torch.diag_embed(e) - q[:, :, None] * self.c[:, :u, :u] * q[:, None])
        half = torch.linalg.solve_triangular(root, q[:, :, None] * self.c[:, :u, u:], upper=False)
        left = _Gram(self.c[:, u:, u:] + half.mT @ half + (noise * (radius * e)[:, None]) @ noise.mT)
        return left, _Block(radius, e, noise, None, root, half), definite


@dataclass(frozen=True, eq=False)
class _Columns:
    """The same as a product Y Y', Y (B, t, n); `front`: of its first rows, where they are those of a convolution."""

    rows: Tensor
    front: Front | None = None

    def gram(self) -> _Gram:
        return _Gram(self.rows @ self.rows.mT)

    def widths(self, count: int) -> Tensor:
        found: Tensor = torch.linalg.vector_norm(self.rows[:, :count], dim=2)
        return found

    def largest(self, radius: Tensor) -> Tensor:
        rows = self.rows[:, : radius.shape[1]] * radius.sqrt()[..., None]
        return _largest_eigenvalue(rows.abs().sum(dim=1)[..., None], lambda x: rows.mT @ (rows @ x))

    def eliminate(self, radius: Tensor, noise: Tensor, e: Tensor) -> tuple[_Columns, _Block, Tensor]:
        u = radius.shape[1]
        first = self.rows[:, :u]
        if self.front is None:
            scaled = first * (radius / e).sqrt()[..., None]
            product = scaled.mT @ scaled
        else:
            product = self.front.weighted(radius / e)
        unit = torch.eye(product.shape[1], dtype=product.dtype, device=product.device)
        root, definite = _root(unit - product)
        half = torch.linalg.solve_triangular(root, self.rows[:, u:].mT, upper=False)
        left = _Columns(torch.cat([half.mT, noise * (radius * e).sqrt()[:, None]], dim=2))
        return left, _Block(radius, e, noise, first, root, half), definite


def _root(k: Tensor) -> tuple[Tensor, Tensor]:
    """Return lower Cholesky factors, the identity where a matrix is not positive definite, and where they are."""
    root, info = torch.linalg.cholesky_ex(k)
    fine = (info == 0) & torch.isfinite(root).flatten(1).all(dim=1)
    if bool(fine.all()):
        return root, fine
    return torch.where(fine[:, None, None], root, torch.eye(k.shape[1], dtype=k.dtype, device=k.device)), fine


def _largest_eigenvalue(vector: Tensor, product: Callable[[Tensor], Tensor]) -> Tensor:
    """Return (B,) estimates from below, close enough for multipliers with room; `carry` says whether they are."""
    value = vector.new_zeros(len(vector))
    for _ in range(_POWERS):
        length = torch.linalg.vector_norm(vector, dim=1, keepdim=True)
        vector = product(vector / length.clamp(min=1e-300))
        value = torch.linalg.vector_norm(vector, dim=1)[:, 0]
    return value
