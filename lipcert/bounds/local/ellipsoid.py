r"""Lower bounds of a function on a part of a ball, from ellipsoids and cuts, where neurons are noises w = relu(t).

Setting and notation: `kinks`. On the part, every free neuron has

    w (t - w) = 0,   w (h - w) >= 0,   w >= 0,   w >= t,   s (t - l) - w >= 0    (l <= t <= h, s = h / (h - l)),

and a forced one q t >= 0, q its sign. For multipliers d, k >= 0 of the first two, e >= 0 of |dx| <= eps, and weights of
the linear ones, f is at least the least value over *all* (dx, w) of the Lagrangian

    f - sum cuts + e (|dx|^2 - eps^2 - sum_i 2 d_i w_i (t_i - w_i) + 2 k_i w_i (h_i - w_i)).

Its part of degree two is e xi'Q xi, Q = [[I, -T'D], [-DT, 2 (D + K) - D N - N'D]]. With y the linear function f less
the cuts, y_0 its constant, z = (0, -(D t* + K h)) + tau y and tau = 1 / (2 e), the least value is

    y_0 - (eps^2 + z'Q^-1 z) / (2 tau),                                                                     (1)

provided Q > 0. dx is eliminated: Q > 0 where S = 2 (D + K) - D N - N'D - D T T' D > 0, and

    z'Q^-1 z = tau^2 |y_x|^2 + b'S^-1 b,    b = -(D t* + K h) + tau (y_w + D T y_x).

So a bound costs one factorisation of the size of the free neurons. The best tau makes |dx|^2 - ... = 0 at the
minimiser. Where the minimiser is a point of the part and w = relu(t) there, the bound is exact.

For fixed multipliers the Lagrangian is least at one point; by the envelope theorem the gradient of the bound in a
multiplier is minus its constraint at that point: no differentiation through the factorisation is needed. Moreover the
bound is concave in (e, e d, e k, weights) together.

S near the edge of the cone: for any s~, with r = b - S s~,

    b'S^-1 b = b's~ + s~'r + r'S^-1 r,    r'S^-1 r <= sum_i r_i^2 / (ROOM (d_i + k_i))  where S >= ROOM diag(d + k),

which the factorisation of S - ROOM diag(d + k) shows. So (1) is evaluated with what the solution leaves over added (and
what rounding may have hidden of it, with half the room), and cancellation cannot raise a bound.

Level: numerical. Sources: S-procedure; Shor's relaxation with products of constraints for ReLU (Raghunathan, Steinhardt
& Liang 2018), here in the noises; triangle cuts (Ehlers 2017).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lipcert.bounds.local.kinks import Kinks

ROOM = 1e-7  # of the factorisation, relative to the diagonal
TINY = 1e-200


@dataclass(frozen=True, eq=False)
class Multipliers:
    """Of P functions, (P, u) each: d = size (1 - share), k = size share, and weights (P, 3, u) of the cuts.

    Cuts: w >= 0; w >= t, or q t >= 0 where a neuron is forced; s (t - l) >= w. Zero where there is no such cut.
    """

    size: Tensor
    share: Tensor
    cuts: Tensor


@dataclass(frozen=True, eq=False)
class Least:
    """Bounds of P functions, and what is known of the points where Lagrangians are least.

    Attributes:
        bound: (P,), minus infinity where nothing is proved.
        rows: (P, u + 1) weights of the rows T, G in dx there.
        sharper: (P, u) gradients of the bound in d. wider: in k. cutting: (P, 3, u) in the weights.
        logdet: (P, 2, u) gradients of the log-determinant of S in d and k, where it was asked for.
    """

    bound: Tensor
    rows: Tensor
    sharper: Tensor
    wider: Tensor
    cutting: Tensor
    logdet: Tensor | None


def least(kinks: Kinks, chosen: Multipliers, *, inverse: bool = False) -> Least:
    """Return the bounds that multipliers prove, and how they change with them.

    Args:
        kinks: the functions.
        chosen: any numbers d, k >= 0 and weights >= 0.
        inverse: whether the gradients of the log-determinant are wanted too.
    """
    free, count = kinks.free, kinks.low.shape[1]
    start, own, noise = kinks.start[:, :count], kinks.gram[:, :count, :count], kinks.noise[:, :count]
    d, k = (torch.where(free, chosen.size * part, 0.0) for part in (1.0 - chosen.share, chosen.share))
    y = _without_cuts(kinks, chosen.cuts)
    matrix, diagonal = _matrix(own, noise, d, k, free), torch.where(free, d + k, 1.0)
    root, info = torch.linalg.cholesky_ex(matrix - torch.diag_embed(ROOM * diagonal))
    inside = info == 0
    root = torch.where(inside[:, None, None], root, torch.eye(count).to(root))
    inverted = torch.cholesky_inverse(root) if inverse else None
    shift = torch.where(free, -(d * start + k * kinks.high), 0.0)
    slope = torch.where(free, y.on_w + d * y.along, 0.0)
    both = torch.stack([shift, slope], dim=2)
    solved = torch.cholesky_solve(both, root) if inverted is None else inverted @ both
    steep = (y.square + (slope * solved[:, :, 1]).sum(dim=1)).clamp(min=TINY)
    room = (kinks.eps.square() + (shift * solved[:, :, 0]).sum(dim=1)).clamp(min=TINY)
    tau = (room / steep).sqrt()[:, None]
    point = solved[:, :, 0] + tau * solved[:, :, 1]
    spent = _quadratic(matrix, diagonal, point, shift + tau * slope)
    total = kinks.eps.square() + tau[:, 0].square() * y.square.clamp(min=0.0) + spent
    bound = y.constant - total / (2.0 * tau[:, 0])
    w = torch.where(free, -point, 0.0)
    t = start + _times(own, d * w) - tau * y.along + _times(noise, w)
    return Least(
        torch.where(inside & torch.isfinite(bound), bound, -torch.inf),
        torch.cat([d * w - tau * y.on_t, -tau], dim=1),
        -w * (t - w) / tau,
        -w * (kinks.high - w) / tau,
        _slacks(kinks, w, t),
        None if inverted is None else _logdet(own, noise, d, free, inverted),
    )


@dataclass(frozen=True, eq=False)
class _Function:
    """y = f - cuts: (P, u) its weights of the functions t and of the noises w, and T y_x; (P,) y_0 and |y_x|^2."""

    on_t: Tensor
    on_w: Tensor
    along: Tensor
    constant: Tensor
    square: Tensor


def _without_cuts(kinks: Kinks, cuts: Tensor) -> _Function:
    free, count = kinks.free, kinks.low.shape[1]
    mixed, s = kinks.gram[:, :count, count], kinks.high / (kinks.high - kinks.low)
    above, sides, chord = cuts.unbind(dim=1)
    on_t = torch.where(free, sides - s * chord, -kinks.forced * sides)
    along = mixed + _times(kinks.gram[:, :count, :count], on_t)
    on_w = kinks.noise[:, count] + torch.where(free, chord - above - sides, 0.0)
    corner = torch.where(free, chord * s * kinks.low, 0.0)
    return _Function(
        on_t,
        on_w + _times(kinks.noise[:, :count].mT, on_t),
        along,
        kinks.start[:, count] + (on_t * kinks.start[:, :count] + corner).sum(dim=1),
        kinks.gram[:, count, count] + (on_t * (mixed + along)).sum(dim=1),
    )


def _slacks(kinks: Kinks, w: Tensor, t: Tensor) -> Tensor:
    """Return (P, 3, u) minus the cuts at a point: the gradient of the bound in their weights."""
    free, s = kinks.free, kinks.high / (kinks.high - kinks.low)
    found = torch.stack([w, torch.where(free, w - t, kinks.forced * t), s * (t - kinks.low) - w], dim=1)
    there = torch.stack([free, free | (kinks.forced != 0), free], dim=1)
    return torch.where(there, -found, 0.0)


def _quadratic(matrix: Tensor, diagonal: Tensor, point: Tensor, target: Tensor) -> Tensor:
    """Return (P,) upper bounds of b'S^-1 b for targets b, from points that are nearly S^-1 b."""
    left = target - _times(matrix, point)
    unit = (point.shape[1] + 4) * torch.finfo(left.dtype).eps
    lost = unit * (_times(matrix.abs(), point.abs()) + target.abs())
    rest = 2.0 * (left.abs() + lost).square() / (ROOM * diagonal)
    found: Tensor = (target * point + point * left + point.abs() * lost + rest).sum(dim=1)
    return found


def _logdet(own: Tensor, noise: Tensor, d: Tensor, free: Tensor, inverted: Tensor) -> Tensor:
    """Return (P, 2, u) the gradients of log det S in d and k, given S^-1."""
    spread = inverted.diagonal(dim1=1, dim2=2)
    in_d = 2.0 * (spread - (noise * inverted).sum(dim=2) - (own * (inverted * d[:, None])).sum(dim=2))
    return torch.where(free[:, None], torch.stack([in_d, 2.0 * spread], dim=1), 0.0)


def _matrix(own: Tensor, noise: Tensor, d: Tensor, k: Tensor, free: Tensor) -> Tensor:
    """Return S; the identity at neurons that are not free."""
    crossed = d[:, :, None] * noise
    diagonal = torch.where(free, 2.0 * (d + k), 1.0)
    return torch.diag_embed(diagonal) - crossed - crossed.mT - d[:, :, None] * own * d[:, None]


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    """Return (P, m) products."""
    return (matrix @ vector[..., None])[..., 0]
