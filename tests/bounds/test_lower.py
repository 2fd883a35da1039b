"""Lower bounds are below the truth, and near it where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import networks

from lipcert.bounds.engine import bound
from lipcert.bounds.lower import lower_bound
from lipcert.errors import UsageError
from lipcert.network import Builder, Enclosure
from lipcert.network.evaluate import evaluate
from lipcert.network.operators import Dense, Elementwise

NORMS = ("l1", "l2", "linf")
ORDER = {"l1": 1, "l2": 2, "linf": np.inf}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _chain(*weights, activation="relu"):
    builder = Builder((weights[0].shape[1],))
    x = 0
    for number, weight in enumerate(weights):
        x = builder.add(Dense(Enclosure.exact(weight), Enclosure.exact(np.zeros(len(weight)))), x)
        if number < len(weights) - 1:
            x = builder.add(Elementwise(activation), x)
    return builder.build()


@pytest.mark.parametrize("norm", NORMS)
def test_a_matrix_has_its_norm(norm):
    weight = np.random.default_rng(0).normal(size=(7, 5))
    exact = np.linalg.norm(weight, ORDER[norm])
    found = lower_bound(_chain(weight), norm, seconds=0.3).value
    assert exact * (1 - 1e-6) <= found <= exact


@pytest.mark.parametrize("norm", NORMS)
def test_a_wide_output_goes_by_the_power_method(norm, monkeypatch):
    monkeypatch.setattr("lipcert.bounds.lower.EXPLICIT", 0)
    weight = np.random.default_rng(0).normal(size=(7, 5))
    exact = np.linalg.norm(weight, ORDER[norm])
    assert exact * (1 - 1e-6) <= lower_bound(_chain(weight), norm, seconds=0.3).value <= exact


@pytest.mark.parametrize("norm", NORMS)
def test_all_gates_of_one_layer(norm):
    """With as many inputs as neurons every pattern of gates occurs, so the exact constant is the largest of all."""
    rng = np.random.default_rng(3)
    first, last = rng.normal(size=(6, 8)), rng.normal(size=(3, 6))
    patterns = [np.array([bits >> k & 1 for k in range(6)]) for bits in range(64)]
    exact = max(np.linalg.norm((last * gates) @ first, ORDER[norm]) for gates in patterns)
    found = lower_bound(_chain(first, last), norm, seconds=2.0).value
    assert exact * (1 - 1e-6) <= found <= exact


@settings(max_examples=12, deadline=None)
@given(networks(max_depth=4), st.sampled_from(NORMS))
def test_never_above_a_verified_bound(network, norm):
    upper = bound(network, "product", norm).value
    assert lower_bound(network, norm, seconds=0.05).value <= upper


def test_a_kink_at_every_start_is_no_excuse():
    """|x| - |x| is zero everywhere; autograd's choice of slopes at the kink must not count."""
    builder = Builder((1,))
    x = builder.add(Dense(Enclosure.exact(np.array([[1.0], [-1.0], [1.0]])), Enclosure.exact(np.zeros(3))), 0)
    y = builder.add(Elementwise("leaky_relu", (np.array([0.0, 0.0, 1.0]),)), x)
    # relu(x) - relu(-x) - x = 0, whose slope at 0 autograd puts at -1
    builder.add(Dense(Enclosure.exact(np.array([[1.0, -1.0, -1.0]])), Enclosure.exact(np.zeros(1))), y)
    network = builder.build()
    assert not evaluate(network, np.linspace(-1, 1, 11)[:, None]).any()
    for norm in NORMS:
        assert lower_bound(network, norm, seconds=0.1, points=np.zeros((50, 1))).value <= 1e-6


def test_constant_networks_have_zero():
    network = _chain(np.zeros((3, 4)), np.ones((2, 3)))
    assert lower_bound(network, "l2", seconds=0.1).value == 0.0


def test_points_are_used():
    """A bump of slope 1000 at x = 7777, which no random start finds."""
    weight = np.array([[1000.0], [1000.0]])
    builder = Builder((1,))
    shift = np.array([-7777.0 * 1000, -7777.1 * 1000])
    x = builder.add(Dense(Enclosure.exact(weight), Enclosure.exact(shift)), 0)
    y = builder.add(Elementwise("relu"), x)
    builder.add(Dense(Enclosure.exact(np.array([[1.0, -1.0]])), Enclosure.exact(np.zeros(1))), y)
    points = np.full((4, 1), 7777.05)
    assert lower_bound(builder.build(), "l2", seconds=0.2, points=points).value == pytest.approx(1000, rel=1e-4)


def test_the_point_tells_the_slope():
    rng = np.random.default_rng(5)
    network = _chain(rng.normal(size=(16, 10)), rng.normal(size=(16, 16)), rng.normal(size=(4, 16)), activation="tanh")
    found = lower_bound(network, "l2", seconds=0.3)
    step, best = 1e-5, 0.0
    for direction in rng.normal(size=(4000, 10)):
        v = direction / np.linalg.norm(direction)
        ahead, behind = evaluate(network, np.stack([found.point + step * v, found.point - step * v]))
        best = max(best, np.linalg.norm(ahead - behind) / (2 * step))
    assert best <= found.value * (1 + 1e-6)
    assert found.point.shape == (10,)


def test_usage_errors():
    network = _chain(np.ones((2, 3)))
    with pytest.raises(UsageError, match="l7"):
        lower_bound(network, "l7")
    with pytest.raises(UsageError, match="do not fit"):
        lower_bound(network, "l2", points=np.zeros((5, 4)))


# the best lower bounds known elsewhere, of the networks that the files compute
PUBLISHED = {"mlp_L3_W16": 5.35, "mlp_L5_W16": 10.9, "mlp_L17_W16": 153.8, "mlp_L17_W64": 62.1, "mlp_L33_W64": 2558.0}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_reaches_what_others_found(shared_data, name):
    from lipcert.network.readers import load

    network = load(shared_data / "models" / "glipsdp" / f"{name}.onnx")
    assert lower_bound(network, "l2", seconds=20.0).value >= PUBLISHED[name]


def test_reaches_what_others_found_in_seconds(shared_data):
    from scipy.io import loadmat

    first, last = loadmat(shared_data / "models" / "lipsdp" / "mnist_weights.mat")["weights"][0]
    found = lower_bound(_chain(first.astype(np.float64), last.astype(np.float64)), "l2", seconds=2.0).value
    assert 24.18 <= found <= 24.36635 * (1 + 1e-6)
