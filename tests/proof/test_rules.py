"""The rules: whatever the witness, the result is an upper bound or a refusal."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import CHAIN, lower_bound_by_sampling, networks, random_network

from lipcert.bounds.registry import find_method
from lipcert.network import Builder, Enclosure, Network
from lipcert.network.evaluate import evaluate
from lipcert.network.operators import (
    AvgPool,
    Concat,
    Conv,
    Dense,
    Elementwise,
    Extremum,
    MaxPool,
    Scale,
    Softmax,
    Sort,
    Sum,
)
from lipcert.proof.claims import NORMS
from lipcert.proof.refusal import Refused
from lipcert.proof.rules import RULES
from lipcert.proof.rules.composition import window_overlap
from lipcert.proof.subject import subject
from lipcert.testing.build import RELU, chain, conv, dense, exact, matrices, mlp
from lipcert.testing.conformance import bound_of
from lipcert.testing.jacobian import exact_jacobian, operator_norm
from lipcert.testing.truth import jacobians_of, lower_bound

SEEDS = st.integers(0, 999)


def bound(method: str, network: Network, norm: str) -> float | None:
    found = bound_of(find_method(method), network, norm)
    return None if found is None else found.bound


# --- every rule against sampled Jacobians --------------------------------------------------------------------


@settings(max_examples=120, deadline=None)
@given(networks(), SEEDS, st.sampled_from(NORMS))
def test_products_are_never_below_a_jacobian(network: Network, seed: int, norm: str) -> None:
    lower = lower_bound_by_sampling(network, norm, np.random.default_rng(seed), 6)
    found = bound("product", network, norm)
    assert found is not None
    assert found >= lower


@settings(max_examples=150, deadline=None)
@given(networks(), SEEDS, st.sampled_from(["l1", "linf"]))
def test_absolute_values_are_never_below_a_jacobian_nor_above_the_product(
    network: Network, seed: int, norm: str
) -> None:
    lower = lower_bound_by_sampling(network, norm, np.random.default_rng(seed), 6)
    found, product = bound("absolute", network, norm), bound("product", network, norm)
    assert found is not None
    assert product is not None
    assert lower <= found <= product * (1 + 2**-40) + 2**-900  # a constant network has a tiny bound


@settings(max_examples=100, deadline=None)
@given(networks(CHAIN), SEEDS, st.sampled_from(["eclipse-fast", "gershgorin"]))
def test_multipliers_of_chains_are_never_below_a_jacobian(network: Network, seed: int, method: str) -> None:
    found = bound(method, network, "l2")
    assume(found is not None)
    assert found >= lower_bound_by_sampling(network, "l2", np.random.default_rng(seed), 6)


# --- witnesses that were tampered with -----------------------------------------------------------------------

NETWORK = mlp([*matrices(1, 4, 6, 5), matrices(2, 5, 3)[0]])
SPATIAL = chain((2, 4, 4), conv(3, (3, 2, 3, 3), padding=((1, 1), (1, 1))), RELU, conv(4, (2, 3, 2, 2), stride=2))
Change = Callable[[dict[str, np.ndarray]], object]


def attempt(network: Network, method: str, norm: str, change: Change) -> float | None:
    """Return what the rule derives from a witness after a change, None where it refuses."""
    normal = subject(network, "output")
    proposal = find_method(method).propose(normal, norm, None)
    witness = {name: np.array(array) for name, array in proposal.witness.items()}
    change(witness)
    try:
        return RULES[proposal.rule].derive(normal, norm, witness).bound
    except Refused as refusal:
        assert "\n" not in str(refusal)
        assert str(refusal)
        return None


def scaled(name: str, factor: float, index: object = slice(None)) -> Change:
    return lambda w: w[name].__setitem__(index, w[name][index] * factor)  # type: ignore[call-overload]


def placed(name: str, value: float, index: int = 0) -> Change:
    return lambda w: w[name].__setitem__(index, value)


def replaced(name: str, array: object) -> Change:
    return lambda w: w.update({name: np.asarray(array)})


REFUSED_NORMS: dict[str, Change] = {
    "one norm lowered by 1e-6": scaled("norms", 1 - 1e-6, 0),
    "the last norm lowered by 1e-6": scaled("norms", 1 - 1e-6, -1),
    "halved": scaled("norms", 0.5),
    "NaN": placed("norms", math.nan),
    "infinite": placed("norms", math.inf),
    "negative": scaled("norms", -1.0),
    "zero": placed("norms", 0.0),
    "swapped": lambda w: w.update(norms=w["norms"][::-1].copy()),
    "a node missing": lambda w: w.update(nodes=w["nodes"][1:], norms=w["norms"][1:]),
    "a node twice": lambda w: w["nodes"].__setitem__(1, w["nodes"][0]),
    "nodes in another order": lambda w: w.update(nodes=w["nodes"][::-1].copy(), norms=w["norms"][::-1].copy()),
    "an extra array": replaced("room", [1.0]),
    "an array missing": lambda w: w.pop("nodes"),
    "norms as a matrix": lambda w: w.update(norms=w["norms"][:, None]),
    "norms as integers": lambda w: w.update(norms=w["norms"].astype(np.int64)),
    "nodes as floats": lambda w: w.update(nodes=w["nodes"].astype(np.float64)),
}


@pytest.mark.parametrize("network", [NETWORK, SPATIAL], ids=["dense", "conv"])
@pytest.mark.parametrize("name", REFUSED_NORMS)
def test_tampered_norms_are_refused(name: str, network: Network) -> None:
    assert attempt(network, "product", "l2", lambda w: None) is not None
    assert attempt(network, "product", "l2", REFUSED_NORMS[name]) is None


@pytest.mark.parametrize("norm", ["l1", "linf"])
def test_products_in_l1_and_linf_take_no_norms(norm: str) -> None:
    assert attempt(NETWORK, "product", norm, lambda w: w.update(nodes=np.array([1]), norms=np.array([9.0]))) is None


@pytest.mark.parametrize("norm", ["l1", "linf"])
def test_absolute_takes_no_witness(norm: str) -> None:
    assert attempt(NETWORK, "absolute", norm, replaced("norms", [1.0])) is None


def test_rules_refuse_norms_that_are_not_theirs() -> None:
    with pytest.raises(Refused, match="for l1 and linf"):
        RULES["absolute/v1"].derive(NETWORK, "l2", {})
    with pytest.raises(Refused, match="for l2"):
        RULES["multipliers/v1"].derive(NETWORK, "l1", {})


REFUSED_MULTIPLIERS: dict[str, Change] = {
    "negated": scaled("multipliers", -1.0),
    "one negated": scaled("multipliers", -1.0, 2),
    "zeroed": scaled("multipliers", 0.0),
    "one zeroed": placed("multipliers", 0.0, 3),
    "NaN": placed("multipliers", math.nan),
    "infinite": placed("multipliers", math.inf),
    "one missing": lambda w: w.update(multipliers=w["multipliers"][1:]),
    "one more": lambda w: w.update(multipliers=np.append(w["multipliers"], 1.0)),
    "as a matrix": lambda w: w.update(multipliers=w["multipliers"][None]),
    "inverse square raised by 1e-6": scaled("inverse_square", 1 + 1e-6),
    "inverse square doubled": scaled("inverse_square", 2.0),
    "inverse square negative": scaled("inverse_square", -1.0),
    "inverse square zero": placed("inverse_square", 0.0),
    "inverse square NaN": placed("inverse_square", math.nan),
    "inverse square infinite": placed("inverse_square", math.inf),
    "an extra array": replaced("room", [1.0]),
    "an array missing": lambda w: w.pop("inverse_square"),
}


@pytest.mark.parametrize("name", REFUSED_MULTIPLIERS)
def test_tampered_multipliers_are_refused(name: str) -> None:
    assert attempt(NETWORK, "eclipse-fast", "l2", lambda w: None) is not None
    assert attempt(NETWORK, "eclipse-fast", "l2", REFUSED_MULTIPLIERS[name]) is None


@settings(max_examples=150, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=11, max_size=11), st.floats(-4, 1), SEEDS)
def test_any_multipliers_give_a_true_bound_or_a_refusal(logs: list[float], target: float, seed: int) -> None:
    def change(witness: dict[str, np.ndarray]) -> None:
        witness["multipliers"] *= np.exp(logs)
        witness["inverse_square"] *= math.exp(target)

    found = attempt(NETWORK, "eclipse-fast", "l2", change)
    assert found is None or found >= lower_bound_by_sampling(NETWORK, "l2", np.random.default_rng(seed), 8)


def test_some_other_multipliers_are_accepted() -> None:
    scale = scaled("multipliers", 1.1)
    found = attempt(NETWORK, "eclipse-fast", "l2", lambda w: (scale(w), scaled("inverse_square", 0.5)(w)))
    assert found is not None


def test_a_smaller_inverse_square_gives_a_larger_bound() -> None:
    plain = attempt(NETWORK, "eclipse-fast", "l2", lambda w: None)
    weaker = attempt(NETWORK, "eclipse-fast", "l2", scaled("inverse_square", 0.25))
    assert plain is not None
    assert weaker == pytest.approx(2 * plain, rel=1e-15)


def test_an_affine_network_needs_no_multipliers() -> None:
    weight = matrices(5, 4, 3)[0]
    network = subject(chain((4,), dense(weight)), "output")
    norm = np.linalg.norm(weight, 2)

    def derive(target: float) -> float:
        witness = {"multipliers": np.zeros(0), "inverse_square": np.array([target])}
        return RULES["multipliers/v1"].derive(network, "l2", witness).bound

    assert norm < derive((1 - 1e-9) / norm**2) < norm * (1 + 1e-8)
    with pytest.raises(Refused):
        derive((1 + 1e-9) / norm**2)


# --- how bounds pass through nodes ---------------------------------------------------------------------------


@st.composite
def pools(draw: st.DrawFn) -> tuple[MaxPool, tuple[int, ...]]:
    rank = draw(st.integers(1, 2))
    axis = st.tuples(st.integers(1, 8), st.integers(1, 4), st.integers(1, 3), st.integers(0, 3), st.integers(1, 2))
    size, window, stride, pad, dilation = zip(*(draw(axis) for _ in range(rank)), strict=True)
    reach = [d * (k - 1) + 1 for k, d in zip(window, dilation, strict=True)]
    padding = tuple((p, max(0, r - n - p)) for p, r, n in zip(pad, reach, size, strict=True))
    return MaxPool(window, stride, padding, dilation), (1, *size)


@given(pools())
def test_window_overlap_against_counting(drawn: tuple[MaxPool, tuple[int, ...]]) -> None:
    op, shape = drawn
    seen: dict[tuple[int, ...], int] = dict.fromkeys(itertools.product(*map(range, shape[1:])), 0)
    axes = zip(shape[1:], op.window, op.stride, op.padding, op.dilation, strict=True)
    starts = [range(-a, n + b - d * (k - 1), s) for n, k, s, (a, b), d in axes]
    for start in itertools.product(*starts):
        for offset in itertools.product(*map(range, op.window)):
            place = tuple(s + d * o for s, o, d in zip(start, offset, op.dilation, strict=True))
            if place in seen:
                seen[place] += 1
    assert window_overlap(op, shape) == max(seen.values())


def quotients(network: Network, norm: str, seed: int) -> float:
    """Return the largest difference quotient of pairs of points, near and far, lowered by its rounding errors."""
    rng = np.random.default_rng(seed)
    order = {"l1": 1, "l2": 2, "linf": np.inf}[norm]
    size = network.nodes[0].size
    x = rng.normal(size=(2000, size)) * rng.choice([0.1, 1.0, 10.0], (2000, 1))
    steps = rng.choice([-1.0, 0.0, 1.0], x.shape) * rng.choice([1e-3, 1.0, 10.0], (2000, 1))
    steps = steps[np.abs(steps).any(axis=1)]
    first, second = (p.reshape(-1, *network.input_shape) for p in (x[: len(steps)], x[: len(steps)] + steps))
    change = (evaluate(network, second) - evaluate(network, first)).reshape(len(steps), -1)
    moved = (second - first).reshape(len(steps), -1)
    return float((np.linalg.norm(change, order, axis=1) / np.linalg.norm(moved, order, axis=1)).max()) * (1 - 1e-9)


def joined(op: object) -> Network:
    """Return x and 3 x, joined by an operator."""
    builder = Builder((3,))
    builder.add(op, 0, builder.add(Scale(exact(3.0), exact(0.5)), 0))
    return builder.build()


NODES: dict[str, tuple[Network, dict[str, float]]] = {
    # network, its exact constants
    "concatenation": (joined(Concat(0)), {"l1": 4.0, "l2": math.sqrt(10.0), "linf": 3.0}),
    "sum": (joined(Sum((1, 1))), {"l1": 4.0, "l2": 4.0, "linf": 4.0}),
    "difference": (joined(Sum((1, -1))), {"l1": 4.0, "l2": 4.0, "linf": 4.0}),
    "softmax of two": (chain((2,), Softmax(0)), {"l1": 0.5, "l2": 0.5, "linf": 0.5}),
    "log-softmax of two": (chain((2,), Softmax(0, log=True)), {"l1": 1.0, "l2": math.sqrt(2.0), "linf": 2.0}),
    "log-softmax of five": (chain((5,), Softmax(0, log=True)), {"l1": 4.0, "l2": math.sqrt(5.0), "linf": 2.0}),
    "log-softmax of rows": (chain((2, 3), Softmax(1, log=True)), {"l1": 2.0, "l2": math.sqrt(3.0), "linf": 2.0}),
    "sort": (chain((4,), Sort()), {"l1": 1.0, "l2": 1.0, "linf": 1.0}),
    "pooling that overlaps": (
        chain((1, 5), MaxPool((3,), (1,), ((0, 0),), (1,))), {"l1": 3.0, "l2": math.sqrt(3.0), "linf": 1.0},
    ),
    "pooling that does not": (
        chain((1, 6), MaxPool((3,), (3,), ((0, 0),), (1,))), {"l1": 1.0, "l2": 1.0, "linf": 1.0},
    ),
    "maximum": (joined(Extremum(True)), {"l1": 4.0, "l2": math.sqrt(10.0), "linf": 3.0}),
}  # fmt: skip


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", NODES)
def test_factors_of_nodes_are_their_constants(name: str, norm: str) -> None:
    """The constants stand in the table; they are reached up to rounding, and no sample exceeds them."""
    network, constants = NODES[name]
    found = bound("product", network, norm)
    assert found is not None
    assert Fraction(found) ** 2 >= Fraction(round(constants[norm] ** 2, 6))
    assert found <= constants[norm] * (1 + 1e-6)
    assert quotients(network, norm, 1) <= found
    absolute = bound("absolute", network, norm) if norm != "l2" else None
    assert absolute is None or quotients(network, norm, 2) <= absolute <= found * (1 + 1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_softmax_factors_are_approached(norm: str) -> None:
    """Near a vertex for the logarithm, at two equal and other small entries without it: the factors are not loose."""
    log, plain = chain((5,), Softmax(0, log=True)), chain((5,), Softmax(0))
    vertex, middle = np.array([60.0, 0, 0, 0, 0]), np.array([60.0, 60.0, 0, 0, 0])
    for network, x in ((log, vertex), (plain, middle)):
        found, reached = bound("product", network, norm), operator_norm(exact_jacobian(network, x), norm)
        assert found is not None
        assert reached == pytest.approx(found, rel=1e-9)
        assert found >= reached * (1 - 1e-15)


# --- rounding ------------------------------------------------------------------------------------------------


def exact_chain_bound(weights: list[np.ndarray], norm: str) -> Fraction:
    """Return || |W_l| ... |W_1| || in rationals."""
    rows = [[Fraction(int(i == j)) for j in range(weights[0].shape[1])] for i in range(weights[0].shape[1])]
    for weight in weights:
        entries = [[abs(Fraction(float(w))) for w in row] for row in weight]
        rows = [[sum(a * b for a, b in zip(row, column, strict=True)) for column in zip(*rows, strict=True)]
                for row in entries]  # fmt: skip
    sums = [sum(row) for row in (rows if norm == "linf" else zip(*rows, strict=True))]
    return max(Fraction(s) for s in sums)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.sampled_from(["l1", "linf"]), st.integers(-280, 290))
def test_absolute_against_rational_arithmetic(seed: int, norm: str, shift: int) -> None:
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=(4, 5)) * 10.0**shift, rng.normal(size=(3, 4)), rng.normal(size=(2, 3))]
    truth = exact_chain_bound(weights, norm)
    found = bound("absolute", mlp(weights), norm)
    assert found is not None
    assert Fraction(found) >= truth
    assert found <= float(truth) * (1 + 1e-12)


@pytest.mark.parametrize("norm", ["l1", "linf"])
def test_absolute_counts_the_copies_of_a_circular_image(norm: str) -> None:
    """Padding of several images' width: an input entry is added up from many places of the padded image."""
    rng = np.random.default_rng(3)
    kernel = rng.uniform(0.1, 1.0, (1, 1, 2))
    op = Conv(Enclosure.exact(kernel), exact(np.zeros((1, 1))), (1,), ((40, 40),), (1,), circular=True)
    network = chain((1, 2), op)
    weight = [Fraction(float(w)) for w in kernel.ravel()]
    columns = [Fraction(0), Fraction(0)]
    for place in range(81):
        for tap, value in enumerate(weight):
            columns[(place + tap - 40) % 2] += value
    truth = max(columns) if norm == "l1" else sum(weight)
    for method in ("absolute", "product"):
        found = bound(method, network, norm)
        assert found is not None
        assert Fraction(found) >= truth
        assert found <= float(truth) * (1 + 1e-12)


