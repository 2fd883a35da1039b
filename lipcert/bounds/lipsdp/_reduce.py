"""Making the chain small and of order one before solving, and mapping the multipliers back.

Exact reductions: only W_1 W_1' and C'C matter, so W_1 is replaced by its triangular factor where n_0 > n_1 and C
where n_out > n_l (QR). A neuron whose row or column is zero plays no part and is left out. Every layer is divided
by its Frobenius norm: with W_k = s_k W^_k and v_k = (s_1 ... s_k) u_k the multipliers scale as
lambda_k = lambda^_k / (s_1 ... s_k)^2 and the bound as value = value^ s_1 ... s_{l+1}.

A left-out neuron needs a multiplier all the same, one that does not disturb the others:

    zero row r_i:       its block is 2 lambda_i against the couplings lambda_j W_ji sigma_j of the next layer; its
                        Schur complement is sum_j lambda_j^2 W_ji^2 sigma_j^2 / (2 lambda_i): lambda_i large.
    zero column:        couples backwards only, with Schur complement lambda_i sigma_i^2 r_i r_i' / 2 : small.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from lipcert.bounds.lipsdp._chain import Chain

Array = npt.NDArray[np.float64]

_FAINT = 1e-10
"""How much of its neighbours' multipliers a left-out neuron may take."""


@dataclass(frozen=True)
class Reduced:
    """A small, normalised chain and what is needed to go back."""

    chain: Chain
    scales: list[float]
    live: list[npt.NDArray[np.bool_]]


def reduce_chain(weights: list[Array], alpha: list[Array], beta: list[Array], device: str) -> Reduced | None:
    """The reduced chain, or None where the network is constant."""
    live = _live(weights)
    if not all(mask.any() for mask in live) or not weights[-1][:, live[-1]].any():
        return None
    first = np.ones(weights[0].shape[1], dtype=bool)
    last = np.ones(weights[-1].shape[0], dtype=bool)
    masks = [first, *live, last]
    parts = [w[np.ix_(rows, cols)] for w, cols, rows in zip(weights, masks, masks[1:], strict=False)]
    scales = [_norm(w) for w in parts]
    parts = [w / s for w, s in zip(parts, scales, strict=True)]
    if parts[0].shape[1] > parts[0].shape[0]:
        parts[0] = np.linalg.qr(parts[0].T)[1].T
    if parts[-1].shape[0] > parts[-1].shape[1]:
        parts[-1] = np.linalg.qr(parts[-1])[1]

    def tensor(a: Array) -> torch.Tensor:
        return torch.tensor(a, dtype=torch.float64, device=device)

    chain = Chain(
        [tensor(w) for w in parts[:-1]],
        tensor(parts[-1]),
        [tensor(a[m]) for a, m in zip(alpha, live, strict=True)],
        [tensor(b[m]) for b, m in zip(beta, live, strict=True)],
    )
    return Reduced(chain, scales, live)


def _norm(w: Array) -> float:
    """Frobenius norm, without overflow."""
    top = float(np.abs(w).max())
    return top * float(np.linalg.norm(w / top))


def _live(weights: list[Array]) -> list[npt.NDArray[np.bool_]]:
    """Which neurons have both an input and an output, along paths of non-zero weights."""
    forward: list[npt.NDArray[np.bool_]] = []
    reach = np.ones(weights[0].shape[1], dtype=bool)
    for w in weights[:-1]:
        reach = (w[:, reach] != 0).any(axis=1)
        forward.append(reach)
    used = np.ones(weights[-1].shape[0], dtype=bool)
    backward: list[npt.NDArray[np.bool_]] = []
    for w in reversed(weights[1:]):
        used = (w[used] != 0).any(axis=0)
        backward.append(used)
    return [a & b for a, b in zip(forward, reversed(backward), strict=True)]


def restore(reduced: Reduced, lam: list[Array], f: float, weights: list[Array], reach: list[Array]) -> list[Array]:
    """Multipliers for all neurons in the units of `weights`; `reach` bounds sigma^2 + 4 |pi| per neuron."""
    full: list[Array] = []
    unit = 1.0
    for values, s, mask in zip(lam, reduced.scales, reduced.live, strict=False):
        unit *= s
        whole = np.zeros(mask.shape)
        whole[mask] = values / unit / unit
        full.append(whole)
    unit *= reduced.scales[-1]
    _fill(full, f / unit / unit, weights, reach)
    return full


def _fill(lam: list[Array], f: float, weights: list[Array], reach: list[Array]) -> None:
    """Multipliers (in place) of the neurons that were left out; see the head of this file.

    Between two neurons that were both left out a moderate ratio is enough, so chains of them do not escalate.
    """
    missing = [values == 0.0 for values in lam]
    moderate = [np.where(m, _FAINT * (1.0 + m.sum()), 1.0) for m in missing]
    for k, values in enumerate(lam):  # zero column first, forwards: small against the layer before
        if k == 0:
            cost = np.square(weights[0]).sum(axis=1)
        else:
            known = lam[k - 1] > 0
            before = moderate[k - 1][known] / lam[k - 1][known]
            cost = np.square(weights[k][:, known]) @ before
        cost = cost * reach[k]
        todo = missing[k] & (cost > 0)
        values[todo] = _FAINT / cost[todo]
    for k in range(len(lam) - 1, -1, -1):  # zero row, backwards: large against the layer after
        last = k + 1 == len(lam)
        after = np.full(len(weights[-1]), f) if last else lam[k + 1] * moderate[k + 1] * reach[k + 1]
        cost = np.square(weights[k + 1]).T @ after
        todo = lam[k] == 0.0
        typical = lam[k].max(initial=0.0) or 1.0
        lam[k][todo] = np.where(cost[todo] > 0, cost[todo] / _FAINT, typical)
