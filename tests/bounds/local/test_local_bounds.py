"""Boxes and margins hold for everything that sampling and attacks find, on random networks of all operators.

Level numerical: bounds hold in real arithmetic, and their own rounding is not counted. The tests compute in float64
and allow ROUNDING for it, relative to the largest number of the network at hand.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from local_regions import ROUNDING, points_inside
from strategies import networks, random_network

from lipcert.bounds.local.crown import margins, relax_network
from lipcert.bounds.local.intervals import boxes
from lipcert.bounds.local.margins import margins_on_boxes, rivals, settle
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.view import View
from lipcert.testing.zoo import zoo


def _view(network):
    return View(network, dtype=torch.float64)


def _ball(view, seed, eps, norm, box=None, count=3):
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(count, *view.network.input_shape))
    if box is not None:
        centre = np.clip(centre, *box)
    return Ball.around(torch.from_numpy(centre), eps, norm, box)


def _assert_boxes_hold(view, ball, found, seed):
    for x in points_inside(ball, seed):
        for value, (low, high) in zip(view.trace(x), found, strict=True):
            room = ROUNDING * (1.0 + float(value.abs().amax()))
            assert bool((value >= low - room).all()) and bool((value <= high + room).all())


def _labels(view, ball):
    return view(ball.centre).argmax(dim=1)


def _true_margins(view, x, labels):
    logits = view(x)
    return logits.gather(1, labels[:, None]) - logits.gather(1, rivals(labels, view.classes))


regions = st.tuples(
    st.sampled_from([1e-3, 0.1, 1.0]), st.sampled_from(["l1", "l2", "linf"]), st.sampled_from([None, (-1.0, 1.0)])
)


@settings(max_examples=100, deadline=None)
@given(networks(max_depth=5), regions, st.integers(0, 2**16))
def test_boxes_hold_all_values_of_the_region(network, region, seed):
    view = _view(network)
    ball = _ball(view, seed, *region)
    _assert_boxes_hold(view, ball, boxes(view, ball), seed)
    _assert_boxes_hold(view, ball, relax_network(view, ball).boxes, seed)


@settings(max_examples=60, deadline=None)
@given(networks(max_depth=5), regions, st.integers(0, 2**16))
def test_margins_are_below_those_of_points(network, region, seed):
    view = _view(network)
    if view.classes < 2:
        return
    ball = _ball(view, seed, *region)
    labels, relaxed = _labels(view, ball), relax_network(view, ball)
    for found in (margins_on_boxes(view, relaxed.boxes, labels), margins(relaxed, labels)):
        for x in points_inside(ball, seed):
            true = _true_margins(view, x, labels)
            assert bool((found <= true + ROUNDING * (1.0 + float(view(x).abs().amax()))).all())


@settings(max_examples=40, deadline=None)
@given(networks(max_depth=4), st.sampled_from(["l2", "linf"]), st.integers(0, 2**16))
def test_narrower_than_intervals_and_wider_for_larger_balls(network, norm, seed):
    view = _view(network)
    small, large = (_ball(view, seed, eps, norm) for eps in (0.1, 0.3))
    plain, narrow = boxes(view, small), relax_network(view, small).boxes
    wide = boxes(view, large)
    for (low, high), (inner_low, inner_high), (outer_low, outer_high) in zip(plain, narrow, wide, strict=True):
        room = ROUNDING * (1.0 + float(torch.maximum(low.abs(), high.abs()).amax()))
        assert bool((inner_low >= low - room).all()) and bool((inner_high <= high + room).all())
        assert bool((outer_low <= low + room).all()) and bool((outer_high >= high - room).all())


@pytest.mark.parametrize("name", sorted(zoo()))
def test_margins_vanish_with_the_ball(name):
    """As eps goes to 0 the bound goes to the margin itself, at a speed that some Lipschitz constant limits."""
    view = _view(zoo()[name])
    if view.classes < 2:
        return
    ball = _ball(view, 1, 1e-9, "l2")
    labels = _labels(view, ball)
    found = margins(relax_network(view, ball), labels)
    torch.testing.assert_close(found, _true_margins(view, ball.centre, labels), rtol=1e-5, atol=1e-5)


def test_linear_networks_are_exact():
    view = _view(zoo()["affine"])
    for norm, dual in (("l1", torch.inf), ("l2", 2), ("linf", 1)):
        ball = _ball(view, 3, 0.5, norm)
        labels = _labels(view, ball)
        basis = torch.eye(3, dtype=torch.float64)
        matrix = (view(basis) - view(torch.zeros_like(basis))).T
        rows = matrix[labels][:, None] - matrix[rivals(labels, view.classes)]
        exact = _true_margins(view, ball.centre, labels) - 0.5 * torch.linalg.vector_norm(rows, ord=dual, dim=2)
        torch.testing.assert_close(margins(relax_network(view, ball), labels), exact, rtol=1e-12, atol=1e-12)


def test_what_is_not_a_number_or_outside_the_box_is_never_certified():
    view = _view(random_network(0, 3, ("dense", "relu")))
    images = torch.zeros((4, *view.network.input_shape), dtype=torch.float64)
    images[1].view(-1)[0] = torch.nan
    images[2].view(-1)[0] = torch.inf
    images[3].view(-1)[0] = 1.5
    ball = Ball.around(images, 0.1, "l2", (0.0, 1.0))
    assert ball.valid.tolist() == [True, False, False, False]
    labels = _labels(view, ball)
    found = settle(margins(relax_network(view, ball), labels), ball, labels)
    assert bool((found[1:].amin(dim=1) == -torch.inf).all())
    assert bool(torch.isfinite(found[0].amin()))
    assert bool((found.gather(1, labels[:, None]) == torch.inf).all())
