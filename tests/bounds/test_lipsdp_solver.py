"""The LipSDP interior-point method: feasible multipliers, an honest gap, every shape of network."""

from dataclasses import replace
from itertools import pairwise

import cvxpy as cp
import numpy as np
import pytest

from lipcert.bounds.engine import bound
from lipcert.bounds.lipsdp import LipSdpStatus, _clock, solve_lipsdp
from lipcert.bounds.lipsdp.method import LipSdp
from lipcert.errors import InconclusiveError, UsageError
from lipcert.network.enclosure import Enclosure
from lipcert.network.operators import Elementwise
from lipcert.network.readers import load
from lipcert.proof.lifted import Block, Lifted, lift
from lipcert.proof.subject import subject
from lipcert.testing.build import matrices, mlp
from lipcert.testing.zoo import zoo


def form(inputs, rows, output, low=0.0, high=1.0):
    """A lifted form; rows: dict from block to matrix, for each block."""

    def exact(row):
        return {j: Enclosure.exact(w) for j, w in row.items()}

    sizes = [next(iter(row.values())).shape[0] for row in rows]
    blocks = [
        Block(k, np.full(n, low), np.full(n, high), exact(row))
        for k, (n, row) in enumerate(zip(sizes, rows, strict=True))
    ]
    return Lifted(inputs, tuple(blocks), exact(output))


def of_weights(weights, low=0.0, high=1.0):
    rows = [{k: w} for k, w in enumerate(weights)]
    return form(weights[0].shape[1], rows[:-1], rows[-1], low, high)


def random_weights(widths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((m, n)) / np.sqrt(n) for n, m in pairwise(widths)]


def network(widths, seed=0, low=0.0, high=1.0):
    return of_weights(random_weights(widths, seed), low, high)


def graph(sizes, reads, seed, low=0.0, high=1.0):
    """A random lifted form: sizes of the blocks, the input first; `reads`: what each block reads, the output last."""
    rng = np.random.default_rng(seed)
    outputs = [*sizes[1:], 3]
    rows = [
        {j: rng.standard_normal((m, sizes[j])) / np.sqrt(sizes[j] * len(row)) for j in row}
        for m, row in zip(outputs, reads, strict=True)
    ]
    return form(sizes[0], rows[:-1], rows[-1], low, high)


def with_slopes(lifted, *slopes):
    """slopes: (alpha, beta) for each block."""
    blocks = [
        replace(block, alpha=np.asarray(a), beta=np.asarray(b))
        for block, (a, b) in zip(lifted.blocks, slopes, strict=True)
    ]
    return replace(lifted, blocks=tuple(blocks))


def lmi(lifted, lam, f):
    """Z(lambda, F) of math.md section 2, dense and by its definition; works on numbers and on cvxpy variables."""
    n = sum(lifted.sizes)
    starts = np.cumsum([0, *lifted.sizes])

    def whole(row):
        full = np.zeros((next(iter(row.values())).shape[0], n))
        for j, w in row.items():
            full[:, starts[j] : starts[j + 1]] = w.mid
        return full

    z = np.zeros((n, n))
    z[: lifted.inputs, : lifted.inputs] = np.eye(lifted.inputs)
    for k, block in enumerate(lifted.blocks):
        for i, r in enumerate(whole(block.row)):
            e = np.zeros(n)
            e[starts[k + 1] + i] = 1.0
            p, q = e - block.alpha[i] * r, e - block.beta[i] * r
            z = z + lam[k][i] * (np.outer(p, q) + np.outer(q, p))
    c = whole(lifted.output)
    return z - f * (c.T @ c)


def optimum(lifted):
    """The LipSDP bound by Clarabel, good to about 1e-6."""
    lam = [cp.Variable(block.size, nonneg=True) for block in lifted.blocks]
    f = cp.Variable()
    z = lmi(lifted, lam, f)
    problem = cp.Problem(cp.Maximize(f), [(z + z.T) / 2 >> 0])
    problem.solve(solver=cp.CLARABEL)
    return float(f.value) ** -0.5


def margin(lifted, result, room=1e-7):
    """Smallest eigenvalue of Z in units where its diagonal is 1, and with the claim raised by `room`."""
    f = (result.value * (1 + room)) ** -2
    z = lmi(lifted, result.lam, f)
    d = 1 / np.sqrt(np.diag(z))
    return float(np.linalg.eigvalsh(z * d[:, None] * d)[0])


