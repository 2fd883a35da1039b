"""Curved activations: enclosures against ball arithmetic, lines and slopes against rational values at many points."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from flint import arb, ctx
from hypothesis import given, settings
from hypothesis import strategies as st
from rational_evaluation import FUNCTIONS

from lipcert.network.activations import TABLE
from lipcert.network.enclosure import Enclosure
from lipcert.network.operators import Elementwise
from lipcert.proof.local import curved, functions
from lipcert.proof.local.bends import BENDS
from lipcert.proof.local.secants import anchored_sector
from lipcert.proof.local.straight import STRAIGHT
from lipcert.testing.zoo import PARAMETERS

WITHOUT = {"sin", "cos", "hardsigmoid"}
POINTS = 17


def _op(name):
    return Elementwise(name, tuple(np.array(p) for p in PARAMETERS.get(name, ())))


def _value(op, x):
    return FUNCTIONS[op.name](Fraction(x), *(Fraction(float(p)) for p in op.params))


def _holds(found, exact, x):
    with ctx.workprec(300):
        for mid, radius, at in zip(found.mid, found.radius, x, strict=True):
            assert abs(exact(arb(float(at))) - arb(float(mid))) <= arb(float(radius)), at


def _arguments(seed, largest):
    rng = np.random.default_rng(seed)
    sizes = 2.0 ** rng.uniform(-40, np.log2(largest), 400)
    return np.concatenate([sizes, -sizes, [0.0, largest, -largest, 1.0, -0.5]])


def test_every_activation_has_lines_or_is_known_to_have_none():
    assert set(STRAIGHT) | set(BENDS) | WITHOUT == set(TABLE)


def test_exponentials():
    x = np.concatenate([_arguments(0, 600.0), [-601.0, -1e9]])
    found = functions.exp(Enclosure(x))
    _holds(found, arb.exp, x)
    assert (found.radius[x >= -600] <= found.mid[x >= -600] * 2.0**-48).all()
    unknown = functions.exp(Enclosure(np.array([601.0, np.nan, np.inf, 0.0]), np.array([0.0, 0.0, 0.0, 1.5])))
    assert np.isinf(unknown.radius).all()


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_exponentials_of_what_is_known_up_to_a_radius(sign):
    rng = np.random.default_rng(1)
    x, rho = rng.normal(size=300) * 30, 2.0 ** rng.uniform(-50, 0, 300)
    found = functions.exp(Enclosure(x, rho))
    with ctx.workprec(300):
        for mid, radius, at, r in zip(found.mid, found.radius, x, rho, strict=True):
            assert abs((arb(float(at)) + sign * arb(float(r))).exp() - arb(float(mid))) <= arb(float(radius))


def test_logarithms_and_the_error_function():
    t = np.abs(_arguments(2, 2.0))
    _holds(functions.log1p(Enclosure(t)), arb.log1p, t)
    x = np.concatenate([_arguments(3, 8.0), [6.0, -6.0, np.nextafter(6.0, 7.0), 1e300]])
    found = functions.erf(Enclosure(x))
    _holds(found, arb.erf, x)
    assert found.radius.max() < 1e-12
    assert not np.isfinite(functions.log1p(Enclosure(np.array([np.nan, 5.0]))).radius).any()
    assert np.isinf(functions.erf(Enclosure(np.array([np.nan]))).radius).all()


@pytest.mark.parametrize("name", BENDS)
def test_values(name):
    op, x = _op(name), _arguments(4, 50.0)
    found = BENDS[name].value(Enclosure(x.copy()), *(Enclosure.exact(p) for p in op.params))
    for mid, radius, at in zip(found.mid, found.radius, x, strict=True):
        assert abs(_value(op, at) - Fraction(mid)) <= Fraction(radius)
        assert radius <= 1e-11 * (1.0 + abs(at))


@pytest.mark.parametrize("name", BENDS)
def test_second_derivatives_on_cells(name):
    """A second difference is a mean of f''."""
    op, rng = _op(name), np.random.default_rng(5)
    inner = (*BENDS[name].kinks, *BENDS[name].stationary)
    x = np.sort(np.concatenate([rng.normal(size=40) * 4, rng.normal(size=20) * 0.01, inner]))
    low, high = BENDS[name].between(x, tuple(Enclosure.exact(p) for p in op.params))
    for a, b, least, most in zip(x[:-1], x[1:], low, high, strict=True):
        start, step = Fraction(a), (Fraction(b) - Fraction(a)) / 32
        values = [_value(op, start + k * step) for k in range(33)]
        for k in range(31 if step else 0):
            mean = (values[k] - 2 * values[k + 1] + values[k + 2]) / step**2
            assert Fraction(least) <= mean <= Fraction(most)


def _boxes(rng, size):
    low = rng.normal(size=(1, size)) * rng.choice([0.0, 0.5, 3.0, 30.0], size=(1, size))
    return low, low + np.abs(rng.normal(size=(1, size))) * rng.choice(
        [0.0, 1e-9, 0.1, 1.0, 10.0, 200.0], size=(1, size)
    )


def _inside(low, high):
    """Points of a box, and the neighbourhood of zero, where it holds that."""
    steps = [Fraction(low) + (Fraction(high) - Fraction(low)) * k / POINTS for k in range(POINTS + 1)]
    return sorted(
        {min(max(p, Fraction(low)), Fraction(high)) for p in (*steps, Fraction(0), Fraction(-3), Fraction(1))}
    )


@given(st.sampled_from(sorted(BENDS)), st.integers(0, 10**6))
@settings(max_examples=150, deadline=None)
def test_lines_with_any_slopes_ranges_and_sectors(name, seed):
    op, rng = _op(name), np.random.default_rng(seed)
    low, high = _boxes(rng, 3)
    slopes = tuple(rng.normal(size=(1, 2, 3)) * 10.0 ** rng.integers(-3, 2) for _ in range(2))
    least, most = curved.value_range(op, low, high)
    alpha, beta = curved.slopes_between(op, low, high)
    both = curved.lines(op, low, high), curved.lines(op, low, high, slopes)
    for j in range(3):
        points = _inside(low[0, j], high[0, j])
        values = [_value(op, p) for p in points]
        for k, (p, y) in enumerate(zip(points, values, strict=True)):
            assert Fraction(least[0, j]) <= y <= Fraction(most[0, j])
            if k:
                run, rise = p - points[k - 1], y - values[k - 1]
                assert Fraction(alpha[0, j]) * run <= rise <= Fraction(beta[0, j]) * run
            for found in both:
                for s in range(found.low_slope.shape[1]):
                    under = Fraction(found.low_slope[0, s, j]) * p + Fraction(found.low_intercept[0, s, j])
                    over = Fraction(found.high_slope[0, s, j]) * p + Fraction(found.high_intercept[0, s, j])
                    assert under <= y <= over


@pytest.mark.parametrize("name", BENDS)
def test_lines_touch_but_for_what_the_cells_miss(name):
    """On boxes of width 1 the lines come within 1e-4 of the activation, of any slope between those on the box."""
    op, low = _op(name), np.linspace(-4.0, 3.0, 29)[None]
    high = low + 1.0
    alpha, beta = curved.slopes_between(op, low, high)
    slopes = np.stack([alpha + (beta - alpha) * k / 4 for k in range(5)], axis=1)
    x = np.linspace(low, high, 2001)[:, :, None]
    y = TABLE[name].function(x, *op.params)
    for found in (curved.lines(op, low, high), curved.lines(op, low, high, (slopes, slopes))):
        under = (y - found.low_slope * x - found.low_intercept).min(axis=0)
        over = (found.high_slope * x + found.high_intercept - y).min(axis=0)
        assert under.max() < 1e-4 and over.max() < 1e-4


@pytest.mark.parametrize("name", BENDS)
def test_what_is_no_box_gives_no_line(name):
    op = _op(name)
    low, high = np.array([[np.nan, -np.inf, 0.0]]), np.array([[1.0, 1.0, np.inf]])
    with np.errstate(all="ignore"):
        found = curved.lines(op, low, high)
    assert not np.isfinite(found.low_intercept).any() and not np.isfinite(found.high_intercept).any()


@pytest.mark.parametrize("name", BENDS)
def test_sectors_hold_all_secants_from_the_centre(name):
    op, rng = _op(name), np.random.default_rng(7)
    low, high = _boxes(rng, 20)
    centre = low + (high - low) * rng.uniform(size=low.shape)
    sector = anchored_sector(op, (centre, centre), (low, high))
    for j in range(20):
        z = Fraction(centre[0, j])
        y, middle, radius = _value(op, z), Fraction(sector.middle[0, j]), Fraction(sector.radius[0, j])
        for p in _inside(low[0, j], high[0, j]):
            assert abs(_value(op, p) - y - middle * (p - z)) <= radius * abs(p - z)
