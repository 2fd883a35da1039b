"""The barrier phi(y) = -log det Z(y) - sum of log lambda_i (alpha_i beta_i > 0): gradient and Hessian.

With V = Z^-1, p_i = e_i - alpha_i r_i, q_i = e_i - beta_i r_i (math.md sections 2 and 3):

    dphi/dlambda_i = -tr(V B_i) = -2 p_i'V q_i          dphi/dF = tr(C V C')                         (1)
    H_ij = tr(B_i V B_j V) = 2 (p_i'V p_j)(q_i'V q_j) + 2 (p_i'V q_j)(q_i'V p_j)                     (2)
    H_iF = -2 (C V p_i).(C V q_i)                       H_FF = ||C V C'||_F^2                        (3)

The gradient needs only the band of V (O(N w^2)); the Hessian needs all of V, and with A = V R' (n^2 w flops)
the forms r'V e, r'V r are blocks of A and of R A (N^2 w flops), the rest is elementwise.
"""

from __future__ import annotations

import torch

from lipcert.bounds.lipsdp._chain import Chain
from lipcert.bounds.lipsdp._tridiag import Band, Factor, factorise, inverse_band, inverse_dense


def factor_at(chain: Chain, y: torch.Tensor) -> Factor | None:
    """Factor of Z(y), or None where y is not strictly feasible. O(N w^2)."""
    if bool(((y[:-1] <= 0) & (chain.signed > 0)).any()):
        return None
    return factorise(chain.band(y, 1.0))


def value(chain: Chain, y: torch.Tensor, factor: Factor) -> float:
    """phi(y)."""
    logs = torch.where(chain.signed > 0, y[:-1], torch.ones_like(y[:-1])).log()
    return -factor.logdet() - float(chain.signed @ logs)


def pairing(chain: Chain, v: Band) -> torch.Tensor:
    """(tr(V B_i))_i and -tr(C V C') for a symmetric V of which only the band is looked at. O(N w^2)."""
    parts = []
    layers = zip(chain.weights, chain.sigma, chain.pi, strict=True)
    for k, (w, sigma, pi) in enumerate(layers):
        form = v.diag[k + 1].diagonal() - sigma * (v.low[k] * w).sum(1)
        if pi is not None:
            form = form + pi * ((w @ v.diag[k]) * w).sum(1)
        parts.append(2.0 * form)
    return torch.cat([*parts, -(chain.gram * v.diag[-1]).sum().reshape(1)])


def gradient(chain: Chain, y: torch.Tensor, factor: Factor) -> torch.Tensor:
    """Equation (1), one number for each unknown."""
    g = -pairing(chain, inverse_band(factor, corner=chain.pi[0] is not None))
    g[:-1] -= chain.signed / torch.where(chain.signed > 0, y[:-1], torch.ones_like(y[:-1]))
    return g


def hessian(chain: Chain, y: torch.Tensor, factor: Factor) -> torch.Tensor:
    """Equations (2) and (3): the lower triangle of the (N+1) x (N+1) matrix; what is above is not set."""
    v = inverse_dense(factor)
    starts = [0]
    for size in chain.sizes:
        starts.append(starts[-1] + size)
    offset = chain.sizes[0]
    n = chain.neurons
    a = torch.empty((v.shape[0], n), dtype=v.dtype, device=v.device)
    for k, w in enumerate(chain.weights):
        here = slice(starts[k + 1] - offset, starts[k + 2] - offset)
        torch.matmul(v[:, starts[k] : starts[k + 1]], w.mT, out=a[:, here])
    h = torch.empty((n + 1, n + 1), dtype=v.dtype, device=v.device)
    alpha, beta = torch.cat(chain.alpha), torch.cat(chain.beta)
    last = chain.last
    cv = last @ v[starts[-2] :, offset:]
    cr = last @ a[starts[-2] :]
    for k, w in enumerate(chain.weights):
        rows = slice(starts[k + 1], starts[k + 2])
        end = starts[k + 2] - offset
        ee = v[rows, offset : offset + end]
        er = a[rows, :end]
        re = a[offset : offset + end, starts[k + 1] - offset : end].mT
        rr = w @ a[starts[k] : starts[k + 1], :end]
        h[starts[k + 1] - offset : end, :end] = _forms(
            ee,
            er,
            re,
            rr,
            (alpha[starts[k + 1] - offset : end], alpha[:end]),
            (beta[starts[k + 1] - offset : end], beta[:end]),
        )
    h[n, :n] = -2.0 * ((cv - alpha * cr) * (cv - beta * cr)).sum(0)
    h[n, n] = (cv[:, n - chain.sizes[-1] :] @ last.mT).square().sum()
    diagonal = h.diagonal()
    diagonal[:-1] += chain.signed / y[:-1].square()
    return h


Pair = tuple[torch.Tensor, torch.Tensor]


def _forms(
    ee: torch.Tensor, er: torch.Tensor, re: torch.Tensor, rr: torch.Tensor, alpha: Pair, beta: Pair
) -> torch.Tensor:
    """Equation (2) for one block of rows from e'Ve, e'Vr, r'Ve, r'Vr; slopes are (of rows, of columns)."""
    qe = torch.addcmul(ee, beta[0][:, None], re, value=-1.0)
    qr = torch.addcmul(er, beta[0][:, None], rr, value=-1.0)
    if bool((alpha[0] != 0).any()) or bool((alpha[1] != 0).any()):
        pe = torch.addcmul(ee, alpha[0][:, None], re, value=-1.0)
        pr = torch.addcmul(er, alpha[0][:, None], rr, value=-1.0)
        pp = torch.addcmul(pe, pr, alpha[1], value=-1.0)
        qp = torch.addcmul(qe, qr, alpha[1], value=-1.0)
    else:
        pe, pr, pp, qp = ee, er, ee, qe
    pq = torch.addcmul(pe, pr, beta[1], value=-1.0)
    qq = torch.addcmul(qe, qr, beta[1], value=-1.0)
    return (pp * qq).addcmul_(pq, qp).mul_(2.0)
