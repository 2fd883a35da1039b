"""Lines below and above activations hold everywhere on their box; bends are what ball arithmetic says."""

from __future__ import annotations

import math

import flint
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lipcert.bounds.local.curves import CURVES
from lipcert.bounds.local.lines import Shape, best_lines, polyline, value_range
from lipcert.bounds.local.selections import select
from lipcert.bounds.torch_activations import FUNCTIONS
from lipcert.network.activations import TABLE, slope_interval
from lipcert.network.operators import Elementwise

ROUNDING = 1e-12
PARAMETERS = {
    "leaky_relu": [(0.01,), (-0.5,), (1.5,)],
    "elu": [(1.0,), (4.0,), (-0.5,)],
    "celu": [(0.5,), (3.0,)],
    "softplus": [(1.0,), (-2.0,)],
    "clip": [(-0.5, 1.0), (-math.inf, 0.25), (0.0, math.inf)],
    "hardsigmoid": [(0.2, 0.5), (-1.0, 0.5)],
    "softshrink": [(0.3,), (0.0,)],
}
CASES = [(name, given_) for name in sorted(TABLE) for given_ in PARAMETERS.get(name, [()])]


def shape_of(name, parameters):
    alpha, beta = slope_interval(Elementwise(name, tuple(np.array(p) for p in parameters)))
    tensors = tuple(torch.tensor(p, dtype=torch.float64) for p in parameters)
    return Shape(FUNCTIONS[name], CURVES[name], tensors, (torch.from_numpy(alpha), torch.from_numpy(beta)))


def random_boxes(seed, count=200):
    rng = np.random.default_rng(seed)
    ends = rng.normal(size=(2, count)) * 10.0 ** rng.uniform(-3, 1.5, size=(2, count))
    ends[:, :5] = 0.0  # boxes that are points
    ends[1, 5:15] = 0.0
    return torch.from_numpy(ends.min(axis=0)), torch.from_numpy(ends.max(axis=0))


def inside(low, high, count=401):
    steps = torch.linspace(0, 1, count, dtype=torch.float64)[:, None]
    return low + (high - low) * steps


def test_every_activation_of_the_table_has_a_curve():
    assert set(CURVES) == set(TABLE)


@pytest.mark.parametrize(("name", "parameters"), CASES)
def test_lines_and_ranges_hold(name, parameters):
    shape = shape_of(name, parameters)
    low, high = random_boxes(7)
    line = polyline(shape, low, high)
    lines, (least, most) = best_lines(shape, line), value_range(shape, low, high)
    x = inside(low, high)
    y = shape.function(x, *shape.parameters)
    room = ROUNDING * (1.0 + y.abs() + x.abs())
    assert bool((lines.low_slope * x + lines.low_intercept <= y + room).all())
    assert bool((lines.high_slope * x + lines.high_intercept >= y - room).all())
    assert bool((least <= y + room).all()) and bool((most >= y - room).all())


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(CASES), st.integers(0, 2**16))
def test_lines_of_any_slope_hold(case, seed):
    shape = shape_of(*case)
    low, high = random_boxes(seed, 50)
    line = polyline(shape, low, high)
    slope = torch.from_numpy(np.random.default_rng(seed).normal(size=50) * 2.0)
    x = inside(low, high, 101)
    y = shape.function(x, *shape.parameters)
    room = ROUNDING * (1.0 + y.abs() + x.abs())
    assert bool((slope * x + line.highest_below(slope) <= y + room).all())
    assert bool((slope * x + line.lowest_above(slope) >= y - room).all())


@pytest.mark.parametrize(("name", "parameters"), CASES)
def test_polylines_hug_the_function(name, parameters):
    """On boxes of width 2 the polylines are within 2 % of the function's size there."""
    shape = shape_of(name, parameters)
    low = torch.linspace(-6, 4, 41, dtype=torch.float64)
    line = polyline(shape, low, low + 2.0)
    assert float((line.above - line.below).abs().amax()) <= 0.02


def test_relu_lines_are_those_of_crown():
    """Below: slope 1 where u > -l, else 0. Above: the chord (Zhang et al. 2018)."""
    low, high = torch.tensor([-1.0, -3.0, 0.5, -2.0]), torch.tensor([2.0, 1.0, 1.0, -0.5])
    shape = shape_of("relu", ())
    lines = best_lines(shape, polyline(shape, low, high))
    assert lines.low_slope.tolist() == [1.0, 0.0, 1.0, 0.0] and not lines.low_intercept.any()
    torch.testing.assert_close(lines.high_slope, torch.tensor([2 / 3, 0.25, 1.0, 0.0]))
    torch.testing.assert_close(lines.high_intercept, torch.tensor([2 / 3, 0.75, 0.0, 0.0]))


def test_convex_functions_get_the_tangent_at_the_middle_and_the_chord():
    low, high = torch.tensor([-1.0], dtype=torch.float64), torch.tensor([2.0], dtype=torch.float64)
    shape = shape_of("softplus", (1.0,))
    lines = best_lines(shape, polyline(shape, low, high))
    middle = torch.tensor([0.5], dtype=torch.float64)
    torch.testing.assert_close(lines.low_slope, torch.sigmoid(middle), rtol=0, atol=0.02)
    torch.testing.assert_close(
        lines.low_slope * middle + lines.low_intercept, torch.log1p(middle.exp()), rtol=0, atol=1e-4
    )
    softplus = torch.nn.functional.softplus
    torch.testing.assert_close(lines.high_slope, (softplus(high) - softplus(low)) / 3.0, rtol=1e-12, atol=0)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 5), st.sampled_from([1, -1]))
