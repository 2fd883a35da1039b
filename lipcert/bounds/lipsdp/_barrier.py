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

from lipcert.bounds.lipsdp._system import Row, System
from lipcert.bounds.lipsdp._tridiag import Band, Factor, factorise, inverse_band, inverse_dense


def factor_at(system: System, y: torch.Tensor) -> Factor | None:
    """Factor of Z(y), or None where y is not strictly feasible. O(N w^2).

    Raises:
        TimeUp: the system's clock says so.
    """
    system.clock.check()
    if bool(((y[:-1] <= 0) & (system.signed > 0)).any()):
        return None
    return factorise(system.band(y, 1.0))


def value(system: System, y: torch.Tensor, factor: Factor) -> float:
    """phi(y)."""
    logs = torch.where(system.signed > 0, y[:-1], torch.ones_like(y[:-1])).log()
    return -factor.logdet() - float(system.signed @ logs)


def pairing(system: System, v: Band) -> torch.Tensor:
    """(tr(V B_i))_i and -tr(C V C') for a symmetric V of which only the band is looked at. O(N w^2)."""
    parts = []
    for k, (row, sigma, pi) in enumerate(zip(system.rows, system.sigma, system.pi, strict=True), start=1):
        form = system.part(v, k, k).diagonal().clone()
        for j, w in row.items():
            form -= sigma * (system.part(v, k, j) * w).sum(1)
        if pi is not None:
            for i, j, a, b in system.pairs(row):
                form += (1.0 if i == j else 2.0) * pi * ((a @ system.part(v, i, j)) * b).sum(1)
        parts.append(2.0 * form)
    traces = [(1.0 if i == j else 2.0) * (gram * system.part(v, i, j)).sum() for (i, j), gram in system.gram.items()]
    return torch.cat([system.join(parts), -torch.stack(traces).sum().reshape(1)])


def gradient(system: System, y: torch.Tensor, factor: Factor) -> torch.Tensor:
    """Equation (1), one number for each unknown."""
    corner = (0, 0) in system.gram or any(
        0 in row for row, pi in zip(system.rows, system.pi, strict=True) if pi is not None
    )
    g = -pairing(system, inverse_band(factor, corner))
    g[:-1] -= system.signed / torch.where(system.signed > 0, y[:-1], torch.ones_like(y[:-1]))
    return g


def _applied(system: System, row: Row, to: torch.Tensor) -> torch.Tensor:
    """R X for one row of blocks and a matrix X with the rows of Z."""
    (j, w), *rest = row.items()
    product = w @ to[system.places[j]]
    for j, w in rest:
        product.addmm_(w, to[system.places[j]])
    return product


def hessian(system: System, y: torch.Tensor, factor: Factor) -> torch.Tensor:
    """Equations (2) and (3): the lower triangle of the (N+1) x (N+1) matrix; what is above is not set.

    Raises:
        TimeUp: the system's clock says so.
    """
    v = inverse_dense(factor)
    inputs, n = system.sizes[0], system.neurons
    a = torch.empty((v.shape[0], n), dtype=v.dtype, device=v.device)
    for k, row in enumerate(system.rows, start=1):
        system.clock.check()
        (j, w), *rest = row.items()
        columns = torch.matmul(v[:, system.places[j]], w.mT, out=a[:, system.of_neurons(k)])
        for j, w in rest:
            columns.addmm_(v[:, system.places[j]], w.mT)
    h = torch.empty((n + 1, n + 1), dtype=v.dtype, device=v.device)
    alpha, beta = system.join(system.alpha), system.join(system.beta)
    seen = _applied(system, system.output, v)
    cv, cr = seen[:, inputs:], _applied(system, system.output, a)
    for k in system.order:
        system.clock.check()
        place, here = system.places[k], system.of_neurons(k)
        end = here.stop
        ee = v[place, inputs : place.stop]
        er = a[place, :end]
        re = a[inputs : place.stop, here].mT
        rr = _applied(system, system.rows[k - 1], a[:, :end])
        h[here, :end] = _forms(ee, er, re, rr, (alpha[here], alpha[:end]), (beta[here], beta[:end]))
    h[n, :n] = -2.0 * ((cv - alpha * cr) * (cv - beta * cr)).sum(0)
    h[n, n] = _applied(system, system.output, seen.mT).square().sum()
    diagonal = h.diagonal()
    diagonal[:-1] += system.signed / y[:-1].square()
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
