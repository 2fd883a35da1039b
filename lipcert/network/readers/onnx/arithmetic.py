"""Arithmetic on constants: integers exactly and affine in the batch size, real numbers in `Enclosure`s."""

from __future__ import annotations

import numpy as np

from lipcert.network.enclosure import Enclosure
from lipcert.network.readers.onnx.call import Call
from lipcert.network.readers.onnx.values import Refusal, Value, Whole


def add(call: Call) -> Value:
    """Sum."""
    left, right = _pair(call)
    if isinstance(left, Enclosure) and isinstance(right, Enclosure):
        return left + right
    assert isinstance(left, Whole) and isinstance(right, Whole)
    return _signed_sum(left, right, 1)


def subtract(call: Call) -> Value:
    """Difference."""
    left, right = _pair(call)
    if isinstance(left, Enclosure) and isinstance(right, Enclosure):
        return left - right
    assert isinstance(left, Whole) and isinstance(right, Whole)
    return _signed_sum(left, right, -1)


def multiply(call: Call) -> Value:
    """Product."""
    left, right = _pair(call)
    if isinstance(left, Enclosure) and isinstance(right, Enclosure):
        return left * right
    assert isinstance(left, Whole) and isinstance(right, Whole)
    if left.slope is not None:
        left, right = right, left
    factor = left.pure()
    slope = None if right.slope is None else factor * right.slope
    return Whole(np.asarray(factor * right.constant), slope)


def divide(call: Call) -> Value:
    """Quotient; of integers, truncated towards zero."""
    left, right = _pair(call)
    if isinstance(left, Enclosure) and isinstance(right, Enclosure):
        return left / right
    assert isinstance(left, Whole) and isinstance(right, Whole)
    divisor = right.pure()
    if (divisor == 0).any():
        raise ValueError("integers are divided by zero")
    if left.slope is None:  # ONNX truncates towards zero
        return Whole(np.sign(left.constant) * np.sign(divisor) * (np.abs(left.constant) // np.abs(divisor)))
    if (left.constant % divisor).any() or (left.slope % divisor).any():
        left.pure()
    return Whole(left.constant // divisor, left.slope // divisor)


def modulo(call: Call) -> Value:
    """Remainder of integers."""
    remainder, divisor = np.fmod if call.flag("fmod") else np.mod, call.whole(1).pure()
    if (divisor == 0).any():
        raise ValueError("integers are divided by zero")
    return Whole(np.asarray(remainder(call.whole(0).pure(), divisor)))


def _pair(call: Call) -> tuple[Enclosure, Enclosure] | tuple[Whole, Whole]:
    left, right = call.inputs[:2]
    if isinstance(left, Enclosure) and isinstance(right, Enclosure):
        return left, right
    return call.whole(0), call.whole(1)


def _signed_sum(left: Whole, right: Whole, sign: int) -> Whole:
    slopes = [np.zeros_like(w.constant) if w.slope is None else w.slope for w in (left, right)]
    return Whole(np.asarray(left.constant + sign * right.constant), np.asarray(slopes[0] + sign * slopes[1]))


def negate(call: Call) -> Value:
    """Minus."""
    return -call.numbers(0) if isinstance(call.inputs[0], Enclosure) else call.whole(0).map(np.negative)


def power(call: Call) -> Value:
    """A few powers of numbers."""
    base, exponent = call.numbers(0), call.inputs[1]
    power = call.exact(1) if isinstance(exponent, Enclosure) else call.whole(1).pure()
    if power.size != 1 or float(power.reshape(())) not in (-1.0, -0.5, 0.5, 1.0, 2.0, 3.0):
        raise Refusal(f"takes constants to the power {power}; fold constants when exporting")
    match float(power.reshape(())):
        case -1.0:
            return base.reciprocal()
        case -0.5:
            return base.sqrt().reciprocal()
        case 0.5:
            return base.sqrt()
        case 1.0:
            return base
        case 2.0:
            return base * base
        case _:
            return base * base * base


def gemm(call: Call) -> Value:
    """alpha * A' B' + beta * C."""
    left, right = call.numbers(0), call.numbers(1)
    left = left.map(np.transpose) if call.flag("transA") else left
    right = right.map(np.transpose) if call.flag("transB") else right
    alpha, beta = (Enclosure.exact(call.number(name, 1.0)) for name in ("alpha", "beta"))
    found = (left @ right) * alpha
    return found + call.numbers(2) * beta if call.has(2) else found


def concat(call: Call) -> Value:
    """Concatenation."""
    axis = call.integer("axis", 0)
    if isinstance(call.inputs[0], Enclosure):
        parts = [call.numbers(i) for i in range(len(call.inputs))]
        mids, radii = [p.mid for p in parts], [p.radius for p in parts]
        return Enclosure(np.concatenate(mids, axis), np.concatenate(radii, axis))
    wholes = [call.whole(i) for i in range(len(call.inputs))]
    slopes = [np.zeros_like(w.constant) if w.slope is None else w.slope for w in wholes]
    return Whole(np.concatenate([w.constant for w in wholes], axis), np.concatenate(slopes, axis))
