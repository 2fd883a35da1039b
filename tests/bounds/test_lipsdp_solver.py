"""The LipSDP interior-point method: feasible multipliers, an honest gap, every shape of chain."""

from itertools import pairwise

import cvxpy as cp
import numpy as np
import pytest

from lipcert.bounds.lipsdp import LipSdpStatus, solve_lipsdp


def network(widths, seed=0, low=0.0, high=1.0):
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal((m, n)) / np.sqrt(n) for n, m in pairwise(widths)]
    hidden = widths[1:-1]
    return weights, [np.full(n, low) for n in hidden], [np.full(n, high) for n in hidden]


def lmi(weights, alpha, beta, lam, f):
    """Z(lambda, F) of math.md section 2, dense and by its definition; works on numbers and on cvxpy variables."""
    sizes = [weights[0].shape[1], *(w.shape[0] for w in weights[:-1])]
    n = sum(sizes)
    starts = np.cumsum([0, *sizes])
    z = np.zeros((n, n))
    z[: sizes[0], : sizes[0]] = np.eye(sizes[0])
    for k, w in enumerate(weights[:-1]):
        for i in range(len(w)):
            r, e = np.zeros(n), np.zeros(n)
            r[starts[k] : starts[k + 1]] = w[i]
            e[starts[k + 1] + i] = 1.0
            p, q = e - alpha[k][i] * r, e - beta[k][i] * r
            z = z + lam[k][i] * (np.outer(p, q) + np.outer(q, p))
    c = np.zeros((len(weights[-1]), n))
    c[:, starts[-2] :] = weights[-1]
    return z - f * (c.T @ c)


def optimum(weights, alpha, beta):
    """The LipSDP bound by Clarabel, good to about 1e-6."""
    lam = [cp.Variable(w.shape[0], nonneg=True) for w in weights[:-1]]
    f = cp.Variable()
    z = lmi(weights, alpha, beta, lam, f)
    problem = cp.Problem(cp.Maximize(f), [(z + z.T) / 2 >> 0])
    problem.solve(solver=cp.CLARABEL)
    return float(f.value) ** -0.5


def margin(weights, alpha, beta, result):
    """Smallest eigenvalue of Z in units where its diagonal is 1, and with the claim raised by 1e-7."""
    f = (result.value * (1 + 1e-7)) ** -2
    z = lmi(weights, alpha, beta, result.lam, f)
    d = 1 / np.sqrt(np.diag(z))
    return float(np.linalg.eigvalsh(z * d[:, None] * d)[0])


def observed(weights, alpha, beta, seed=0, tries=4000):
    """A lower bound: Jacobian norms with every neuron's slope at one of its ends."""
    rng = np.random.default_rng(seed)
    best = 0.0
    for _ in range(tries):
        jacobian = weights[0]
        for w, a, b in zip(weights[1:], alpha, beta, strict=True):
            jacobian = w @ (np.where(rng.random(len(a)) < 0.5, a, b)[:, None] * jacobian)
        best = max(best, np.linalg.norm(jacobian, 2))
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
}


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.replace(" ", "-"))
def test_reaches_the_optimum_from_above_with_feasible_multipliers(case):
    net = CASES[case]
    result = solve_lipsdp(*net, gap=1e-7)
    assert result.status is LipSdpStatus.OPTIMAL
    assert result.gap <= 1e-7
    assert all((part > 0).all() for part in result.lam)
    assert margin(*net, result) > 0
    reference = optimum(*net)
    assert result.primal <= reference * (1 + 2e-6)
    assert result.value >= reference * (1 - 2e-6)
    assert result.value <= reference * (1 + 2e-5)
    assert result.value >= observed(*net)


def test_mixed_slopes_in_one_layer():
    weights, alpha, beta = network([5, 6, 6, 3], seed=12)
    alpha[0][:3], beta[1][2:] = 0.2, 0.6
    alpha[1][1] = -0.4
    result = solve_lipsdp(weights, alpha, beta, gap=1e-7)
    assert margin(weights, alpha, beta, result) > 0
    assert abs(result.value / optimum(weights, alpha, beta) - 1) < 2e-5


def test_true_slopes_are_never_worse():
    for seed in range(4):
        weights, alpha, beta = network([6, 8, 8, 8, 3], seed=seed)
        loose = solve_lipsdp(weights, alpha, beta, gap=1e-8)
        tight = solve_lipsdp(weights, [a + 0.01 for a in alpha], beta, gap=1e-8)
        assert tight.value <= loose.value


