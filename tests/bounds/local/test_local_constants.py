"""Local constants hold for all pairs of points and for every Jacobian of the region, and obey the laws of constants.

Level numerical: bounds hold in real arithmetic, and their own rounding is not counted. The tests compute in float64
and allow ROUNDING for it, relative to the size of the constants at hand.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from local_regions import points_inside
from strategies import CHAIN, networks, random_network

from benchmarks.networks import open_network
from lipcert.bounds.local import gradient_lines, pruned
from lipcert.bounds.local import jacobian as jacobians
from lipcert.bounds.local.crown import relax_network
from lipcert.bounds.local.margins import differences, outputs, rivals
from lipcert.bounds.local.pruning import any_two, prune
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.registry import find_local
from lipcert.bounds.local.view import View
from lipcert.errors import UsageError
from lipcert.network.operators import Elementwise, Softmax
from lipcert.testing.build import matrices, mlp
from lipcert.testing.jacobian import exact_jacobian, operator_norm
from lipcert.testing.truth import is_countable, region_points
from lipcert.testing.zoo import zoo

ROUNDING = 1e-10
METHODS = ("pruned", "pruned-crown", "jacobian")
regions = st.tuples(st.sampled_from([1e-3, 0.1, 1.0]), st.sampled_from([None, (-1.0, 1.0)]), st.integers(0, 2**16))


def _view(network):
    return View(network, dtype=torch.float64)


def _ball(view, eps, box, seed, norm="l2", count=2):
    centre = np.random.default_rng(seed).normal(size=(count, *view.network.input_shape))
    return Ball.around(torch.from_numpy(centre if box is None else np.clip(centre, *box)), eps, norm, box)


def _has_softmax(view):
    return any(isinstance(node.op, Softmax) for node in view.nodes)


def _jacobians(view, ball, seed):
    """(count, B, classes, n) Jacobians inside the region: on its border a kink may be reached that is never passed."""
    points, centre = points_inside(ball, seed, 12).numpy(), ball.centre.numpy()
    size = np.abs(centre).reshape(len(centre), -1).sum(axis=1) + 1.0
    inner = centre * (1.0 - ball.eps.numpy() / (4.0 * size)).reshape(-1, *(1,) * (centre.ndim - 1))
    points = points + 2.0**-20 * (inner - points)
    return np.array([[exact_jacobian(view.network, x) for x in part] for part in points])


def _assert_above(bound, truth):
    assert bool((bound >= truth * (1.0 - ROUNDING) - 1e-13).all()), (bound, truth)


def _pair_quotients(view, ball, seed):
    """(B,) largest quotients ||f(x) - f(x')|| / ||x - x'|| of many pairs, and (B, classes) those of the outputs."""
    points = points_inside(ball, seed)
    left, right = points, points.roll(1, dims=0)
    run = torch.linalg.vector_norm((left - right).flatten(2), dim=2)
    rise = torch.stack([view(a) - view(b) for a, b in zip(left, right, strict=True)])
    far = run > 1e-3 * ball.eps  # nearer pairs show rounding only
    safe = torch.where(far, run, 1.0)
    whole = torch.where(far, torch.linalg.vector_norm(rise, dim=2) / safe, 0.0)
    each = torch.where(far[..., None], rise.abs() / safe[..., None], 0.0)
    return whole.amax(dim=0) * (1.0 - 1e-9), each.amax(dim=0) * (1.0 - 1e-9)


@settings(max_examples=60, deadline=None)
@given(networks(max_depth=5), regions)
def test_pruned_constants_hold_for_jacobians_and_pairs(network, region):
    view = _view(network)
    ball = _ball(view, *region)
    rows, whole = pruned.row_constants(view, ball, outputs(view, len(ball))), pruned.local_constant(view, ball)
    found = _jacobians(view, ball, region[2])
    _assert_above(rows, torch.from_numpy(np.linalg.norm(found, axis=3).max(axis=0)))
    _assert_above(whole, torch.from_numpy(np.linalg.norm(found, ord=2, axis=(2, 3)).max(axis=0)))
    quotients = _pair_quotients(view, ball, region[2])
    _assert_above(whole, quotients[0])
    _assert_above(rows, quotients[1])


@settings(max_examples=60, deadline=None)
@given(networks(max_depth=5), regions, st.sampled_from(["l1", "l2", "linf"]))
def test_jacobians_are_inside_their_bounds(network, region, norm):
    view = _view(network)
    if _has_softmax(view):
        return
    ball = _ball(view, *region, norm)
    bounds, whole = jacobians.jacobian(view, ball), jacobians.local_constant(view, ball)
    found = _jacobians(view, ball, region[2])
    room = ROUNDING * (1.0 + np.abs(found).max(initial=0.0))
    assert (found >= bounds.low.numpy() - room).all() and (found <= bounds.high.numpy() + room).all()
    order = {"l1": np.inf, "l2": 2, "linf": 1}[norm]
    _assert_above(bounds.lengths, torch.from_numpy(np.linalg.norm(found, ord=order, axis=3).max(axis=0)))
    norms = [[operator_norm(j, norm) for j in part] for part in found]
    _assert_above(whole, torch.from_numpy(np.array(norms).max(axis=0)))


@pytest.mark.parametrize("name", [name for name, network in zoo().items() if is_countable(network)])
def test_constants_hold_in_every_linear_region_of_a_large_ball(name):
    view = _view(zoo()[name])
    points = np.array(list(region_points(view.network)))
    radius = float(np.linalg.norm(points.reshape(len(points), -1), axis=1).max())
    ball = Ball.around(torch.zeros((1, *view.network.input_shape), dtype=torch.float64), 1.01 * radius, "l2")
    found = [exact_jacobian(view.network, x) for x in points]
    exact = max(operator_norm(j, "l2") for j in found)
    for bound in (pruned.local_constant(view, ball), jacobians.local_constant(view, ball)):
        _assert_above(bound, torch.tensor([exact]))


@settings(max_examples=60, deadline=None)
@given(networks(max_depth=5), regions)
def test_local_constants_are_at_most_the_global_one(network, region):
    view = _view(network)
    ball = _ball(view, *region)
    assert bool((pruned.local_constant(view, ball) <= view.lipschitz("l2")[-1]).all())


@settings(max_examples=25, deadline=None)
@given(networks(("dense", "relu", "conv", "max_pool", "group_sort"), max_depth=4), st.integers(0, 2**16))
def test_products_of_norms_and_boxes_of_jacobians_grow_with_the_ball(network, seed):
    """Of piecewise linear networks. Functions followed with middle slopes have no such law, though all bounds hold."""
    view = _view(network)
    small, large = (_ball(view, eps, None, seed) for eps in (0.05, 0.2))
    inner, outer = (prune(view, ball, any_two) for ball in (small, large))
    for index, value in enumerate(inner.centre):
        less, more = (part.reaches.measure(index, torch.ones_like(value)) for part in (inner, outer))
        assert bool((less <= more * (1.0 + ROUNDING) + 1e-12).all())
    first, second = (jacobians.jacobian(view, ball) for ball in (small, large))
    room = ROUNDING * (1.0 + float(torch.maximum(second.low.abs(), second.high.abs()).amax()))
    assert bool((second.low <= first.low + room).all()) and bool((first.high <= second.high + room).all())


@pytest.mark.parametrize("name", sorted(zoo()))
def test_the_limit_is_the_norm_of_the_jacobian(name):
    """The random sample is on no kink; networks with sorting or maxima inside are left to the bound by products."""
    view = _view(zoo()[name])
    ball = _ball(view, 1e-6, None, 5)
    found = np.array([exact_jacobian(view.network, x) for x in ball.centre.numpy()])
    lengths = torch.from_numpy(np.linalg.norm(found, axis=2))
    smooth = all(isinstance(node.op, Elementwise) for _, node in view.network.activation_nodes())
    if smooth:
        rows = pruned.row_constants(view, ball, outputs(view, len(ball)))
        torch.testing.assert_close(rows, lengths, rtol=1e-4, atol=1e-5)
        whole = torch.linalg.matrix_norm(torch.from_numpy(found), ord=2)
        torch.testing.assert_close(pruned.local_constant(view, ball), whole, rtol=1e-4, atol=1e-5)
    if not _has_softmax(view):
        bounds = jacobians.jacobian(view, ball)
        torch.testing.assert_close(bounds.lengths, lengths, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(bounds.low, torch.from_numpy(found), rtol=1e-4, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(networks(max_depth=5), regions, st.sampled_from(METHODS), st.sampled_from(["l1", "l2", "linf"]))
def test_margins_are_below_those_of_points(network, region, name, norm):
    view, method = _view(network), find_local(name)
    norm = norm if norm in method.norms else "l2"
    if view.classes < 2 or method.refuses(view, norm) is not None:
        return
    ball = _ball(view, *region, norm)
    labels = view(ball.centre).argmax(dim=1)
    found = method.margins(view, ball, labels).gather(1, rivals(labels, view.classes))
    for x in points_inside(ball, region[2]):
        logits = view(x)
        true = logits.gather(1, labels[:, None]) - logits.gather(1, rivals(labels, view.classes))
        assert bool((found <= true + ROUNDING * (1.0 + float(logits.abs().amax()))).all())


def test_signs_say_where_a_network_is_monotone():
    """All weights positive: every output rises with every input; the first output turned over falls."""
    weights = [np.abs(w) for w in matrices(3, 4, 6, 3)]
    weights[1][0] *= -1.0
    bounds = jacobians.jacobian(_view(mlp(weights)), _ball(_view(mlp(weights)), 1.0, None, 0))
    assert (bounds.signs[:, 0] <= 0).all() and (bounds.signs[:, 1:] >= 0).all()
    assert (bounds.signs != 0).any()


def test_dead_neurons_drop_out_of_norms():
    """A layer of large weights behind neurons that are constant on the ball does not count."""
    first, second = matrices(11, 3, 4, 2)
    network = mlp([first, second])
    view = _view(network)
    centre = torch.full((1, 3), 0.0, dtype=torch.float64)
    z = view.trace(centre)[1]
    assert bool((z > 0).any()) and bool((z < 0).any())
    ball = Ball.around(centre, 0.5 * float(z.abs().amin()) / np.linalg.norm(first, axis=1).max(), "l2")
    alive = (z[0] > 0).numpy()
    exact = np.linalg.norm(second[:, alive] @ first[alive], ord=2)
    torch.testing.assert_close(pruned.local_constant(view, ball), torch.tensor([exact]), rtol=1e-9, atol=0)


def test_clipped_sorted_pairs_that_saturate_are_constant():
    view = _view(random_network(4, 4, ("dense", "group_sort")))
    clipped = _view(_clipped(view))
    ball = _ball(clipped, 1e-3, None, 1)
    assert bool((pruned.local_constant(clipped, ball) == 0.0).all())


def _clipped(view):
    """The network with all outputs clipped far below their values."""
    from lipcert.network import Builder

    builder = Builder(view.network.input_shape)
    for node in view.nodes[1:]:
        builder.add(node.op, *node.inputs, shape=node.shape)
    builder.add(Elementwise("clip", (np.array(-1e6), np.array(-1e5))), len(view.nodes) - 1)
    return builder.build()


def test_with_boxes_of_crown_constants_are_no_larger():
    view = _view(mlp(matrices(8, 6, 12, 12, 3)))
    ball = _ball(view, 0.2, None, 3, count=20)
    rows = differences(view, view(ball.centre).argmax(dim=1))
    plain = pruned.row_constants(view, ball, rows)
    narrow = pruned.row_constants(view, ball, rows, relax_network(view, ball).boxes)
    assert bool((narrow <= plain * (1.0 + 1e-12)).all()) and bool((narrow < 0.99 * plain).any())


def test_what_is_not_a_number_is_never_bounded():
    view = _view(random_network(0, 3, CHAIN))
    images = torch.zeros((3, *view.network.input_shape), dtype=torch.float64)
    images[1].view(-1)[0] = torch.nan
    images[2].view(-1)[0] = 1.5
    ball = Ball.around(images, 0.1, "l2", (0.0, 1.0))
    bounds = jacobians.jacobian(view, ball)
    assert bool((bounds.low[1:] == -torch.inf).all()) and not bool(bounds.signs[1:].any())
    for found in (pruned.local_constant(view, ball), jacobians.local_constant(view, ball)):
        assert found[1:].tolist() == [torch.inf] * 2 and bool(torch.isfinite(found[0]))


def test_weights_that_overflow_prove_nothing():
    view = View(mlp([w * 1e30 for w in matrices(2, 3, 4, 3, 2)]), dtype=torch.float32)
    ball = Ball.around(torch.ones((2, 3)), 0.5, "l2")
    labels = torch.zeros(2, dtype=torch.int64)
    for name in METHODS:
        assert bool((find_local(name).margins(view, ball, labels)[:, 1] == -torch.inf).all())
    assert bool((pruned.local_constant(view, ball) == torch.inf).all())


def test_other_norms_are_refused():
    view = _view(zoo()["small ReLU chain"])
    assert find_local("pruned").refuses(view, "linf") is not None
    with pytest.raises(UsageError, match="l2"):
        pruned.local_constant(view, _ball(view, 0.1, None, 0, "linf"))
    with pytest.raises(UsageError, match="l2"):
        find_local("pruned").margins(view, _ball(view, 0.1, None, 0, "linf"), torch.tensor([0, 1]))


@pytest.mark.parametrize(("name", "eps", "published"), [("pruned", 0.1, 91), ("pruned-crown", 0.3, 13)])
def test_counts_on_a_real_network_are_no_lower_than_published(shared_data, name, eps, published):
    """mnist_fc_3layer, first 100 images: above Huang et al.'s own code, whose norms are by power iteration (91, 12)."""
    network, images, labels = open_network(shared_data, "models/autolirpa/mnist_fc_3layer.pth")
    view = View(network)
    ball = Ball.around(view.place(torch.from_numpy(images[:100])), eps)
    found = find_local(name).margins(view, ball, torch.from_numpy(labels[:100]))
    assert int((found.amin(dim=1) > 0).sum()) >= published


def test_lines_through_the_backward_pass_narrow_gradients(shared_data):
    """Mean constants of margins, 4 images, eps 0.3: boxes alone give more than 1.5 times those of the lines."""
    network, images, labels = open_network(shared_data, "models/autolirpa/mnist_fc_3layer.pth")
    view = View(network)
    ball = Ball.around(view.place(torch.from_numpy(images[:4])), 0.3)
    rows = differences(view, torch.from_numpy(labels[:4]))
    lines = jacobians.jacobian(view, ball, rows).lengths.mean()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradient_lines, "WORK", 0)
        boxes = jacobians.jacobian(view, ball, rows)
    sizes = torch.maximum(boxes.low.abs(), boxes.high.abs())
    assert float(torch.linalg.vector_norm(sizes, dim=2).mean()) > 1.5 * float(lines)
