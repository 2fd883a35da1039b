"""Enclosure arithmetic against exact rationals: the true value is never outside, whatever the operands."""

from __future__ import annotations

import operator
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lipcert.network.enclosure import UNIT, Enclosure, gamma, round_up

BINARY = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}

any_float = st.floats(allow_nan=False, allow_infinity=False)  # subnormals and near-overflow included
moderate = st.floats(-1e6, 1e6)
float32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


def any_radius(mid: float) -> st.SearchStrategy[float]:
    """Radii from nothing to larger than the centre, and of every other size."""
    relative = st.sampled_from([0.0, 2.0**-53, 2.0**-30, 0.5, 1.0, 1.5])
    return st.one_of(relative.map(lambda r: abs(mid) * r if abs(mid) < 1e300 else 0.0), st.floats(0.0, 1e308))


@st.composite
def enclosures(draw: st.DrawFn) -> Enclosure:
    mid = draw(any_float)
    return Enclosure(np.array(mid), np.array(draw(any_radius(mid))))


def ends(value: Enclosure) -> tuple[Fraction, Fraction, Fraction]:
    mid, rad = Fraction(float(value.mid)), Fraction(float(value.radius))
    return mid - rad, mid, mid + rad


def holds(found: Enclosure, true: Fraction, where: tuple[int, ...] = ()) -> bool:
    """Whether the entry encloses `true`, or says by an infinity or NaN that it knows nothing."""
    mid, rad = float(found.mid[where]), float(found.radius[where])
    if not (np.isfinite(mid) and np.isfinite(rad)):
        return not found.is_finite
    return abs(Fraction(mid) - true) <= Fraction(rad)


@pytest.mark.parametrize("symbol", BINARY)
@settings(max_examples=400)
@given(a=enclosures(), b=enclosures())
@example(a=Enclosure(np.array(0.0)), b=Enclosure(np.array(1e308), np.array(1e308)))
@example(a=Enclosure(np.array(5e-324)), b=Enclosure(np.array(5e-324)))
@example(a=Enclosure(np.array(1.7e308)), b=Enclosure(np.array(-1.7e308)))
@example(a=Enclosure(np.array(1e-288)), b=Enclosure(np.array(7e20)))  # a quotient below the normal numbers
@example(a=Enclosure(np.array(1e-288)), b=Enclosure(np.array(1.4e35)))
@example(a=Enclosure(np.array(1e-288)), b=Enclosure(np.array(1e36)))
@example(a=Enclosure(np.array(1e-288), np.array(5e-324)), b=Enclosure(np.array(1e34), np.array(1e20)))
def test_every_operation_encloses_all_corners(symbol: str, a: Enclosure, b: Enclosure) -> None:
    """Each operation is monotone in each operand, so the corners of the two intervals are its extremes."""
    found = BINARY[symbol](a, b)
    if symbol == "/" and ends(b)[0] <= 0 <= ends(b)[2]:
        assert not found.is_finite
        return
    assert all(holds(found, BINARY[symbol](x, y)) for x, y in product(ends(a), ends(b)))


@settings(max_examples=400)
@given(a=enclosures())
@example(a=Enclosure(np.array(1.5e-323)))
@example(a=Enclosure(np.array(1e-310)))
@example(a=Enclosure(np.array(1.7e308)))
@example(a=Enclosure(np.array(2.0), np.array(2.0)))
def test_square_root_encloses(a: Enclosure) -> None:
    low, _, high = ends(a)
    found = a.sqrt()
    if low < 0:
        assert not found.is_finite
    elif found.is_finite:
        least, _, most = ends(found)
        assert most >= 0
        assert max(least, Fraction(0)) ** 2 <= low
        assert high <= most**2


@settings(max_examples=200)
@given(st.data())
def test_matrix_product_encloses(data: st.DataObject) -> None:
    rows, inner, columns = (data.draw(st.integers(1, 4)) for _ in range(3))
    entry = st.one_of(moderate, st.floats(-1e-150, 1e-150), any_float)

    def matrix(shape: tuple[int, int]) -> Enclosure:
        def numbers(part: st.SearchStrategy[float]) -> np.ndarray:
            size = shape[0] * shape[1]
            return np.array(data.draw(st.lists(part, min_size=size, max_size=size))).reshape(shape)

        return Enclosure(numbers(entry), numbers(st.one_of(st.just(0.0), st.floats(0.0, 1e3))))

    a, b = matrix((rows, inner)), matrix((inner, columns))
    found = a @ b
    # any choice of signs is a possible truth
    signs = np.random.default_rng(data.draw(st.integers(0, 99))).integers(-1, 2, (2, 4, 4))
    for i, j in product(range(rows), range(columns)):
        true = sum(
            (Fraction(a.mid[i, k]) + int(signs[0, i, k]) * Fraction(a.radius[i, k]))
            * (Fraction(b.mid[k, j]) + int(signs[1, k, j]) * Fraction(b.radius[k, j]))
            for k in range(inner)
        )
        assert holds(found, Fraction(true), (i, j))


