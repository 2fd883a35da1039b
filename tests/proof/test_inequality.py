"""The lifted form and the matrix of the multiplier rule, against Jacobians, dense formulas and rational arithmetic."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import networks

from lipcert.bounds.targets import largest_target
from lipcert.network import Builder, Network
from lipcert.network.evaluate import evaluate_nodes
from lipcert.network.operators import Dense, Elementwise, Sum
from lipcert.proof.inequality import add_output, assemble, group, grouping
from lipcert.proof.lifted import Lifted, lift, wraps
from lipcert.proof.refusal import Refused
from lipcert.proof.rules import RULES
from lipcert.proof.rules.multipliers import proves
from lipcert.proof.subject import subject
from lipcert.testing.build import RELU, chain, conv, dense, exact, matrices, mlp
from lipcert.testing.jacobian import DERIVATIVES, exact_jacobian
from lipcert.testing.truth import jacobians_of, lower_bound
from lipcert.testing.zoo import zoo

LIFTABLE = (
    *("dense", "conv", "conv_transpose", "avg_pool", "scale", "gather", "reshape"),
    *("elementwise", "relu", "residual", "concat"),
)
FLAT = ("dense", "relu", "elementwise", "residual", "concat", "scale")
SEEDS = st.integers(0, 9999)
SMALL = ["small ReLU chain", "residual x + g(x)", "ReLU behind sums, one with a minus", "concatenation with a skip",
         "one node used three times", "leaky slopes, one per neuron", "batch norm with quotients"]  # fmt: skip


def lifted_form(network: Network) -> tuple[Network, Lifted] | None:
    """Return normal form and lifted form, None where a kernel wraps onto itself."""
    normal = subject(network, "output")
    try:
        return normal, lift(normal)
    except Refused:
        return None


# --- lifted form ---------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(networks(LIFTABLE), SEEDS)
def test_jacobians_from_the_lifted_form(network: Network, seed: int) -> None:
    """With V_k = dv_k / dx: V_k = diag(slopes) sum_j R_kj V_j, and the Jacobian is sum_j C_j V_j."""
    found = lifted_form(network)
    if found is None:
        return
    normal, lifted = found
    x = np.random.default_rng(seed).normal(size=normal.input_shape)
    values = [value[0] for value in evaluate_nodes(normal, x[None])]
    parts = [np.eye(lifted.inputs)]
    for block in lifted.blocks:
        node = normal.nodes[block.node]
        assert isinstance(node.op, Elementwise)
        slopes = np.broadcast_to(DERIVATIVES[node.op.name](values[node.inputs[0]], *node.op.params), node.shape)
        assert (slopes.ravel() >= block.alpha - 1e-12).all()
        assert (slopes.ravel() <= block.beta + 1e-12).all()
        parts.append(slopes.reshape(-1, 1) * sum(matrix.mid @ parts[j] for j, matrix in block.row.items()))
    rebuilt = sum(matrix.mid @ parts[j] for j, matrix in lifted.output.items())
    truth = exact_jacobian(network, x)
    np.testing.assert_allclose(rebuilt, truth, rtol=0, atol=1e-8 * (1 + np.abs(truth).max()))


@settings(max_examples=60, deadline=None)
@given(networks(LIFTABLE))
def test_blocks_read_earlier_blocks_only(network: Network) -> None:
    found = lifted_form(network)
    if found is not None:
        _, lifted = found
        for k, block in enumerate(lifted.blocks, start=1):
            assert all(0 <= j < k and matrix.shape == (block.size, lifted.sizes[j]) for j, matrix in block.row.items())


@pytest.mark.parametrize("slopes", [1.0, [1.0, 1.0, 1.0]])
def test_activations_with_fixed_slopes_are_no_blocks(slopes: object) -> None:
    """leaky_relu of slope 1 is the identity, a clip between equal numbers is constant."""
    first, second = matrices(3, 4, 3, 2)
    linear = Elementwise("leaky_relu", (np.array(slopes),))
    lifted = lift(subject(mlp([first, second], linear), "output"))
    assert lifted.blocks == ()
    np.testing.assert_allclose(lifted.output[0].mid, second @ first, rtol=1e-14)
    constant = Elementwise("clip", (np.array(0.5), np.array(0.5)))
    assert not lift(subject(mlp([first, second], constant), "output")).output[0].mid.any()


def test_composed_matrices_enclose_the_exact_products() -> None:
    """Two dense layers that cannot be merged, as the first has another user."""
    first, second = matrices(1, 4, 3, 3)
    builder = Builder((4,))
    inner = builder.add(Dense(exact(first), exact(np.zeros(3))), 0)
    outer = builder.add(Dense(exact(second), exact(np.zeros(3))), inner)
    builder.add(RELU, builder.add(Sum((1, -1)), outer, inner))
    lifted = lift(subject(builder.build(), "output"))
    (matrix,) = lifted.blocks[0].row.values()
    for i, j in itertools.product(range(3), range(4)):
        truth = sum(Fraction(second[i, k]) * Fraction(first[k, j]) for k in range(3)) - Fraction(first[i, j])
        assert abs(Fraction(matrix.mid[i, j]) - truth) <= Fraction(matrix.radius[i, j])


@pytest.mark.parametrize(("size", "taps", "dilation", "expected"), [
    (3, 3, 1, False), (2, 3, 1, True), (2, 2, 2, True), (5, 3, 2, False), (4, 3, 2, True), (6, 3, 4, False),
])  # fmt: skip
def test_kernels_that_wrap_onto_themselves(size: int, taps: int, dilation: int, expected: bool) -> None:
    reach = dilation * (taps - 1)
    op = conv(2, (1, 1, taps), padding=((reach, reach),), dilation=dilation, circular=True)
    assert wraps(op, (1, size)) is expected
    assert not wraps(conv(2, (1, 1, taps), padding=((reach, reach),)), (1, size))
    network = chain((1, size), RELU, op, RELU)
    if expected:
        with pytest.raises(Refused, match="wraps"):
            lift(network)
    else:
        lift(network)


def test_what_is_not_elementwise_or_too_large_is_refused() -> None:
    with pytest.raises(Refused, match="neither affine nor elementwise"):
        lift(zoo()["MaxMin"])
    with pytest.raises(Refused, match="entries"):
        lift(chain((20000,), RELU))
    narrow = Builder((1000,))
    inner = narrow.add(Dense(exact(np.ones((2, 1000))), exact(np.zeros(2))), 0)
    narrow.add(Dense(exact(np.ones((200_000, 2))), exact(np.zeros(200_000))), inner)
    with pytest.raises(Refused, match="entries"):
        lift(narrow.build())


# --- the matrix ----------------------------------------------------------------------------------------------


def dense_z(lifted: Lifted, multipliers: list[np.ndarray], target: float) -> np.ndarray:
    """Return E_x'E_x + sum_i lambda_i (p_i q_i' + q_i p_i') - F C'C with p = e - alpha r, q = e - beta r."""
    ends = np.cumsum([0, *lifted.sizes])
    z = np.zeros((ends[-1], ends[-1]))
    z[: lifted.inputs, : lifted.inputs] = np.eye(lifted.inputs)

    def spread(row: dict[int, np.ndarray], index: int) -> np.ndarray:
        full = np.zeros(ends[-1])
        for j, matrix in row.items():
            full[ends[j] : ends[j + 1]] = matrix.mid[index]
        return full

    for k, (block, values) in enumerate(zip(lifted.blocks, multipliers, strict=True), start=1):
        for i in range(block.size):
            e, r = np.eye(ends[-1])[ends[k] + i], spread(block.row, i)
            p, q = e - block.alpha[i] * r, e - block.beta[i] * r
            z += values[i] * (np.outer(p, q) + np.outer(q, p))
    rows = next(iter(lifted.output.values())).shape[0]
    c = np.array([spread(lifted.output, i) for i in range(rows)])
    return z - target * c.T @ c


def grouped_z(lifted: Lifted, multipliers: list[np.ndarray], target: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the assembled matrix in the order of the blocks, and its t_i."""
    blocks = assemble(lifted, multipliers)
    add_output(blocks, lifted, target)
    diagonal, below, spread = group(blocks, lifted)
    starts = np.cumsum([0, *(len(block) for block in diagonal)])
    z = np.zeros((starts[-1], starts[-1]))
    for g, block in enumerate(diagonal):
        z[starts[g] : starts[g + 1], starts[g] : starts[g + 1]] = block
    for g, block in enumerate(below):
        z[starts[g + 1] : starts[g + 2], starts[g] : starts[g + 1]] = block
        z[starts[g] : starts[g + 1], starts[g + 1] : starts[g + 2]] = block.T
    where = grouping(blocks, lifted.sizes)
    order = np.concatenate(
        [starts[level] + start + np.arange(size)
         for level, start, size in zip(where.levels, where.start, lifted.sizes, strict=True)]
    )  # fmt: skip
    return z[np.ix_(order, order)], np.concatenate(spread)[order]


