"""Where the interior-point method starts: layer by layer near the analytic centre, then units of order one.

Forwards elimination of Z leaves, before layer k, a pivot Y_{k-1} = P_{k-1}^-1. The multipliers of layer k are
those that (nearly) maximise

    log det [[Y_{k-1} + W' 2 pi T W, -W' sigma T], [-sigma T W, 2 T]],   T = diag(lambda)             (1)

a one-layer chain whose input block is made the identity by W -> W R^-T, Y_{k-1} = R R'. So each layer is left
well inside its own constraint, for any slopes and however much the layers differ in scale; ECLipsE-Fast's
scalar 1/||S|| is the crude form of it. For slopes [0,1] the maximum satisfies D_ii = P_ii: the multiplier is
the reciprocal of the gain of the neuron. Measured in units v_i = lambda_i^(-1/2) u_i, all multipliers are 1.

Cost: per layer and Newton step one Cholesky of size w and products w^3: O(N w^2) in all.
"""

from __future__ import annotations

import torch

from lipcert.bounds.lipsdp._barrier import factor_at, gradient, hessian
from lipcert.bounds.lipsdp._chain import Chain
from lipcert.bounds.lipsdp._schur import Schur

_STEPS = 12


def greedy_start(chain: Chain) -> tuple[Chain, torch.Tensor]:
    """The chain in units where the greedy multipliers are 1 and F = 1 is their bound, with y inside."""
    root = torch.eye(chain.sizes[0], dtype=chain.last.dtype, device=chain.last.device)
    scale = []
    for k, w in enumerate(chain.weights):
        seen = torch.linalg.solve_triangular(root, w.mT, upper=False).mT
        one = Chain([seen], torch.zeros_like(seen[:1, : w.shape[0]]).new_zeros((1, w.shape[0])),
                    [chain.alpha[k]], [chain.beta[k]])
        lam, root = _centre_layer(one)
        scale.append(lam.rsqrt())
    gain = torch.linalg.solve_triangular(root, chain.last.mT, upper=False)
    largest = float(torch.linalg.matrix_norm(gain, 2))
    ones = torch.ones(chain.neurons + 1, dtype=root.dtype, device=root.device)
    ones[-1] = 0.1
    return chain.rescaled(scale, 1.0 / largest), ones


def _centre_layer(one: Chain) -> tuple[torch.Tensor, torch.Tensor]:
    """Multipliers near the maximum of (1) for a one-layer chain, and the Cholesky factor of the new pivot."""
    w = one.weights[0]
    bound = torch.maximum(one.alpha[0].abs(), one.beta[0].abs()) * one.sigma[0].abs().clamp_min(1e-300)
    cov = (w @ w.mT).abs()
    norms = cov.diagonal().sqrt()
    # Scaled Gershgorin: 2 D - S > 0 for D_i = sum_j |S_ij| |r_i| / |r_j|.
    guess = ((cov / norms).sum(1) * norms * bound.clamp_min(1e-6)).reciprocal()
    y = torch.cat([guess, guess.new_zeros(1)])
    factor = factor_at(one, y)
    while factor is None:
        y = y * 0.5
        factor = factor_at(one, y)
    for _ in range(_STEPS):
        g = gradient(one, y, factor)[:-1]
        schur = Schur.of(hessian(one, y, factor)[:-1, :-1].contiguous())
        if schur is None:
            break
        step = -schur.solve(g)
        decrement = float(-(g @ step)) ** 0.5
        # Damped Newton for a self-concordant function: always feasible, no line search needed.
        length = 1.0 if decrement < 0.25 else 1.0 / (1.0 + decrement)
        trial = y.clone()
        trial[:-1] += length * step
        moved = factor_at(one, trial)
        if moved is None:
            break
        y, factor = trial, moved
        if decrement < 0.25:
            break
    return y[:-1], factor.pivots[-1]
