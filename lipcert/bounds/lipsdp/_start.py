"""Where the interior-point method starts: near the central path, in units where every multiplier is 1.

Forwards elimination of Z leaves before layer k a pivot Y_{k-1} = P_{k-1}^-1 = R R'; with W -> W R^-T the rest
of the chain is again a chain with an identity in front. Two passes use this.

1. Layer by layer (ECLipsE-Fast with one multiplier per neuron): maximise

       sum log lambda_i + log det [[I + W' 2 pi T W, -W' sigma T], [-sigma T W, T]],   T = diag(lambda)   (1)

   The T in the corner (Z has 2 T) asks for P_k <= D_k = T^-1, so that gains do not grow along the chain. In units
   v = sqrt(2) u, (1) is the barrier of a one-layer chain with rows sqrt(2) r_i and slopes alpha', beta' of
   alpha' + beta' = sigma, alpha' beta' = pi / 2 (real, because sigma^2 >= 4 pi).
2. Windows of some layers, each centred jointly with the next weight as its output, of which the first half is
   kept: what a multiplier should be depends on a few layers after it. The barrier parameter kappa is that of the
   whole chain, so the pieces fit: on deep networks some four to ten Newton steps then centre the whole, against
   forty and more from pass 1 alone (they grow with the depth: each step changes a multiplier by a bounded factor).

Cost: for windows of m layers O(N w^2 m^2) times the Newton steps (m is 8 up to 24 layers, then at least 16 and a
quarter of the depth, with windows inside the windows), against N^3/3 = N w^2 l^2 / 3 for one step on the whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lipcert.bounds.lipsdp._barrier import factor_at, gradient, hessian
from lipcert.bounds.lipsdp._chain import Chain
from lipcert.bounds.lipsdp._newton import Stop, centre
from lipcert.bounds.lipsdp._schur import Schur

_DIRECT = 8
_SHORT = 24
_LOOSE = 1.0
_ROOM = 0.3


@dataclass(frozen=True)
class Start:
    """A chain in units v_k = scale_k u_k and F = unit F~ where the interior point y is all ones."""

    chain: Chain
    y: torch.Tensor
    scale: list[torch.Tensor]
    unit: float


def start(chain: Chain, kappa: float, stop: Stop) -> Start:
    """The start described above; scale_k = lambda_k^(-1/2), so it is a congruence of Z."""
    scale, f = _rough(chain, kappa, stop)
    ones = torch.ones(chain.neurons + 1, dtype=chain.last.dtype, device=chain.last.device)
    return Start(chain.rescaled(scale, f**0.5), ones, scale, f)


def _rough(chain: Chain, kappa: float, stop: Stop) -> tuple[list[torch.Tensor], float]:
    """scale and F for a chain of any length: pass 1, or pass 2 over windows that are started in the same way."""
    layers = len(chain.weights)
    if layers <= _DIRECT or stop():
        return _layerwise(chain)
    return _windows(chain, kappa, stop, _DIRECT if layers <= _SHORT else max(2 * _DIRECT, layers // 4))


def _identity(chain: Chain) -> torch.Tensor:
    return torch.eye(chain.sizes[0], dtype=chain.last.dtype, device=chain.last.device)


def _whiten(root: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """W R^-T."""
    whitened: torch.Tensor = torch.linalg.solve_triangular(root, w.mT, upper=False)
    return whitened.mT


def _layerwise(chain: Chain) -> tuple[list[torch.Tensor], float]:
    """Pass 1: lambda^(-1/2) per layer and an F well inside."""
    root = _identity(chain)
    scale = []
    for k, w in enumerate(chain.weights):
        seen = _whiten(root, w)
        sigma, pi = chain.sigma[k], chain.alpha[k] * chain.beta[k]
        spread = (sigma.square() - 2.0 * pi).sqrt()
        tight = Chain(
            [2.0**0.5 * seen],
            seen.new_zeros((1, w.shape[0])),
            [0.5 * (sigma - spread)],
            [0.5 * (sigma + spread)],
            push=1.0,
        )
        lam = _centre_layer(tight)
        scale.append(lam.rsqrt())
        root = _pivot(Chain([seen], tight.last, [chain.alpha[k]], [chain.beta[k]]), lam)
    gain = float(torch.linalg.matrix_norm(_whiten(root, chain.last), 2))
    return scale, _ROOM / gain**2


def _pivot(one: Chain, lam: torch.Tensor) -> torch.Tensor:
    """Cholesky factor of the last pivot of Z(lambda, 0)."""
    factor = factor_at(one, torch.cat([lam, lam.new_zeros(1)]))
    if factor is None:
        raise ArithmeticError("LipSDP start: multipliers that were inside are not")
    return factor.pivots[-1]


def _centre_layer(one: Chain) -> torch.Tensor:
    """Multipliers near the maximum of (1), by damped Newton (feasible by self-concordance)."""
    w, sigma = one.weights[0], one.sigma[0].abs()
    reach = sigma + (one.alpha[0] * one.beta[0]).abs().sqrt()
    cov = (w @ w.mT).abs()
    norms = cov.diagonal().sqrt()
    # Scaled Gershgorin: D_i = sum_j |S_ij| |r_i| / |r_j| gives D >= S for any scales of the rows.
    lam = ((cov / norms).sum(1) * norms * reach.square()).reciprocal()
    y = torch.cat([lam, lam.new_zeros(1)])
    factor = factor_at(one, y)
    while factor is None:
        y = y * 0.5
        factor = factor_at(one, y)
    for _ in range(15):
        g = gradient(one, y, factor)[:-1]
        schur = Schur.of(hessian(one, y, factor)[:-1, :-1].contiguous())
        if schur is None:
            break
        d = -schur.solve(g)
        decrement = max(-float(g @ d), 0.0) ** 0.5
        trial = y.clone()
        trial[:-1] += d / (1.0 + decrement)
        moved = factor_at(one, trial)
        if moved is None:
            break
        y, factor = trial, moved
        if decrement < 0.5:
            break
    return y[:-1]


def _windows(chain: Chain, kappa: float, stop: Stop, size: int) -> tuple[list[torch.Tensor], float]:
    """Pass 2: as `_layerwise`, by windows of `size` layers of which the first half is kept."""
    layers = len(chain.weights)
    root = _identity(chain)
    scale: list[torch.Tensor] = []
    while True:
        k = len(scale)
        end = min(k + size, layers)
        weights = [_whiten(root, chain.weights[k]), *chain.weights[k + 1 : end]]
        last = chain.weights[end] if end < layers else chain.last
        window = Chain(weights, last, chain.alpha[k:end], chain.beta[k:end])
        rough, f = _rough(window, kappa, stop)
        scaled = window.rescaled(rough, f**0.5)
        ones = torch.ones(window.neurons + 1, dtype=last.dtype, device=last.device)
        y, _ = centre(scaled, ones, kappa, stop, _LOOSE)
        units = [s * lam.rsqrt() for s, lam in zip(rough, window.split(y[:-1]), strict=True)]
        if end == layers:
            return scale + units, f * float(y[-1])
        kept = size // 2
        head = Chain(
            weights[:kept],
            weights[kept - 1].new_zeros((1, weights[kept - 1].shape[0])),
            window.alpha[:kept],
            window.beta[:kept],
        )
        root = _pivot(head, torch.cat([u.square().reciprocal() for u in units[:kept]]))
        scale += units[:kept]
