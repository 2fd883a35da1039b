"""Rigorous upper bounds of operator norms, l1 to l1, l2 to l2, linf to linf."""

from __future__ import annotations

import math
from typing import assert_never
from weakref import WeakKeyDictionary

import numpy as np

from lipcert.network.enclosure import Float
from lipcert.network.linear import coefficients
from lipcert.network.operators import Affine, Dense
from lipcert.proof.claims import Norm
from lipcert.proof.environment import require_ieee
from lipcert.proof.norms.blocks import blocks_at_most
from lipcert.proof.norms.dense import dense_at_most
from lipcert.proof.norms.frequency import frequency_at_most
from lipcert.proof.norms.magnitude import Magnitude
from lipcert.proof.norms.plan import Plan, plan_for
from lipcert.proof.norms.scaling import Scaled, scaled
from lipcert.proof.norms.simple import simple_norm
from lipcert.proof.refusal import Refused
from lipcert.proof.rounding import difference_down, scale_down, scale_up

Shape = tuple[int, ...]

# Smallest number proved for each operator while it lives: operators are immutable, so a proof need not be repeated
# when a method has its proposal proved before the rule does.
_PROVED: WeakKeyDictionary[Affine, dict[tuple[Shape, Shape], float]] = WeakKeyDictionary()


def operator_norm(op: Affine, in_shape: Shape, out_shape: Shape, norm: Norm, proposal: float | None = None) -> float:
    """Return an upper bound of the operator norm of the linear part (level ``verified``).

    It holds for every operator within the enclosures of `op`, all rounding errors counted.

    Args:
        op: an affine operator.
        in_shape, out_shape: per-sample shapes of its input and output.
        norm: on both sides.
        proposal: the witness: a number to be proved an upper bound. It is what is returned, to the last bit,
            on every machine. Without it a closed form is returned: up to rounding the norm for l1 and linf, for
            scaling, index maps and (nearly) pooling; for the l2 norm of a matrix or convolution that of the
            absolute values, often far above. Its last bits may depend on the order in which BLAS adds.

    Raises:
        Refused: the proposal cannot be proved, or a number is NaN or infinite, or the arithmetic is not IEEE.

    Source: see the modules of this package, one for each technique; `plan` says which is used when.
    """
    require_ieee()
    with np.errstate(all="ignore"):  # what is not finite is refused where it is met
        if proposal is None:
            return _closed_form(op, in_shape, out_shape, norm)
        if not (math.isfinite(proposal) and proposal >= 0):
            raise Refused(f"a norm is finite and not negative, not {proposal}")
        if norm == "l2" and simple_norm(op, in_shape, out_shape, norm) is None:
            proved = _is_known_at_most(op, in_shape, out_shape, proposal)
        else:
            proved = _closed_form(op, in_shape, out_shape, norm) <= proposal
    if not proved:
        raise Refused(f"the {norm} norm of {op.kind} is not proved to be at most {proposal!r}")
    return proposal


def _closed_form(op: Affine, in_shape: Shape, out_shape: Shape, norm: Norm) -> float:
    known = simple_norm(op, in_shape, out_shape, norm)
    if known is not None:
        return known
    numbers = _numbers(op)
    if numbers is None:
        return 0.0
    magnitude = _magnitude(op, in_shape, out_shape, numbers.magnitude)
    value = {"l1": magnitude.l1, "l2": magnitude.l2, "linf": magnitude.linf}[norm]()
    return scale_up(value, numbers.exponent)


def _is_known_at_most(op: Affine, in_shape: Shape, out_shape: Shape, proposal: float) -> bool:
    known = _PROVED.setdefault(op, {})
    if proposal < known.get((in_shape, out_shape), math.inf):
        if not _is_at_most(op, in_shape, out_shape, proposal):
            return False
        known[in_shape, out_shape] = proposal
    return True


def _is_at_most(op: Affine, in_shape: Shape, out_shape: Shape, proposal: float) -> bool:
    """Prove ||A|| <= ||A_mid|| + ||A - A_mid|| <= proposal in the l2 norm."""
    numbers = _numbers(op)
    if numbers is None:
        return True
    size = _magnitude(op, in_shape, out_shape, numbers.magnitude).l2()
    claim = scale_down(proposal, -numbers.exponent)
    if size <= claim:
        return True
    if numbers.rad is not None:
        claim = difference_down(claim, _magnitude(op, in_shape, out_shape, numbers.rad).l2())
    return _verify(plan_for(op, in_shape, out_shape, numbers.mid), numbers, claim, size)


def _verify(plan: Plan, numbers: Scaled, claim: float, size: float) -> bool:
    match plan.technique:
        case "dense":
            return dense_at_most(numbers.mid, claim)
        case "blocks":
            assert plan.kernel is not None
            return blocks_at_most(plan.kernel, claim, size)
        case "frequency":
            assert plan.kernel is not None
            return frequency_at_most(plan.kernel, plan.circles, claim)
        case "simple" | "magnitude":
            return False
        case _ as never:
            assert_never(never)


def _numbers(op: Affine) -> Scaled | None:
    numbers = coefficients(op)
    if numbers is None:
        raise Refused(f"no norm is known for {op.kind}")
    return scaled(numbers)


def _magnitude(op: Affine, in_shape: Shape, out_shape: Shape, weight: Float) -> Magnitude:
    if isinstance(op, Dense):  # leading axes only repeat the matrix
        in_shape, out_shape = in_shape[-1:], out_shape[-1:]
    return Magnitude(op, in_shape, out_shape, weight)
