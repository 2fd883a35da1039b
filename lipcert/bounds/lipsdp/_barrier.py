"""The barrier phi(y) = -log det Z(y) - sum of log lambda_i (alpha_i beta_i > 0): gradient and Hessian.

With V = Z^-1, p_i = e_i - alpha_i r_i, q_i = e_i - beta_i r_i (math.md sections 2 and 3):

    dphi/dlambda_i = -tr(V B_i) = -2 p_i'V q_i          dphi/dF = tr(C V C')                         (1)
    H_ij = tr(B_i V B_j V) = 2 (p_i'V p_j)(q_i'V q_j) + 2 (p_i'V q_j)(q_i'V p_j)                     (2)
    H_iF = -2 (C V p_i).(C V q_i)                       H_FF = ||C V C'||_F^2                        (3)

The gradient needs only the band of V (O(N w^2)); the Hessian needs all of V, and with A = V R' (n^2 w flops)
the forms r'V e, r'V r are blocks of A and of R A (N^2 w flops), the rest is elementwise.
"""

from __future__ import annotations

from lipcert.bounds.lipsdp._arrays import Array, empty, join, less_product, product_into
from lipcert.bounds.lipsdp._system import Row, System
from lipcert.bounds.lipsdp._tridiag import Band, Factor, factorise, inverse_band, inverse_dense


def factor_at(system: System, y: Array) -> Factor | None:
    """Factor of Z(y), or None where y is not strictly feasible. O(N w^2).

    Raises:
        TimeUp: the system's clock says so.
    """
    system.clock.check()
    if not positive(system, y):
        return None
    return factorise(system.band(y, 1.0))


def positive(system: System, y: Array) -> bool:
    """Whether all lambda_i > 0 that have to be."""
    return not len(system.own) or bool((y[system.own] > 0).all())


def pairing(system: System, v: Band) -> Array:
    """(tr(V B_i))_i and -tr(C V C') for a symmetric V of which only the band is looked at. O(N w^2)."""
    parts = []
    for k, (row, crossing, pi) in enumerate(zip(system.rows, system.crossing, system.pi, strict=True), start=1):
        form = system.part(v, k, k).diagonal()
        for j, w in crossing.items():
            form = form + (system.part(v, k, j) * w).sum(1)
        if pi is not None:
            for i, j, a, b in system.pairs(row):
                form = form + (1.0 if i == j else 2.0) * pi * ((a @ system.part(v, i, j)) * b).sum(1)
        parts.append(2.0 * form)
    traces = [(1.0 if i == j else 2.0) * (gram * system.part(v, i, j)).sum() for (i, j), gram in system.gram.items()]
    return join([*parts, -sum(traces).reshape(1)])


def gradient(system: System, y: Array, factor: Factor) -> Array:
    """Equation (1), one number for each unknown."""
    g = -pairing(system, inverse_band(factor, system.corner))
    if len(system.own):
        g[system.own] -= system.signed[system.own] / y[system.own]
    return g


def _applied(system: System, row: Row, to: Array) -> Array:
    """R X for one row of groups and a matrix X with the rows of Z."""
    (j, w), *rest = row.items()
    product = w @ to[system.in_matrix[j]]
    for j, w in rest:
        product += w @ to[system.in_matrix[j]]
    return product


def hessian(system: System, y: Array, factor: Factor) -> Array:
    """Equations (2) and (3): the lower triangle of the (N+1) x (N+1) matrix; what is above is not set.

    Raises:
        TimeUp: the system's clock says so.
    """
    v = inverse_dense(factor)
    inputs, n = system.sizes[0], system.neurons
    a = empty((v.shape[0], n), v)
    for row, here in zip(system.rows, system.in_vector, strict=True):
        system.clock.check()
        (j, w), *rest = row.items()
        columns = product_into(v[:, system.in_matrix[j]], w.T, a[:, here])
        for j, w in rest:
            columns += v[:, system.in_matrix[j]] @ w.T
    h = empty((n + 1, n + 1), v)
    alpha, beta = join(system.alpha), join(system.beta)
    seen = _applied(system, system.output, v)
    cv, cr = seen[:, inputs:], _applied(system, system.output, a)
    for row, place, here in zip(system.rows, system.in_matrix[1:], system.in_vector, strict=True):
        system.clock.check()
        end = here.stop
        ee = v[place, inputs : place.stop]
        er = a[place, :end]
        re = a[inputs : place.stop, here].T
        rr = _applied(system, row, a[:, :end])
        h[here, :end] = _forms(ee, er, re, rr, (alpha[here], alpha[:end]), (beta[here], beta[:end]))
    h[n, :n] = -2.0 * ((cv - alpha * cr) * (cv - beta * cr)).sum(0)
    h[n, n] = (_applied(system, system.output, seen.T) ** 2).sum()
    h[system.own, system.own] += system.signed[system.own] / y[system.own] ** 2
    return h


Pair = tuple[Array, Array]


def _forms(ee: Array, er: Array, re: Array, rr: Array, alpha: Pair, beta: Pair) -> Array:
    """Equation (2) for one block of rows from e'Ve, e'Vr, r'Ve, r'Vr; slopes are (of rows, of columns)."""
    qe = less_product(ee, beta[0][:, None], re)
    qr = less_product(er, beta[0][:, None], rr)
    if bool((alpha[0] != 0).any()) or bool((alpha[1] != 0).any()):
        pe = less_product(ee, alpha[0][:, None], re)
        pr = less_product(er, alpha[0][:, None], rr)
        pp = less_product(pe, pr, alpha[1])
        qp = less_product(qe, qr, alpha[1])
    else:
        pe, pr, pp, qp = ee, er, ee, qe
    pq = less_product(pe, pr, beta[1])
    qq = less_product(qe, qr, beta[1])
    form = pp * qq
    form += pq * qp
    form *= 2.0
    return form
