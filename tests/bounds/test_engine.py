"""The engine: what is claimed, what is refused, and how methods are chosen."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipcert.bounds.engine import bound, claimed, compare
from lipcert.bounds.method import Method, Proposal
from lipcert.bounds.registry import METHODS, choose_method, find_method
from lipcert.errors import InconclusiveError, UsageError
from lipcert.network.operators import Softmax
from lipcert.proof import check
from lipcert.proof.rules.multipliers import Multipliers
from lipcert.proof.subject import subject
from lipcert.testing.build import RELU, chain, dense, matrices, mlp
from lipcert.testing.zoo import zoo

POSITIVE = st.floats(min_value=0.0, max_value=1e308, allow_subnormal=True)


@given(POSITIVE)
def test_claims_are_never_below_and_hardly_above(derived: float) -> None:
    found = claimed(derived)
    assert derived <= found
    assert found <= derived * (1 + 2**-38) or derived < 1e-300


@given(st.floats(1e-3, 1e3), st.integers(1, 63))
def test_claims_leave_room_for_the_last_bits_of_another_machine(derived: float, ulps: int) -> None:
    assert claimed(derived) == derived or claimed(derived) >= derived + ulps * math.ulp(derived) / 2


@given(st.integers(0, 2**24), st.integers(-100, 100))
def test_short_numbers_are_claimed_as_they_are(mantissa: int, exponent: int) -> None:
    assert claimed(math.ldexp(mantissa, exponent)) == math.ldexp(mantissa, exponent)


@given(st.floats(1e-3, 1e3), st.integers(-200, 200))
def test_claims_follow_powers_of_two(derived: float, exponent: int) -> None:
    assert claimed(math.ldexp(derived, exponent)) == math.ldexp(claimed(derived), exponent)


def test_a_bound_is_what_its_certificate_claims() -> None:
    network = mlp(matrices(1, 4, 5, 3))
    for method, norm in (("product", "l2"), ("absolute", "linf"), ("eclipse-fast", "l2")):
        found = bound(network, method, norm)
        assert found.value == found.certificate.claim.bound
        assert check(found.certificate, network).valid


def test_what_is_refused_is_followed_by_what_comes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine proves what methods only hope for, in their order, and certifies what was proved."""
    network = mlp(matrices(1, 4, 5, 3))
    method, proofs = find_method("eclipse-fast"), []
    honest, propose, prove = bound(network, "eclipse-fast"), type(method).propose, Multipliers.prove

    def hopeful(self: Method, *args: Any) -> Proposal:
        found = propose(self, *args)
        witness = {**found.witness, "inverse_square": 1.01 * found.witness["inverse_square"]}
        nan = {**witness, "inverse_square": np.array([np.nan])}
        return replace(found, witness=nan, otherwise=()).or_else([replace(found, witness=witness), found])

    def counted(self: Multipliers, *args: Any) -> Any:
        proofs.append(args[-1])
        return prove(self, *args)

    monkeypatch.setattr(type(method), "propose", hopeful)
    monkeypatch.setattr(Multipliers, "prove", counted)
    found = bound(network, "eclipse-fast")
    assert found.value > 0.999 * honest.value
    assert found.certificate.witness is proofs[-1]
    assert check(found.certificate, network).valid
    monkeypatch.setattr(type(method), "propose", propose)
    proofs.clear()
    assert bound(network, "eclipse-fast").value == honest.value
    assert len(proofs) == 1  # proved once


def test_nothing_that_is_proposed_can_be_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    method = find_method("eclipse-fast")
    propose = type(method).propose

    def greedy(self: Method, *args: Any) -> Proposal:
        choices = [
            replace(choice, witness={**choice.witness, "inverse_square": 2.0 * choice.witness["inverse_square"]})
            for choice in propose(self, *args).choices()
        ]
        return choices[0].or_else(choices[1:])

    monkeypatch.setattr(type(method), "propose", greedy)
    with pytest.raises(InconclusiveError, match="no bound can be derived from what 'eclipse-fast' proposed"):
        bound(mlp(matrices(1, 4, 5, 3)), "eclipse-fast")


def test_usage_errors_are_clear() -> None:
    network = mlp(matrices(1, 4, 5, 3))
    with pytest.raises(UsageError, match="no norm 'l3'"):
        bound(network, norm="l3")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="did you mean 'product'"):
        bound(network, "prodct")
    with pytest.raises(UsageError, match="it is for l1, linf, not l2"):
        bound(network, "absolute", "l2")
    with pytest.raises(UsageError, match="no features"):
        bound(chain((3,), dense(matrices(1, 3, 3)[0]), RELU), quantity="features")


def test_what_overflows_is_inconclusive_and_silent() -> None:
    network = mlp([1e200 * w for w in matrices(2, 4, 5, 3)])
    normal = subject(network, "output")
    for method in METHODS:
        for norm in sorted(method.norms):
            if method.refuses(normal, norm) is not None:
                continue
            with pytest.raises(InconclusiveError):
                bound(network, method.name, norm)


def test_comparisons_give_a_row_for_every_method() -> None:
    rows = compare(zoo()["MaxMin"], ["product", "absolute", "eclipse-fast"], "l2")
    assert [row.method for row in rows] == ["product", "absolute", "eclipse-fast"]
    assert rows[0].bound is not None
    assert rows[0].error is None
    assert all(row.bound is None and row.error for row in rows[1:])
    with pytest.raises(UsageError):
        compare(zoo()["affine"], ["product", "nothing"])


@pytest.mark.parametrize(
    ("network", "norm", "name"),
    [
        (zoo()["small ReLU chain"], "linf", "absolute"),
        (zoo()["MaxMin"], "l1", "absolute"),
        (zoo()["MaxMin"], "l2", "product"),
        (zoo()["residual x + g(x)"], "l2", "lipsdp"),
        (chain((3000,), RELU, RELU, RELU), "l2", "product"),
        (chain((3,), RELU, Softmax(0)), "l2", "product"),
    ],
)
def test_auto_says_what_it_takes_and_why(network: object, norm: str, name: str) -> None:
    choice = choose_method(subject(network, "output"), norm)  # type: ignore[arg-type]
    assert choice.method is find_method(name)
    assert choice.reason


def test_auto_on_a_chain_is_never_above_the_product() -> None:
    for seed in range(5):
        network = mlp(matrices(seed, 4, 6, 5, 3))
        assert choose_method(subject(network, "output"), "l2").method.name != "product"
        assert bound(network).value <= bound(network, "product").value * (1 + 1e-6)


def test_bounds_of_features_and_output_differ_by_the_head() -> None:
    weights = [*matrices(3, 4, 6), np.diag([1.0, 0.5, 2.0]) @ matrices(4, 6, 3)[0]]
    network = mlp(weights)
    features, output = (bound(network, "product", quantity=q).value for q in ("features", "output"))
    assert output == pytest.approx(features * np.linalg.norm(weights[1], 2), rel=1e-7)
    assert bound(chain((4,), *(node.op for node in network.nodes[1:]), Softmax(0)), quantity="features").value > 0