def test_matrix_product_whose_products_all_underflow() -> None:
    a, b = Enclosure(np.full((1, 8), 1.4e-162)), Enclosure(np.full((8, 1), 1.4e-162))
    found = a @ b
    assert float(found.mid[0, 0]) == 0.0
    assert Fraction(float(found.radius[0, 0])) >= 8 * Fraction(1.4e-162) ** 2


def test_matrix_product_with_vectors_and_batches() -> None:
    rng = np.random.default_rng(0)
    matrix, vector = Enclosure(rng.normal(size=(3, 4))), Enclosure(rng.normal(size=4), rng.random(4))
    for found in (matrix @ vector, (vector @ matrix.map(np.transpose))):
        assert found.shape == (3,)
        assert (np.abs(found.mid - matrix.mid @ vector.mid) <= found.radius).all()
    assert (vector @ vector).shape == ()
    assert (Enclosure(rng.normal(size=(2, 3, 4))) @ vector).shape == (2, 3)
    assert (Enclosure(np.ones((2, 0))) @ Enclosure(np.ones((0, 3)))).shape == (2, 3)


@settings(max_examples=300)
@given(
    numbers=st.lists(st.one_of(moderate, float32, any_float), min_size=2, max_size=6),
    steps=st.lists(st.tuples(st.sampled_from("+-*/"), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12),
)
def test_chains_enclose(numbers: list[float], steps: list[tuple[str, int, int]]) -> None:
    """Each step combines two earlier values; the exact rational is carried alongside."""
    values = [(Enclosure.exact(x), Fraction(x)) for x in numbers]
    for symbol, i, j in steps:
        (a, true_a), (b, true_b) = values[-1 - i % len(values)], values[j % len(values)]
        if symbol == "/" and true_b == 0:
            assert not (a / b).is_finite
            continue
        values.append((BINARY[symbol](a, b), BINARY[symbol](true_a, true_b)))
        if true_a.denominator.bit_length() + true_b.denominator.bit_length() > 20_000:
            break
    assert all(holds(found, true) for found, true in values)


@given(gain=moderate, variance=st.floats(1e-12, 1e6), eps=st.sampled_from([1e-5, 1e-3, 0.0]))
def test_folded_batch_norm_encloses_and_is_tight(gain: float, variance: float, eps: float) -> None:
    found = Enclosure.exact(gain) / (Enclosure.exact(variance) + Enclosure.exact(eps)).sqrt()
    square = Fraction(gain) ** 2 / (Fraction(variance) + Fraction(eps))
    if 0 < abs(gain) < 2.0**-960:  # refused rather than guessed
        assert not found.is_finite
        return
    least, _, most = ends(found)
    assert (0 if least * most < 0 else min(least**2, most**2)) <= square <= max(least**2, most**2)
    assert float(found.radius) <= 8 * UNIT * abs(float(found.mid)) + 1e-300


@given(a=float32, b=float32)
def test_products_of_float32_stay_exact(a: float, b: float) -> None:
    found = Enclosure.exact(np.float32(a)) * Enclosure.exact(np.float32(b))
    assert found.is_exact
    assert Fraction(float(found.mid)) == Fraction(a) * Fraction(b)


@given(a=st.integers(-(2**40), 2**40), power=st.integers(-60, 60))
def test_exact_operations_stay_exact(a: int, power: int) -> None:
    x, scale = Enclosure.exact(a), Enclosure.exact(2.0**power)
    for found, true in (
        (x * scale, a * Fraction(2) ** power),
        (x / scale, a / Fraction(2) ** power),
        (x + Enclosure.exact(1.0), Fraction(a + 1)),
        ((x * x if abs(a) < 2**26 else x) - x, Fraction(a * a - a if abs(a) < 2**26 else 0)),
    ):
        assert found.is_exact
        assert Fraction(float(found.mid)) == true
    if abs(a) < 2**26:
        root = (x * x).sqrt()
        assert root.is_exact
        assert float(root.mid) == abs(a)
    if a:
        assert (x / x).is_exact


def test_quotients_are_tight() -> None:
    rng = np.random.default_rng(1)
    a, b = Enclosure(rng.normal(size=1000)), Enclosure(rng.normal(size=1000))
    for found in (a / b, a * b, a + b, (a * a).sqrt(), b.reciprocal()):
        assert (found.radius <= 4 * UNIT * np.abs(found.mid)).all()


def test_broadcasting_of_centres_and_radii() -> None:
    rng = np.random.default_rng(2)
    wide = Enclosure(rng.normal(size=(3, 1, 2)), rng.random((3, 1, 2)))
    thin = Enclosure(rng.normal(size=(4, 1)) + 9.0)
    scalar = Enclosure(np.array(3.0), np.array(0.5))
    pairs = [(wide, thin), (thin, wide + thin + thin), (thin, scalar), (scalar, thin)]
    for symbol, (a, b) in product(BINARY, pairs):
        found = BINARY[symbol](a, b)
        shape = np.broadcast_shapes(a.shape, b.shape)
        assert found.shape == shape
        assert found.radius.shape == shape
        full_a, full_b = a.broadcast_to(shape), b.broadcast_to(shape)
        again = BINARY[symbol](full_a, full_b)
        np.testing.assert_array_equal(found.mid, again.mid)
        np.testing.assert_array_equal(found.radius, again.radius)


def test_scalars_stay_zero_dimensional_arrays() -> None:
    x = Enclosure.exact(2.0)
    moved = (x.reshape(1).reshape(), x.map(np.negative), x.broadcast_to(()))
    for found in (x + x, x - x, x * x, x / x, x.sqrt(), -x, x.reciprocal(), *moved):
        assert isinstance(found.mid, np.ndarray)
        assert found.shape == ()


def test_what_cannot_be_enclosed_is_not_finite() -> None:
    def one(mid: float, rad: float = 0.0) -> Enclosure:
        return Enclosure(np.array([1.0, mid]), np.array([0.0, rad]))

    refused = [
        one(1.0) / one(0.0),
        one(1.0) / one(1.0, 1.0),
        one(1.0) / one(-1.0, 2.0),
        one(0.0) / one(0.0),
        one(-1.0).sqrt(),
        one(1.0, 1.5).sqrt(),
        one(1e308) + one(1e308),
        one(1e200) * one(1e200),
        one(1e300) / one(1e-300),
        one(1e-300) / one(3.0),  # the residual underflows: nothing is guessed
        one(np.nan) + one(1.0),
        one(np.inf) * one(0.0),
        one(1.0, np.nan) * one(1.0),
        one(1.0, np.inf) - one(1.0),
    ]
    for found in refused:
        assert not found.is_finite
        assert np.isfinite(found.mid[0])  # the neighbour is not harmed
        assert np.isfinite(found.radius[0])


@given(mid=any_float, rad=st.floats(0.0, 1e308))
def test_magnitude_is_an_upper_bound(mid: float, rad: float) -> None:
    largest = Enclosure(np.array(mid), np.array(rad)).magnitude()
    assert not np.isfinite(largest) or Fraction(float(largest)) >= abs(Fraction(mid)) + Fraction(rad)


def test_moving_entries_moves_the_radii_too() -> None:
    x = Enclosure(np.arange(6.0).reshape(2, 3), np.arange(6.0).reshape(2, 3) / 8)
    for found in (x.map(np.transpose), x.reshape(3, 2), x.broadcast_to((4, 2, 3)), -x):
        np.testing.assert_array_equal(np.abs(found.mid) / 8, found.radius)
        assert found.mid.flags.c_contiguous


def test_enclosures_cannot_be_changed() -> None:
    x = Enclosure(np.ones(2), np.ones(2))
    for array in (x.mid, x.rad, Enclosure.exact([1.0]).mid):
        assert array is not None
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 5.0


def test_exact_takes_a_copy_and_refuses_what_rounds() -> None:
    source = np.array([1.0, 2.0])
    taken = Enclosure.exact(source)
    source[0] = 7.0
    assert taken.mid[0] == 1.0
    assert Enclosure.exact(np.float16(0.1)).mid == float(np.float16(0.1))
    assert Enclosure.exact(np.array([2**53, -(2**53)])).mid[0] == 2.0**53
    assert Enclosure.exact(np.array([], dtype=np.int64)).shape == (0,)
    for wrong in (2**53 + 1, -(2**53) - 1, 2**64, np.uint64(2**63), 1j, "1", Fraction(1, 3), None):
        with pytest.raises(ValueError, match="exact in float64"):
            Enclosure.exact(wrong)
    if np.finfo(np.longdouble).nmant > 52:
        with pytest.raises(ValueError, match="exact in float64"):
            Enclosure.exact(np.longdouble(1) / 3)


def test_wrong_radii_are_refused() -> None:
    with pytest.raises(ValueError, match="radii"):
        Enclosure(np.ones(2), np.array([-1.0, 0.0]))
    with pytest.raises(ValueError, match="radii"):
        Enclosure(np.ones(2), np.array(1.0))
    with pytest.raises(TypeError, match="float64"):
        Enclosure(np.ones(2, dtype=np.float32))


@given(st.integers(0, 2**40 - 1))
def test_gamma_is_an_upper_bound_and_tight(count: int) -> None:
    u = Fraction(UNIT)
    exact = count * u / (1 - count * u)
    assert exact <= Fraction(gamma(count)) <= exact * (1 + Fraction(1, 2**48))


@pytest.mark.parametrize("count", [-1, 2**40])
def test_gamma_refuses(count: int) -> None:
    with pytest.raises(ValueError, match="gamma"):
        gamma(count)


@given(st.lists(st.floats(0.0, 1e300), min_size=2, max_size=5))
def test_round_up_bounds_a_sum_and_a_product(terms: list[float]) -> None:
    total = np.array(terms[0])
    for term in terms[1:]:
        total = total + term
    assert Fraction(float(round_up(total, len(terms) - 1))) >= sum(map(Fraction, terms))
    with np.errstate(over="ignore"):
        single = round_up(np.array(terms[0]) * terms[1], 1)
    assert not np.isfinite(single) or Fraction(float(single)) >= Fraction(terms[0]) * Fraction(terms[1])