def observed(lifted, seed=0, tries=4000):
    """A lower bound: Jacobian norms with every neuron's slope at one of its ends."""
    rng = np.random.default_rng(seed)
    best = 0.0
    for _ in range(tries):
        jacobians = [np.eye(lifted.inputs)]
        for block in lifted.blocks:
            slopes = np.where(rng.random(block.size) < 0.5, block.alpha, block.beta)
            jacobians.append(slopes[:, None] * sum(w.mid @ jacobians[j] for j, w in block.row.items()))
        best = max(best, np.linalg.norm(sum(w.mid @ jacobians[j] for j, w in lifted.output.items()), 2))
    return best


CASES = {
    "one hidden layer": network([5, 8, 3]),
    "deep": network([6, 5, 7, 4, 6, 2], seed=1),
    "wide input": network([40, 6, 5, 3], seed=2),
    "wide output": network([4, 6, 5, 30], seed=3),
    "one neuron in the middle": network([4, 5, 1, 5, 2], seed=4),
    "one neuron each": network([1, 1, 1, 1], seed=5),
    "one output": network([5, 6, 6, 1], seed=6),
    "leaky": network([5, 6, 4, 3], seed=7, low=0.1),
    "leaky, narrow": network([5, 6, 4, 3], seed=8, low=0.7),
    "negative slopes": network([5, 6, 4, 3], seed=9, low=-0.3),
    "symmetric slopes": network([4, 4, 4, 3], seed=10, low=-1.0),
    "steep": network([4, 6, 5, 3], seed=11, low=-0.129, high=1.129),
    "residual": graph([4, 5, 5, 4], [(0,), (1,), (2, 1), (3,)], seed=20),
    "residual, leaky": graph([4, 5, 5, 4], [(0,), (1,), (2, 1), (3,)], seed=21, low=0.2),
    "residual, two blocks": graph([3, 4, 4, 4, 4, 4], [(0,), (1,), (2, 1), (3,), (4, 3), (5,)], seed=22),
    "input and all blocks in the output": graph([3, 4, 4, 4], [(0,), (1,), (2,), (0, 1, 2, 3)], seed=23),
    "everything reads everything": graph([3, 4, 3, 4], [(0,), (0, 1), (0, 1, 2), (0, 1, 2, 3)], seed=24, low=-0.2),
    "two branches": graph([6, 4, 5, 4], [(0,), (0,), (1, 2), (3,)], seed=25),
    "many inputs, read twice": graph([30, 4, 5, 4], [(0,), (0, 1), (2,), (3, 0)], seed=26, low=0.1),
    "a far skip": graph([3, 3, 3, 3, 3, 3], [(0,), (1,), (2,), (3,), (4, 0), (5,)], seed=27),
}


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.replace(" ", "-"))
def test_reaches_the_optimum_from_above_with_feasible_multipliers(case):
    lifted = CASES[case]
    result = solve_lipsdp(lifted, gap=1e-7)
    assert result.status is LipSdpStatus.OPTIMAL
    assert result.gap <= 1e-7
    assert all((part > 0).all() for part in result.lam)
    assert margin(lifted, result) > 0
    reference = optimum(lifted)
    assert result.primal <= reference * (1 + 2e-6)
    assert result.value >= reference * (1 - 2e-6)
    assert result.value <= reference * (1 + 2e-5)
    assert result.value >= observed(lifted, tries=500)


def test_mixed_slopes_in_one_layer():
    lifted = network([5, 6, 6, 3], seed=12)
    alpha, beta = np.zeros((2, 6)), np.ones((2, 6))
    alpha[0][:3], beta[1][2:] = 0.2, 0.6
    alpha[1][1] = -0.4
    lifted = with_slopes(lifted, *zip(alpha, beta, strict=True))
    result = solve_lipsdp(lifted, gap=1e-7)
    assert margin(lifted, result) > 0
    assert abs(result.value / optimum(lifted) - 1) < 2e-5


def test_true_slopes_are_never_worse():
    for seed in range(4):
        weights = random_weights([6, 8, 8, 8, 3], seed)
        loose = solve_lipsdp(of_weights(weights), gap=1e-8)
        tight = solve_lipsdp(of_weights(weights, low=0.01), gap=1e-8)
        assert tight.value <= loose.value


