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
    """Bounds of P functions, and the points where Lagrangians are least.

    Attributes:
        bound: (P,), minus infinity where nothing is proved.
        noise, past: (P, u) w and t at the point. rows: (P, u + 1) weights of the rows T, G in its dx.
        sharper: (P, u) gradients of the bound in d. wider: in k. cutting: (P, 3, u) in the weights.
        logdet: (P, 2, u) gradients of the log-determinant of S in d and k, where it was asked for.
    """

    bound: Tensor
    noise: Tensor
    past: Tensor
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
    start, low, high = kinks.start[:, :count], kinks.low, kinks.high
    own, mixed = kinks.gram[:, :count, :count], kinks.gram[:, :count, count]
    noise = kinks.noise[:, :count]
    d, k = (torch.where(free, chosen.size * part, 0.0) for part in (1.0 - chosen.share, chosen.share))
    s, turned = high / (high - low), -kinks.forced.double()
    above, sides, chord = chosen.cuts.unbind(dim=1)
    # y = f - cuts: weights `on_t` of the functions t, and `on_w` of the noises
    on_t = torch.where(free, sides - s * chord, turned * sides)
    products = _times(own, on_t)
    along = mixed + products  # T y_x
    on_w = kinks.noise[:, count] + torch.where(free, chord - above - sides, 0.0) + _times(noise.mT, on_t)
    constant = kinks.start[:, count] + (on_t * start).sum(dim=1) + torch.where(free, chord * s * low, 0.0).sum(dim=1)
    square = kinks.gram[:, count, count] + (on_t * (mixed + along)).sum(dim=1)

    matrix = _matrix(own, noise, d, k, free)
    diagonal = torch.where(free, d + k, 1.0)
    root, info = torch.linalg.cholesky_ex(matrix - torch.diag_embed(ROOM * diagonal))
    inside = info == 0
    root = torch.where(inside[:, None, None], root, torch.eye(count).to(root))
    shift, slope = -(d * start + k * high), on_w + d * along
    shift, slope = (torch.where(free, part, 0.0) for part in (shift, slope))
    inverted = torch.cholesky_inverse(root) if inverse else None
    both = torch.stack([shift, slope], dim=2)
    solved = torch.cholesky_solve(both, root) if inverted is None else inverted @ both
    steep = (square + (slope * solved[:, :, 1]).sum(dim=1)).clamp(min=TINY)
    reach = (kinks.eps.square() + (shift * solved[:, :, 0]).sum(dim=1)).clamp(min=TINY)
    tau = (reach / steep).sqrt()[:, None]
    point, target = solved[:, :, 0] + tau * solved[:, :, 1], shift + tau * slope
    left = target - _times(matrix, point)
    lost = (count + 4) * torch.finfo(left.dtype).eps * (_times(matrix.abs(), point.abs()) + target.abs())
    spent = target * point + point * left + point.abs() * lost + 2.0 * (left.abs() + lost).square() / (ROOM * diagonal)
    spent = spent.sum(dim=1)
    total = kinks.eps.square() + tau[:, 0].square() * square.clamp(min=0.0) + spent
    bound = constant - total / (2.0 * tau[:, 0])
    bound = torch.where(inside & torch.isfinite(bound), bound, -torch.inf)

    w = torch.where(free, -point, 0.0)
    t = start + _times(own, d * w) - tau * along + _times(noise, w)
    cutting = torch.stack([w, torch.where(free, w - t, -turned * t), s * (t - low) - w], dim=1)
    cutting = torch.where(torch.stack([free, free | (kinks.forced != 0), free], dim=1), -cutting, 0.0)
    logdet = None
    if inverted is not None:
        spread = inverted.diagonal(dim1=1, dim2=2)
        in_d = 2.0 * (spread - (noise * inverted).sum(dim=2) - (own * (inverted * d[:, None])).sum(dim=2))
        logdet = torch.where(free[:, None], torch.stack([in_d, 2.0 * spread], dim=1), 0.0)
    return Least(
        bound,
        w,
        t,
        torch.cat([d * w - tau * on_t, -tau], dim=1),
        -w * (t - w) / tau,
        -w * (high - w) / tau,
        cutting,
        logdet,
    )


def _matrix(own: Tensor, noise: Tensor, d: Tensor, k: Tensor, free: Tensor) -> Tensor:
    """Return S; the identity at neurons that are not free."""
    crossed = d[:, :, None] * noise
    diagonal = torch.where(free, 2.0 * (d + k), 1.0)
    return torch.diag_embed(diagonal) - crossed - crossed.mT - d[:, :, None] * own * d[:, None]


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    """Return (P, m) products."""
    return (matrix @ vector[..., None])[..., 0]
