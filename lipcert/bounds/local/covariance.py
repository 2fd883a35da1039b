r"""What multipliers of a region prove (the multiplier rule on a `noise` model).

For multipliers 1 / (r_i e_i) > 0 of the noises (|w_i| <= r_i |dz_i|) the theorem of `proof.rules.multipliers` reads:
if |dx|^2 + sum_i (w_i^2 - r_i^2 dz_i^2) / (r_i e_i) >= (c.dy)^2 / L^2 for all dx, w, then |c.dy| <= L |dx|. Carried
forwards node by node, with C the covariance bound of all rows that are still to come, C_0 = G G', and q = r^(1/2),

    K = diag(e) - q C_kk q > 0,      C <- C + C_.k q K^-1 q C_k. + N_k diag(r e) N_k',

and L_j^2 = C_jj for every output row j at the end: one set of multipliers bounds all rivals. At each node
|dz_i| <= eps sqrt(C_ii) besides.

A node with more unstable neurons than C = Y Y' has columns is eliminated on the side of the columns: K > 0 where
M = I - Y_k' q diag(1/e) q Y_k > 0, and Y <- [Y M^(-1/2), N_k diag(r e)^(1/2)] gives the same C.

Level: numerical. Source: LipSDP (Fazlyab et al. 2019) with sectors of a region (Hashemi et al. 2021).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lipcert.bounds.local.noise import NoiseModel

ROOM = 2.0  # of the first multipliers over the smallest uniform ones
_POWERS = 12  # iterations that estimate a largest eigenvalue

Logs = list[Tensor]  # of each node, (B, u_k) log e
Measure = Callable[[Tensor], Tensor]  # (B, S, S) covariance of the outputs -> (B, S') squares of constants
_Choose = Callable[[int, Tensor], Tensor]  # which node, and a matrix with the eigenvalues of q C_kk q -> e


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

    def best(self, other: Covariance) -> Covariance:
        """Return the smaller of two bounds, one by one: both hold."""
        widths = (torch.minimum(a, b) for a, b in zip(self.widths, other.widths, strict=True))
        return Covariance(torch.minimum(self.lengths, other.lengths), tuple(widths), self.inside | other.inside)

    def take(self, samples: Tensor) -> Covariance:
        """Return the same of some samples, given by index."""
        return Covariance(self.lengths[samples], tuple(w[samples] for w in self.widths), self.inside[samples])

    def detach(self) -> Covariance:
        """Return the same without a gradient."""
        return Covariance(self.lengths.detach(), self.widths, self.inside)


def each_row(covariance: Tensor) -> Tensor:
    """Measure every output row on its own."""
    return covariance.diagonal(dim1=1, dim2=2)


def all_rows(covariance: Tensor) -> Tensor:
    """Measure all output rows as one map into l2: the largest eigenvalue, (B, 1)."""
    values: Tensor = torch.linalg.eigvalsh(covariance)
    return values[:, -1:]


def carry(model: NoiseModel, logs: Logs, measure: Measure = each_row) -> Covariance:
    """Return what multipliers prove; cost per node u^3 / 3 + u^2 t + u t^2 for t rows behind it."""
    return _carry(model, lambda k, _: logs[k].exp(), measure)


def first_logs(model: NoiseModel) -> Logs:
    """Return log e of uniform multipliers per node, inside the domain where its eigenvalue is estimated well."""
    logs: Logs = []

    def choose(k: int, seen: Tensor) -> Tensor:
        e = (ROOM * _largest_eigenvalue(seen)).clamp(min=1e-200)[:, None].expand_as(model.radii[k])
        logs.append(e.log())
        return e

    _carry(model, choose, each_row)
    return logs


def _carry(model: NoiseModel, choose: _Choose, measure: Measure) -> Covariance:
    """Carry the covariance through all nodes, with multipliers chosen on the way."""
    state: _Gram | _Columns = _Columns(model.inputs)
    if not model.radii or model.radii[0].shape[1] <= model.inputs.shape[2]:
        state = _Gram(model.gram)
    inside = torch.isfinite(model.inputs).flatten(1).all(dim=1)
    widths = []
    for k, (radius, noise) in enumerate(zip(model.radii, model.noise, strict=True)):
        if isinstance(state, _Columns) and radius.shape[1] <= state.rows.shape[2]:
            state = state.gram()
        widths.append(state.widths(radius.shape[1]))
        seen = state.seen(radius)
        fine = torch.isfinite(seen.detach()).flatten(1).all(dim=1)
        state, definite = state.eliminate(seen, radius, noise, choose(k, seen.detach()))
        inside = inside & fine & definite
    c = state.gram().c
    fine = inside & torch.isfinite(c.detach()).flatten(1).all(dim=1)
    squares = measure(torch.where(fine[:, None, None], c, torch.eye(c.shape[1], dtype=c.dtype, device=c.device)))
    lengths = torch.where(fine[:, None], squares.clamp(min=1e-300).sqrt(), torch.inf)
    return Covariance(lengths, tuple(torch.where(fine[:, None], width, torch.inf) for width in widths), fine)


@dataclass(frozen=True, eq=False)
class _Gram:
    """The covariance bound C (B, t, t) of the rows to come."""

    c: Tensor

    def gram(self) -> _Gram:
        return self

    def widths(self, count: int) -> Tensor:
        return self.c.detach()[:, :count, :count].diagonal(dim1=1, dim2=2).clamp(min=0.0).sqrt()

    def seen(self, radius: Tensor) -> Tensor:
        u = radius.shape[1]
        q = radius.sqrt()
        return q[:, :, None] * self.c[:, :u, :u] * q[:, None]

    def eliminate(self, seen: Tensor, radius: Tensor, noise: Tensor, e: Tensor) -> tuple[_Gram, Tensor]:
        u = radius.shape[1]
        root, definite = _root(torch.diag_embed(e) - seen)
        half = torch.linalg.solve_triangular(root, radius.sqrt()[:, :, None] * self.c[:, :u, u:], upper=False)
        return _Gram(self.c[:, u:, u:] + half.mT @ half + (noise * (radius * e)[:, None]) @ noise.mT), definite


@dataclass(frozen=True, eq=False)
class _Columns:
    """The same as a product Y Y', Y (B, t, n)."""

    rows: Tensor

    def gram(self) -> _Gram:
        return _Gram(self.rows @ self.rows.mT)

    def widths(self, count: int) -> Tensor:
        found: Tensor = torch.linalg.vector_norm(self.rows.detach()[:, :count], dim=2)
        return found

    def seen(self, radius: Tensor) -> Tensor:
        scaled = self.rows[:, : radius.shape[1]] * radius.sqrt()[:, :, None]
        return scaled.mT @ scaled

    def eliminate(self, seen: Tensor, radius: Tensor, noise: Tensor, e: Tensor) -> tuple[_Columns, Tensor]:
        u = radius.shape[1]
        scaled = self.rows[:, :u] * (radius / e).sqrt()[:, :, None]
        unit = torch.eye(seen.shape[1], dtype=seen.dtype, device=seen.device)
        root, definite = _root(unit - scaled.mT @ scaled)
        half = torch.linalg.solve_triangular(root, self.rows[:, u:].mT, upper=False).mT
        return _Columns(torch.cat([half, noise * (radius * e).sqrt()[:, None]], dim=2)), definite


def _root(k: Tensor) -> tuple[Tensor, Tensor]:
    """Return lower Cholesky factors, the identity where a matrix is not positive definite, and where they are."""
    root, info = torch.linalg.cholesky_ex(k)
    fine = (info == 0) & torch.isfinite(root.detach()).flatten(1).all(dim=1)
    return torch.where(fine[:, None, None], root, torch.eye(k.shape[1], dtype=k.dtype, device=k.device)), fine


def _largest_eigenvalue(matrix: Tensor) -> Tensor:
    """Return (B,) estimates from below, close enough for multipliers with room; `carry` says whether they are."""
    vector = matrix.abs().sum(dim=2, keepdim=True)
    value = vector.new_zeros(len(matrix))
    for _ in range(_POWERS):
        length = torch.linalg.vector_norm(vector, dim=1, keepdim=True)
        vector = matrix @ (vector / length.clamp(min=1e-300))
        value = torch.linalg.vector_norm(vector, dim=1)[:, 0]
    return value
