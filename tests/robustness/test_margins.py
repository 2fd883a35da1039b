"""Radii are below the exact distance to the decision boundary, and near it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import chain, random_chain, scaled

from lipcert.network import Enclosure
from lipcert.network.evaluate import evaluate
from lipcert.network.operators import Softmax
from lipcert.robustness.basis import make_basis
from lipcert.robustness.margins import Margins, l2_dilation, margin_slopes
from lipcert.robustness.passes.forward import Deployed
from lipcert.robustness.passes.head import Head
from lipcert.robustness.settings import Settings
from lipcert.robustness.stages.stage import GlobalStage
from lipcert.robustness.verdicts import Status, Verdicts

NORMS = ("l1", "l2", "linf")


def decide(network, images, labels, **settings):
    chosen = Settings(**({"eps": (1.0,), "method": "product"} | settings))
    basis = make_basis(network, chosen)
    images, labels = np.asarray(images, dtype=np.float32), np.asarray(labels, dtype=np.int64)
    verdicts = Verdicts.unknown(np.arange(len(labels)), labels, len(chosen.eps))
    GlobalStage(basis.passes(len(labels)), basis.margins, chosen.eps).decide(images, verdicts, 0)
    return verdicts


def _fractions(values):
    return [Fraction(float(v)) for v in values]


def _exact_margins(weight, bias, x, label):
    """Margins and, for each rival, the difference of the rows: all exact."""
    logits = [
        sum((a * b for a, b in zip(_fractions(row), _fractions(x), strict=True)), Fraction(float(c)))
        for row, c in zip(weight, bias, strict=True)
    ]
    rivals = [j for j in range(len(weight)) if j != label]
    rows = [[a - b for a, b in zip(_fractions(weight[label]), _fractions(weight[j]), strict=True)] for j in rivals]
    return [logits[label] - logits[j] for j in rivals], rows


def _at_most(radius: Fraction, margin, row, norm):
    """Whether radius * ||row||_q <= margin, in exact arithmetic."""
    if norm == "l2":
        return radius**2 * sum(a * a for a in row) <= margin**2
    size = max(map(abs, row)) if norm == "l1" else sum(map(abs, row))
    return radius * size <= margin


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("seed", range(8))
def test_linear_networks_are_exact(norm, seed):
    rng = np.random.default_rng(seed)
    classes, inputs = int(rng.integers(2, 12)), int(rng.integers(1, 20))
    weight = rng.normal(size=(classes, inputs)).astype(np.float32).astype(np.float64)
    bias = rng.normal(size=classes)
    images = rng.normal(size=(5, inputs)).astype(np.float32)
    labels = (images @ weight.T + bias).argmax(axis=1)
    radii = decide(chain((weight, bias)), images, labels, norm=norm).radius
    for x, label, radius in zip(images, labels, radii, strict=True):
        margins, rows = _exact_margins(weight, bias, x, label)
        below, above = Fraction(float(radius)), Fraction(float(radius) * (1 + 1e-6))
        assert all(_at_most(below, m, row, norm) and m > 0 for m, row in zip(margins, rows, strict=True))
        assert not all(_at_most(above, m, row, norm) for m, row in zip(margins, rows, strict=True))


def test_the_radius_is_below_a_tie():
    """At distance exactly 1 both logits are equal: a loss."""
    network = chain((np.array([[1.0], [-1.0]]), np.zeros(2)))
    verdicts = decide(network, [[1.0]], [0])
    assert 1 - 1e-9 <= verdicts.radius[0] < 1.0
    assert verdicts.status[0, 0] == Status.UNKNOWN


@pytest.mark.parametrize("quantity", ["features", "output"])
def test_ties_are_losses(quantity):
    network = chain((np.eye(3), np.zeros(3)), (np.array([[1.0, 0, 0], [1.0, 0, 0], [0, 0, 1.0]]), np.zeros(3)))
    verdicts = decide(network, [[5.0, 1.0, 0.0]], [0], quantity=quantity)
    assert verdicts.radius[0] == 0
    assert verdicts.status[0, 0] == Status.MISCLASSIFIED


def test_every_rival_counts():
    """The tenth best rival is the nearest one, since its row differs most."""
    classes, inputs = 100, 100
    weight = np.eye(classes, inputs) * 1e-3
    weight[99] *= -1e6
    bias = -0.01 * np.arange(classes)
    bias[99] = -10.0
    network = chain((weight, bias))
    x = np.zeros((1, inputs))
    radius = decide(network, x, [0]).radius[0]
    margins = np.delete(bias[0] - bias, 0)
    sizes = np.delete(np.linalg.norm(weight[0] - weight, axis=1), 0)
    assert margins.argsort()[-1] == 98  # the worst logit of all
    assert np.argmin(margins / sizes) == 98
    assert radius <= (margins / sizes).min()
    assert radius == pytest.approx((margins / sizes).min(), rel=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_constants_of_the_output_form(norm):
    found = Head.identity(4).differences(norm)
    order = {"l1": np.inf, "l2": 2, "linf": 1}[norm]
    exact = np.linalg.norm(np.array([1.0, -1.0]), order)
    off = ~np.eye(4, dtype=bool)
    assert (found[off] >= exact).all() and (found[off] <= exact * (1 + 1e-15)).all()
    assert (np.diag(found) == 0).all()


@pytest.mark.parametrize("norm", NORMS)
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_row_differences_are_upper_bounds(norm, seed):
    rng = np.random.default_rng(seed)
    mid = rng.normal(size=(4, 5)) * 10.0 ** rng.uniform(-20, 20)
    rad = np.abs(mid) * rng.choice([0.0, 1e-10, 0.1])
    weight = Enclosure(mid, rad)
    found = Head(weight, Enclosure.exact(np.zeros(4)), 4).differences(norm)
    true = mid + rad * rng.uniform(-1, 1, mid.shape) * (1 - 1e-15)
    for y in range(4):
        for j in set(range(4)) - {y}:
            row = [a - b for a, b in zip(_fractions(true[y]), _fractions(true[j]), strict=True)]
            if norm == "l2":
                assert Fraction(found[y, j]) ** 2 >= sum(a * a for a in row)
            else:
                exact = max(map(abs, row)) if norm == "l1" else sum(map(abs, row))
                assert Fraction(found[y, j]) >= exact


def test_equal_rows_never_rival():
    """Two classes that differ by their bias alone keep their order everywhere."""
    weight = np.array([[1.0, 2.0], [1.0, 2.0]])
    verdicts = decide(chain((weight, np.array([1.0, 0.0]))), [[3.0, 4.0]], [0], eps=(1e6,))
    assert verdicts.status[0, 0] == Status.CERTIFIED
    assert np.isfinite(verdicts.radius[0])


@pytest.mark.parametrize("exponent", [-60, -7, 40])
def test_moving_a_factor_between_layers_changes_nothing(exponent):
    network = random_chain(3, sizes=(5, 8, 4))
    first, last = (network.nodes[i].op for i in (1, 3))
    factor = 2.0**exponent
    moved = chain((first.weight.mid * factor, first.bias.mid * factor), (last.weight.mid / factor, last.bias.mid))
    images = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    labels = evaluate(network, images.astype(float)).argmax(axis=1)
    one, two = (decide(n, images, labels).radius for n in (network, moved))
    np.testing.assert_allclose(one, two, rtol=1e-6)
    assert (one > 0).all()


def test_tiny_weights_do_not_certify_everything():
    weight = np.full((2, 3), 1e-200) * np.array([[1.0], [-1.0]])
    network = chain((np.eye(3) * 1e-200, np.zeros(3)), (weight, np.zeros(2)))
    verdicts = decide(network, [[1.0, 1.0, 1.0]], [0], eps=(100.0,))
    assert verdicts.status[0, 0] != Status.CERTIFIED


def test_scaling_the_output_changes_nothing():
    network = random_chain(1)
    images = np.random.default_rng(0).normal(size=(10, 6)).astype(np.float32)
    labels = evaluate(network, images.astype(float)).argmax(axis=1)
    one, two = (decide(n, images, labels).radius for n in (network, scaled(network, 3.0)))
    np.testing.assert_allclose(one, two, rtol=1e-6)


def test_a_last_softmax_is_set_aside():
    network = random_chain(2)
    soft = chain(
        *((network.nodes[i].op.weight.mid, network.nodes[i].op.bias.mid) for i in (1, 3, 5)), tail=[Softmax(0)]
    )
    images = np.random.default_rng(0).normal(size=(10, 6)).astype(np.float32)
    labels = evaluate(network, images.astype(float)).argmax(axis=1)
    np.testing.assert_array_equal(decide(network, images, labels).radius, decide(soft, images, labels).radius)


def test_a_last_activation_is_not_ignored():
    """Behind a ReLU the losing logits may be equal to the winner's: no head, one bound for all."""
    weights = (np.array([[1.0, 0.0], [0.0, 1.0]]), np.zeros(2))
    from lipcert.network.operators import Elementwise

    network = chain(weights, tail=[Elementwise("relu")])
    verdicts = decide(network, [[1.0, -50.0], [-1.0, -50.0]], [0, 0])
    assert verdicts.radius[0] < 1.0  # at (0, -50) both outputs are 0
    assert verdicts.status[1, 0] == Status.MISCLASSIFIED


