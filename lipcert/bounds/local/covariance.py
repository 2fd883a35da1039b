r"""What multipliers of a region prove, and better multipliers (the multiplier rule on a `noise` model).

For multipliers 1 / d_i > 0 of the noises (|w_i| <= r_i |dz_i|) the theorem of `proof.rules.multipliers` reads: if
|dx|^2 + sum_i (w_i^2 - r_i^2 dz_i^2) / d_i >= (c.dy)^2 / L^2 for all dx, w, then |c.dy| <= L |dx|. Carried forwards
node by node, with C the covariance bound of all rows that are still to come, C_0 = G G',

    K = diag(d) - r C_kk r > 0,      C <- C + C_.k r K^-1 r C_k. + N_k diag(d) N_k',

and L_j^2 = C_jj for every output row j at the end: one set of multipliers bounds all rivals. At each node
|dz_i| <= eps sqrt(C_ii) besides.

Multipliers are improved by gradient steps on log d for a soft minimum of the margins minus eps L_j. Every set inside
the domain gives a valid bound, and the best is kept. Level: numerical.

Source: LipSDP (Fazlyab et al. 2019) with sectors of a region (Hashemi et al. 2021).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lipcert.bounds.local.noise import NoiseModel

ROOM = 2.0  # of the first multipliers over the smallest uniform ones
RATE = 0.2  # of Adam's steps on log d
SOFTNESS = 0.1  # of the soft minimum, relative to eps L
BACK = 0.3  # added to log d where a step left the domain


@dataclass(frozen=True, eq=False)
class Covariance:
    """What some multipliers prove.

    Attributes:
        lengths: (B, S) L_j of each output row; infinite where the multipliers are outside the domain.
        widths: of each node, (B, u_k) sqrt(C_ii): |dz_i| <= eps times it.
        inside: (B,) whether all K are positive definite.
    """

    lengths: Tensor
    widths: tuple[Tensor, ...]
    inside: Tensor


def carry(model: NoiseModel, logs: list[Tensor]) -> Covariance:
    """Return what multipliers prove; cost per node u^3 / 3 + u^2 t + u t^2 for t rows behind it.

    logs: of each node, (B, u_k) log d.
    """
    c = model.gram
    inside = torch.ones(len(c), dtype=torch.bool, device=c.device)
    widths = []
    for radius, noise, log in zip(model.radii, model.noise, logs, strict=True):
        u = radius.shape[1]
        widths.append(c.detach()[:, :u, :u].diagonal(dim1=1, dim2=2).clamp(min=0.0).sqrt())
        live = radius > 0
        d = torch.where(live, log.exp(), 0.0)
        k = torch.diag_embed(torch.where(live, d, 1.0)) - radius[:, :, None] * c[:, :u, :u] * radius[:, None]
        root, info = torch.linalg.cholesky_ex(k)
        inside = inside & (info == 0)
        root = torch.where(inside[:, None, None], root, torch.eye(u, dtype=c.dtype, device=c.device))
        half = torch.linalg.solve_triangular(root, radius[:, :, None] * c[:, :u, u:], upper=False)
        c = c[:, u:, u:] + half.mT @ half + (noise * d[:, None]) @ noise.mT
    lengths = c.diagonal(dim1=1, dim2=2).clamp(min=1e-300).sqrt()
    return Covariance(torch.where(inside[:, None], lengths, torch.inf), tuple(widths), inside)


def first_logs(model: NoiseModel) -> list[Tensor]:
    """Return log d of uniform multipliers per node, well inside the domain."""
    logs: list[Tensor] = []
    c = model.gram
    for radius, noise in zip(model.radii, model.noise, strict=True):
        u = radius.shape[1]
        seen = radius[:, :, None] * c[:, :u, :u] * radius[:, None]
        top = torch.linalg.eigvalsh(seen)[:, -1:].clamp(min=1e-200)
        d = (ROOM * top).expand(-1, u)
        k = torch.diag_embed(d) - seen
        half = torch.linalg.solve_triangular(torch.linalg.cholesky(k), radius[:, :, None] * c[:, :u, u:], upper=False)
        c = c[:, u:, u:] + half.mT @ half + (noise * torch.where(radius > 0, d, 0.0)[:, None]) @ noise.mT
        logs.append(d.log().clone())
    return logs


def improve(model: NoiseModel, logs: list[Tensor], margins: Tensor, eps: Tensor, steps: int) -> Covariance:
    """Return the best of some gradient steps, sample by sample: the largest least margin.

    Args:
        model: of B samples and S rivals.
        logs: where to start, as from `first_logs`.
        margins: (B, S) at the samples, float64.
        eps: (B,) radii.
        steps: of Adam.
    """
    best = carry(model, logs)
    score = _least(best, margins, eps)
    safe = [log.clone() for log in logs]
    moving = [log.clone().requires_grad_() for log in logs]
    optimiser = torch.optim.Adam(moving, lr=RATE, betas=(0.9, 0.99))
    for _ in range(steps):
        optimiser.zero_grad()
        with torch.enable_grad():
            now = carry(model, moving)
            _objective(now, margins, eps).backward()  # type: ignore[no-untyped-call]
        found = _least(now, margins, eps)
        better = found > score
        score = torch.where(better, found, score)
        best = Covariance(
            torch.where(better[:, None], now.lengths.detach(), best.lengths),
            tuple(
                torch.where(now.inside[:, None], torch.minimum(a, b), a)
                for a, b in zip(best.widths, now.widths, strict=True)
            ),
            best.inside | now.inside,
        )
        with torch.no_grad():
            for log, last in zip(moving, safe, strict=True):
                last.copy_(torch.where(now.inside[:, None], log, last + BACK))
                log.copy_(last)
                if log.grad is not None:
                    log.grad.nan_to_num_(0.0, 0.0, 0.0)
        optimiser.step()
    return best


def _least(found: Covariance, margins: Tensor, eps: Tensor) -> Tensor:
    return (margins - eps[:, None] * found.lengths.detach()).amin(dim=1)


def _objective(found: Covariance, margins: Tensor, eps: Tensor) -> Tensor:
    """Return minus the soft minimum of the margins, each sample in units of its own eps L."""
    spread = torch.where(found.inside[:, None], eps[:, None] * found.lengths, 0.0)
    unit = spread.detach().mean(dim=1, keepdim=True).clamp(min=1e-300)
    scaled = (margins - spread) / unit
    return (SOFTNESS * torch.logsumexp(-scaled / SOFTNESS, dim=1)).sum()
