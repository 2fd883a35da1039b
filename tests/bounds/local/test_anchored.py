"""Multipliers of a region: what they prove holds, is what the theorem says, and certifies what it is known to certify.

Level numerical: the tests compute in float64 and allow ROUNDING for it, relative to the numbers at hand.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from local_regions import points_inside
from strategies import networks, random_network

from benchmarks.networks import open_bare, open_network
from lipcert.bounds.local import anchored
from lipcert.bounds.local.anchored import Anchored, LocalLipSDP
from lipcert.bounds.local.covariance import all_rows, carry, each_row, first
from lipcert.bounds.local.crown import margins as crown_margins
from lipcert.bounds.local.crown import relax_network
from lipcert.bounds.local.improvement import Positive, improve
from lipcert.bounds.local.margins import differences, outputs, rivals
from lipcert.bounds.local.pruning import any_two, from_centre
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.rounds import Setting, groups
from lipcert.bounds.local.sectors import anchored_sector
from lipcert.bounds.local.view import View
from lipcert.errors import UsageError
from lipcert.network.operators import Conv, Dense, Elementwise
from lipcert.testing.build import RELU, chain, exact, matrices, mlp
from lipcert.testing.jacobian import exact_jacobian, operator_norm
from lipcert.testing.truth import is_countable, region_points
from lipcert.testing.zoo import zoo

ROUNDING = 1e-9
BLOCKS = ("dense", "relu", "elementwise", "conv", "residual", "concat")
regions = st.tuples(st.sampled_from([1e-3, 0.1, 1.0]), st.sampled_from([None, (-1.0, 1.0)]), st.integers(0, 2**16))


def _view(network):
    return View(network, dtype=torch.float64)


def _ball(view, eps, box, seed, count=3):
    centre = np.random.default_rng(seed).normal(size=(count, *view.network.input_shape))
    return Ball.around(torch.from_numpy(centre if box is None else np.clip(centre, *box)), eps, "l2", box)


def _setting(view, ball, rows, slopes=from_centre):
    return Setting(view, slopes, relax_network(view, ball).boxes, view.trace(ball.centre), ball.eps.double(), rows)


def _rival_margins(view, x, labels):
    logits = view(x)
    return logits.gather(1, labels[:, None]) - logits.gather(1, rivals(labels, view.classes))


@settings(max_examples=40, deadline=None)
@given(networks(BLOCKS, 5), regions)
def test_margins_are_below_those_of_points(network, region):
    view = _view(network)
    if view.classes < 2 or Anchored().refuses(view, "l2") is not None:
        return
    ball = _ball(view, *region)
    labels = view(ball.centre).argmax(dim=1)
    for method in (Anchored(4), LocalLipSDP(4)):
        found = method.margins(view, ball, labels).gather(1, rivals(labels, view.classes))
        for x in points_inside(ball, region[2]):
            room = ROUNDING * (1.0 + float(view(x).abs().amax()))
            assert bool((found <= _rival_margins(view, x, labels) + room).all())


@settings(max_examples=30, deadline=None)
@given(networks(BLOCKS, 5), regions)
def test_pre_activations_stay_within_their_widths(network, region):
    """|z_i(x') - z_i(x)| <= eps sqrt(C_ii), for first multipliers and improved ones."""
    view = _view(network)
    if Anchored().refuses(view, "l2") is not None:
        return
    ball = _ball(view, *region)
    model = _setting(view, ball, outputs(view, len(ball))).model()
    goal = Positive(torch.ones((len(ball), view.classes), dtype=torch.float64), ball.eps)
    start, proved = first(model)
    for widths in (proved.widths, improve(model, start, proved, goal, 3).widths):
        for x in points_inside(ball, region[2], 10):
            moved = [now - before for now, before in zip(view.trace(x), view.trace(ball.centre), strict=True)]
            for node, pick, width in zip(model.nodes, model.picks, widths, strict=True):
                z = moved[view.nodes[node].inputs[0]].flatten(1).gather(1, pick)
                assert bool((z.abs() <= ball.eps[:, None] * width * (1.0 + ROUNDING) + 1e-12).all())


@settings(max_examples=30, deadline=None)
@given(networks(BLOCKS, 5), regions)
def test_constants_hold_for_jacobians(network, region):
    view = _view(network)
    if Anchored().refuses(view, "l2") is not None:
        return
    ball = _ball(view, *region, count=2)
    rows, whole = anchored.row_constants(view, ball, outputs(view, 2), 3), anchored.local_constant(view, ball, 3)
    points = points_inside(ball, region[2], 8).numpy()
    found = np.array([[exact_jacobian(view.network, x) for x in part] for part in points])
    above = 1.0 + ROUNDING
    assert (rows.numpy() * above + 1e-12 >= np.linalg.norm(found, axis=3).max(axis=0)).all()
    assert (whole.numpy() * above + 1e-12 >= np.linalg.norm(found, ord=2, axis=(2, 3)).max(axis=0)).all()


@pytest.mark.parametrize("name", [name for name, network in zoo().items() if is_countable(network)])
def test_constants_hold_in_every_linear_region_of_a_large_ball(name):
    view = _view(zoo()[name])
    points = np.array(list(region_points(view.network)))
    radius = float(np.linalg.norm(points.reshape(len(points), -1), axis=1).max())
    ball = Ball.around(torch.zeros((1, *view.network.input_shape), dtype=torch.float64), 1.01 * radius, "l2")
    truth = max(operator_norm(exact_jacobian(view.network, x), "l2") for x in points)
    found = float(anchored.local_constant(view, ball)[0])
    assert truth <= found * (1.0 + ROUNDING)
    assert found <= 1.7 * truth + 1e-12  # one optimum of LipSDP away, on networks this small


@pytest.mark.parametrize("sizes", [(8, 5, 6, 3), (3, 12, 9, 3), (2, 6, 20, 5, 2)])
def test_what_multipliers_prove_is_what_the_theorem_says(sizes):
    """The quadratic form is nonnegative with L, on the whole space, and not with a smaller one; Gram and columns."""
    view = _view(mlp(matrices(sum(sizes), *sizes)))
    ball = _ball(view, 1.0, None, 1, count=1)
    model = _setting(view, ball, outputs(view, 1), any_two).model()
    logs = [log + 0.3 * torch.from_numpy(np.random.default_rng(5).normal(size=log.shape)) for log in first(model)[0]]
    proved = carry(model, logs)
    assert bool(proved.inside.all())
    inputs, start, ends = model.inputs[0].numpy(), sizes[0], []
    for radius in model.radii:
        ends.append(start := start + radius.shape[1])
    full = np.zeros((inputs.shape[0], ends[-1]))  # each row as a function of (dx, w)
    full[:, : sizes[0]] = inputs
    row = 0
    for noise, radius, end in zip(model.noise, model.radii, ends, strict=True):
        row += radius.shape[1]
        full[row:, end - radius.shape[1] : end] = noise[0].numpy()
    radius = torch.cat(model.radii, dim=1)[0].numpy()
    weight = 1.0 / (radius * torch.cat(logs, dim=1)[0].exp().numpy())
    form = np.diag(np.concatenate([np.ones(sizes[0]), weight]))
    form -= full[:row].T @ np.diag(radius**2 * weight) @ full[:row]
    scale = np.diag(form) ** -0.5

    def least(length, c):
        shifted = form - np.outer(c, c) / length**2
        return np.linalg.eigvalsh(scale[:, None] * shifted * scale).min()

    for length, c in zip(proved.lengths[0].tolist(), full[row:], strict=True):
        assert least(length * (1.0 + 1e-9), c) > -1e-12
        assert least(length * (1.0 - 1e-4), c) < 0.0
    whole = float(carry(model, logs, all_rows).lengths[0, 0])
    vectors = np.linalg.eigh(full[row:] @ np.linalg.solve(form, full[row:].T))[0]
    assert whole == pytest.approx(np.sqrt(vectors[-1]), rel=1e-9)


@pytest.mark.parametrize("sizes", [(8, 5, 6, 3), (3, 12, 9, 3), (2, 6, 20, 5, 2)])
@pytest.mark.parametrize("measure", [each_row, all_rows])
def test_responses_are_derivatives(sizes, measure):
    """L^2 changes by r (e s^2 - z^2 / e) with log e; beside differences."""
    view = _view(mlp(matrices(sum(sizes), *sizes)))
    model = _setting(view, _ball(view, 1.0, None, 1, count=2), outputs(view, 2), any_two).model()
    logs, found = first(model, measure)
    for k, (log, z, s) in enumerate(zip(logs, *found.responses(), strict=True)):
        radius, e = model.radii[k][..., None], log.exp()[..., None]
        said = radius * (e * s.square() - z.square() / e)
        for i in range(log.shape[1]):
            ends = []
            for step in (1e-5, -1e-5):
                moved = [other.clone() for other in logs]
                moved[k][:, i] += step
                ends.append(carry(model, moved, measure).lengths.square())
            torch.testing.assert_close((ends[0] - ends[1]) / 2e-5, said[:, i], rtol=1e-3, atol=1e-6)


def test_steps_come_near_to_the_best_multipliers():
    """On a chain of one neuron the best bound is known: |a| + |b| r |g|."""
    view = _view(mlp([np.array([[2.0]]), np.array([[3.0]])]))
    setting = Setting(
        view,
        any_two,
        [(torch.full((1, 1), -1.0), torch.full((1, 1), 1.0))] * len(view.nodes),
        view.trace(torch.zeros((1, 1), dtype=torch.float64)),
        torch.ones(1, dtype=torch.float64),
        torch.ones((1, 1, 1), dtype=torch.float64),
    )
    model = setting.model()
    logs = [log + 1.0 for log in first(model)[0]]
    start = carry(model, logs)
    goal = Positive(torch.full((1, 1), 5.5, dtype=torch.float64), setting.eps)
    found = improve(model, logs, start, goal, 12)
    assert 6.0 - 1e-9 <= float(found.lengths[0, 0]) <= 6.0 * (1.0 + 1e-4) < float(start.lengths[0, 0])


def test_products_with_rows_of_a_convolution_are_products():
    name = next(name for name, network in zoo().items() if isinstance(network.nodes[1].op, Conv))
    view = _view(zoo()[name])
    ball = _ball(view, 0.5, None, 3)
    model = _setting(view, ball, outputs(view, len(ball)), any_two).model()
    assert model.front is not None
    rows, count = model.inputs, model.radii[0].shape[1]
    torch.testing.assert_close(model.gram, rows @ rows.mT, rtol=1e-12, atol=1e-12)
    weight = torch.rand((len(ball), count), dtype=torch.float64)
    expected = rows[:, :count].mT @ (weight[..., None] * rows[:, :count])
    torch.testing.assert_close(model.front.weighted(weight), expected, rtol=1e-12, atol=1e-12)


def test_multipliers_outside_the_domain_prove_nothing():
    view = _view(mlp(matrices(4, 6, 8, 8, 3)))
    model = _setting(view, _ball(view, 1.0, None, 0), outputs(view, 3)).model()
    proved = carry(model, [log - 5.0 for log in first(model)[0]])
    assert not bool(proved.inside.any()) and bool((proved.lengths == torch.inf).all())
    assert all(bool((width == torch.inf).all()) for width in proved.widths)


@settings(max_examples=25, deadline=None)
@given(networks(("dense", "relu", "elementwise", "conv", "residual"), 5), st.integers(0, 99))
def test_never_below_crown_and_more_steps_only_help(network, seed):
    view = _view(network)
    if view.classes < 2 or Anchored().refuses(view, "l2") is not None:
        return
    ball = _ball(view, 0.3, None, seed)
    labels = view(ball.centre).argmax(dim=1)
    with torch.no_grad():
        relaxed = relax_network(view, ball)
        found = [crown_margins(relaxed, labels)] + [anchored.margins(relaxed, labels, steps) for steps in (0, 6)]
    for one, two in pairwise(found):
        assert bool((two >= one - ROUNDING * (1.0 + one.abs())).all())


def test_layers_may_be_rescaled_and_batches_split():
    weights = matrices(8, 16, 14, 14, 4)  # more inputs than neurons: the same way of elimination, however padded
    biases = [0.2 * np.cos(np.arange(len(w))) for w in weights]

    def scaled_by(*factors):
        total, ops = 1.0, []
        for weight, bias, factor in zip(weights, biases, factors, strict=True):
            total *= factor
            ops += [Dense(exact(weight * factor), exact(bias * total)), RELU]
        return _view(chain((16,), *ops[:-1]))

    view, scaled = scaled_by(1.0, 1.0, 1.0), scaled_by(2.0**20, 2.0**-30, 2.0**10)
    ball = _ball(view, 0.4, None, 3, count=8)
    labels = view(ball.centre).argmax(dim=1)
    found = Anchored(12).margins(view, ball, labels)
    torch.testing.assert_close(Anchored(12).margins(scaled, ball, labels), found, rtol=1e-6, atol=1e-9)
    alone = [Anchored(12).margins(view, ball.take(torch.tensor([i])), labels[i : i + 1]) for i in range(8)]
    torch.testing.assert_close(torch.cat(alone), found, rtol=1e-6, atol=1e-9)


def test_the_limit_is_the_norm_of_the_jacobian():
    for name in ("small ReLU chain",):
        view = _view(zoo()[name])
        ball = _ball(view, 1e-9, None, 5)
        found = np.array([exact_jacobian(view.network, x) for x in ball.centre.numpy()])
        rows = anchored.row_constants(view, ball, outputs(view, len(ball)))
        torch.testing.assert_close(rows, torch.from_numpy(np.linalg.norm(found, axis=2)), rtol=1e-5, atol=1e-12)


def test_groups_hold_every_sample_once():
    sizes = torch.tensor([3, 1, 2**30, 2, 2**27, 5])
    found = groups(sizes)
    assert sorted(torch.cat(found).tolist()) == list(range(6))
    assert [part.tolist() for part in found[-2:]] == [[4], [2]]


def test_what_is_not_a_number_is_never_bounded():
    view = View(mlp([w * 1e30 for w in matrices(2, 3, 4, 3, 2)]), dtype=torch.float32)
    ball = Ball.around(torch.ones((2, 3)), 0.5, "l2")
    labels = torch.zeros(2, dtype=torch.int64)
    assert bool((Anchored().margins(view, ball, labels)[:, 1] == -torch.inf).all())
    assert bool((anchored.local_constant(view, ball) == torch.inf).all())
    sound = _view(mlp(matrices(2, 3, 4, 3, 2)))
    images = torch.tensor([[0.0, 0.1, 0.2], [torch.nan, 0.0, 0.0]], dtype=torch.float64)
    found = anchored.local_constant(sound, Ball.around(images, 0.1))
    assert bool(torch.isfinite(found[0])) and float(found[1]) == float("inf")


def test_sorting_and_other_norms_are_refused():
    view = _view(random_network(4, 4, ("dense", "group_sort")))
    assert "not elementwise" in str(Anchored().refuses(view, "l2"))
    with pytest.raises(UsageError, match="not elementwise"):
        anchored.local_constant(view, _ball(view, 0.1, None, 0))
    chain = _view(zoo()["small ReLU chain"])
    assert LocalLipSDP().refuses(chain, "linf") is not None
    with pytest.raises(UsageError, match="l2"):
        anchored.local_constant(chain, Ball.around(_ball(chain, 0.1, None, 0).centre, 0.1, "linf"))


@pytest.mark.parametrize(("eps", "least"), [(0.3, 85), (0.5, 37)])
def test_counts_on_a_real_network(shared_data, eps, least):
    """mnist_fc_3layer, first 100 images; alpha-CROWN proves 73 and 18 of them, CROWN 69 and 16."""
    network, images, labels = open_network(shared_data, "models/autolirpa/mnist_fc_3layer.pth")
    view, target = View(network), torch.from_numpy(labels[:100])
    ball = Ball.around(view.place(torch.from_numpy(images[:100])), eps)
    assert int((Anchored().margins(view, ball, target).amin(dim=1) > 0).sum()) >= least


def test_counts_beside_the_strongest_published_method(shared_data):
    """Images of the SDP literature at eps 1. SDP-CROWN proves 68 of 200; of the first 100, 46 are known here."""
    view = View(open_bare(shared_data, "models/autolirpa/spectral_NOR_MLP_B.pth"))
    data = np.load(shared_data / "datasets" / "mnist_sdp200.npz")
    images = torch.from_numpy((data["images"][:100] / 255.0).reshape(-1, *view.network.input_shape))
    target = torch.from_numpy(data["labels"][:100].astype(np.int64))
    found = Anchored().margins(view, Ball.around(view.place(images), 1.0), target)
    assert int((found.amin(dim=1) > 0).sum()) >= 46


def test_true_constants_prove_less_than_anchored_slopes(shared_data):
    network, images, labels = open_network(shared_data, "models/autolirpa/mnist_fc_3layer.pth")
    view, target = View(network), torch.from_numpy(labels[:30])
    ball = Ball.around(view.place(torch.from_numpy(images[:30])), 0.2)
    local, seen = (m.margins(view, ball, target).amin(dim=1) > 0 for m in (LocalLipSDP(), Anchored()))
    assert int(local.sum()) <= int(seen.sum())
    rows = anchored.row_constants(view, ball, differences(view, target), 5)
    assert bool((rows <= view.lipschitz("l2")[-1] * 2.0**0.5).all())


@pytest.mark.parametrize("name", ["relu", "sigmoid", "gelu", "hardswish", "tanh"])
def test_secants_from_outside_the_box_are_in_the_sector(name):
    """All secants from a centre, inside the box or not, to points of the box."""
    view = _view(chain((200,), Elementwise(name), Dense(exact(np.ones((1, 200))), exact(np.zeros(1)))))
    shape = view.activation(1)
    low, width, centre = torch.from_numpy(np.random.default_rng(3).normal(scale=2.0, size=(3, 200)))
    box = low, low + width.abs()
    sector = anchored_sector(shape, box, centre)
    for share in np.linspace(0.0, 1.0, 40):
        z = box[0] + share * (box[1] - box[0])
        far = (z - centre).abs() > 1e-6
        rise = shape.function(z) - shape.function(centre)
        slope = torch.where(far, rise / torch.where(far, z - centre, 1.0), sector.middle)
        assert bool((slope >= sector.alpha - 1e-9).all()) and bool((slope <= sector.beta + 1e-9).all())