def test_lines_of_maxima_and_minima_hold(seed, count, sign):
    rng = np.random.default_rng(seed)
    size, m = 6, 3
    ends = np.sort(rng.normal(size=(2, 4, size)) * rng.choice([0.1, 1.0], size=(2, 4, size)), axis=0)
    low, high = torch.from_numpy(ends[0]), torch.from_numpy(ends[1])
    candidates = torch.from_numpy(rng.integers(-1, size, size=(count, m)))
    candidates[0] = torch.from_numpy(rng.integers(0, size, size=m))
    selection = select(candidates, low, high, sign)
    a = torch.from_numpy(rng.normal(size=(4, 5, m)))
    coefficients, constant = selection.pull(a)
    for _ in range(50):
        x = low + (high - low) * torch.from_numpy(rng.choice([0.0, 1.0, rng.random()], size=(4, size)))
        seen = (sign * x)[:, candidates.clamp(min=0)].masked_fill(candidates < 0, -torch.inf)
        y = sign * seen.amax(dim=1)
        true = torch.einsum("bsm,bm->bs", a, y)
        assert bool((torch.einsum("bsn,bn->bs", coefficients, x) + constant <= true + ROUNDING).all())


# --- bends, with ball arithmetic ------------------------------------------------------------------------------

SERIES = {
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "tanh": lambda x: _tanh(x),
    "tanhshrink": lambda x: x - _tanh(x),
    "erf": lambda x: x.erf(),
    "softplus": lambda x: (1 + x.exp()).log(),
    "logsigmoid": lambda x: -(1 + (-x).exp()).log(),
    "gelu": lambda x: x / 2 * (1 + (x / flint.arb(2).sqrt()).erf()),
    "silu": lambda x: x / (1 + (-x).exp()),
    "mish": lambda x: x * _tanh((1 + x.exp()).log()),
    "gelu_tanh": lambda x: x / 2 * (1 + _tanh((flint.arb(2) / flint.arb.pi()).sqrt() * (x + _CUBE * x * x * x))),
    "sin": lambda x: x.sin(),
    "cos": lambda x: x.cos(),
}
_CUBE = flint.arb(44715) / 1000000


def _tanh(x):
    return 1 - 2 / ((2 * x).exp() + 1)


def _derivative(name, ball, order):
    """An enclosure of the derivative of this order over a ball."""
    series = SERIES[name](flint.arb_series([ball, 1], order + 1))
    return series[order] * math.factorial(order)


@pytest.mark.parametrize("name", sorted(SERIES))
def test_second_derivatives_are_right(name):
    parameters = (1.0,) if name == "softplus" else ()
    tensors = tuple(torch.tensor(p, dtype=torch.float64) for p in parameters)
    for x in np.linspace(-8, 8, 65):
        found = float(CURVES[name].second[0](torch.tensor(x, dtype=torch.float64), *tensors))
        assert abs(found - float(_derivative(name, flint.arb(float(x)), 2))) <= 1e-12


@pytest.mark.parametrize("name", [name for name in sorted(SERIES) if CURVES[name].turns])
def test_turns_are_where_the_slope_vanishes(name):
    for turn in CURVES[name].turns:
        assert abs(float(_derivative(name, flint.arb(turn), 1))) <= 1e-15
        assert float(_derivative(name, flint.arb(turn), 2)) != 0


@pytest.mark.parametrize("name", sorted(SERIES))
def test_bends_hold_on_cells(name):
    """f'' over each cell, enclosed by ball arithmetic on many small pieces, is within the bounds."""
    parameters = (1.0,) if name == "softplus" else ()
    tensors = tuple(torch.tensor(p, dtype=torch.float64) for p in parameters)
    a = torch.linspace(-6, 5.5, 47, dtype=torch.float64)
    b = a + 0.6
    low, high = CURVES[name].bend(0, a, b, tensors)
    for start, stop, least, most in zip(a.tolist(), b.tolist(), low.tolist(), high.tolist(), strict=True):
        for point in np.linspace(start, stop, 33):
            value = float(_derivative(name, flint.arb(float(point)), 2))
            assert least - 1e-12 <= value <= most + 1e-12


@pytest.mark.parametrize("name", ["gelu_tanh", "mish", "silu"])
def test_third_derivatives_are_bounded(name):
    """Proved on [-20, 20], in pieces; beyond, all three are straight up to what decays like e^-|x|."""
    pieces = [(-20.0 + k / 8, -20.0 + (k + 1) / 8) for k in range(320)]
    while pieces:
        left, right = pieces.pop()
        enclosure = _derivative(name, flint.arb((left + right) / 2, (right - left) / 2), 3)
        if not abs(enclosure) <= CURVES[name].third:
            assert right - left > 2.0**-14, (left, right)
            pieces += [(left, (left + right) / 2), ((left + right) / 2, right)]