def test_true_slopes_on_a_deep_wide_network(shared_data):
    """With them, one of the barrier's terms used to push the centre out of reach."""
    network = glipsdp(shared_data, "mlp_L9_W32")
    loose = with_slopes(network, *((np.zeros(block.size), block.beta) for block in network.blocks))
    tight, plain = solve_lipsdp(network), solve_lipsdp(loose)
    assert tight.gap <= 1e-6
    assert tight.value < plain.primal


def glipsdp(shared_data, name):
    path = shared_data / "models" / "glipsdp" / f"{name}.onnx"
    return lift(subject(load(path, input_shape=(1, 28, 28)), "output"))


def test_linear_neurons_are_eliminated():
    """v_2 of the first layer is 0.5 z_2: the same network with that neuron's row handed on to its readers."""
    first, second, third = random_weights([4, 5, 5, 3], seed=30)
    slopes = np.zeros(5), np.ones(5)
    slopes[0][2], slopes[1][2] = 0.5, 0.5
    lifted = with_slopes(of_weights([first, second, third], low=0.1), slopes, (np.full(5, 0.1), np.ones(5)))
    others = [0, 1, 3, 4]
    handed_on = {0: 0.5 * np.outer(second[:, 2], first[2]), 1: second[:, others]}
    by_hand = with_slopes(
        form(4, [{0: first[others]}, handed_on], {2: third}),
        (slopes[0][others], slopes[1][others]),
        (np.full(5, 0.1), np.ones(5)),
    )
    found, expected = solve_lipsdp(lifted, gap=1e-8), solve_lipsdp(by_hand, gap=1e-8)
    assert found.value == pytest.approx(expected.value, rel=3e-8)
    assert found.value == pytest.approx(optimum(by_hand), rel=1e-5)
    assert margin(lifted, found, room=1e-4) > 0


def test_linear_neurons_in_all_layers_are_proved():
    rng = np.random.default_rng(31)
    slopes = np.where(rng.random(8) < 0.3, 1.0, rng.choice([0.0, 0.1, -0.5], size=8))
    net = mlp(matrices(32, 4, 8, 8, 8, 3), Elementwise("leaky_relu", (slopes,)))
    assert (slopes == 1.0).any()
    solved = solve_lipsdp(lifted_of(net), gap=1e-7)
    assert bound(net, "lipsdp").value == pytest.approx(solved.value, rel=1e-3)
    assert bound(net, "lipsdp").value >= solved.primal


def lifted_of(net):
    return lift(subject(net, "output"))


def test_a_network_of_linear_and_dead_neurons_only():
    first, second = random_weights([4, 5, 3], seed=33)
    first[1] = 0.0
    alpha, beta = np.full(5, 0.5), np.full(5, 0.5)
    alpha[1], beta[1] = 0.0, 1.0
    lifted = with_slopes(of_weights([first, second]), (alpha, beta))
    result = solve_lipsdp(lifted)
    assert result.status is LipSdpStatus.LINEAR
    assert result.value == pytest.approx(0.5 * np.linalg.norm(second @ first, 2), rel=1e-12)
    assert margin(lifted, result, room=1e-4) > 0


def test_rows_and_columns_that_weight_decay_left_at_next_to_nothing():
    """Their multipliers are larger than others by 60 orders of magnitude, and must not hold up the centring."""
    lifted = graph([6, 8, 8, 8, 8, 8], [(0,), (1,), (2, 1), (3,), (4, 3), (5,)], seed=42)
    plain = solve_lipsdp(lifted, gap=1e-7)
    faint = {
        j: Enclosure.exact(w.mid * np.array([1e-30, 1e-18, 1, 1, 1, 1, 1, 1])[:, None])
        for j, w in lifted.blocks[1].row.items()
    }
    blocks = (lifted.blocks[0], replace(lifted.blocks[1], row=faint), *lifted.blocks[2:])
    result = solve_lipsdp(replace(lifted, blocks=blocks), gap=1e-7)
    assert result.status is LipSdpStatus.OPTIMAL
    assert result.iterations <= plain.iterations + 8