@pytest.mark.parametrize("size", [0.0, 1e-13, 1e-7])
def test_dead_and_nearly_dead_neurons(size):
    weights, alpha, beta = network([6, 8, 8, 8, 3], seed=13)
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
    result = solve_lipsdp(weights, alpha, beta, gap=1e-7)
    assert result.status is LipSdpStatus.OPTIMAL
    assert all((part > 0).all() for part in result.lam)
    assert margin(weights, alpha, beta, result) > -1e-12
    removed = solve_lipsdp(clean, alpha, beta, gap=1e-7)
    assert abs(result.value / removed.value - 1) < 1e-5


def test_a_chain_of_dead_neurons():
    weights, alpha, beta = network([4, 5, 5, 5, 5, 2], seed=14)
    weights[0][1] = 0.0
    weights[1][1] = 0.0
    weights[1][1, 1] = 1.0  # reads a dead neuron only
    weights[2][2] = 0.0
    weights[2][2, 1] = 1.0  # and so does this one
    weights[4][:, 3] = 0.0
    weights[3][:, 4] = 0.0
    weights[3][3, 4] = 1.0  # feeds an unread neuron only
    result = solve_lipsdp(weights, alpha, beta, gap=1e-7)
    assert all((part > 0).all() for part in result.lam)
    assert margin(weights, alpha, beta, result) > -1e-12


def test_layers_of_very_different_scales():
    weights, alpha, beta = network([5, 7, 7, 7, 3], seed=15)
    plain = solve_lipsdp(weights, alpha, beta, gap=1e-7)
    scaled = [w * s for w, s in zip(weights, [2.0**40, 2.0**-60, 2.0**35, 2.0**-15], strict=True)]
    rows = 2.0 ** np.array([20, -20, 0, 7, -9, 3, 1])
    scaled[1] = scaled[1] * rows[:, None]
    scaled[2] = scaled[2] / rows
    result = solve_lipsdp(scaled, alpha, beta, gap=1e-7)
    assert abs(result.value / plain.value - 1) < 1e-6


def test_deep_narrow_chain_converges():
    rng = np.random.default_rng(16)
    weights = [rng.standard_normal((6, 6)) for _ in range(41)]
    weights = [2 * w / np.linalg.norm(w, 2) for w in weights]
    slopes = [np.zeros(6)] * 40, [np.ones(6)] * 40
    result = solve_lipsdp(weights, *slopes, gap=1e-5)
    assert result.status is LipSdpStatus.OPTIMAL
    assert result.value < 2.0**41
    assert margin(weights, *slopes, result) > 0


def test_constant_network():
    weights, alpha, beta = network([4, 5, 5, 2], seed=17)
    weights[1][:] = 0.0
    result = solve_lipsdp(weights, alpha, beta)
    assert result.status is LipSdpStatus.CONSTANT
    assert result.value == 0.0


def test_anytime_and_progress():
    net = network([8, 12, 12, 12, 4], seed=18)
    stopped = solve_lipsdp(*net, time_limit=0.0)
    assert stopped.status is LipSdpStatus.TIME_LIMIT
    assert margin(*net, stopped) > 0
    assert stopped.gap > 1.0
    seen = []
    result = solve_lipsdp(*net, gap=1e-3, progress=seen.append)
    assert result.gap <= 1e-3
    assert [p.iteration for p in seen] == sorted(p.iteration for p in seen)
    assert all(a.value >= b.value and a.gap >= b.gap for a, b in pairwise(seen))
    assert seen[-1].value == pytest.approx(result.value, rel=1e-12)
    better = solve_lipsdp(*net, gap=1e-7)
    assert result.primal <= better.value
    assert better.value <= result.value <= stopped.value


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda w, a, b: (w, a, a), "alpha < beta"),
        (lambda w, a, b: (w[:1], [], []), "l >= 1"),
        (lambda w, a, b: ([w[0], w[1][:, 1:], w[2]], a, b), "fit together"),
        (lambda w, a, b: ([w[0] * np.nan, *w[1:]], a, b), "finite"),
        (lambda w, a, b: (w, [a[0][1:], a[1]], b), "do not fit"),
    ],
)
def test_bad_input_is_refused(spoil, words):
    with pytest.raises(ValueError, match=words):
        solve_lipsdp(*spoil(*network([3, 4, 4, 2])))
