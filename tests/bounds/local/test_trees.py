"""Ellipsoids with cuts on balls and their parts: what holds, what is exact, and what can be derived again."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from local_regions import points_inside
from strategies import networks

from benchmarks.networks import open_network
from lipcert.bounds.local import trees
from lipcert.bounds.local.ascent import begin, climb
from lipcert.bounds.local.branching import Branching, Budget
from lipcert.bounds.local.crown import margins as crown_margins
from lipcert.bounds.local.crown import relax_network
from lipcert.bounds.local.ellipsoid import Multipliers, least
from lipcert.bounds.local.kinks import obstacle, seen
from lipcert.bounds.local.margins import differences
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.view import View
from lipcert.network.operators import Elementwise
from lipcert.proof.local import Evaluator, Region
from lipcert.testing.build import RELU, matrices, mlp

ROUNDING = 1e-9
LEAKY = Elementwise("leaky_relu", (np.array(0.2),))
BEND = Elementwise("abs", ())
UNTIMED = Budget(seconds=math.inf)


def _case(activation=RELU, seed=3, eps=0.8, count=2, box=None, widths=(4, 6, 5, 3)):
    """A view, relaxed balls and labels."""
    view = View(mlp(matrices(seed, *widths), activation), dtype=torch.float64)
    centre = np.random.default_rng(seed).normal(size=(count, widths[0]))
    ball = Ball.around(torch.from_numpy(centre if box is None else np.clip(centre, *box)), eps, "l2", box)
    labels = view(ball.centre).argmax(dim=1)
    return view, relax_network(view, ball), labels


def _pairs(relaxed, labels):
    """All margins of all samples as problems."""
    around = seen(relaxed, differences(relaxed.view, labels))
    samples, functions = torch.ones((len(labels), relaxed.view.classes - 1)).nonzero(as_tuple=True)
    return around, samples, functions, around.kinks(samples, functions)


def _followed(kinks, rows, dx):
    """(P, u) t and (P,) f at dx, neuron by neuron; forced neurons as the part says."""
    count = kinks.low.shape[1]
    linear = kinks.start + (rows @ dx[..., None])[..., 0]
    w = torch.zeros_like(kinks.low)
    for i in range(count):
        t = linear[:, i] + (kinks.noise[:, i] * w).sum(dim=1)
        w[:, i] = torch.where(kinks.free[:, i], t.clamp(min=0.0), 0.0)
    value = linear + (kinks.noise @ w[..., None])[..., 0]
    return value[:, :count], value[:, count]


def _rows(around, samples, functions):
    """(P, u + 1, n) the rows T and G."""
    size = around.signs.shape[1] + 1
    eye = torch.eye(size, dtype=torch.float64)
    return torch.stack([around.points(samples, functions, row.expand(len(samples), -1)) for row in eye], dim=1)


@pytest.mark.parametrize("activation", [RELU, LEAKY, BEND])
@pytest.mark.parametrize("seed", [1, 2])
def test_noises_at_kinks_are_the_network(activation, seed):
    view, relaxed, labels = _case(activation, seed)
    around, samples, functions, kinks = _pairs(relaxed, labels)
    rows = _rows(around, samples, functions)
    torch.testing.assert_close(kinks.gram, rows @ rows.mT)
    wanted = differences(view, labels)[samples, functions].flatten(1)
    assert int(kinks.free.sum()) > 0
    for x in points_inside(relaxed.ball, seed, 20):
        t, value = _followed(kinks, rows, (x - relaxed.ball.centre)[samples])
        torch.testing.assert_close(value, (wanted * view(x)[samples]).sum(dim=1))
        assert bool(((t >= kinks.low - ROUNDING) & (t <= kinks.high + ROUNDING) | ~kinks.free).all())


@pytest.mark.parametrize("activation", [RELU, LEAKY])
def test_halves_are_the_network_on_their_side(activation):
    view, relaxed, labels = _case(activation)
    around, samples, functions, kinks = _pairs(relaxed, labels)
    rows, wanted = _rows(around, samples, functions), differences(view, labels)[samples, functions].flatten(1)
    first = kinks.free.to(torch.int8).argmax(dim=1)
    column = kinks.noise[torch.arange(len(kinks)), :, first]
    carried = rows + column[:, :, None] * rows[torch.arange(len(kinks)), first][:, None]
    seen_sides = set()
    for part, own, sign in zip(kinks.halves(first), (rows, carried), (-1, 1), strict=True):
        torch.testing.assert_close(part.gram, own @ own.mT)
        for x in points_inside(relaxed.ball, 5, 30):
            dx = (x - relaxed.ball.centre)[samples]
            past, _ = _followed(kinks, rows, dx)
            inside = sign * past.gather(1, first[:, None])[:, 0] >= 0
            value = _followed(part, own, dx)[1]
            true = (wanted * view(x)[samples]).sum(dim=1)
            torch.testing.assert_close(value[inside], true[inside])
            seen_sides |= {sign} if bool(inside.any()) else set()
    assert seen_sides == {-1, 1}


@settings(max_examples=25, deadline=None)
@given(networks(("dense", "relu", "elementwise", "conv", "residual"), 4), st.integers(0, 2**16), st.booleans())
def test_any_multipliers_give_bounds_below_points(network, seed, boxed):
    view = View(network, dtype=torch.float64)
    if view.classes < 2 or obstacle(view) is not None:
        return
    box = (-1.0, 1.0) if boxed else None
    centre = np.random.default_rng(seed).normal(size=(2, *network.input_shape))
    ball = Ball.around(torch.from_numpy(centre if box is None else np.clip(centre, *box)), 0.5, "l2", box)
    labels = view(ball.centre).argmax(dim=1)
    with torch.no_grad():
        relaxed = relax_network(view, ball)
        _, samples, functions, kinks = _pairs(relaxed, labels)
        place = begin(kinks)
        near = climb(kinks, place, 7)
        generator = torch.Generator().manual_seed(seed)

        def noise(*shape):
            return torch.rand(shape, generator=generator, dtype=torch.float64)

        count = kinks.low.shape[1]
        wild = Multipliers(
            torch.exp(8 * noise(len(kinks), count) - 4), noise(len(kinks), count), noise(len(kinks), 3, count)
        )
        bounds = torch.stack([place.bounds, near.bounds, least(kinks, wild).bound])
    wanted = differences(view, labels)[samples, functions].flatten(1)
    for x in points_inside(ball, seed, 25):
        true = (wanted * view(x).flatten(1)[samples]).sum(dim=1)
        assert bool((bounds <= true + ROUNDING * (1.0 + float(view(x).abs().amax()))).all())


def test_gradients_are_those_of_differences():
    _, relaxed, labels = _case()
    _, _, _, kinks = _pairs(relaxed, labels)
    with torch.no_grad():
        at = climb(kinks, begin(kinks), 5).at
    generator = torch.Generator().manual_seed(0)
    size = at[:, 0].exp()
    cuts = 0.1 * torch.rand(at[:, 2:].shape, generator=generator, dtype=torch.float64)
    d, k = size * (1 - at[:, 1]) + 0.02, size * at[:, 1] + 0.02

    def bounds(d, k, cuts):
        found = least(kinks, Multipliers(d + k, k / (d + k), cuts), inverse=True)
        return found.bound, found

    value, found = bounds(d, k, cuts)
    assert bool(torch.isfinite(value).all()) and found.logdet is not None
    step = 1e-6
    for i in range(kinks.low.shape[1]):
        moved = torch.zeros_like(d)
        moved[:, i] = step
        for gradient, plus, minus in (
            (found.sharper, (d + moved, k, cuts), (d - moved, k, cuts)),
            (found.wider, (d, k + moved, cuts), (d, k - moved, cuts)),
        ):
            slope = (bounds(*plus)[0] - bounds(*minus)[0]) / (2 * step)
            torch.testing.assert_close(
                torch.where(kinks.free, gradient, 0.0)[:, i], slope, rtol=1e-3, atol=1e-4 * float(value.abs().amax())
            )
        for c in range(3):
            weights = torch.zeros_like(cuts)
            weights[:, c, i] = step
            slope = (bounds(d, k, cuts + weights)[0] - bounds(d, k, cuts - weights)[0]) / (2 * step)
            torch.testing.assert_close(found.cutting[:, c, i], slope, rtol=1e-3, atol=1e-4 * float(value.abs().amax()))


def test_the_edge_of_the_cone_raises_no_bound():
    """Matrices that are positive definite by next to nothing, or not: the bounds still are below the margins."""
    view, relaxed, labels = _case(eps=1.5)
    _, samples, functions, kinks = _pairs(relaxed, labels)
    with torch.no_grad():
        inner, outer = begin(kinks).at, begin(kinks).at.clone()
        outer[:, 1] = 0.0  # no k
        outer[:, 0] += 3.0
        lowest = torch.full((len(kinks),), torch.inf, dtype=torch.float64)
        wanted = differences(view, labels)[samples, functions].flatten(1)
        for x in points_inside(relaxed.ball, 0, 300):
            lowest = torch.minimum(lowest, (wanted * view(x)[samples]).sum(dim=1))
        below, above = torch.zeros(len(kinks), dtype=torch.float64), torch.ones(len(kinks), dtype=torch.float64)
        met = 0
        for _ in range(60):
            share = ((below + above) / 2)[:, None, None]
            at = inner + share * (outer - inner)
            bound = least(kinks, Multipliers(at[:, 0].exp(), at[:, 1], at[:, 2:])).bound
            assert bool((bound <= lowest + ROUNDING).all())
            inside = torch.isfinite(bound)
            met += int(inside.sum())
            below, above = torch.where(inside, share[:, 0, 0], below), torch.where(inside, above, share[:, 0, 0])
    assert 0 < met < 60 * len(kinks)


def test_bounds_of_whole_balls_are_nearly_exact():
    """The least value of a function of two inputs on a disk, found by looking everywhere."""
    view = View(mlp([np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0, -1.0], [0.0, 0.0]])]), dtype=torch.float64)
    ball = Ball.around(torch.zeros((1, 2), dtype=torch.float64), 1.0)
    one = torch.zeros(1, dtype=torch.int64)
    with torch.no_grad():
        kinks = seen(relax_network(view, ball), differences(view, one)).kinks(one, one)
        found = float(climb(kinks, begin(kinks), 100).bounds[0])
        angle, radius = torch.meshgrid(torch.linspace(0, 2 * math.pi, 2001), torch.linspace(0, 1, 201), indexing="ij")
        x = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1).reshape(-1, 2).double()
        values = view(x)
    truth = float((values[:, 0] - values[:, 1]).amin())
    assert truth - 0.02 <= found <= truth + 1e-4


def _grown(relaxed, labels, budget):
    known = crown_margins(relaxed, labels)
    with torch.no_grad():
        return trees.raised(known, trees.grow(relaxed, labels, known, budget))


def test_a_bound_does_not_depend_on_the_batch():
    _, relaxed, labels = _case(seed=11, eps=1.0, count=9, widths=(6, 12, 10, 4))
    together = _grown(relaxed, labels, UNTIMED)
    for k in range(len(labels)):
        row = torch.tensor([k])
        torch.testing.assert_close(
            _grown(relaxed.take(row), labels[row], UNTIMED)[0], together[k], rtol=1e-3, atol=1e-4
        )


def test_cuts_prove_what_whole_balls_leave_open(monkeypatch):
    """With few steps on the whole ball more parts prove more, never less, and all bounds hold."""
    monkeypatch.setattr(trees, "STEPS", 1)
    monkeypatch.setattr(trees, "_STAGE", 1)
    view, relaxed, labels = _case(seed=11, eps=0.9, count=30, widths=(6, 12, 10, 4))
    whole, cut = (_grown(relaxed, labels, replace(UNTIMED, balls=balls)) for balls in (0, 60))
    known = crown_margins(relaxed, labels)
    assert bool((whole >= known).all())
    assert int((cut > 0).all(dim=1).sum()) > int((whole > 0).all(dim=1).sum())
    rows = differences(view, labels).flatten(2)
    for x in points_inside(relaxed.ball, 1, 100):
        true = (rows @ view(x)[..., None])[..., 0]
        assert bool((cut <= true + ROUNDING).all()) and bool((whole <= true + ROUNDING).all())


def test_networks_without_unstable_neurons_and_samples_without_numbers_pass_through():
    view, relaxed, labels = _case(eps=1e-6)
    found = Branching(UNTIMED).margins(view, relaxed.ball, (labels + 1) % 3)
    assert bool((found.amin(dim=1) < 0).all())
    images = torch.full((2, 4), torch.nan, dtype=torch.float64)
    found = Branching(UNTIMED).margins(view, Ball.around(images, 0.5), torch.zeros(2, dtype=torch.int64))
    assert bool((found[:, 1:] == -torch.inf).all())


def test_what_is_proved_of_a_real_network_is_derived_again(shared_data):
    """Samples that neither CROWN nor plain multipliers prove; every rounding error counted."""
    network, images, labels = open_network(shared_data, "models/autolirpa/mnist_fc_3layer.pth")
    rows, eps = np.array([21, 36, 47, 55, 67]), 0.5
    view, method = View(network), Branching(UNTIMED)
    target = torch.from_numpy(labels[rows])
    found = method.bound(view, Ball.around(view.place(torch.from_numpy(images[rows])), eps), target)
    assert bool((found.margins.amin(dim=1) > 0).all())
    region = Region.around(images[rows], eps, "l2")
    proposal = found.proposal(torch.arange(len(rows)))
    verified = method.verified_margins(Evaluator(network), region, labels[rows], proposal)
    assert int((verified.min(axis=1) > 0).sum()) >= 4
    from_multipliers = method.verified_margins(Evaluator(network), region, labels[rows], replace(proposal, parts=None))
    assert not (from_multipliers.min(axis=1) > 0).any()
