"""Directed rounding against exact rationals."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipcert.proof.refusal import Refused
from lipcert.proof.rounding import (
    difference_down,
    fraction_down,
    fraction_up,
    inflate,
    matmul_up,
    norm_up,
    norms_up,
    product_down,
    product_up,
    quotient_up,
    scale_down,
    scale_up,
    sqrt_up,
    sum_up,
    total_up,
)

unhurried = settings(deadline=None)
finite = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=True)
positive = st.floats(min_value=0, max_value=1e150, allow_subnormal=True)
moderate = st.floats(min_value=1e-100, max_value=1e100)


def is_next_above(value: float, exact: Fraction) -> bool:
    """The smallest float64 that is not below `exact`."""
    below = math.nextafter(value, -math.inf)
    return Fraction(value) >= exact and (below == -math.inf or Fraction(below) < exact)


@unhurried
@given(st.lists(moderate, min_size=1, max_size=5))
def test_scalars_are_rounded_up_once(numbers):
    exact = [Fraction(x) for x in numbers]
    assert is_next_above(sum_up(numbers), sum(exact))
    assert is_next_above(quotient_up(numbers[0], numbers[-1]), exact[0] / exact[-1])
    pair = exact[0] * exact[-1]
    assert is_next_above(product_up(numbers[0], numbers[-1]), pair)
    assert is_next_above(-product_down(numbers[0], numbers[-1]), -pair)
    assert Fraction(difference_down(numbers[0], numbers[-1])) <= exact[0] - exact[-1]


@unhurried
@given(positive)
def test_square_root_is_the_smallest_float_whose_square_is_enough(x):
    root = sqrt_up(x)
    assert Fraction(root) ** 2 >= Fraction(x)
    assert root == 0 or Fraction(math.nextafter(root, 0.0)) ** 2 < Fraction(x)


@unhurried
@given(st.lists(finite, max_size=6))
def test_norm_of_a_few_numbers(numbers):
    exact = sum((Fraction(x) ** 2 for x in numbers), Fraction(0))
    try:
        value = norm_up(numbers)
    except Refused:
        assert exact > Fraction(2) ** 2047
        return
    assert Fraction(value) ** 2 >= exact
    below = max(0.0, value - 2 * math.ulp(value))
    assert Fraction(below) ** 2 <= exact


@unhurried
@given(finite, st.integers(-2200, 2200))
def test_powers_of_two(x, exponent):
    exact = Fraction(x) * Fraction(2) ** exponent
    try:
        assert is_next_above(scale_up(x, exponent), exact)
        assert is_next_above(-scale_down(x, exponent), -exact)
    except Refused:
        assert abs(exact) > Fraction(2) ** 1023


def test_exact_results_stay():
    assert product_up(1.0, 0.1) == 0.1
    assert sum_up([0.5, 0.25]) == 0.75
    assert sqrt_up(2.25) == 1.5
    assert norm_up([3.0, 4.0]) == 5.0
    assert fraction_up(Fraction(1, 3)) == math.nextafter(fraction_down(Fraction(1, 3)), 1.0)


def test_underflow_is_rounded_away_from_the_unsafe_side():
    assert product_up(1e-200, 1e-200) == 5e-324
    assert product_down(1e-200, 1e-200) == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "call",
    [
        lambda x: product_up(1.0, x),
        lambda x: product_down(x, 2.0),
        lambda x: sum_up([x]),
        lambda x: difference_down(1.0, x),
        lambda x: quotient_up(x, 1.0),
        lambda x: sqrt_up(x),
        lambda x: norm_up([1.0, x]),
        lambda x: scale_up(x, 1),
        lambda x: inflate(np.array([1.0, x]), 3),
        lambda x: total_up(np.array([1.0, x])),
    ],
)
def test_what_is_not_a_number_is_refused(call, bad):
    with pytest.raises(Refused):
        call(bad)


@pytest.mark.parametrize(
    "call",
    [
        lambda: product_up(1e200, 1e200),
        lambda: sum_up([1.7e308, 1.7e308]),
        lambda: quotient_up(1.0, 0.0),
        lambda: sqrt_up(-1.0),
        lambda: norm_up([1.7e308] * 4),
        lambda: inflate(np.array([1.7976931348623157e308]), 3),
        lambda: norms_up(np.array([1e200, 1.0])),
    ],
)
def test_overflow_and_undefined_operations_are_refused(call):
    with pytest.raises(Refused):
        call()


entries = st.lists(st.floats(0, 1e6, allow_subnormal=True), min_size=1, max_size=12)


@unhurried
@given(entries, entries)
def test_arrays_bound_exact_sums_and_products(a, b):
    n = min(len(a), len(b))
    x, y = np.array(a[:n]), np.array(b[:n])
    dot = sum(Fraction(p) * Fraction(q) for p, q in zip(a[:n], b[:n], strict=True))
    total = Fraction(float(total_up(x)))
    assert total >= sum(map(Fraction, a[:n]))
    bound = Fraction(float(matmul_up(x[None], y[:, None])[0, 0]))
    assert dot <= bound <= dot * (1 + Fraction(1, 10**12)) + Fraction(1, 10**300)
    squares = sum(Fraction(p) ** 2 for p in a[:n])
    assert Fraction(float(norms_up(x[None])[0])) ** 2 >= squares
