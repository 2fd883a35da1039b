"""The local methods: what they promise of each other, on random networks and on a real one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from local_regions import ROUNDING, points_inside
from strategies import networks

from benchmarks.networks import open_network
from lipcert.bounds.local import alpha_crown, crown
from lipcert.bounds.local.branching import Branching, Budget
from lipcert.bounds.local.margins import rivals
from lipcert.bounds.local.method import AlphaCrown, Crown, Intervals
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.registry import LOCAL_METHODS, find_local
from lipcert.bounds.local.view import View
from lipcert.errors import UsageError
from lipcert.network import Builder, Enclosure
from lipcert.network.operators import Dense, Elementwise


def _dense(weight, bias):
    return Dense(Enclosure.exact(np.array(weight)), Enclosure.exact(np.array(bias)))


def _case(network, seed, eps, norm, box=None):
    view = View(network, dtype=torch.float64)
    centre = np.random.default_rng(seed).normal(size=(3, *network.input_shape))
    ball = Ball.around(torch.from_numpy(centre if box is None else np.clip(centre, *box)), eps, norm, box)
    return view, ball, view(ball.centre).argmax(dim=1)


@settings(max_examples=40, deadline=None)
@given(networks(max_depth=4), st.sampled_from(["l2", "linf"]), st.sampled_from([None, (-1.0, 1.0)]), st.integers(0, 99))
def test_every_method_is_below_the_margins_of_points(network, norm, box, seed):
    view, ball, labels = _case(network, seed, 0.3, norm, box)
    if view.classes < 2:
        return
    small = Branching(Budget(parts=8, steps=2))
    for method in (*LOCAL_METHODS, AlphaCrown(3)):
        if method.refuses(view, norm) is not None:
            continue
        method = small if isinstance(method, Branching) else method
        found = method.margins(view, ball, labels)
        assert bool(torch.isinf(found.gather(1, labels[:, None])).all())
        for x in points_inside(ball, seed, 15):
            logits = view(x)
            room = ROUNDING * (1.0 + float(logits.abs().amax()))
            true = logits.gather(1, labels[:, None]) - logits
            others = rivals(labels, view.classes)
            assert bool((found.gather(1, others) <= true.gather(1, others) + room).all())


@settings(max_examples=25, deadline=None)
@given(networks(("dense", "relu", "elementwise", "conv", "residual"), 5), st.integers(0, 99))
def test_optimised_slopes_only_help(network, seed):
    """On the same relaxed network, more steps never give less, and none give CROWN."""
    view, ball, labels = _case(network, seed, 0.3, "l2")
    if view.classes < 2:
        return
    with torch.no_grad():
        relaxed = crown.relax_network(view, ball)
        before = crown.margins(relaxed, labels)
    found = [before] + [alpha_crown.margins(relaxed, labels, steps) for steps in (0, 2, 6)]
    for one, two in pairwise(found):
        assert bool((two >= one - ROUNDING * (1.0 + one.abs())).all())


def test_slopes_find_the_exact_margin_where_lines_suffice():
    """f_0 - f_1 = relu(x) + relu(-x) + x / 2 is 0 at least; slopes s_2 - s_1 = 1/2 prove it, CROWN's 1 and 0 do not."""
    builder = Builder((1,))
    x = builder.add(_dense([[1.0], [-1.0], [1.0]], [0.0, 0.0, 5.0]), 0)
    builder.add(_dense([[1.0, 1.0, 0.5], [0.0, 0.0, 0.0]], [-2.5, 0.0]), builder.add(Elementwise("relu"), x))
    view = View(builder.build(), dtype=torch.float64)
    ball = Ball.around(torch.tensor([[0.1]], dtype=torch.float64), 1.0, "linf")
    labels = torch.tensor([0])
    torch.testing.assert_close(float(Crown().margins(view, ball, labels)[0, 1]), -0.45)
    assert -1e-3 <= float(AlphaCrown(60).margins(view, ball, labels)[0, 1]) <= 1e-12


@pytest.mark.parametrize(
    ("eps", "interval", "linear", "optimised"), [(0.1, 20, 96, 96), (0.3, 0, 69, 73), (0.5, 0, 16, 18)]
)
def test_counts_on_a_real_network_are_no_lower_than_published(shared_data, eps, interval, linear, optimised):
    """mnist_fc_3layer, first 100 images, l2: counts of auto_LiRPA (interval propagation, CROWN, alpha-CROWN)."""
    network, images, labels = open_network(shared_data, "models/autolirpa/mnist_fc_3layer.pth")
    view = View(network)
    ball = Ball.around(view.place(torch.from_numpy(images[:100])), eps)
    target = torch.from_numpy(labels[:100])
    for method, least in ((Intervals(), interval), (Crown(), linear), (AlphaCrown(5), optimised)):
        found = method.margins(view, ball, target)
        assert int((found.amin(dim=1) > 0).sum()) >= least


def test_names_are_found_and_others_refused():
    assert [find_local(method.name) for method in LOCAL_METHODS] == list(LOCAL_METHODS)
    with pytest.raises(UsageError, match="did you mean 'crown'"):
        find_local("crwn")
