"""Parts of regions: what is proved of all of them holds of the whole, and is exact where the tree is exhausted."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from local_regions import points_inside
from scipy.optimize import minimize
from strategies import networks

from benchmarks.networks import open_network
from lipcert.bounds.local.branching import Branching, Budget
from lipcert.bounds.local.crown import margins as crown_margins
from lipcert.bounds.local.crown import relax_network
from lipcert.bounds.local.cuts import cut_bounds, first_starts
from lipcert.bounds.local.domains import bounded, split, whole
from lipcert.bounds.local.margins import differences, rivals
from lipcert.bounds.local.method import Crown
from lipcert.bounds.local.radius import Search, certified_radius
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.view import View
from lipcert.errors import UsageError
from lipcert.network import Builder
from lipcert.network.operators import Scale
from lipcert.testing.build import RELU, dense, exact, matrices, mlp

ROUNDING = 1e-9
BLOCKS = ("dense", "relu", "elementwise", "conv", "residual")
UNTIMED = Budget(parts=16, seconds=math.inf, steps=4)


def _view(network):
    return View(network, dtype=torch.float64)


def _ball(view, eps, seed, norm="l2", box=None, count=3):
    centre = np.random.default_rng(seed).normal(size=(count, *view.network.input_shape))
    return Ball.around(torch.from_numpy(centre if box is None else np.clip(centre, *box)), eps, norm, box)


def _rival_margins(view, x, labels):
    logits = view(x)
    return logits.gather(1, labels[:, None]) - logits.gather(1, rivals(labels, view.classes))


@settings(max_examples=12, deadline=None)
@given(
    networks(BLOCKS, 4),
    st.sampled_from(["l1", "l2", "linf"]),
    st.sampled_from([None, (-1.0, 1.0)]),
    st.integers(0, 2**16),
)
def test_margins_are_below_those_of_points(network, norm, box, seed):
    view, method = _view(network), Branching(UNTIMED)
    if view.classes < 2 or method.refuses(view, norm) is not None:
        return
    ball = _ball(view, 0.5, seed, norm, box)
    labels = view(ball.centre).argmax(dim=1)
    found = method.margins(view, ball, labels).gather(1, rivals(labels, view.classes))
    assert bool(torch.isfinite(found).all())
    for x in points_inside(ball, seed, 25):
        room = ROUNDING * (1.0 + float(view(x).abs().amax()))
        assert bool((found <= _rival_margins(view, x, labels) + room).all())


@settings(max_examples=25, deadline=None)
@given(networks(BLOCKS, 4), st.integers(0, 2**16))
def test_parts_cover_the_region_and_their_bounds_hold(network, seed):
    """Every point is in some part, and its margins are above that part's bounds."""
    view = _view(network)
    if view.classes < 2 or Branching().refuses(view, "l2") is not None or not view.nonlinear_inputs:
        return
    ball = _ball(view, 0.5, seed, count=2)
    labels = view(ball.centre).argmax(dim=1)
    with torch.no_grad():
        relaxed = relax_network(view, ball)
        parts = whole(view, relaxed, crown_margins(relaxed, labels))
        for _ in range(3):
            halves, stuck = split(view, ball, labels, parts)
            if not len(halves):
                break
            parts = bounded(view, ball, labels, halves, 3).join(parts.take(stuck))
    for x in points_inside(ball, seed, 15):
        trace = [value[parts.samples] for value in view.trace(x)]
        inside = torch.ones(len(parts), dtype=torch.bool)
        for index, (low, high) in parts.boxes.items():
            room = 1e-9 * (1.0 + trace[index].abs())
            held = (trace[index] >= low - room) & (trace[index] <= high + room)
            inside &= held.flatten(1).all(dim=1)
        assert set(parts.samples[inside].tolist()) == {0, 1}
        true = _rival_margins(view, x, labels)[parts.samples]
        room = ROUNDING * (1.0 + float(view(x).abs().amax()))
        assert bool((parts.bounds <= true + room)[inside].all())


def _least_margin(view, ball, label):
    """The least margin that a search from many points finds, by SLSQP in float64."""
    centre, eps = ball.centre[0].numpy(), float(ball.eps[0])

    def margin(d):
        found = _rival_margins(view, torch.from_numpy(centre + d)[None], label[None])
        return float(found.amin())

    rng = np.random.default_rng(0)
    room = {"type": "ineq", "fun": lambda d: eps**2 - d @ d}
    best = math.inf
    for _ in range(20):
        start = rng.normal(size=centre.shape)
        start *= eps * rng.uniform(0.3, 0.95) / np.linalg.norm(start)
        d = minimize(margin, start, constraints=[room]).x
        best = min(best, margin(d * min(1.0, eps / max(np.linalg.norm(d), 1e-12))))
    return best


@pytest.mark.parametrize("seed", range(4))
def test_exhausted_trees_decide_at_the_least_margin(seed):
    """Moving one output's bias, the sample is certified a little above the least margin and cannot be below it."""
    view = _view(mlp(matrices(seed, 3, 5, 4, 3)))
    ball = _ball(view, 0.9, seed, count=1)
    labels = view(ball.centre).argmax(dim=1)
    least = _least_margin(view, ball, labels[0])
    size = 1.0 + float(view(ball.centre).abs().amax())
    for shift, certified in ((-least + 0.03 * size, True), (-least - 1e-6 * size, False)):
        moved = _view(_with_margin(seed, int(labels[0]), shift))
        found = Branching(Budget(10**4, math.inf, 20, 10**4)).margins(moved, ball, labels)
        assert bool((found > 0).all()) == certified