@pytest.mark.parametrize("size", [0.0, 1e-13, 1e-7])
def test_dead_and_nearly_dead_neurons(size):
    weights = random_weights([6, 8, 8, 8, 3], seed=13)
    clean = [w.copy() for w in weights]
    for w in (weights, clean):
        w[0][2] = 0.0  # a zero row
        w[1][:, 3] = 0.0  # a zero column
        w[1][5] = 0.0
        w[2][:, 5] = 0.0  # both, one layer on
    weights[0][2] = size
    weights[1][:, 3] = size
    weights[1][5] = size
    weights[2][:, 5] = size
    result = solve_lipsdp(of_weights(weights), gap=1e-7)
    assert result.status is LipSdpStatus.OPTIMAL
    assert all((part > 0).all() for part in result.lam)
    assert margin(of_weights(weights), result) > -1e-12
    removed = solve_lipsdp(of_weights(clean), gap=1e-7)
    assert abs(result.value / removed.value - 1) < 1e-5


def test_a_chain_of_dead_neurons():
    weights = random_weights([4, 5, 5, 5, 5, 2], seed=14)
    weights[0][1] = 0.0
    weights[1][1] = 0.0
    weights[1][1, 1] = 1.0  # reads a dead neuron only
    weights[2][2] = 0.0
    weights[2][2, 1] = 1.0  # and so does this one
    weights[4][:, 3] = 0.0
    weights[3][:, 4] = 0.0
    weights[3][3, 4] = 1.0  # feeds an unread neuron only
    result = solve_lipsdp(of_weights(weights), gap=1e-7)
    assert all((part > 0).all() for part in result.lam)
    assert margin(of_weights(weights), result) > -1e-12


def test_layers_of_very_different_scales():
    weights = random_weights([5, 7, 7, 7, 3], seed=15)
    plain = solve_lipsdp(of_weights(weights), gap=1e-7)
    scaled = [w * s for w, s in zip(weights, [2.0**40, 2.0**-60, 2.0**35, 2.0**-15], strict=True)]
    rows = 2.0 ** np.array([20, -20, 0, 7, -9, 3, 1])
    scaled[1] = scaled[1] * rows[:, None]
    scaled[2] = scaled[2] / rows
    result = solve_lipsdp(of_weights(scaled), gap=1e-7)
    assert abs(result.value / plain.value - 1) < 1e-6


@pytest.mark.parametrize(
    "powers", [(512, 0, 0), (0, 0, 512), (511, -511, 0), (-520, 520, 0), (512, 512, 512), (512, 0, -512)]
)
def test_weights_whose_squares_over_or_underflow(powers):
    """The solver works in units of the layers; what it finds then is beyond float64, and refused in one line."""
    weights = random_weights([4, 5, 6, 3], seed=17)
    plain = solve_lipsdp(of_weights(weights), gap=1e-7)
    scaled = [np.ldexp(w, e) for w, e in zip(weights, powers, strict=True)]
    result = solve_lipsdp(of_weights(scaled), gap=1e-7)
    with np.errstate(all="ignore"):
        assert result.value == pytest.approx(float(np.ldexp(plain.value, sum(powers))), rel=1e-6)
    with pytest.raises(InconclusiveError) as refusal:
        bound(mlp(scaled), "lipsdp")
    assert "\n" not in str(refusal.value)


def test_deep_narrow_chain_converges():
    rng = np.random.default_rng(16)
    weights = [rng.standard_normal((6, 6)) for _ in range(41)]
    lifted = of_weights([2 * w / np.linalg.norm(w, 2) for w in weights])
    result = solve_lipsdp(lifted, gap=1e-5)
    assert result.status is LipSdpStatus.OPTIMAL
    assert result.value < 2.0**41
    assert margin(lifted, result) > 0


def test_deep_residual_network_converges():
    """Windows in a graph: blocks that skip paths hold on to stay in the frontier."""
    reads = [(0,)]
    for k in range(1, 13):
        reads.append((k,) if k % 2 else (k, k - 1))
    lifted = graph([5] * 14, [*reads, (13,)], seed=34)
    result = solve_lipsdp(lifted, gap=1e-6)
    assert result.status is LipSdpStatus.OPTIMAL
    assert margin(lifted, result) > 0


def test_constant_network():
    weights = random_weights([4, 5, 5, 2], seed=17)
    weights[1][:] = 0.0
    result = solve_lipsdp(of_weights(weights))
    assert result.status is LipSdpStatus.CONSTANT
    assert result.value < 1e-80
    assert bound(zoo()["a layer of zeros"], "lipsdp").value == 0.0


def test_no_path_from_input_to_output():
    first, second = random_weights([4, 6, 3], seed=18)
    first[:3], second[:, 3:] = 0.0, 0.0
    net = mlp([first, second])
    assert 0.0 <= bound(net, "lipsdp").value < 1e-40 < bound(net, "product").value


