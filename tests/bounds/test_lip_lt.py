"""`lip-lt`: its place among the methods, published values, and what makes it useful on deep networks."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
from oracles import lower_bound_by_sampling

from benchmarks.networks import open_bare
from lipcert.bounds.engine import bound
from lipcert.bounds.lip_lt import LipLt
from lipcert.network.builder import Builder
from lipcert.network.operators import Elementwise, Scale, Sum
from lipcert.proof.subject import subject
from lipcert.testing.build import RELU, dense, exact, matrices, mlp

ROOM = 1.0 + 1e-6  # between values that were found numerically


def first_layers(network, row):
    """Return the network without its normalisation, and with one row of its last layer."""
    nodes = list(network.nodes)
    last = nodes[-1]
    weight = last.op.weight.map(lambda a: a[row : row + 1])
    bias = last.op.bias.broadcast_to(last.shape).map(lambda a: a[row : row + 1])
    nodes[-1] = replace(last, op=replace(last.op, weight=weight, bias=bias), shape=(1,))
    one = Scale(exact(1.0), exact(0.0))
    return replace(network, nodes=tuple(replace(n, op=one) if n.name == "normalisation" else n for n in nodes))


@pytest.mark.parametrize("kind", ["fnn2", "fnn3"])
def test_the_published_values(shared_data, kind):
    """Six seeds each, the logit of digit 7. (Published values of cnn2 and cnn3 join the layers in another order.)"""
    with (shared_data / "reference_bounds.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["method"] == "LipLT" and f"/{kind}_" in r["network"]]
    assert len(rows) == 6
    for row in rows:
        network = first_layers(open_bare(shared_data, f"models/{row['network']}"), 7)
        assert bound(network, "lip-lt").value == pytest.approx(float(row["bound"]), rel=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_between_the_best_multipliers_and_the_product(seed):
    network = mlp([1.5 * w for w in matrices(320 + seed, 4, 6, 6, 6, 3)])
    found = {method: bound(network, method).value for method in ("lipsdp", "lip-lt", "product")}
    assert found["lipsdp"] <= found["lip-lt"] * ROOM
    assert found["lip-lt"] < 0.99 * found["product"]


def test_residual_networks_are_served():
    first, second = (dense(w) for w in matrices(330, 4, 5, 4))
    builder = Builder((4,))
    inner = builder.add(second, builder.add(RELU, builder.add(first, 0)))
    builder.add(dense(matrices(331, 4, 2)[0]), builder.add(RELU, builder.add(Sum((1, 1)), 0, inner)))
    network = builder.build()
    truth = lower_bound_by_sampling(network, "l2", np.random.default_rng(0), samples=100)
    assert truth <= bound(network, "lip-lt").value < bound(network, "product").value


def test_slopes_that_differ_within_a_layer_stay_below_the_product():
    """The middles 0 and 1 of slopes [-1, 1] and [1, 1] would add up to 2; the hull does not."""
    mixed = Elementwise("leaky_relu", (np.array([-1.0, 1.0]),))
    network = mlp([np.eye(2), np.eye(2)], mixed)
    assert bound(network, "lip-lt").value <= bound(network, "product").value * ROOM


def test_linear_neurons_count_as_what_they_are():
    """Three neurons of four are linear: their middles compose without loss, the hull of the layer would lose."""
    slopes = Elementwise("leaky_relu", (np.array([1.0, 1.0, 1.0, 0.0]),))
    weights = matrices(340, 4, 4, 4)
    weights[0][3] *= 0.01
    network = mlp(weights, slopes)
    linear = weights[1][:, :3] @ weights[0][:3]
    rest = np.linalg.norm(weights[1][:, 3:]) * np.linalg.norm(weights[0][3])
    assert bound(network, "lip-lt").value < 1.1 * (np.linalg.norm(linear, 2) + rest)


def test_deep_networks_keep_their_precision():
    """Radii entry by entry would grow by ||  |W|  || / ||W||, here about 4, with each of the 32 layers."""
    weights = matrices(350, *[16] * 33)
    found = bound(mlp(weights), "lip-lt").value
    assert found < 0.2 * np.prod([np.linalg.norm(w, 2) for w in weights])


def test_too_large_networks_are_refused_with_the_limit():
    wide = subject(mlp([np.ones((2, 1000)), np.ones((200000, 2))]), "output")
    assert "too large for a dense matrix (200000 x 1000)" in LipLt().refuses(wide, "l2")
    deep = [np.ones((1000, 2)), *[np.ones((1000, 1000))] * 40, np.ones((2, 1000))]
    assert "at most" in LipLt().refuses(subject(mlp(deep), "output"), "l2")
