"""The second engine: it agrees with float64 on every certificate, and with rational numbers on tiny matrices."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from exact import is_exactly_psd
from flint import arb, arb_mat, ctx
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import networks, random_network

from lipcert.bounds.engine import bound
from lipcert.errors import LipcertError, UsageError
from lipcert.network import Network
from lipcert.network.enclosure import Enclosure
from lipcert.network.graph import Node
from lipcert.network.operators import AvgPool, Dense, Elementwise
from lipcert.proof import Certificate, Claim, Reason, check
from lipcert.proof.exact import RULES as EXACT
from lipcert.proof.exact.balls import Matrix, largest, upper
from lipcert.proof.exact.definite import is_definite
from lipcert.proof.exact.norms import operator_norm
from lipcert.proof.exact.rational import is_semidefinite, rational
from lipcert.proof.lifted import lift
from lipcert.proof.refusal import Refused, TooLarge
from lipcert.proof.rules import RULES
from lipcert.proof.rules.stretches import pack
from lipcert.proof.subject import subject
from lipcert.testing.build import matrices, mlp
from lipcert.testing.zoo import zoo

METHODS = (
    ("product", "l1"),
    ("product", "l2"),
    ("product", "linf"),
    ("absolute", "l1"),
    ("absolute", "linf"),
    ("gershgorin", "l2"),
    ("eclipse-fast", "l2"),
    ("lip-lt", "l2"),
)

OF_MARGINS = ("absolute", "eclipse-fast")


def certificates(network: Network) -> Iterator[Certificate]:
    """Yield a certificate of each method that serves, and the same with the least claim that float64 proves."""
    for method, norm in METHODS:
        for quantity in ("output", "margins") if method in OF_MARGINS else ("output",):
            try:
                made = bound(network, method, norm, quantity=quantity).certificate
            except LipcertError:
                continue
            yield made
            derived = check(made, network).derived
            assert derived is not None
            if quantity == "output":
                yield replace(made, claim=replace(made.claim, bound=derived))


def test_every_rule_has_an_exact_form_with_the_same_norms() -> None:
    assert set(RULES) <= set(EXACT)
    assert all(EXACT[name].norms == rule.norms for name, rule in RULES.items())


@pytest.mark.parametrize("name", sorted(zoo()))
def test_the_engines_agree_on_the_zoo(name: str) -> None:
    count = 0
    for made in certificates(zoo()[name]):
        verdicts = [check(made, zoo()[name], engine) for engine in ("float64", "exact")]
        assert all(v.valid for v in verdicts), (made.rule, made.claim.norm, verdicts[1].text)
        assert verdicts[1].derived <= verdicts[0].derived
        count += 1
    assert count > 0


@settings(max_examples=8, deadline=None)
@given(networks(max_depth=4))
def test_the_engines_agree_on_random_networks(network: Network) -> None:
    for made in certificates(network):
        assert check(made, network, "float64").valid
        verdict = check(made, network, "exact")
        assert verdict.valid, (made.rule, made.claim, verdict.text)


def test_all_frequencies() -> None:
    for name in ("1d convolutions, grouped and dilated", "circular convolutions"):
        made = bound(zoo()[name], "lipsdp-conv").certificate
        assert made.rule == "shift-invariant/v1"
        assert check(made, zoo()[name], "exact").valid
        lower = replace(made, witness={**made.witness, "inverse_square": made.witness["inverse_square"] * 1.01})
        assert [check(lower, zoo()[name], e).reason for e in ("float64", "exact")] == [Reason.REFUSED] * 2


def test_margins_and_stretches() -> None:
    network = mlp(matrices(3, 4, 6, 5, 3))
    margins = bound(network, "eclipse-fast", "l2", quantity="margins").certificate
    assert margins.rule == "directions/v1"
    parts = [("product/v1", {"nodes": np.array([1]), "norms": np.array([3.0])}),
             ("product/v1", {"nodes": np.array([1, 3]), "norms": np.array([3.0, 3.0])})]  # fmt: skip
    cut = Certificate.of(network, Claim("l2", "output", 27.0), "stretches/v1", pack([2], parts))
    for made in (margins, cut):
        assert check(made, network).valid
        assert check(made, network, "exact").valid
    too_low = replace(margins.claim, bound=margins.claim.bound * 0.5, table=halved(margins.claim.table))
    lowered = replace(margins, claim=too_low)
    assert [check(lowered, network, e).reason for e in ("float64", "exact")] == [Reason.TOO_LOW] * 2


def halved(table: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(x * 0.5 for x in row) for row in table)


def exact_inequality(network: Network, multipliers: np.ndarray, target: float) -> list[list[Fraction]]:
    """Return Z of the multiplier rule for a chain without radii, in rational numbers, from its definition."""
    form = lift(network)
    ends = np.concatenate([[0], np.cumsum(form.sizes)])
    size = int(ends[-1])
    z = [[Fraction(int(i == j < form.inputs)) for j in range(size)] for i in range(size)]

    def spread(row: object, index: int) -> list[Fraction]:
        """Return one row of z_k (or of y) over all of xi."""
        full = [Fraction(0)] * size
        for j, numbers in row.items():
            full[ends[j] : ends[j + 1]] = map(Fraction, numbers.mid[index].tolist())
        return full

    def add(p: list[Fraction], q: list[Fraction], factor: Fraction) -> None:
        for i in range(size):
            for j in range(size):
                z[i][j] += factor * (p[i] * q[j] + q[i] * p[j])

    used = 0
    for k, block in enumerate(form.blocks, start=1):
        for n in range(block.size):
            r = spread(block.row, n)
            e = [Fraction(int(i == ends[k] + n)) for i in range(size)]
            p = [x - Fraction(float(block.alpha[n])) * y for x, y in zip(e, r, strict=True)]
            q = [x - Fraction(float(block.beta[n])) * y for x, y in zip(e, r, strict=True)]
            add(p, q, Fraction(float(multipliers[used])))
            used += 1
    for n in range(network.nodes[-1].size):
        c = spread(form.output, n)
        add(c, c, -Fraction(target) / 2)
    return z


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.2, 2.0), st.sampled_from([0.0, 0.01, -0.5]))
def test_the_multiplier_rule_decides_as_rational_numbers_do(seed: int, scale: float, slope: float) -> None:
    activation = Elementwise("leaky_relu", (np.array(slope),)) if slope else Elementwise("relu")
    network = subject(mlp(matrices(seed, 2, 3, 2, 1), activation), "output")
    rng = np.random.default_rng(seed)
    multipliers = rng.uniform(0.3, 1.5, 5)
    target = 0.3 * scale
    true = is_exactly_psd(exact_inequality(network, multipliers, target))
    witness = {"multipliers": multipliers, "inverse_square": np.array([target])}
    outcomes = []
    for rules in (RULES, EXACT):
        try:
            outcomes.append(rules["multipliers/v1"].derive(network, "l2", witness).bound)
        except Refused:
            outcomes.append(None)
    assert (outcomes[1] is not None) == true  # such random matrices are not singular
    if outcomes[0] is not None:
        assert outcomes[1] is not None
        assert Fraction(outcomes[1]) ** 2 >= 1 / Fraction(target)
        assert outcomes[1] <= outcomes[0]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 7), st.integers(-3, 3))
def test_definiteness_decides_as_rational_numbers_do(seed: int, size: int, shift: int) -> None:
    """Integer Gram matrices of low rank, shifted by multiples of 2^-60: singular ones and their neighbours."""
    rng = np.random.default_rng(seed)
    factor = rng.integers(-4, 5, (size, max(1, size - 1)))
    gram = [[Fraction(int(x)) for x in row] for row in factor @ factor.T]
    for i in range(size):
        gram[i][i] += Fraction(shift, 2**60)
    true = is_exactly_psd(gram)
    assert is_semidefinite([[rational(0.0) + as_rational(x) for x in row] for row in gram]) == true
    entries = [as_rational(x) for row in gram for x in row]
    found = is_definite(lambda: {(0, 0): arb_mat(size, size, [arb(x) for x in entries])})
    for i in range(size):  # entries are multiples of 2^-60: no eigenvalue lies between 0 and this
        gram[i][i] -= Fraction(1, 2**600)
    assert (found is True) == is_exactly_psd(gram)


def as_rational(value: Fraction) -> object:
    from flint import fmpq

    return fmpq(value.numerator, value.denominator)


def test_blocks_with_fill_in_are_eliminated_rightly() -> None:
    rng = np.random.default_rng(0)
    ends = [0, 2, 5, 7, 11]
    for case in range(30):
        factor = rng.integers(-3, 4, (11, 11 if case % 2 else 10))
        matrix = factor @ factor.T
        lowered = [[Fraction(int(x)) for x in row] for row in matrix]
        for i in range(11):
            lowered[i][i] -= Fraction(1, 2**600)
        blocks = {
            (i, j): matrix[ends[i] : ends[i + 1], ends[j] : ends[j + 1]].astype(float)
            for i in range(4)
            for j in range(i + 1)
        }
        found = is_definite(lambda blocks=blocks: {k: arb_mat(*b.shape, b.ravel().tolist()) for k, b in blocks.items()})
        assert (found is True) == is_exactly_psd(lowered)


def dense_node(weight: np.ndarray, radius: np.ndarray | None = None) -> Node:
    op = Dense(Enclosure(weight, radius), Enclosure(np.zeros(len(weight))))
    return Node("layer", op, (0,), (len(weight),))


def norm_accepts(weight: np.ndarray, claim: float, radius: np.ndarray | None = None) -> bool:
    with ctx.workprec(512):
        try:
            operator_norm(dense_node(weight, radius), weight.shape[1:], "l2", claim)
        except Refused:
            return False
    return True


@pytest.mark.parametrize(
    ("weight", "norm"),
    [
        (np.eye(5) * 0.3, 0.3),
        (np.zeros((2, 3)), 0.0),
        (np.array([[3.0, 0.0], [0.0, -4.0]]), 4.0),
        (np.array([[2.0, -2.0], [-2.0, 2.0]]), 4.0),
        (np.array([[3.0, -1.0], [1.0, 3.0], [0.0, 0.0]]) / 2, None),
        (np.array([[1.0, 2.0, -2.0], [2.0, 1.0, 2.0], [-2.0, 2.0, 1.0]]), 3.0),
    ],
)
def test_norms_that_are_reached_exactly_are_accepted_and_no_less(weight: np.ndarray, norm: float | None) -> None:
    if norm is None:  # sqrt(10) / 2
        norm = math.nextafter(math.sqrt(10.0) / 2, math.inf)
        while Fraction(norm) ** 2 < Fraction(10, 4):
            norm = math.nextafter(norm, math.inf)
        while Fraction(math.nextafter(norm, 0.0)) ** 2 >= Fraction(10, 4):
            norm = math.nextafter(norm, 0.0)
    assert norm_accepts(weight, norm)
    assert norm == 0.0 or not norm_accepts(weight, math.nextafter(norm, 0.0))


def test_the_radius_of_weights_counts() -> None:
    weight, radius = np.eye(3), np.full((3, 3), 2.0**-10)
    norm = 1.0 + 3 * 2.0**-10  # the matrix of all radii has norm 3 * 2^-10
    assert norm_accepts(weight, norm, radius)
    assert not norm_accepts(weight, math.nextafter(norm, 0.0), radius)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_endpoints_are_the_next_float64(seed: int) -> None:
    rng = np.random.default_rng(seed)
    value = float(rng.normal() * 10.0 ** rng.integers(-300, 300))
    with ctx.workprec(128):
        assert upper(arb(value)) == value
        third = arb(value) / 3
    assert Fraction(upper(third)) * 3 >= Fraction(value)
    assert Fraction(math.nextafter(upper(third), -math.inf)) * 3 < Fraction(value)
    assert upper(largest([arb(value), third])) == max(value, upper(third), 0.0)


def test_magnitudes_of_matrices() -> None:
    matrix = Matrix.of(Enclosure(np.array([[1.0, -2.0]]), np.array([[0.5, 0.25]])))
    assert [upper(x) for x in matrix.magnitude().entries()] == [1.5, 2.25]
    assert [upper(x) for x in (matrix + matrix).magnitude().entries()] == [3.0, 4.5]


def test_a_network_that_is_too_large_is_refused_in_one_line() -> None:
    network = mlp([np.ones((1100, 1200)), np.ones((1, 1100))])
    made = Certificate.of(
        network, Claim("l2", "output", 1e9), "product/v1", {"nodes": np.array([1, 3]), "norms": np.array([1e5, 1e4])}
    )
    assert check(made, network).valid
    verdict = check(made, network, "exact")
    assert verdict.reason is Reason.TOO_LARGE
    assert "too large for the exact engine" in verdict.text
    assert "\n" not in verdict.text
    with pytest.raises(TooLarge):
        EXACT["product/v1"].derive(subject(network, "output"), "l2", made.witness)


def test_there_is_no_other_engine() -> None:
    network = random_network(1)
    made = Certificate.of(network, Claim("l2", "output", 1.0), "product/v1", {})
    with pytest.raises(UsageError, match="float64, exact"):
        check(made, network, "magic")  # type: ignore[arg-type]


PROGRAM = """
import sys
sys.modules["flint"] = None
from lipcert.errors import UsageError
from lipcert.proof.engines import rules_of
try:
    rules_of("exact")
except UsageError as error:
    print(error)
"""


def test_without_python_flint_one_line_says_what_to_install() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "the exact engine needs python-flint: pip install 'lipcert[exact]'", run.stderr


def test_a_pool_without_counts_is_refused() -> None:
    ones, zeros = np.ones((1, 1)), np.zeros((1, 1))
    for counts in (ones, zeros):
        node = Node("pool", AvgPool((2, 2), (2, 2), ((0, 0), (0, 0)), counts), (0,), (1, 1, 1))
        with ctx.workprec(128):
            if counts is ones:
                assert upper(operator_norm(node, (1, 2, 2), "l1", None)) == 1.0
                assert upper(operator_norm(node, (1, 2, 2), "linf", None)) == 4.0
            else:
                for norm in ("l1", "l2"):
                    with pytest.raises(Refused, match="counts"):
                        operator_norm(node, (1, 2, 2), norm, None)