@pytest.mark.parametrize("size", [1e150, 1e154, 1e300])
def test_huge_weights_end_in_a_bound_or_a_clean_error(size):
    weights = [w * size for w in random_weights([4, 5, 3], seed=19)]
    weights[0][2] = 0.0
    try:
        found = bound(mlp(weights), "lipsdp").value
    except InconclusiveError:
        return
    assert found >= np.linalg.norm(weights[1] / size @ np.diag([1, 0, 0, 1, 0]) @ weights[0] / size, 2) * size * size


def test_anytime_and_progress():
    lifted = network([8, 12, 12, 12, 4], seed=18)
    stopped = solve_lipsdp(lifted, time_limit=0.0)
    assert stopped.status is LipSdpStatus.TIME_LIMIT
    assert margin(lifted, stopped) > 0
    assert stopped.gap > 1.0
    seen = []
    result = solve_lipsdp(lifted, gap=1e-3, progress=seen.append)
    assert result.gap <= 1e-3
    assert [p.iteration for p in seen] == sorted(p.iteration for p in seen)
    assert all(a.value >= b.value and a.gap >= b.gap for a, b in pairwise(seen))
    assert seen[-1].value == pytest.approx(result.value, rel=1e-12)
    better = solve_lipsdp(lifted, gap=1e-7)
    assert result.primal <= better.value
    assert better.value <= result.value <= stopped.value


def test_every_moment_leaves_a_feasible_point(monkeypatch):
    """The clock runs out after any number of looks at it."""
    lifted = graph([4, 5, 5, 4], [(0,), (1,), (2, 1), (3,)], seed=35)
    values = []
    for looks in (0, 1, 2, 5, 10, 30, 60, 100, 150, 250, 400, 10**6):
        left = iter(range(looks))
        monkeypatch.setattr(_clock.Clock, "is_up", property(lambda _, left=left: next(left, None) is None))
        result = solve_lipsdp(lifted, gap=1e-7)
        assert margin(lifted, result) > 0
        values.append(result.value)
    assert values[-1] == min(values)
    assert result.status is LipSdpStatus.OPTIMAL


def test_the_method_keeps_to_the_time_limit_and_says_so():
    found = bound(mlp(matrices(36, 6, 20, 20, 20, 3)), "lipsdp", time_limit=0.0)
    assert found.solver.status == "time_limit"
    assert "time limit was reached before" in found.notes[0]
    assert found.value <= bound(mlp(matrices(36, 6, 20, 20, 20, 3)), "eclipse-fast").value * (1 + 1e-6)


def test_large_networks_are_refused_by_their_numbers():
    wide = mlp([np.ones((9000, 2)), np.ones((1, 9000)), np.ones((9000, 1)), np.ones((2, 9000))])
    with pytest.raises(UsageError, match=r"GiB \(8 at most\)"):
        bound(wide, "lipsdp")
    small = subject(mlp(matrices(37, 6, 20, 20, 3)), "output")
    assert LipSdp().refuses(small, "l2") is None


@pytest.mark.parametrize(
    "name", ["residual x + g(x)", "ReLU behind sums, one with a minus", "concatenation with a skip"]
)
def test_graphs_are_served_and_are_better_than_closed_forms(name):
    net = zoo()[name]
    assert bound(net, "lipsdp").value <= bound(net, "eclipse-fast").value
    assert bound(net, "lipsdp").value <= bound(net, "product").value


def test_a_chain_written_as_a_graph():
    """The second layer once more, as two blocks side by side."""
    first, second, third = matrices(38, 4, 5, 6, 3)
    rows = [{0: first}, {1: second[:2]}, {1: second[2:]}]
    split = form(4, rows, {2: third[:, :2], 3: third[:, 2:]})
    whole = of_weights([first, second, third])
    assert solve_lipsdp(split, gap=1e-8).value == pytest.approx(solve_lipsdp(whole, gap=1e-8).value, rel=3e-8)


def test_numbers_that_are_not_finite_are_refused():
    weights = random_weights([3, 4, 4, 2])
    with pytest.raises(ValueError, match="finite"):
        solve_lipsdp(of_weights([weights[0] * np.nan, *weights[1:]]))
    with pytest.raises(ValueError, match="alpha <= beta"):
        solve_lipsdp(of_weights(weights, low=0.5, high=0.2))
