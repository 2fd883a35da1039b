"""The rules about all margins: never below the truth, nothing proved that is not, certificates that cannot be bent."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lipcert.bounds.engine import bound
from lipcert.bounds.margins import propose_gram
from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.proof import Certificate, Claim, Reason, check
from lipcert.proof.lifted import lift
from lipcert.proof.rules.directions import Directions, gram_margins, proves_gram
from lipcert.proof.subject import subject
from lipcert.testing.build import matrices, mlp
from lipcert.testing.truth import SLACK, jacobians_of
from lipcert.testing.zoo import zoo

NETWORK = mlp(matrices(1, 4, 6, 5, 3))
SERVED = [
    "small ReLU chain", "bottlenecks", "wide ReLU chain", "trailing ReLU", "activation on the input", "dead neurons",
    "leaky slopes, one per neuron", "weights of 1e-5", "batch norm with quotients", "average pooling",
    "layers scaled by 2^40 and 2^-40", "residual x + g(x)", "a layer of zeros",
]  # fmt: skip
ORDER = {"l2": 2, "linf": 1, "l1": np.inf}


def true_margins(network: Network, norm: str) -> Float:
    """Largest conjugate norms of differences of rows of Jacobians: never above the true constants."""
    rows = np.stack(jacobians_of(network))
    differences = rows[:, :, None, :] - rows[:, None, :, :]
    return np.linalg.norm(differences, ORDER[norm], axis=-1).max(axis=0) * (1.0 - SLACK)


@pytest.mark.parametrize("name", SERVED)
@pytest.mark.parametrize(("method", "norm"), [("eclipse-fast", "l2"), ("absolute", "linf"), ("absolute", "l1")])
def test_margins_are_never_below_the_truth(name: str, method: str, norm: str) -> None:
    network = zoo()[name]
    found = bound(network, method, norm, quantity="margins")  # type: ignore[arg-type]
    assert found.margins is not None
    assert (found.margins >= true_margins(network, norm)).all()
    assert found.value == found.margins.max()
    assert check(Certificate.from_bytes(found.certificate.to_bytes()), network).valid


@pytest.mark.parametrize("seed", range(3))
def test_margins_with_their_own_multipliers_are_never_below_the_truth(seed: int) -> None:
    network = mlp(matrices(seed, 3, 4, 3, 3))  # all its linear regions can be counted
    found = bound(network, "lipsdp", quantity="margins")
    assert found.margins is not None
    assert (found.margins >= true_margins(network, "l2")).all()
    assert check(found.certificate, network).valid
    assert len(found.certificate.witness["pairs"]) == 3


@pytest.mark.parametrize("seed", range(2))
def test_laws_of_the_best_multipliers(seed: int) -> None:
    """The optimum over all multipliers, as a function of the direction, is a norm: c'C Z0^-1 C'c is convex in both."""
    network = mlp(matrices(seed, 5, 8, 7, 4))
    found = bound(network, "lipsdp", quantity="margins").margins
    assert found is not None
    whole = bound(network, "lipsdp").value
    single = [bound(network, "lipsdp", quantity=f"logit {i}").value for i in range(4)]
    for i, j in combinations(range(4), 2):
        assert found[i, j] <= math.sqrt(2) * whole * (1 + 1e-6)
        assert found[i, j] <= (single[i] + single[j]) * (1 + 1e-6)
        assert all(found[i, j] <= (found[i, k] + found[k, j]) * (1 + 1e-6) for k in range(4))
        assert found[i, j] == pytest.approx(bound(network, "lipsdp", quantity=f"margin {i} {j}").value, rel=1e-9)


@settings(deadline=None)
@given(arrays(np.float64, (3, 3), elements=st.floats(-1e6, 1e6)))
def test_margins_of_a_matrix_are_rounded_up(entries: Float) -> None:
    gram = entries @ entries.T
    gram = 0.5 * (gram + gram.T)
    found = gram_margins(gram)
    for i, j in combinations(range(3), 2):
        exact = Fraction(gram[i, i]) + Fraction(gram[j, j]) - 2 * Fraction(gram[i, j])
        assert Fraction(float(found[i, j])) ** 2 >= exact
        size = abs(gram[i, i]) + abs(gram[j, j]) + 2 * abs(gram[i, j])
        assert found[i, j] ** 2 <= float(exact) + 1e-14 * size + 1e-300


def gram_of(network: Network) -> tuple[list[Float], Float, object]:
    lifted = lift(subject(network, "margins"))
    values = bound(network, "lipsdp").certificate.witness["multipliers"]
    parts = np.split(values, np.cumsum(lifted.sizes[1:])[:-1])
    return parts, propose_gram(lifted, parts), lifted


def test_no_smaller_matrix_is_proved() -> None:
    parts, gram, lifted = gram_of(NETWORK)
    assert proves_gram(lifted, parts, gram)  # type: ignore[arg-type]
    for i in range(3):
        lowered = gram.copy()
        lowered[i, i] *= 1 - 1e-4
        assert not proves_gram(lifted, parts, lowered)  # type: ignore[arg-type]
    assert not proves_gram(lifted, parts, gram * (1 - 1e-6))  # type: ignore[arg-type]
    assert not proves_gram(lifted, [2.0 * part for part in parts], gram)  # type: ignore[arg-type]


def test_the_matrix_has_little_room() -> None:
    """Against dense linear algebra: the best matrix for these multipliers is C Z0^-1 C'."""
    weights = matrices(1, 4, 6, 5, 3)
    parts, gram, _ = gram_of(NETWORK)
    one, two = parts
    zero = np.zeros
    z = np.block(
        [
            [np.eye(4), -(weights[0].T * one), zero((4, 5))],
            [-(one[:, None] * weights[0]), np.diag(2 * one), -(weights[1].T * two)],
            [zero((5, 4)), -(two[:, None] * weights[1]), np.diag(2 * two)],
        ]
    )
    c = np.hstack([zero((3, 10)), weights[2]])
    best = c @ np.linalg.solve(z, c.T)
    assert np.linalg.eigvalsh(gram - best)[0] > 0
    np.testing.assert_allclose(gram, best, rtol=1e-6, atol=1e-6 * best.max())


