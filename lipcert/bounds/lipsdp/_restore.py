"""From the multipliers of the live neurons to those of all neurons, in the units of the network.

A neuron that was left out needs a multiplier all the same, one that does not disturb the others. With w_ji the whole
influence of neuron i on row j (`Reduced.rows`) and reach_j >= sigma_j^2 + 4 |pi_j|:

    nothing reaches it:  its block is 2 lambda_i against the couplings lambda_j w_ji sigma_j of its readers; its Schur
                         complement is sum_j lambda_j^2 w_ji^2 sigma_j^2 / (2 lambda_i): lambda_i large.
    it is linear:        v = s z + w and 2 lambda_i w^2 against the same couplings: lambda_i large; but Z has entries
                         lambda_i s^2 r_i r_i', so its proof loses as many digits.
    nothing reads it:    couples backwards only, with Schur complement lambda_i sigma_i^2 r_i r_i' / 2: small.
"""

from __future__ import annotations

import numpy as np

from lipcert.bounds.lipsdp._reduce import Mask, Reduced, Rows
from lipcert.network.enclosure import Float
from lipcert.proof.lifted import Lifted

_FAINT = 1e-10
"""How much of its neighbours' multipliers a left-out neuron may take."""
_FAINT_LINEAR = 1e-5
"""The same for a linear one."""


def restore(reduced: Reduced, lifted: Lifted, lam: list[Float], f: float) -> list[Float]:
    """Multipliers for all neurons of a lifted form, from those of the reduced one and its F.

    They are positive; where the units are beyond float64 they may be 0 or infinite.
    """
    live = iter(lam)
    full = []
    for mask in reduced.live:
        values = np.zeros(mask.shape)
        if mask.any():
            values[mask] = next(live)
        full.append(values)
    reach = [4.0 * np.maximum(np.abs(b.alpha), np.abs(b.beta)) ** 2 for b in lifted.blocks]
    with np.errstate(over="ignore", under="ignore"):
        fill_left_out(reduced.rows, reduced.linear, full, f, reach)
        return [np.ldexp(values, -2 * e) for values, e in zip(full, reduced.exponents[1:-1], strict=True)]


def fill_left_out(rows: list[Rows], linear: list[Mask], lam: list[Float], f: float, reach: list[Float]) -> None:
    """Multipliers (in place) of the neurons that were left out, where they are 0; see the head of this file.

    Between two neurons that were both left out a moderate ratio is enough, so chains of them do not escalate.
    """
    missing = [(values == 0.0) & ~straight for values, straight in zip(lam, linear, strict=True)]
    moderate = [np.where(m, _FAINT * (1.0 + m.sum()), 1.0) for m in missing]
    for k, values in enumerate(lam):  # read by nothing, forwards: small against what it reads
        cost = np.zeros(len(values))
        for j, w in rows[k].items():
            if j == 0:
                cost += np.square(w).sum(axis=1)
            else:
                known = lam[j - 1] > 0
                cost += np.square(w[:, known]) @ (moderate[j - 1][known] / lam[j - 1][known])
        cost *= reach[k]
        todo = missing[k] & (cost > 0)
        values[todo] = _FAINT / cost[todo]
    costs = [np.zeros(len(values)) for values in lam]
    weight = np.full(next(iter(rows[-1].values())).shape[0] if rows[-1] else 0, f)
    for k in range(len(lam), -1, -1):  # all others, backwards: large against what reads them
        if k < len(lam):
            _large(lam[k], costs[k], linear[k])
            weight = np.where(linear[k], 0.0, lam[k] * moderate[k] * reach[k])
        for j, w in rows[k].items():
            if j > 0:
                costs[j - 1] += np.square(w).T @ weight


def _large(values: Float, cost: Float, linear: Mask) -> None:
    todo = values == 0.0
    typical = values.max(initial=0.0) or 1.0
    share = np.where(linear, _FAINT_LINEAR, _FAINT)
    values[todo] = np.where(cost[todo] > 0, cost[todo] / share[todo], typical)