def test_the_dilation_joins_norms():
    for norm, order in (("l1", 1), ("l2", 2), ("linf", np.inf)):
        factor = l2_dilation(7, norm)
        for d in np.random.default_rng(0).normal(size=(50, 7)):
            assert np.linalg.norm(d) <= factor * np.linalg.norm(d, order) * (1 + 1e-15)


def test_slopes_do_not_underflow_to_zero():
    assert (margin_slopes(1e-300, np.full((1, 1), 1e-300)) > 0).all()
    assert (margin_slopes(0.0, np.ones((1, 1))) == 0).all()


@pytest.mark.parametrize("norm", NORMS)
def test_verified_exec_is_at_most_verified(norm):
    network = random_chain(4)
    images = np.random.default_rng(1).normal(size=(20, 6)).astype(np.float32)
    labels = evaluate(network, images.astype(float)).argmax(axis=1)
    plain = decide(network, images, labels, norm=norm).radius
    deployed = decide(network, images, labels, norm=norm, level="verified-exec").radius
    assert (deployed < plain).all()
    np.testing.assert_allclose(deployed, plain, atol=1e-3)
    assert (deployed > 0).any()


def test_the_deployed_error_grows_with_the_radius():
    """m - sqrt 2 (base + growth c r) = s r  at  r = (m - sqrt 2 base) / (s + sqrt 2 growth c)."""
    slopes, spread = np.array([[0.0, 2.0], [2.0, 0.0]]), np.zeros((2, 2))
    margins, labels = np.array([[np.inf, 3.0]] * 2), np.array([0, 0])
    deployed = Deployed(np.array([0.5, 0.5]), 0.25, np.array([np.inf, 0.75]))
    for dilation in (1.0, 3.0):
        radii = Margins(slopes, spread, dilation).radii(margins, labels, deployed)
        exact = (3.0 - 0.5 * np.sqrt(2)) / (2.0 + 0.25 * np.sqrt(2) * dilation)
        assert exact * (1 - 1e-12) <= radii[0] < exact
        assert radii[1] <= 0.75 / dilation
        assert radii[1] == pytest.approx(min(exact, 0.75 / dilation), rel=1e-9)


def test_a_deployed_tie_is_not_certified():
    """In float32 the margin 2^-30 is rounded away: the real network separates the classes, the deployed one ties."""
    weight = np.array([[2.0**12, 2.0**-12], [2.0**12, 0.0]])
    network = chain((weight, np.zeros(2)))
    x, label = [[1.0, 2.0**-18]], [0]
    assert decide(network, x, label, eps=(1e-7,)).status[0, 0] == Status.CERTIFIED
    assert decide(network, x, label, eps=(1e-7,), level="verified-exec").status[0, 0] != Status.CERTIFIED
