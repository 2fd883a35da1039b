"""An attack counts only when it is one; projections are projections."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import chain, labelled, random_chain
from test_margins import decide

from lipcert.network.evaluate import evaluate
from lipcert.robustness.attack import Attack, Attacker, distances, project, steepest, within

NORMS = ("l1", "l2", "linf")
ORDER = {"l1": 1, "l2": 2, "linf": np.inf}


@pytest.mark.parametrize("norm", NORMS)
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_projection_is_nearest(norm, seed):
    rng = np.random.default_rng(seed)
    shift = torch.from_numpy(rng.normal(size=(1, 6)) * rng.choice([0.01, 1.0, 10.0]))
    found = project(shift, norm, 1.0).numpy()[0]
    assert np.linalg.norm(found, ORDER[norm]) <= 1.0 + 1e-12
    gap = shift.numpy()[0] - found
    # the nearest point of a convex set: no other point of it lies on the gap's side
    for other in rng.normal(size=(200, 6)):
        other = other / np.linalg.norm(other, ORDER[norm])
        assert gap @ (other - found) <= 1e-9 * (1 + np.abs(gap).max())


@pytest.mark.parametrize("norm", NORMS)
def test_inside_points_stay(norm):
    shift = torch.tensor([[0.1, -0.2, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(project(shift, norm, 1.0), shift)


@pytest.mark.parametrize("norm", NORMS)
def test_steps_have_norm_one_and_rise(norm):
    slope = torch.randn(5, 2, 30, generator=torch.Generator().manual_seed(0))
    step = steepest(slope, norm)
    sizes = np.linalg.norm(step.reshape(5, -1).numpy(), ORDER[norm], axis=1)
    np.testing.assert_allclose(sizes, 1.0, rtol=1e-5)
    assert ((step * slope).flatten(1).sum(dim=1) > 0).all()
    assert torch.isfinite(steepest(torch.zeros(2, 4), norm)).all()


@pytest.mark.parametrize("norm", NORMS)
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_distances_are_upper_bounds(norm, seed):
    rng = np.random.default_rng(seed)
    shift = np.abs(rng.normal(size=(1, 9))) * 10.0 ** rng.uniform(-170, 10)
    row = [Fraction(float(v)) for v in shift[0]]
    found = Fraction(float(distances(shift, norm)[0]))
    if norm == "l2":
        assert found**2 >= sum(v * v for v in row)
    else:
        assert found >= (max(row) if norm == "linf" else sum(row))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_what_counts_is_an_adversarial_example(norm, activation):
    network = random_chain(0, activation=activation)
    images, labels = labelled(network, 60, scale=0.3)
    box = (float(images.min()), float(images.max()))
    eps = {"l1": 0.5, "l2": 0.3, "linf": 0.15}[norm]
    broken, found = Attacker(network, Attack(), norm, box).run(images, labels, eps)
    assert 0 < broken.sum() < 60
    shift = np.abs(found.astype(np.longdouble) - images.astype(np.longdouble))
    assert (np.linalg.norm(shift, ORDER[norm], axis=1) <= eps).all()
    assert (found >= box[0]).all() and (found <= box[1]).all()
    logits = evaluate(network, found.astype(float))
    rows = np.arange(60)
    rival = np.where(np.arange(4)[None] == labels[:, None], -np.inf, logits).max(axis=1)
    assert (rival[broken] >= logits[rows, labels][broken] - 1e-5).all()
    np.testing.assert_array_equal(found[~broken], images[~broken])


def test_what_lies_outside_the_box_is_tried_where_claims_are_about_the_ball():
    """Logits (0, x - 1): from 0.9 and 0.5 with eps 0.2, only 1.1 is adversarial, outside the box [0, 0.95]."""
    network = chain((np.array([[0.0], [1.0]]), np.array([0.0, -1.0])))
    images, labels = np.array([[0.9], [0.5]], np.float32), np.array([0, 0])
    assert not Attacker(network, Attack(), "l2", (0.0, 0.95)).run(images, labels, 0.2)[0].any()
    broken, found = Attacker(network, Attack(), "l2", (0.0, 0.95), beyond=True).run(images, labels, 0.2)
    np.testing.assert_array_equal(broken, [True, False])
    assert found[0, 0] >= 1.0 and found[1, 0] == 0.5


@pytest.mark.parametrize("norm", NORMS)
def test_points_outside_the_ball_do_not_count(norm, monkeypatch):
    """Even if the projection were wrong, what is reported lies inside."""
    monkeypatch.setattr("lipcert.robustness.attack._SHRINK", 1.2)
    network = random_chain(0)
    images, labels = labelled(network, 60, scale=0.3)
    eps = {"l1": 0.5, "l2": 0.3, "linf": 0.15}[norm]
    _, found = Attacker(network, Attack(), norm, (-10.0, 10.0)).run(images, labels, eps)
    shift = found.astype(np.longdouble) - images.astype(np.longdouble)
    assert (np.linalg.norm(shift, ORDER[norm], axis=1) <= eps).all()


@pytest.mark.parametrize("norm", NORMS)
def test_linear_networks_fall_just_beyond_their_radius(norm):
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(4, 10)), rng.normal(size=4)
    network = chain((weight, bias))
    images, labels = labelled(network, 30)
    radius = decide(network, images, labels, norm=norm).radius
    for x, label, r in zip(images, labels, radius, strict=True):
        attacker = Attacker(network, Attack(steps=60, restarts=3), norm, (-100.0, 100.0))
        broken, _ = attacker.run(x[None], np.array([label]), float(r) * 1.05)
        assert broken[0]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_no_attack_succeeds_inside_a_certified_radius(norm, activation):
    network = random_chain(5, activation=activation)
    images, labels = labelled(network, 40)
    for level in ("verified", "verified-exec"):
        radius = decide(network, images, labels, norm=norm, level=level).radius
        assert (radius > 0).mean() > 0.8
        for row in np.flatnonzero(radius > 0)[:12]:
            attacker = Attacker(network, Attack(steps=15, restarts=2), norm, (-1e3, 1e3))
            broken, _ = attacker.run(images[row : row + 1], labels[row : row + 1], float(radius[row]))
            assert not broken.any()


def test_a_tie_is_a_success_and_nan_is_not():
    tie = chain((np.array([[1.0], [1.0]]), np.zeros(2)))
    assert Attacker(tie, Attack(), "l2", (-1.0, 1.0)).run(np.ones((1, 1), np.float32), np.array([0]), 0.1)[0].all()
    broken = chain((np.array([[1e38], [-1e38]]), np.zeros(2)), (np.full((2, 2), 1e38), np.zeros(2)))
    x = np.ones((1, 1), np.float32)
    assert not Attacker(broken, Attack(), "l2", (-1.0, 1.0)).run(x, np.array([0]), 0.1)[0].any()


def test_the_border_of_the_ball_is_judged_in_float64():
    centre = np.zeros((1, 1), np.float32)
    assert within(np.full((1, 1), 0.5, np.float32), centre, "l2", 0.5000001)[0]
    assert not within(np.full((1, 1), np.float32(0.1)), centre, "l2", 0.1)[0]  # float32(0.1) > 0.1


def test_the_same_seed_gives_the_same_result():
    network = random_chain(0)
    images, labels = labelled(network, 30)
    runs = [Attacker(network, Attack(seed=3), "l2", (-5.0, 5.0)).run(images, labels, 0.5) for _ in range(2)]
    np.testing.assert_array_equal(runs[0][1], runs[1][1])