def some_multipliers(lifted: Lifted, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.exp(rng.normal(size=block.size)) for block in lifted.blocks]


@settings(max_examples=100, deadline=None)
@given(networks(LIFTABLE, max_depth=6), SEEDS)
def test_the_assembled_matrix_is_that_of_the_theorem(network: Network, seed: int) -> None:
    found = lifted_form(network)
    if found is None:
        return
    _, lifted = found
    multipliers = some_multipliers(lifted, seed)
    built, _ = grouped_z(lifted, multipliers, 0.7)
    truth = dense_z(lifted, multipliers, 0.7)
    np.testing.assert_array_equal(built, built.T)
    np.testing.assert_allclose(built, truth, rtol=0, atol=1e-12 * (1 + np.abs(truth).max()))


def rational_z(lifted: Lifted, multipliers: list[np.ndarray], target: float) -> list[list[Fraction]]:
    """Return the matrix at the centres of all enclosures in rational arithmetic."""
    ends = [int(e) for e in np.cumsum([0, *lifted.sizes])]
    z = [[Fraction(int(i == j < lifted.inputs)) for j in range(ends[-1])] for i in range(ends[-1])]

    def spread(row: object, index: int) -> dict[int, Fraction]:
        return {ends[j] + c: Fraction(v) for j, m in row.items() for c, v in enumerate(m.mid[index].tolist()) if v}

    def add(p: dict[int, Fraction], q: dict[int, Fraction], weight: Fraction) -> None:
        for (i, a), (j, b) in itertools.product(p.items(), q.items()):
            z[i][j] += weight * a * b

    for k, (block, values) in enumerate(zip(lifted.blocks, multipliers, strict=True), start=1):
        for n in range(block.size):
            row = spread(block.row, n)
            p, q = ({j: -Fraction(side[n]) * r for j, r in row.items()} for side in (block.alpha, block.beta))
            p[ends[k] + n], q[ends[k] + n] = Fraction(1), Fraction(1)
            add(p, q, Fraction(values[n]))
            add(q, p, Fraction(values[n]))
    for n in range(next(iter(lifted.output.values())).shape[0]):
        row = spread(lifted.output, n)
        add(row, row, -Fraction(target))
    return z


