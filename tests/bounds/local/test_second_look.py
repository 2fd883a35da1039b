"""Lines by points of contact and the second look: valid, at least as good, and exact where lines suffice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from local_regions import ROUNDING, points_inside
from strategies import networks
from test_lines import CASES, inside, random_boxes, shape_of

from lipcert.bounds.local.contacts import intercepts
from lipcert.bounds.local.crown import relax_network
from lipcert.bounds.local.curves import CURVES
from lipcert.bounds.local.lines import polyline, supporting_lines
from lipcert.bounds.local.margins import differences
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.second_look import look_twice
from lipcert.bounds.local.view import View


@pytest.mark.parametrize(("name", "parameters"), [case for case in CASES if CURVES[case[0]].meets])
def test_points_of_contact_give_the_best_intercepts(name, parameters):
    """Valid at 2,001 points of each box; no further from them than |f'| + |s| <= 6 allows between two points."""
    shape = shape_of(name, parameters)
    low, high = random_boxes(3)
    low, high = low.clamp(-8.0, 8.0), high.clamp(-8.0, 8.0)
    slope = torch.from_numpy(np.random.default_rng(4).uniform(-1.5, 1.5, size=len(low)))
    slope[:5] = torch.tensor([0.0, 0.25, 1.0, -1.0, 1e-9], dtype=torch.float64)
    least, most = intercepts(shape, low, high, slope)
    x = inside(low, high, 2001)
    gap = shape.function(x, *shape.parameters) - slope * x
    room = 1e-12 * (1.0 + gap.abs().amax(dim=0))
    assert bool((least <= gap.amin(dim=0) + room).all()) and bool((most >= gap.amax(dim=0) - room).all())
    near = 3.0 * (high - low) / 2000 + room
    assert bool((least >= gap.amin(dim=0) - near).all()) and bool((most <= gap.amax(dim=0) + near).all())


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(CASES), st.integers(0, 2**16))
def test_supporting_lines_are_valid_wherever_they_support(case, seed):
    shape = shape_of(*case)
    low, high = random_boxes(seed, 40)
    at = torch.from_numpy(np.random.default_rng(seed).normal(size=(40, 3)) * 3.0)
    line = polyline(shape, low[:, None], high[:, None]).of_functions()
    lines = supporting_lines(shape, line, at[..., None])
    x = inside(low, high, 101)[..., None, None]
    y = shape.function(x, *shape.parameters)
    room = ROUNDING * (1.0 + y.abs() + x.abs())
    assert bool((lines.low_slope * x + lines.low_intercept <= y + room).all())
    assert bool((lines.high_slope * x + lines.high_intercept >= y - room).all())


def test_relu_is_supported_by_the_side_of_the_kink():
    shape = shape_of("relu", ())
    line = polyline(shape, torch.tensor([-1.0]), torch.tensor([2.0])).of_functions()
    lines = supporting_lines(shape, line, torch.tensor([[-0.5, 0.5, 3.0]]))
    assert lines.low_slope.tolist() == [[0.0, 1.0, 1.0]] and not lines.low_intercept.any()


@settings(max_examples=40, deadline=None)
@given(
    networks(max_depth=4),
    st.sampled_from(["l1", "l2", "linf"]),
    st.sampled_from([None, (-1.0, 1.0)]),
    st.integers(0, 99),
)
def test_the_second_look_is_valid_and_never_worse(network, norm, box, seed):
    view = View(network, dtype=torch.float64)
    if view.classes < 2:
        return
    centre = np.random.default_rng(seed).normal(size=(3, *network.input_shape))
    ball = Ball.around(torch.from_numpy(centre if box is None else np.clip(centre, *box)), 0.3, norm, box)
    labels = view(ball.centre).argmax(dim=1)
    with torch.no_grad():
        relaxed, a = relax_network(view, ball), differences(view, labels)
        found, lines = look_twice(view, ball, relaxed.relaxations, a)
    assert set(lines) <= set(relaxed.relaxations)
    for x in points_inside(ball, seed, 15):
        true = (a.flatten(2) @ view(x)[..., None])[..., 0]
        assert bool((found <= true + ROUNDING * (1.0 + true.abs().amax())).all())


@settings(deadline=None)
@given(st.sampled_from(["l1", "l2", "linf"]), st.integers(0, 99))
def test_the_minimiser_attains_the_minimum_without_a_box(norm, seed):
    rng = np.random.default_rng(seed)
    ball = Ball.around(torch.from_numpy(rng.normal(size=(2, 3, 4))), 0.7, norm)
    c = torch.from_numpy(rng.normal(size=(2, 5, 3, 4)))
    at = (c * ball.minimiser(c)).flatten(2).sum(dim=2)
    torch.testing.assert_close(at, ball.minimum(c), rtol=1e-10, atol=1e-10)


@settings(deadline=None)
@given(st.sampled_from(["l1", "l2", "linf"]), st.integers(0, 99))
def test_minimisers_stay_in_the_region(norm, seed):
    rng = np.random.default_rng(seed)
    ball = Ball.around(torch.from_numpy(rng.uniform(0, 1, size=(2, 6))), 0.7, norm, (0.0, 1.0))
    c = torch.from_numpy(rng.normal(size=(2, 5, 6)))
    found = ball.minimiser(c)
    assert bool((found >= 0).all()) and bool((found <= 1).all())
    assert bool(((c * found).sum(dim=2) >= ball.minimum(c) - 1e-10).all())
