"""Margins from bounds of gradients at level verified: against rational arithmetic, in every norm."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_regions import assert_below_margins, evaluator_of, random_samples, rational_points, served
from rational_evaluation import margins, rational, values
from strategies import networks

from benchmarks.networks import open_network
from lipcert.bounds.local.certify import certify_samples
from lipcert.bounds.local.registry import find_local
from lipcert.bounds.local.view import View
from lipcert.network.evaluate import evaluate_node
from lipcert.network.operators import Elementwise, Extremum, MaxPool, Sort
from lipcert.proof.local import NOTHING, Evaluator, Proposal, Region, Samples, check_local, jacobian
from lipcert.proof.local.affine import AffineStep
from lipcert.proof.local.gradient_lines import Forward, _chords
from lipcert.proof.local.gradients import Gradients, interval_product, interval_sum
from lipcert.proof.local.jacobian import WORK, gradient_boxes
from lipcert.proof.local.secants import anchored_sector
from lipcert.testing.build import chain, matrices, mlp
from lipcert.testing.jacobian import exact_jacobian

NORMS = ("l1", "l2", "linf")


def _copies(evaluator):
    return any(isinstance(node.op, (Sort, MaxPool, Extremum)) for node in evaluator.steps.nodes)


SERVED = served()


def _graph(network, x, eps, norm="l2"):
    """What nodes do to gradients around one sample, and the evaluator."""
    evaluator = Evaluator(network)
    around = evaluator._around(Region.around(x, eps, norm), NOTHING)
    boxes, _ = evaluator._narrowed_boxes(around, NOTHING)
    nodes = enumerate(evaluator.steps.nodes)
    sources = {i: (node.op, node.inputs[0]) for i, node in nodes if isinstance(node.op, Elementwise)}
    sectors = {i: anchored_sector(op, around.centre[k], boxes[k]) for i, (op, k) in sources.items()}
    return Gradients(evaluator.steps, boxes, sectors)


@pytest.mark.parametrize("name", SERVED)
@pytest.mark.parametrize("norm", NORMS)
def test_no_bound_is_above_a_margin_inside_the_ball(name, norm):
    evaluator, rng = SERVED[name], np.random.default_rng(1)
    network = evaluator.steps.network
    x = rng.normal(size=(2, *network.input_shape))
    labels = values(network, x)[-1].reshape(2, -1).argmax(axis=1).astype(np.int64)
    for eps in (2.0**-40, 0.25):
        found = evaluator.jacobian(Region.around(x, eps, norm), labels)
        assert_below_margins(network, labels, found, rational_points(x, eps, rng, 3, norm))


@given(
    networks(max_depth=5),
    st.integers(0, 2**16),
    st.sampled_from([1e-3, 0.1, 1.0]),
    st.sampled_from([None, (-1.0, 1.0)]),
    st.sampled_from(NORMS),
)
@settings(max_examples=60, deadline=None)
def test_random_networks_of_all_operators(network, seed, eps, box, norm):
    evaluator = evaluator_of(network)
    if evaluator is None:
        return
    network = evaluator.steps.network
    x, labels, rng = random_samples(network, seed)
    norms = {} if norm == "linf" else View(network).norms
    found = evaluator.jacobian(Region.around(x, eps, norm, box), labels, Proposal(norms=norms))
    assert_below_margins(network, labels, found, rational_points(x, eps, rng, 4, norm, box))


@pytest.mark.parametrize("work", [0, WORK])
@pytest.mark.parametrize("seed", range(6))
def test_the_jacobian_at_the_sample_is_inside_the_boxes(seed, work):
    """Of ReLU networks with small whole numbers, whose Jacobian is exact."""
    rng = np.random.default_rng(seed)
    weights = [rng.integers(-3, 4, size=shape).astype(np.float64) for shape in ((6, 4), (5, 6), (3, 5))]
    network, x = mlp(weights), rng.normal(size=(1, 4))
    true = exact_jacobian(network, x[0])
    low, high = gradient_boxes(_graph(network, x, 0.1), np.eye(3), work)[0]
    assert (low <= true).all() and (true <= high).all()
    wide = gradient_boxes(_graph(network, x, 3.0), np.eye(3), work)[0]
    assert (wide[0] <= true).all() and (true <= wide[1]).all() and (wide[1] - wide[0]).max() > 0.5


@pytest.mark.parametrize("name", ["wide ReLU chain", "MaxMin", "dead neurons"])
def test_lines_only_narrow(name):
    network = SERVED[name].steps.network
    graph = _graph(network, np.random.default_rng(0).normal(size=(1, *network.input_shape)), 0.5)
    rows = np.eye(network.nodes[-1].size).reshape(-1, *network.nodes[-1].shape)
    wide, narrow = (gradient_boxes(graph, rows, work) for work in (0, WORK))
    for index, (low, high) in narrow.items():
        assert (wide[index][0] <= low).all() and (high <= wide[index][1]).all() and (low <= high).all()
    if name == "wide ReLU chain":
        assert (narrow[0][1] - narrow[0][0]).sum() < 0.95 * (wide[0][1] - wide[0][0]).sum()


@pytest.mark.parametrize("seed", range(8))
def test_functions_of_gradients_are_bounded_from_below(seed):
    """Gradients of a chain made by hand from slopes and matrices, in rational numbers, against `Forward`."""
    rng = np.random.default_rng(seed)
    network = mlp(matrices(seed, 4, 6, 5, 3), Elementwise("leaky_relu", (np.array(0.1),)))
    graph = _graph(network, rng.normal(size=(1, 4)), 1.0)
    rows = np.eye(3)[:2]
    boxes = gradient_boxes(graph, rows, 0)
    a = rng.normal(size=(1, 3, 4))
    found = Forward(graph, boxes).least(0, a)
    for _ in range(30):
        g = rational(rows)
        for index in range(len(network.nodes) - 1, 0, -1):
            node = network.nodes[index]
            if isinstance(node.op, Elementwise):
                low, high = (rational(end[0]) for end in graph.slopes(index))
                share = rational(rng.choice([0.0, 1.0, 0.5], size=node.size))
                g = g * (low + share * (high - low))
            else:
                g = g.dot(rational(node.op.weight.mid))
            low, high = boxes[node.inputs[0]]
            assert (rational(low) <= g).all() and (g <= rational(high)).all()
        true = g.dot(rational(a[0]).T)
        assert (rational(found) <= true).all()


@pytest.mark.parametrize("seed", range(4))
def test_chords_are_above_and_below_every_slope(seed):
    rng = np.random.default_rng(seed)
    ends = rng.normal(size=(2, 3, 40)) * 10.0 ** rng.integers(-12, 3, size=(1, 3, 40))
    ends[1] = np.where(rng.random((3, 40)) < 0.3, ends[0] * (1.0 + 1e-15), ends[1])
    box, slopes = (ends.min(axis=0), ends.max(axis=0)), tuple(np.sort(rng.uniform(-0.5, 1.5, (2, 1, 40)), axis=0))
    lines = _chords(slopes, box)
    for g in (*box, (box[0] + box[1]) / 2, box[0] + 0.1 * (box[1] - box[0])):
        g = rational(np.clip(g, *box))
        for slope in (*slopes, (slopes[0] + slopes[1]) / 2):
            true = rational(slope) * g
            low = rational(lines.low_slope[:, 0]) * g + rational(lines.low_intercept[:, 0])
            high = rational(lines.high_slope[:, 0]) * g + rational(lines.high_intercept[:, 0])
            assert (low <= true).all() and (true <= high).all()


@pytest.mark.parametrize("name", sorted(k for k, e in SERVED.items() if _copies(e)))
def test_what_is_copied_has_its_gradient_in_the_box(name):
    """Of a sorting or a maximum, at points of its box: each output's gradient goes to the input that it is."""
    network, rng = SERVED[name].steps.network, np.random.default_rng(0)
    graph = _graph(network, rng.normal(size=(1, *network.input_shape)), 0.5)
    for index, node in enumerate(network.nodes):
        if not isinstance(node.op, (Sort, MaxPool, Extremum)):
            continue
        g = rng.normal(size=(3, *node.shape))
        boxes = graph.send_back(index, (g, g))
        shapes = [network.nodes[i].shape for i in node.inputs]
        for _ in range(30):
            z = [rng.uniform(*(end[0] for end in graph._values[i])) for i in node.inputs]
            flat, out = np.concatenate([part.ravel() for part in z]), evaluate_node(node, [part[None] for part in z])[0]
            for k in range(3):
                found = rational(np.zeros(flat.size))
                for value, gradient in zip(out.ravel(), g[k].ravel(), strict=True):
                    found[np.flatnonzero(flat == value)] += Fraction(gradient)
                if len(np.unique(flat)) == flat.size:
                    parts = np.split(found, len(shapes))
                    for part, shape, (low, high) in zip(parts, shapes, boxes, strict=True):
                        there = part.reshape(shape)
                        assert (rational(low[k]) <= there).all() and (there <= rational(high[k])).all()


