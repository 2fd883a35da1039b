"""Each part of the verified local bounds against rational numbers, where only its own roundings are at stake."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from rational_evaluation import FUNCTIONS, rational

from lipcert.network.builder import Builder
from lipcert.network.enclosure import Enclosure
from lipcert.network.linear import apply_adjoint, apply_linear, coefficients, column_terms, offset, row_terms
from lipcert.network.operators import Conv, Dense, Elementwise, Scale, Sum
from lipcert.proof.local.affine import AffineStep
from lipcert.proof.local.arithmetic import dual_norms, middle
from lipcert.proof.local.backward import Account, Backward, add_product
from lipcert.proof.local.boxes import Steps, propagate
from lipcert.proof.local.region import Region, linear_on_box
from lipcert.proof.local.straight import lines, value_range
from lipcert.proof.local.surroundings import Surroundings, lipschitz_bounds
from lipcert.testing.build import chain, exact
from lipcert.testing.zoo import zoo

SEEDS = range(12)
ZERO = exact(0.0)
AFFINE = [
    (name, index)
    for name, network in zoo().items()
    for index, node in network.affine_nodes()
    if node.size * np.prod(network.nodes[node.inputs[0]].shape) < 4000
]


def _wild(rng, *shape):
    """Numbers of very different sizes, all with full mantissas."""
    return rng.normal(size=shape) * 2.0 ** rng.integers(-30, 31, size=shape)


def _dot(a, b):
    return sum((Fraction(x) * Fraction(y) for x, y in zip(a, b, strict=True)), Fraction(0))


def _dense(rng, m, n, *, bias=True, radius=False):
    weight = _wild(rng, m, n)
    weight[:, n // 2 :] = -weight[:, : n - n // 2] * (1.0 + 2.0**-50)  # sums that cancel
    spread = np.abs(weight) * 2.0**-40 if radius else None
    shift = _wild(rng, m) if bias else np.zeros(m)
    constant = Enclosure(shift, np.abs(shift) * 2.0**-40 if radius and bias else None)
    return chain((n,), Dense(Enclosure(weight, spread), constant))


@pytest.mark.parametrize("seed", SEEDS)
def test_middles_hold_their_intervals(seed):
    rng = np.random.default_rng(seed)
    low = _wild(rng, 50)
    high = low + np.abs(_wild(rng, 50))
    mid, radius = middle(low, high)
    for a, b, m, r in zip(low, high, mid, radius, strict=True):
        assert Fraction(m) - Fraction(r) <= Fraction(a) and Fraction(b) <= Fraction(m) + Fraction(r)
    assert not middle(low, low)[1].any()


@pytest.mark.parametrize("seed", SEEDS)
def test_dual_norms_are_upper_bounds(seed):
    rng = np.random.default_rng(seed)
    rows = _wild(rng, 6, 7) * 2.0 ** float(rng.choice([-600, -1000, 0, 900]))
    exact_rows = [[abs(Fraction(v)) for v in row] for row in rows]
    for row, sums, ends, roots in zip(exact_rows, *(dual_norms(rows, n) for n in ("linf", "l1", "l2")), strict=True):
        assert Fraction(sums) >= sum(row) and Fraction(ends) == max(row)
        squares = sum(v * v for v in row)
        assert squares <= Fraction(roots) ** 2 <= squares * (1 + Fraction(1, 2**40))
    assert not dual_norms(np.zeros((1, 3)), "l2").any()
    assert not np.isfinite(dual_norms(np.array([[1.0, np.inf], [np.nan, 1.0]]), "l2")).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_linear_function_on_a_box(seed):
    rng = np.random.default_rng(seed)
    c, low = _wild(rng, 1, 5, 8), _wild(rng, 1, 8)
    c[..., 4:] = -c[..., :4]
    low[:, 4:] = low[:, :4] * (1.0 + 2.0**-52)
    for high in (low, low + np.abs(_wild(rng, 1, 8))):
        for row, bound in zip(c[0], linear_on_box(c, low, high)[0], strict=True):
            assert Fraction(bound) <= _dot(row, np.where(row > 0, low[0], high[0]))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("norm", ["l1", "linf"])
def test_the_least_value_on_a_ball(seed, norm):
    rng = np.random.default_rng(seed)
    c, x = _wild(rng, 1, 5, 6), _wild(rng, 1, 6)
    region = Region.around(x, float(np.abs(_wild(rng, 1))[0]), norm)
    for row, bound in zip(c[0], region.minimum(c)[0], strict=True):
        sizes = [abs(Fraction(v)) for v in row]
        reach = Fraction(region.eps) * (max(sizes) if norm == "l1" else sum(sizes))
        assert Fraction(bound) <= _dot(row, x[0]) - reach
    ends = rational(x) - Fraction(region.eps), rational(x) + Fraction(region.eps)
    assert (rational(region.lower) <= ends[0]).all() and (rational(region.upper) >= ends[1]).all()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("radius", [True, False])
def test_boxes_of_affine_nodes(seed, bias, radius):
    rng = np.random.default_rng(seed)
    network = _dense(rng, 6, 9, bias=bias, radius=radius)
    step = AffineStep(network.nodes[1], (9,))
    low = _wild(rng, 1, 9)
    low[:, 4:] = low[:, [0, 1, 2, 3, 0]] * (1.0 + 2.0**-52)
    numbers, constant = coefficients(step.op), offset(step.op)
    for high in (low, low + np.abs(_wild(rng, 1, 9)) * 2.0**-20):
        found = step.box(low, high)
        for i in range(6):
            w = numbers.mid[i]
            for sign, end in ((1, found[1]), (-1, found[0])):
                x = np.where(sign * w > 0, high[0], low[0])
                reach = _dot(numbers.radius[i], np.abs(x)) + Fraction(constant.radius[i])
                true = _dot(w, x) + Fraction(constant.mid[i]) + sign * reach
                assert sign * (Fraction(end[0, i]) - true) >= 0


def test_zero_inputs_leave_only_the_bias_to_round():
    step = AffineStep(_dense(np.random.default_rng(0), 4, 5).nodes[1], (5,))
    low, high = step.box(np.zeros((1, 5)), np.zeros((1, 5)))
    assert (low <= step.bias).all() and (step.bias <= high).all()


@pytest.mark.parametrize(("name", "index"), AFFINE)
def test_terms_count_what_an_entry_adds_up(name, index):
    """At least the non-zero coefficients of a row or column, for coefficients that are all 1."""
    network = zoo()[name]
    node = network.nodes[index]
    source, numbers = network.nodes[node.inputs[0]].shape, coefficients(node.op)
    ones = None if numbers is None else (numbers.mid != 2.0**1000).astype(np.float64)
    counted = _with_unit_counts(node.op)
    rows = apply_linear(counted, np.ones((1, *source)), ones, node.shape)
    columns = apply_adjoint(counted, np.ones((1, *node.shape)), ones, source)
    assert rows.max() <= row_terms(node.op) and columns.max() <= column_terms(node.op, source)


def _with_unit_counts(op):
    return replace(op, counts=np.ones_like(op.counts)) if hasattr(op, "counts") else op


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("radius", [True, False])
def test_functions_sent_back_through_an_affine_node(seed, bias, radius):
    """At the corner of the box where what was rounded costs most, the function is still below."""
    rng = np.random.default_rng(seed)
    network = _dense(rng, 7, 5, bias=bias, radius=radius)
    weight, constant = network.nodes[1].op.weight, network.nodes[1].op.bias
    size = np.abs(_wild(rng, 1, 5))
    steps = Steps(network)
    a = _wild(rng, 1, 4, 7)
    account = Account.zero(a)
    found = Backward(steps, [(-size, size)], {}).send(1, a, account)
    for k in range(4):
        exact_row = [_dot(a[0, k], weight.mid[:, j]) for j in range(5)]
        lost = [Fraction(found[0, k, j]) - exact_row[j] for j in range(5)]
        h = [Fraction(size[0, j]) * (1 if lost[j] > 0 else -1) for j in range(5)]
        below = _dot(found[0, k], h) + Fraction(account.constant[0, k]) - Fraction(account.allowance[0, k])
        reach = sum(
            (abs(Fraction(v)) * Fraction(r) for v, r in zip(a[0, k], constant.radius, strict=True)), Fraction(0)
        )
        for i in range(7):
            reach += abs(Fraction(a[0, k, i])) * _dot(weight.radius[i], size[0])
        true = sum((x * y for x, y in zip(exact_row, h, strict=True)), Fraction(0)) + _dot(a[0, k], constant.mid)
        assert below <= true - reach


@pytest.mark.parametrize("seed", SEEDS)
def test_functions_sent_back_through_an_activation(seed):
    rng = np.random.default_rng(seed)
    op = Elementwise("leaky_relu", (np.array(0.1),))
    steps = Steps(chain((6,), op))
    low = -np.abs(_wild(rng, 1, 6))
    high = low + np.abs(_wild(rng, 1, 6))
    slopes = tuple(rng.normal(size=(1, 3, 6)) for _ in range(2))
    relaxed = lines(op, low, high, slopes)
    a = _wild(rng, 1, 3, 6)
    account = Account.zero(a)
    found = Backward(steps, [(low, high), (low, high)], {1: relaxed}).send(1, a, account)
    for k in range(3):
        picked = np.where(a[0, k] > 0, relaxed.low_slope[0, k], relaxed.high_slope[0, k])
        constants = np.where(a[0, k] > 0, relaxed.low_intercept[0, k], relaxed.high_intercept[0, k])
        exact_row = [Fraction(x) * Fraction(y) for x, y in zip(a[0, k], picked, strict=True)]
        lost = [Fraction(found[0, k, j]) - exact_row[j] for j in range(6)]
        h = [max((Fraction(low[0, j]), Fraction(high[0, j])), key=lambda v, d=lost[j]: v * d) for j in range(6)]
        below = _dot(found[0, k], h) + Fraction(account.constant[0, k]) - Fraction(account.allowance[0, k])
        assert below <= sum((x * y for x, y in zip(exact_row, h, strict=True)), _dot(a[0, k], constants))


@pytest.mark.parametrize("seed", SEEDS)
def test_functions_that_meet_are_added(seed):
    """y = 2 x - x / 3: two ways from the output to one node."""
    rng = np.random.default_rng(seed)
    builder = Builder((4,))
    factors = _wild(rng, 4), _wild(rng, 4)
    parts = [builder.add(Scale(exact(f), ZERO), 0) for f in factors]
    builder.add(Sum((1, -1)), *parts)
    network = builder.build()
    size = np.abs(_wild(rng, 1, 4))
    a = _wild(rng, 1, 3, 4)
    account = Account.zero(a)
    steps = Steps(network)
    boxes = [(-size, size)]
    while len(boxes) < len(steps.nodes):
        boxes.append(propagate(steps, len(boxes), [boxes[i] for i in steps.nodes[len(boxes)].inputs]))
    found = Backward(steps, boxes, {}).send(len(steps.nodes) - 1, a, account)
    for k in range(3):
        exact_row = [Fraction(a[0, k, j]) * (Fraction(factors[0][j]) - Fraction(factors[1][j])) for j in range(4)]
        lost = [Fraction(found[0, k, j]) - exact_row[j] for j in range(4)]
        worst = sum((abs(d) * Fraction(size[0, j]) for j, d in enumerate(lost)), Fraction(0))
        assert worst + Fraction(account.constant[0, k]) <= Fraction(account.allowance[0, k])
    for j in range(4):
        true = abs(Fraction(factors[0][j]) - Fraction(factors[1][j])) * Fraction(size[0, j])
        assert Fraction(boxes[-1][1][0, j]) >= true and Fraction(boxes[-1][0][0, j]) <= -true


ACTIVATIONS = {
    "relu": (),
    "abs": (),
    "leaky_relu": (0.1,),
    "clip": (-0.3, 0.7),
    "softshrink": (0.3,),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("seed", SEEDS)
def test_lines_with_any_slopes(name, seed):
    rng = np.random.default_rng(seed)
    op = Elementwise(name, tuple(np.array(p) for p in ACTIVATIONS[name]))
    low = rng.normal(size=(1, 40))
    high = low + np.abs(rng.normal(size=(1, 40))) * rng.choice([0.0, 1e-9, 1.0], size=(1, 40))
    kinks = [Fraction(k) for k in {"clip": (-0.3, 0.7), "softshrink": (-0.3, 0.3)}.get(name, (0.0,))]
    parameters = [Fraction(p) for p in ACTIVATIONS[name]]
    proposed = tuple(rng.normal(size=(1, 2, 40)) * 10.0 ** rng.integers(-3, 4) for _ in range(2))
    least, most = value_range(op, low, high)
    for found in (lines(op, low, high), lines(op, low, high, proposed)):
        for j in range(40):
            ends = Fraction(low[0, j]), Fraction(high[0, j])
            for p in (*ends, *(k for k in kinks if ends[0] < k < ends[1])):
                y = FUNCTIONS[name](p, *parameters)
                assert Fraction(least[0, j]) <= y <= Fraction(most[0, j])
                for s in range(found.low_slope.shape[1]):
                    under = Fraction(found.low_slope[0, s, j]) * p + Fraction(found.low_intercept[0, s, j])
                    over = Fraction(found.high_slope[0, s, j]) * p + Fraction(found.high_intercept[0, s, j])
                    assert under <= y <= over


def test_lines_of_decided_neurons_are_exact():
    low, high = np.array([[0.5, -2.0, -1.0]]), np.array([[1.5, -1.0, 3.0]])
    found = lines(Elementwise("relu"), low, high)
    assert found.low_slope.tolist() == [[[1.0, 0.0, 1.0]]] and found.high_slope[0, 0].tolist() == [1.0, 0.0, 0.75]
    assert found.low_intercept.tolist() == [[[0.0, 0.0, 0.0]]] and found.high_intercept[0, 0, :2].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("seed", SEEDS)
def test_sums_of_constants_and_allowances(seed):
    rng = np.random.default_rng(seed)
    terms, value = _wild(rng, 30), _wild(rng, 1)
    account = Account.zero(np.zeros((1, 1, 1)))
    for term in terms:
        account.add(np.array([[term]]), np.zeros((1, 1)))
    true = sum((Fraction(t) for t in terms), Fraction(value[0]))
    assert Fraction(account.below(value[None])[0, 0]) <= true


@pytest.mark.parametrize("seed", SEEDS)
def test_reaches_are_upper_bounds_of_rows(seed):
    rng = np.random.default_rng(seed)
    weight = _wild(rng, 2, 3, 2, 2)
    op = Conv(exact(weight), ZERO, (1, 1), ((1, 0), (0, 1)), (1, 1))
    step = AffineStep(chain((3, 4, 4), op).nodes[1], (3, 4, 4))
    for norm in ("l2", "linf"):
        found = step.reaches(norm)
        for channel in range(2):  # the rows inside, which the padding cuts nothing off
            entries = [abs(Fraction(v)) for v in weight[channel].ravel()]
            if norm == "l2":
                assert Fraction(found[channel, 2, 1]) ** 2 >= sum(v * v for v in entries)
            else:
                assert Fraction(found[channel, 2, 1]) >= sum(entries)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_last_sum_is_rounded_down(seed):
    rng = np.random.default_rng(seed)
    constant, value = rng.normal(size=(2, 1, 20))
    account = Account(constant, np.zeros((1, 20)), np.ones((1, 20), dtype=np.bool_))
    assert (rational(account.below(value)) <= rational(value) + rational(constant)).all()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shared", [True, False])
def test_products_with_intercepts(seed, shared):
    rng = np.random.default_rng(seed)
    a = _wild(rng, 1, 5, 9)
    constants = np.repeat(_wild(rng, 1, 1, 9), 1 if shared else 5, axis=1)
    constants[..., 5:] = -constants[..., :4]
    a[..., 5:] = a[..., :4] * (1.0 + 2.0**-52)
    account = Account.zero(a)
    add_product(account, a, constants)
    for k in range(5):
        true = _dot(a[0, k], constants[0, 0])
        assert abs(Fraction(account.constant[0, k]) - true) <= Fraction(account.allowance[0, k])


@pytest.mark.parametrize("seed", SEEDS)
def test_products_with_biases(seed):
    rng = np.random.default_rng(seed)
    shift = _wild(rng, 9)
    shift[5:] = -shift[:4]
    network = chain((2,), Dense(exact(np.zeros((9, 2))), exact(shift)))
    a = _wild(rng, 1, 5, 9)
    a[..., 5:] = a[..., :4] * (1.0 + 2.0**-52)
    account, box = Account.zero(a), (-np.ones((1, 2)), np.ones((1, 2)))
    found = Backward(Steps(network), [box], {}).send(1, a, account)
    assert not found.any()
    for k in range(5):
        assert Fraction(account.constant[0, k]) - Fraction(account.allowance[0, k]) <= _dot(a[0, k], shift)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_node_read_three_times(seed):
    """y = x + x + x: nothing is rounded but the coefficient 3 a."""
    rng = np.random.default_rng(seed)
    builder = Builder((6,))
    builder.add(Sum((1, 1, 1)), 0, 0, 0)
    size, a = np.abs(_wild(rng, 1, 6)), _wild(rng, 1, 4, 6)
    account = Account.zero(a)
    found = Backward(Steps(builder.build()), [(-size, size)], {}).send(1, a, account)
    for k in range(4):
        lost = _dot([abs(Fraction(found[0, k, j]) - 3 * Fraction(a[0, k, j])) for j in range(6)], size[0])
        assert lost <= Fraction(account.allowance[0, k])


def test_products_that_vanish_are_counted():
    """Nine products of 0.49 of the least float: float64 finds zero."""
    c, x = np.full((1, 1, 9), -0.49 * 2.0**-600), np.full((1, 9), 2.0**-474)
    assert (c[0, 0] @ x[0]) == 0.0
    assert Fraction(linear_on_box(c, x, x)[0, 0]) <= _dot(c[0, 0], x[0]) < 0
    step = AffineStep(chain((9,), Dense(exact(c[0]), ZERO)).nodes[1], (9,))
    assert Fraction(step.box(x, x)[0][0, 0]) <= _dot(c[0, 0], x[0])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_the_first_layer_holds_its_row_on_the_ball(seed, norm):
    """Rows with one entry each, and one of 3-4-5: their largest value on the ball is rational."""
    rng = np.random.default_rng(seed)
    weight = np.vstack([np.diag(_wild(rng, 2)), [3.0, 4.0]])
    steps, x, eps = Steps(chain((2,), Dense(exact(weight), ZERO))), _wild(rng, 1, 2), float(2.0 ** rng.integers(-60, 3))
    region = Region.around(x, eps, norm)
    around = Surroundings.of(steps, region, lipschitz_bounds(steps.network, norm, {}))
    low, high = around.narrowed(1, propagate(steps, 1, [region.ends]))
    for i, length in enumerate(
        [abs(Fraction(weight[0, 0])), abs(Fraction(weight[1, 1])), Fraction(4 if norm == "l1" else 5)]
    ):
        centre = _dot(weight[i], x[0])
        assert Fraction(low[0, i]) <= centre - Fraction(eps) * length
        assert Fraction(high[0, i]) >= centre + Fraction(eps) * length


@pytest.mark.parametrize("seed", SEEDS)
def test_the_least_value_on_ball_and_box_is_below_that_of_points(seed):
    """Rational points of an l2 ball inside a box; no looser than ball or box alone, and close to the least value."""
    rng = np.random.default_rng(seed)
    n, eps = int(rng.integers(1, 9)), float(2.0 ** rng.integers(-6, 3))
    x, c = rng.uniform(size=(2, n)), rng.normal(size=(2, 5, n)) * 2.0 ** rng.integers(-20, 20, (2, 5, n))
    both = Region.around(x, eps, "l2", (0.0, 1.0)).minimum(c)
    assert (both >= Region.around(x, eps, "l2").minimum(c)).all()
    for _ in range(20):
        step = rng.normal(size=(2, n))
        step = np.floor(eps * step / np.linalg.norm(step, axis=1, keepdims=True) * (1 - 1e-9) * 2.0**40) * 2.0**-40
        for b in range(2):
            d = [Fraction(v) for v in step[b]]
            if sum(v * v for v in d) > Fraction(eps) ** 2:
                continue
            point = [min(max(Fraction(a) + v, Fraction(0)), Fraction(1)) for a, v in zip(x[b], d, strict=True)]
            for k in range(5):
                value = sum((Fraction(a) * v for a, v in zip(c[b, k], point, strict=True)), Fraction(0))
                assert Fraction(both[b, k]) <= value


def test_ball_and_box_together_say_more_than_either():
    x, c = np.array([[0.9, 0.5, 0.5]]), np.array([[[-1.0, -1.0, -1.0]]])
    found = float(Region.around(x, 0.3, "l2", (0.0, 1.0)).minimum(c)[0, 0])
    least = -(0.9 + 0.1 + 0.5 + 0.5 + 2 * np.sqrt((0.09 - 0.01) / 2))  # the first entry stops at the wall
    assert least - 1e-9 <= found <= least + 1e-12
    assert found > -1.9 - 0.3 * np.sqrt(3.0) + 0.01
