r"""Where the interior-point method starts.

`safe`, feasible for all frequencies: walk the layers with the gains S(w) = K P K*, P = I at the input. A diagonal
D >= S(w) for all w comes from Gershgorin's row sums in units of the roots of the diagonal; `ROOM` times that gives
multipliers by `chain.inverse_of` (ECLipsE-Fast with one cap for all frequencies), and P goes on as in
`chain.propagate`. F is a part of what these multipliers allow, 1 / max_w ||C P C*||.

`central`, near the central path for a few frequencies, in two passes as in `lipsdp`: elimination of the first layers
leaves pivots Y_k(w) = P_k(w)^-1 = R R*, and with W -> W R^-* what follows is again a family.

1. Layer by layer: maximise sum_w log det [[I + W* 2 pi T W, -W* sigma T], [-sigma T W, T]] + count * log det T. The T
   in the corner, where Z has 2 T, keeps gains from growing. In units v = sqrt(2) u this is the barrier of a layer
   with rows sqrt(2) r_i and slopes of the sum sigma and the product pi / 2.
2. Windows of some layers, centred jointly with the next weight as their output, of which the first half is kept.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from lipcert.bounds.chain import inverse_of
from lipcert.bounds.lipsdp._schur import Schur
from lipcert.bounds.lipsdp_conv._family import Family, Group, Tensors
from lipcert.bounds.lipsdp_conv._path import centre

ROOM = 1.5
PART = 0.3
WINDOW = 6
LAYER_STEPS = 15

Stop = Callable[[], bool]


def safe(family: Family) -> tuple[Tensors, float]:
    """Return multipliers of each layer, and F, well inside for every chain of the family.

    Raises:
        numpy.linalg.LinAlgError: the gains over- or underflow.
    """
    gains = [_eye(group).expand(len(group), -1, -1) for group in family.groups]
    multipliers = []
    for k, (a, b) in enumerate(zip(family.alpha, family.beta, strict=True)):
        live = [i for i, g in enumerate(family.groups) if len(g.weights) > k]
        seen = {i: family.groups[i].weights[k] @ gains[i] @ family.groups[i].weights[k].mH for i in live}
        cap = torch.stack([_cap(s) for s in seen.values()]).amax(0)
        inverse = torch.from_numpy(inverse_of(ROOM * cap.numpy(), a.numpy(), b.numpy()))
        if not bool((torch.isfinite(inverse) & torch.isfinite(1.0 / inverse)).all()):
            raise np.linalg.LinAlgError("the gains over- or underflow")
        multipliers.append(0.5 / inverse)
        for i, s in seen.items():
            gains[i] = _propagate(s, inverse, a, b)
    tops = [
        torch.linalg.matrix_norm(g.last @ p @ g.last.mH, 2).max()
        for g, p in zip(family.groups, gains, strict=True)
        if g.last is not None
    ]
    return multipliers, PART / float(torch.stack(tops).max())


def _cap(gain: torch.Tensor) -> torch.Tensor:
    """Return the diagonal of D >= S(w) for a stack of them."""
    size = torch.diagonal(gain, dim1=-2, dim2=-1).real.amax(0).clamp_min(0.0).sqrt()
    unit = torch.where(size > 0, size, torch.ones_like(size))
    cap: torch.Tensor = (gain.abs() / unit).sum(-1).amax(0) * unit
    return cap


def _propagate(gain: torch.Tensor, inverse: torch.Tensor, alpha: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
    m, r = 0.5 * (alpha + beta), 0.5 * (beta - alpha)
    middle = r[:, None] * gain
    solved = torch.linalg.solve(torch.diag(inverse).to(gain.dtype) - middle * r, middle)
    covariance = gain + (gain * r) @ solved
    result: torch.Tensor = m[:, None] * covariance * m + torch.diag(inverse)
    return result


def critical(family: Family, multipliers: Tensors, most: int) -> torch.Tensor:
    """Return chains of the last group with the largest gains in some layer, `most` for each layer, ascending.

    multipliers: those of `safe`.
    """
    group = family.groups[-1]
    gain = _eye(group).expand(len(group), -1, -1)
    found = {0} if group.last is not None else set[int]()  # w = 0, where a pooling has its output
    for w, lam, a, b in zip(group.weights, multipliers, family.alpha, family.beta, strict=False):
        seen = w @ gain @ w.mH
        size = torch.linalg.matrix_norm(seen * lam.sqrt()[:, None] * lam.sqrt(), 2)
        found.update(torch.topk(size, min(most, len(size))).indices.tolist())
        gain = _propagate(seen, 0.5 / lam, a, b)
    return torch.tensor(sorted(found))


def central(family: Family, kappa: float, stop: Stop) -> tuple[Tensors, float]:
    """Return multipliers and F near the central path at mu = F / kappa, feasible for this family."""
    rough, f = _layerwise(family) if len(family.alpha) <= WINDOW or stop() else _windows(family, kappa, stop)
    y = centre(family.rescaled(rough, f), torch.ones(sum(family.sizes) + 1, dtype=torch.float64), kappa, stop)
    return [a * b for a, b in zip(rough, family.split(y[:-1]), strict=True)], f * float(y[-1])


def _windows(family: Family, kappa: float, stop: Stop) -> tuple[Tensors, float]:
    """Pass 2."""
    layers = len(family.alpha)
    roots = [_eye(group).expand(len(group), -1, -1) for group in family.groups]
    found: Tensors = []
    while True:
        k = len(found)
        end = min(k + WINDOW, layers)
        window = _part(family, roots, k, end)
        rough, f = _layerwise(window)
        y = centre(window.rescaled(rough, f), torch.ones(sum(window.sizes) + 1, dtype=torch.float64), kappa, stop)
        multipliers = [a * b for a, b in zip(rough, window.split(y[:-1]), strict=True)]
        if end == layers:
            return found + multipliers, f * float(y[-1])
        kept = WINDOW // 2
        roots = _pivots(_part(family, roots, k, k + kept), torch.cat(multipliers[:kept]))
        found += multipliers[:kept]


def _part(family: Family, roots: Tensors, start: int, end: int) -> Family:
    """Return the layers from `start` to before `end`, whitened by the pivots before them; the next weight is C."""
    groups = []
    for group, root in zip(family.groups, roots, strict=False):  # a group that has ended is left out
        weights = group.weights[start:end]
        if not weights:
            continue
        last = group.weights[end] if end < len(group.weights) else group.last
        groups.append(Group([_whiten(root, weights[0]), *weights[1:]], last))
    return Family(groups, family.alpha[start:end], family.beta[start:end])


def _layerwise(family: Family) -> tuple[Tensors, float]:
    roots = [_eye(group).expand(len(group), -1, -1) for group in family.groups]
    found: Tensors = []
    for k in range(len(family.alpha)):
        one = _part(family, roots, k, k + 1)
        found.append(_centre_layer(one))
        roots = _pivots(one, found[-1])
    tops = [
        torch.linalg.matrix_norm(_whiten(root, group.last), 2).max()
        for group, root in zip(family.groups, roots, strict=False)
        if len(group.weights) == len(found) and group.last is not None
    ]
    return found, PART / float(torch.stack(tops).max()) ** 2 if tops else 1.0


def _centre_layer(one: Family) -> torch.Tensor:
    """Return multipliers near the maximum of pass 1, by damped Newton (feasible by self-concordance)."""
    a, b = one.alpha[0], one.beta[0]
    spread = ((a + b).square() - 2.0 * a * b).sqrt()
    groups = [Group([2.0**0.5 * g.weights[0]], None) for g in one.groups]
    tight = Family(groups, [0.5 * (a + b - spread)], [0.5 * (a + b + spread)], float(sum(len(g) for g in groups)))
    caps = torch.stack([_cap(g.weights[0] @ g.weights[0].mH) for g in one.groups]).amax(0)
    reach = (a + b).abs() + (a * b).abs().sqrt()
    y = torch.cat([1.0 / (caps * reach.square()), a.new_zeros(1)])
    while tight.factors(y) is None:
        y = y * 0.5
    for _ in range(LAYER_STEPS):
        factors = tight.factors(y)
        assert factors is not None
        g = tight.gradient(y, factors)[:-1]
        schur = Schur.of(tight.hessian(y)[:-1, :-1].contiguous())
        if schur is None:
            break
        d = -schur.solve(g)
        decrement = max(-float(g @ d), 0.0) ** 0.5
        trial = y.clone()
        trial[:-1] += d / (1.0 + decrement)
        if tight.factors(trial) is None:
            break
        y = trial
        if decrement < 0.5:
            break
    return y[:-1]


def _pivots(head: Family, lam: torch.Tensor) -> Tensors:
    """Return the Cholesky factors of the last pivots of Z(lambda, 0)."""
    factors = head.factors(torch.cat([lam, lam.new_zeros(1)]))
    if factors is None:
        raise ArithmeticError("multipliers that were inside are not")
    return [factor.pivots[-1] for factor in factors]


def _whiten(root: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """W R^-*."""
    whitened: torch.Tensor = torch.linalg.solve_triangular(root, w.mH, upper=False)
    return whitened.mH


def _eye(group: Group) -> torch.Tensor:
    return torch.eye(group.sizes[0], dtype=torch.complex128)