@settings(max_examples=40, deadline=None)
@given(networks(("dense", "conv", "conv_transpose", "avg_pool", "scale", "gather"), max_depth=1), st.integers(0, 2**16))
def test_affine_nodes_backwards(network, seed):
    """W' y is in its box, |W'| y and the squares are below their bounds, and W a costs no more than it is charged."""
    rng = np.random.default_rng(seed)
    for node in network.nodes[1:]:
        source = network.nodes[node.inputs[0]].shape
        step, size = AffineStep(node, source), int(np.prod(source))
        y, x = rng.normal(size=(2, *node.shape)), np.abs(rng.normal(size=(2, *source)))
        a, magnitude = rng.normal(size=(2, 3, size)), np.abs(y).reshape(2, -1)
        low, high = (end.reshape(2, -1) for end in step.box_adjoint(y, y))
        charged = rational(np.abs(a)) * rational(step.charge_image(np.abs(y)))[:, None]
        image = rational(step.image(a))
        single = chain(source, node.op)
        for sign in (0, 1, -1):
            ends = values(single, np.concatenate([np.eye(size), np.zeros((1, size))]).reshape(-1, *source), sign)[1]
            w = (ends[:-1] - ends[-1]).reshape(size, -1).T
            back = rational(y).reshape(2, -1).dot(w)
            assert (rational(low) <= back).all() and (back <= rational(high)).all()
            forwards = np.abs(w).dot(rational(x).reshape(2, -1).T).T.reshape(2, *node.shape)
            assert (forwards <= rational(step.magnify(x))).all()
            squares = (w * w).dot(rational(x).reshape(2, -1).T).T.reshape(2, *node.shape)
            assert (squares <= rational(step.squared(x))).all()
            backwards = np.abs(w).T.dot(rational(magnitude).T).T.reshape(x.shape)
            assert (backwards <= rational(step.magnify_adjoint(np.abs(y)))).all()
            lost = np.abs(image - rational(a).dot(w.T)) * rational(magnitude)[:, None]
            assert (lost.sum(axis=2) <= charged.sum(axis=2) + Fraction(1, 2**1000)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_linear_network_has_its_exact_margins(norm):
    weight = np.array([[1.0, -2.0, 0.5], [0.25, 1.0, -1.0]])
    network, x, eps = mlp([weight]), np.array([[3.0, -1.0, 0.5]]), 16.0  # a margin that boxes do not prove
    row = weight[0] - weight[1]
    length = {"l1": np.abs(row).max(), "l2": np.linalg.norm(row), "linf": np.abs(row).sum()}[norm]
    true = float(margins(network, x, np.array([0]))[0, 1]) - eps * length
    found = Evaluator(network).jacobian(Region.around(x, eps, norm), np.array([0]))[0, 1]
    assert true - 1e-12 <= found <= true + 1e-15


@pytest.mark.parametrize("seed", range(5))
def test_intervals_hold_products_and_sums(seed):
    rng = np.random.default_rng(seed)
    ends = rng.normal(size=(2, 2, 50)) * 10.0 ** rng.integers(-160, 10, size=(2, 1, 50))
    left, right = ((np.minimum(a, b), np.maximum(a, b)) for a, b in ends)
    for a in left:
        for b in right:
            product, total = rational(a) * rational(b), rational(a) + rational(b)
            for box, true in ((interval_product(left, right), product), (interval_sum(left, right), total)):
                assert (rational(box[0]) <= true).all() and (true <= rational(box[1])).all()


def test_whatever_is_proposed_what_is_derived_holds():
    network, rng = mlp(matrices(3, 4, 8, 8, 3)), np.random.default_rng(0)
    evaluator, x, labels = Evaluator(network), rng.normal(size=(3, 4)), np.array([0, 1, 2])
    region = Region.around(x, 0.3)
    slopes = {2: (np.full((3, 1, 8), np.nan), np.full((3, 1, 8), 7.0))}
    norms = {k: v * 0.5 for k, v in View(network).norms.items()}
    found = evaluator.jacobian(region, labels, Proposal(slopes, multipliers=[{2: np.full((3, 8), -1.0)}], norms=norms))
    assert (found == evaluator.jacobian(region, labels)).all()


def test_samples_that_are_no_numbers_or_outside_the_box_are_not_certified():
    network = mlp([np.eye(2), np.eye(2)])
    x = np.array([[0.9, 0.1], [1.5, 0.1], [np.nan, 0.1], [1e300, 1e300]])
    for norm in NORMS:
        found = Evaluator(network).jacobian(Region.around(x, 0.01, norm, (0.0, 1.0)), np.zeros(4, dtype=np.int64))
        assert found[0, 1] > 0 and (found[1:, 1] == -np.inf).all()
    huge = Evaluator(mlp([np.eye(2) * 1e200] * 3)).jacobian(Region.around(x[:1], 0.01), np.array([0]))
    assert huge[0, 1] == -np.inf


def test_functions_are_handled_some_at_a_time(monkeypatch):
    network, x = mlp(matrices(3, 6, 12, 12, 5)), np.random.default_rng(0).normal(size=(2, 6))
    evaluator, region, labels = Evaluator(network), Region.around(x, 0.3), np.array([0, 3])
    whole = evaluator.jacobian(region, labels)
    monkeypatch.setattr(jacobian, "AT_ONCE", 1)
    assert np.allclose(evaluator.jacobian(region, labels), whole, rtol=1e-9, atol=1e-12)


def test_counts_on_a_real_network(shared_data):
    """mnist_fc_3layer, the first 20 images, eps 0.3: without lines 10 are proved."""
    network, images, labels = open_network(shared_data, "models/autolirpa/mnist_fc_3layer.pth")
    found = Evaluator(network).jacobian(Region.around(images[:20], 0.3), labels[:20])
    assert (found.min(axis=1) > 0).sum() >= 15


def test_what_the_method_proves_is_derived_again(shared_data):
    network, images, labels = open_network(shared_data, "models/marabou/mnist2x10.onnx")
    for norm, eps in (("l2", 0.05), ("linf", 0.005)):
        made = certify_samples(network, find_local("jacobian"), Samples.of(images[:10], labels[:10]), eps, norm)
        assert made.rows.sum() >= 5 and check_local(made.certificate, network).valid