@pytest.fixture(scope="module")
def made() -> Certificate:
    found = bound(NETWORK, "lipsdp", quantity="margins").certificate
    assert check(found, NETWORK).valid
    return found


def with_entry(certificate: Certificate, i: int, j: int, value: float) -> Certificate:
    table = np.array(certificate.claim.table)
    table[i, j] = table[j, i] = value
    rows = tuple(map(tuple, table.tolist()))
    return replace(certificate, claim=Claim("l2", "margins", float(table.max()), rows))


def test_one_margin_too_low_by_one_ulp(made: Certificate) -> None:
    derived = Directions().derive(subject(NETWORK, "margins"), "l2", made.witness).margins
    assert derived is not None
    for i, j in combinations(range(3), 2):
        value = float(derived[i, j])
        assert check(with_entry(made, i, j, value), NETWORK).valid
        verdict = check(with_entry(made, i, j, math.nextafter(value, 0.0)), NETWORK)
        assert not verdict.valid
        assert verdict.reason is Reason.TOO_LOW
        assert f"margin {i} {j}: proved {value!r}" in verdict.text


def test_a_changed_witness_is_refused(made: Certificate) -> None:
    witness = dict(made.witness)
    skew = witness["gram"].copy()
    skew[0, 1] = np.nextafter(skew[0, 1], 1.0)
    changes = {
        "a smaller matrix": {"gram": witness["gram"] * (1 - 1e-6)},
        "not symmetric": {"gram": skew},
        "another order": {"gram": np.eye(4)},
        "a diagonal below zero": {"gram": -witness["gram"]},
        "a pair too many": {"pairs": np.vstack([witness["pairs"], [[0, 1]]])},
        "a class too many": {"pairs": witness["pairs"] + 1},
        "pairs of reals": {"pairs": witness["pairs"].astype(float)},
        "pairs in another order": {"pairs": witness["pairs"][::-1].copy()},
        "a larger inverse square": {"inverse_squares": witness["inverse_squares"] * (1 + 1e-6)},
        "negative multipliers": {"multipliers": -witness["multipliers"]},
        "flat multipliers": {"multipliers": witness["multipliers"].ravel()},
        "an array more": {"more": np.zeros(1)},
    }
    for change in changes.values():
        verdict = check(replace(made, witness={**witness, **change}), NETWORK)
        assert not verdict.valid
        assert verdict.reason is Reason.REFUSED
    missing = {name: array for name, array in witness.items() if name != "pairs"}
    assert check(replace(made, witness=missing), NETWORK).reason is Reason.REFUSED


@settings(max_examples=60, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "multipliers": st.sampled_from([np.ones((1, 11)), np.ones((2, 11)), np.ones(11), np.zeros((1, 0))]),
            "inverse_squares": st.sampled_from([np.ones(1), np.ones(2), np.zeros(1), np.full(1, 1e308), np.ones(())]),
            "gram": st.sampled_from([np.eye(3), np.zeros((3, 3)), np.eye(3) * 1e308, np.ones(()), np.ones((0, 0))]),
            "pairs": st.sampled_from([np.zeros((0, 2), int), np.ones((1, 2), int), np.zeros((0, 3), int), np.ones(())]),
        }
    )
)
def test_a_wrong_witness_never_raises(witness: dict[str, np.ndarray]) -> None:
    table = ((0.0, 1e-3, 1e-3), (1e-3, 0.0, 1e-3), (1e-3, 1e-3, 0.0))
    verdict = check(Certificate.of(NETWORK, Claim("l2", "margins", 1e-3, table), Directions.id, witness), NETWORK)
    assert not verdict.valid
    assert "\n" not in verdict.text


def test_other_rules_prove_no_margins(made: Certificate) -> None:
    for method in ("product", "eclipse-fast"):
        other = bound(NETWORK, method).certificate
        verdict = check(replace(made, rule=other.rule, witness=other.witness), NETWORK)
        assert verdict.reason is Reason.REFUSED
        assert "no bounds of margins" in verdict.text


def test_the_same_witness_bounds_the_whole_output(made: Certificate) -> None:
    whole = bound(NETWORK, "lipsdp").value
    assert check(replace(made, claim=Claim("l2", "output", whole * (1 + 1e-9))), NETWORK).valid
    assert not check(replace(made, claim=Claim("l2", "output", whole * (1 - 1e-6))), NETWORK).valid


def test_a_table_of_another_size(made: Certificate) -> None:
    table = ((0.0, 1e9), (1e9, 0.0))
    verdict = check(replace(made, claim=Claim("l2", "margins", 1e9, table)), NETWORK)
    assert verdict.reason is Reason.TOO_LOW
