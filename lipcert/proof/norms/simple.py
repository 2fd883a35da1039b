"""Norms of operators whose structure says all: reshapes, index maps, diagonal scalings, pooling by averages.

* `Reshape`: 1. `Scale`: the largest magnitude, in every norm.
* `Gather`: y = x[index]. Each row has one entry 1 or none: linf 1. Column j has as many as the times m_j
  that j is used: l1 max m_j; A'A is diagonal with entries m_j: l2 sqrt(max m_j).
* `AvgPool`, linf: (window entries inside the image) / count, exactly; l1 and l2: `magnitude`, as no entry
  is negative.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from lipcert.network.linear import unfold
from lipcert.network.operators import Affine, AvgPool, Gather, Reshape, Scale
from lipcert.proof.claims import Norm
from lipcert.proof.norms.magnitude import Magnitude
from lipcert.proof.refusal import Refused
from lipcert.proof.rounding import fraction_up, sqrt_up

Shape = tuple[int, ...]


def simple_norm(op: Affine, in_shape: Shape, out_shape: Shape, norm: Norm) -> float | None:
    """Return an upper bound of the norm of an operator of this module, or None for any other.

    Raises:
        Refused: the operator's numbers are not finite, or counts are not positive.
    """
    match op:
        case Reshape():
            return 1.0
        case Scale():
            if not op.factor.is_finite:
                raise Refused("the factors have NaN or infinite numbers")
            return float(op.factor.magnitude().max(initial=0.0))
        case Gather():
            return _gather(op, norm)
        case AvgPool():
            return _average(op, in_shape, out_shape, norm)
        case _:
            return None


def _gather(op: Gather, norm: Norm) -> float:
    used = op.index[op.index >= 0].ravel()
    if not used.size:
        return 0.0
    most = float(np.unique(used, return_counts=True)[1].max())
    return {"l1": most, "l2": sqrt_up(most), "linf": 1.0}[norm]


def _average(op: AvgPool, in_shape: Shape, out_shape: Shape, norm: Norm) -> float:
    if not (np.isfinite(op.counts).all() and (op.counts > 0).all()):
        raise Refused("the counts of an average pool are not positive numbers")
    magnitude = Magnitude(op, in_shape, out_shape, None)
    if norm != "linf":
        return magnitude.l1() if norm == "l1" else magnitude.l2()
    ones = np.ones((1, 1, *in_shape[1:]))
    windows = unfold(ones, op.window, op.stride, op.padding, (1,) * len(op.window), out_shape[1:])
    inside = windows.sum(axis=tuple(range(2, 2 + len(op.window))))[0, 0]  # exact: integers
    pairs = np.unique(np.stack([inside.ravel(), op.counts.ravel()]), axis=1).T
    return fraction_up(max(Fraction(a) / Fraction(b) for a, b in pairs.tolist()))