@pytest.mark.parametrize("method", ["product", "absolute"])
def test_bounds_that_overflow_are_refused_in_silence(method: str) -> None:
    network = mlp([1e200 * w for w in matrices(6, 3, 4, 2)])
    normal = subject(network, "output")
    norm = "linf"
    proposal = find_method(method).propose(normal, norm, None)
    with pytest.raises(Refused):
        RULES[proposal.rule].derive(normal, norm, proposal.witness)


def test_uncertain_weights_raise_the_bound() -> None:
    """A bound holds for every network within the enclosures: here the norm of the largest one is known."""
    weight = np.array([[3.0, 4.0]])
    loose = Dense(Enclosure(weight, np.array([[0.3, 0.4]])), exact(np.zeros(1)))
    for norm, truth in (("l2", 5.5), ("l1", 4.4), ("linf", 7.7)):
        found = bound("product", chain((2,), loose), norm)
        assert found is not None
        assert found >= truth * (1 - 1e-15)


def test_average_pools_and_slopes_below_zero() -> None:
    pool = AvgPool((2,), (1,), ((0, 0),), np.full(3, 2.0))
    network = chain((1, 4), pool, Elementwise("leaky_relu", (np.array(-3.0),)))
    lower = {norm: lower_bound(norm, jacobians_of(network)) for norm in NORMS}
    for norm in NORMS:
        found = bound("product", network, norm)
        assert found is not None
        assert lower[norm] <= found <= 3.0 * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(40))
def test_products_of_deep_random_graphs(seed: int) -> None:
    network = random_network(seed, 8)
    for norm in NORMS:
        found = bound("product", network, norm)
        assert found is not None
        assert found >= lower_bound_by_sampling(network, norm, np.random.default_rng(seed), 4)
