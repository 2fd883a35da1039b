"""The checker: valid certificates pass, all others get the right reason."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import random_network

from lipcert.bounds.engine import bound
from lipcert.network import Network
from lipcert.network.enclosure import Enclosure
from lipcert.network.operators import Dense
from lipcert.proof import Certificate, Claim, Level, Reason, Refused, check, checker
from lipcert.testing.build import matrices, mlp

NETWORK = mlp(matrices(1, 4, 6, 5, 3))


def certificate(network: Network = NETWORK, method: str = "product", norm: str = "l2") -> Certificate:
    return bound(network, method, norm).certificate


@pytest.mark.parametrize(
    ("method", "norm"),
    [("product", "l2"), ("product", "linf"), ("absolute", "l1"), ("absolute", "linf"), ("eclipse-fast", "l2")],
)
def test_certificates_of_the_engine_are_valid(method: str, norm: str) -> None:
    made = certificate(NETWORK, method, norm)
    verdict = check(Certificate.from_bytes(made.to_bytes()), NETWORK)
    assert verdict.valid
    assert verdict.level is Level.VERIFIED
    assert verdict.reason is Reason.PROVED
    assert verdict.text == Reason.PROVED.text
    assert verdict.derived is not None
    assert verdict.derived <= made.claim.bound <= verdict.derived * (1 + 1e-11)


def test_features_are_another_subject_than_the_output() -> None:
    made = bound(NETWORK, "product", "l2", quantity="features").certificate
    assert check(made, NETWORK).valid
    other = replace(made, claim=Claim("l2", "output", made.claim.bound))
    verdict = check(other, NETWORK)
    assert not verdict.valid
    assert verdict.reason is Reason.REFUSED  # the witness lacks the head


def test_another_structure() -> None:
    for other in (mlp(matrices(1, 4, 6, 3)), replace(NETWORK, dtype="float64")):
        verdict = check(certificate(), other)
        assert not verdict.valid
        assert verdict.level is None
        assert verdict.reason is Reason.OTHER_STRUCTURE


def flipped(network: Network, node: int, entry: int, bit: int) -> Network:
    """Return the network with one bit of one weight flipped."""
    op = network.nodes[node].op
    assert isinstance(op, Dense)
    weight = op.weight.mid.copy()
    weight.view(np.int64).ravel()[entry] ^= np.int64(1 << bit)
    nodes = list(network.nodes)
    nodes[node] = replace(nodes[node], op=replace(op, weight=Enclosure(weight)))
    return replace(network, nodes=tuple(nodes))


@given(st.sampled_from([1, 3, 5]), st.integers(0, 14), st.integers(0, 51))
def test_one_bit_of_one_weight(node: int, entry: int, bit: int) -> None:
    verdict = check(certificate(), flipped(NETWORK, node, entry, bit))
    assert not verdict.valid
    assert verdict.reason is Reason.OTHER_WEIGHTS


def test_a_radius_is_part_of_the_weights() -> None:
    op = NETWORK.nodes[1].op
    assert isinstance(op, Dense)
    nodes = list(NETWORK.nodes)
    nodes[1] = replace(nodes[1], op=replace(op, weight=Enclosure(op.weight.mid, np.full((6, 4), 1e-3))))
    assert not check(certificate(), replace(NETWORK, nodes=tuple(nodes))).valid


@pytest.mark.parametrize("rule", ["product/v2", "product", "", "../x", "x" * 500])
def test_an_unknown_rule(rule: str) -> None:
    verdict = check(replace(certificate(), rule=rule), NETWORK)
    assert not verdict.valid
    assert verdict.reason is Reason.UNKNOWN_RULE
    assert len(verdict.text) < 300


def test_a_witness_that_proves_nothing() -> None:
    made = certificate()
    norms = made.witness["norms"] * 0.99
    verdict = check(replace(made, witness={**made.witness, "norms": norms}), NETWORK)
    assert not verdict.valid
    assert verdict.reason is Reason.REFUSED
    assert "is not proved" in verdict.detail


def test_a_witness_of_another_rule() -> None:
    assert check(replace(certificate(), rule="multipliers/v1"), NETWORK).reason is Reason.REFUSED


def test_a_rule_that_proves_nothing_in_the_norm_of_the_claim() -> None:
    assert check(replace(certificate(), rule="absolute/v1"), NETWORK).reason is Reason.WRONG_NORM


@pytest.mark.parametrize(("method", "norm"), [("product", "l2"), ("absolute", "linf"), ("eclipse-fast", "l2")])
def test_a_claim_too_low_by_one_ulp(method: str, norm: str) -> None:
    made = certificate(NETWORK, method, norm)
    derived = check(made, NETWORK).derived
    assert derived is not None
    exactly = replace(made, claim=replace(made.claim, bound=derived))
    assert check(exactly, NETWORK).valid
    below = replace(made, claim=replace(made.claim, bound=math.nextafter(derived, 0.0)))
    verdict = check(below, NETWORK)
    assert not verdict.valid
    assert verdict.reason is Reason.TOO_LOW
    assert verdict.derived == derived
    assert repr(derived) in verdict.text


def test_a_claim_in_another_norm() -> None:
    made = certificate(NETWORK, "product", "l2")
    assert not check(replace(made, claim=Claim("linf", "output", made.claim.bound)), NETWORK).valid


def test_a_claim_about_what_the_model_does_not_have() -> None:
    network = replace(NETWORK, nodes=NETWORK.nodes[:-1])  # a ReLU is its last node
    made = Certificate.of(network, Claim("l2", "features", 1e9), "product/v1", {})
    assert check(made, network).reason is Reason.NO_SUBJECT


def test_no_proof_without_ieee_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise Refused("subnormal numbers are flushed to zero")

    monkeypatch.setattr(checker, "require_ieee", refuse)
    verdict = check(certificate(), NETWORK)
    assert verdict.reason is Reason.ARITHMETIC
    assert "flushed to zero" in verdict.text


def test_a_rule_that_an_engine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checker, "rules_of", lambda engine: {})
    assert check(certificate(), NETWORK).reason is Reason.NOT_IN_ENGINE


def test_higher_claims_are_valid() -> None:
    made = certificate()
    assert check(replace(made, claim=replace(made.claim, bound=1e300)), NETWORK).valid


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 400), st.integers(0, 400))
def test_certificates_do_not_fit_other_networks(first: int, second: int) -> None:
    one, two = random_network(first, 3), random_network(second, 3)
    same = one.graph_digest == two.graph_digest and one.weights_digest == two.weights_digest
    assert check(certificate(one), two).valid == same


NAMES = st.sampled_from(["nodes", "norms", "multipliers", "inverse_square"])
ARRAYS = st.sampled_from(
    [
        np.zeros(0),
        np.zeros(0, dtype=np.int64),
        np.array(1.0),
        np.array([1.0]),
        np.ones(11),
        np.array([1, 3, 5]),
        np.full((2, 2), np.nan),
        np.full(3, 1e308),
        np.array([True]),
    ]
)
RULE_IDS = st.sampled_from(["product/v1", "absolute/v1", "multipliers/v1"])


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, ARRAYS), RULE_IDS, st.sampled_from(["l1", "l2", "linf"]))
def test_a_wrong_witness_never_raises(witness: dict[str, np.ndarray], rule: str, norm: str) -> None:
    made = Certificate.of(NETWORK, Claim(norm, "output", 1e-3), rule, witness)
    verdict = check(made, NETWORK)
    assert not verdict.valid
    assert "\n" not in verdict.text