def _with_margin(seed, label, shift):
    """The same network, all margins of a label raised by a number."""
    builder = Builder((3,))
    last = 0
    for k, weight in enumerate(matrices(seed, 3, 5, 4, 3)):
        last = builder.add(dense(weight), builder.add(RELU, last) if k else last)
    builder.add(Scale(exact(np.ones(3)), exact(shift * np.eye(3)[label])), last)
    return builder.build()


def test_cuts_use_the_boxes():
    """On the part z <= 1/2 of a ball, the least value of -relu(z) is -1/2; lines without cuts go down to the ball's."""
    view = _view(mlp([np.array([[1.0]]), np.array([[-1.0]])]))
    ball = Ball.around(torch.zeros((1, 1), dtype=torch.float64), 1.0)
    known = {1: (torch.tensor([[-9.0]], dtype=torch.float64), torch.tensor([[0.5]], dtype=torch.float64))}
    relaxed = relax_network(view, ball, known=known)
    rows = torch.ones((1, 1, 1), dtype=torch.float64)
    found = [float(cut_bounds(relaxed, rows, first_starts(relaxed), steps)[0]) for steps in (0, 60)]
    exact_least = float(view.maps[3].offset) - 0.5  # -relu(z), z <= 1/2
    assert found[1] <= exact_least + ROUNDING
    assert found[1] >= found[0] and found[1] >= exact_least - 1e-3


def test_more_parts_never_prove_less():
    view = _view(mlp(matrices(7, 6, 12, 12, 3)))
    ball = _ball(view, 0.5, 1, count=8)
    labels = view(ball.centre).argmax(dim=1)
    counts = [0, 8, 128]
    found = [
        Branching(Budget(parts, math.inf, 4, parts)).margins(view, ball, labels).amin(dim=1) > 0 for parts in counts
    ]
    plain = Crown().margins(view, ball, labels).amin(dim=1) > 0
    for one, two in pairwise([plain, *found]):
        assert bool((two | ~one).all())
    assert int(found[-1].sum()) > int(plain.sum())


def test_what_is_not_a_number_is_never_certified():
    view = _view(mlp(matrices(2, 3, 4, 3, 2)))
    images = torch.tensor([[0.0, 0.1, 0.2], [torch.nan, 0.0, 0.0]], dtype=torch.float64)
    found = Branching(UNTIMED).margins(view, Ball.around(images, 0.1), torch.zeros(2, dtype=torch.int64))
    assert float(found[1, 1]) == -math.inf
    large = View(mlp([w * 1e30 for w in matrices(2, 3, 4, 3, 2)]), dtype=torch.float32)
    found = Branching(UNTIMED).margins(large, Ball.around(torch.ones((1, 3)), 0.5), torch.zeros(1, dtype=torch.int64))
    assert float(found[0, 1]) == -math.inf


def test_branching_proves_what_crown_proves_on_a_real_network(shared_data):
    network, images, labels = open_network(shared_data, "models/autolirpa/mnist_fc_3layer.pth")
    view = View(network)
    target = torch.from_numpy(labels[:20])
    ball = Ball.around(view.place(torch.from_numpy(images[:20])), 0.1, "l2", (0.0, 1.0))
    found = Branching(Budget(100, math.inf, 4)).margins(view, ball, target).amin(dim=1) > 0
    assert bool((found | ~(Crown().margins(view, ball, target).amin(dim=1) > 0)).all())


def test_radii_of_a_linear_network_are_exact():
    """Of an affine function the distance to the nearest boundary is known."""
    weight = matrices(3, 5, 4)[0]
    view = _view(mlp([weight]))
    ball = _ball(view, 1.0, 2, count=6)
    labels = view(ball.centre).argmax(dim=1)
    rows = differences(view, labels)
    gradients = torch.linalg.vector_norm(rows @ torch.from_numpy(weight), dim=2)
    truth = (_rival_margins(view, ball.centre, labels) / gradients).amin(dim=1)
    found = certified_radius(Crown(), view, ball.centre, labels, Search(1e-4, 10.0, rounds=40))
    assert bool((found <= truth * (1.0 + 1e-12)).all())
    torch.testing.assert_close(found, truth, rtol=1e-6, atol=0)


def test_radii_are_zero_where_nothing_is_proved_and_stop_at_the_end():
    view = _view(mlp(matrices(3, 5, 4)))
    ball = _ball(view, 1.0, 2, count=2)
    labels = view(ball.centre).argmax(dim=1)
    images = ball.centre.clone()
    images[1, 0] = torch.nan
    found = certified_radius(Crown(), view, images, labels, Search(1e-9, 2e-9))
    assert found.tolist() == [2e-9, 0.0]
    wrong = certified_radius(Crown(), view, ball.centre, (labels + 1) % 4, Search(1e-9, 1.0))
    assert wrong.tolist() == [0.0, 0.0]


def test_every_radius_is_proved_by_the_method():
    view = _view(mlp(matrices(9, 6, 10, 10, 3)))
    ball = _ball(view, 1.0, 4, count=10)
    labels = view(ball.centre).argmax(dim=1)
    found = certified_radius(Crown(), view, ball.centre, labels, Search(1e-3, 1.0))
    rows = (found > 0).nonzero()[:, 0]
    assert len(rows)
    again = Crown().margins(view, Ball.around(ball.centre[rows], found[rows]), labels[rows])
    assert bool((again > 0).all())


@pytest.mark.parametrize("search", [Search(0.0, 1.0), Search(2.0, 1.0), Search(math.nan, 1.0)])
def test_empty_ranges_are_refused(search):
    view = _view(mlp(matrices(3, 5, 4)))
    with pytest.raises(UsageError, match="no range"):
        certified_radius(Crown(), view, torch.zeros((1, 5), dtype=torch.float64), torch.zeros(1).long(), search)