@pytest.mark.parametrize("name", SMALL)
def test_the_spread_covers_the_exact_matrix(name: str) -> None:
    """E = exact - assembled obeys x'Ex <= sum t_i x_i^2 for all x, shown by weighted row sums as in the module."""
    lifted = lift(subject(zoo()[name], "output"))
    multipliers = some_multipliers(lifted, 5)
    built, spread = grouped_z(lifted, multipliers, 0.3)
    truth = rational_z(lifted, multipliers, 0.3)
    size = range(len(truth))
    error = np.array([[float(abs(truth[i][j] - Fraction(built[i, j]))) for j in size] for i in size])
    side = 2.0 ** -(np.frexp(np.diag(built))[1] // 2)
    assert (error @ side / side <= spread * (1 + 1e-12)).all()
    assert (spread <= 1e-10 * np.abs(built).max()).all() or name == "batch norm with quotients"


# --- proofs --------------------------------------------------------------------------------------------------


def smallest_eigenvalue(z: np.ndarray) -> float:
    """Return the smallest eigenvalue after scaling the diagonal to 1 in size."""
    scale = 1 / np.sqrt(np.abs(np.diag(z)))
    return float(np.linalg.eigvalsh(z * scale * scale[:, None])[0])


def admissible(lifted: Lifted, seed: int) -> list[np.ndarray]:
    """Return random multipliers, later layers made smaller until the matrix for F = 0 is positive definite."""
    multipliers = some_multipliers(lifted, seed)
    while smallest_eigenvalue(dense_z(lifted, multipliers, 0.0)) <= 1e-3:
        multipliers = [0.6 ** (k + 1) * values for k, values in enumerate(multipliers)]
    return multipliers


@pytest.mark.parametrize("name", [name for name in SMALL if name != "batch norm with quotients"])
@pytest.mark.parametrize("seed", range(3))
def test_proofs_against_dense_eigenvalues(name: str, seed: int) -> None:
    lifted = lift(subject(zoo()[name], "output"))
    multipliers = admissible(lifted, seed)
    best = largest_target(lifted, assemble(lifted, multipliers))
    for factor in (0.1, 0.9, 1 - 1e-7, 1 + 1e-7, 1.1, 10.0):
        smallest = smallest_eigenvalue(dense_z(lifted, multipliers, best * factor))
        assert proves(lifted, multipliers, best * factor) == (smallest > 0) == (factor < 1)


@settings(max_examples=80, deadline=None)
@given(networks(FLAT, max_depth=4), SEEDS, st.floats(0.1, 1.1))
def test_proved_multipliers_of_any_graph_give_true_bounds(network: Network, seed: int, factor: float) -> None:
    normal = subject(network, "output")
    lifted = lift(normal)
    multipliers = admissible(lifted, seed)
    target = factor * largest_target(lifted, assemble(lifted, multipliers))
    witness = {"multipliers": np.concatenate([*multipliers, np.zeros(0)]), "inverse_square": np.array([target])}
    try:
        bound = RULES["multipliers/v1"].derive(normal, "l2", witness).bound
    except Refused:
        assert factor > 0.9
        return
    assert bound >= lower_bound("l2", jacobians_of(network, seed))


def test_no_multiplier_beats_the_truth_of_one_neuron() -> None:
    """x -> c relu(w x) has constant |c w|: F above its inverse square is never proved, just below it is."""
    network = subject(mlp([np.array([[3.0]]), np.array([[0.5]])]), "output")
    lifted = lift(network)
    truth = 1 / 1.5**2
    for multiplier in np.geomspace(1e-3, 1e1, 400):
        assert not proves(lifted, [np.array([multiplier])], truth * (1 + 1e-14))
    # Z = [[1, -3 l], [-3 l, 2 l - F / 4]]: 2 l - 9 l^2 is largest at l = 1 / 9
    assert proves(lifted, [np.array([1 / 9])], truth * (1 - 1e-12))


@pytest.mark.parametrize("shift", [60, -60, 200, -200])
def test_proofs_do_not_depend_on_the_scale_of_a_layer(shift: int) -> None:
    first, second, third = matrices(7, 4, 6, 5, 3)
    plain, moved = (lift(subject(mlp([np.ldexp(first, s), np.ldexp(second, -s), third]), "output")) for s in (0, shift))
    multipliers = [np.full(6, 0.05), np.full(5, 0.02)]
    rescaled = [np.ldexp(multipliers[0], -2 * shift), multipliers[1]]
    best = largest_target(plain, assemble(plain, multipliers))
    assert largest_target(moved, assemble(moved, rescaled)) == pytest.approx(best, rel=1e-12)
    for factor in (0.5, 1 - 1e-9, 1 + 1e-9, 2.0):
        assert proves(moved, rescaled, best * factor) == proves(plain, multipliers, best * factor) == (factor < 1)


def test_a_layer_behind_a_wide_one_is_dense_in_its_own_group_only() -> None:
    """A chain has one group per layer; a skip over one layer joins the two layers that it touches."""
    lifted = lift(subject(mlp(matrices(8, 3, 4, 5, 2)), "output"))
    blocks = assemble(lifted, some_multipliers(lifted, 1))
    assert grouping(blocks, lifted.sizes).levels == (0, 1, 2)
    first = dense(matrices(9, 3, 3)[0])
    builder = Builder((3,))
    inner = builder.add(RELU, builder.add(first, 0))
    builder.add(RELU, builder.add(Sum((1, 1)), 0, inner))
    lifted = lift(subject(builder.build(), "output"))
    blocks = assemble(lifted, some_multipliers(lifted, 1))
    assert grouping(blocks, lifted.sizes).levels == (0, 1, 1)
