"""The conformance suite itself: it catches what it is made for, and its oracles are right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from lipcert.bounds import method as method_module
from lipcert.bounds.method import Method, Proposal
from lipcert.bounds.product import Product
from lipcert.bounds.registry import find_method
from lipcert.network.activations import TABLE
from lipcert.network.graph import Network
from lipcert.proof.claims import Norm
from lipcert.proof.rules import RULES, Derivation
from lipcert.testing import check_method, check_order
from lipcert.testing.build import matrices, mlp
from lipcert.testing.truth import is_countable, jacobians_of, lower_bound, region_points
from lipcert.testing.zoo import zoo


class Faulty(Product):
    """The product method in l2 with one fault."""

    name: ClassVar[str] = "faulty"
    norms: ClassVar[frozenset[Norm]] = frozenset({"l2"})

    def __init__(self, fault: Callable[[Proposal], Proposal]) -> None:
        self.fault = fault

    def propose(self, network: Network, norm: Norm, time_limit: float | None) -> Proposal:
        return self.fault(super().propose(network, norm, time_limit))


def with_norms(change: Callable[[Any], Any]) -> Faulty:
    return Faulty(lambda p: replace(p, witness={**p.witness, "norms": change(p.witness["norms"])}))


class Shrinking:
    """A rule that is wrong: it derives a part of the product."""

    def derive(self, network: Network, norm: Norm, witness: Mapping[str, Any]) -> Derivation:
        return Derivation(0.2 * RULES["product/v1"].derive(network, norm, witness).bound)


def test_a_bound_below_the_truth_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method_module, "RULES", {**RULES, "wrong/v1": Shrinking()})
    with pytest.raises(AssertionError, match="below the true constant"):
        check_method(Faulty(lambda p: replace(p, rule="wrong/v1")))


def test_a_witness_that_does_not_derive_is_caught() -> None:
    with pytest.raises(AssertionError, match="it says that it serves"):
        check_method(with_norms(lambda norms: 0.5 * norms))


def test_an_absolute_epsilon_is_caught() -> None:
    """Such bounds are true, but weights of 2^-60 times those of 2^60 show the epsilon."""
    with pytest.raises(AssertionError, match=r"times 2\^"):
        check_method(with_norms(lambda norms: norms + 1e-3))


def test_a_certificate_that_does_not_check_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    generous = type("Generous", (), {"derive": lambda self, *a: Derivation(2 * RULES["product/v1"].derive(*a).bound)})
    monkeypatch.setattr(method_module, "RULES", {**RULES, "unknown/v1": generous()})
    with pytest.raises(AssertionError, match="the checker rejects"):
        check_method(Faulty(lambda p: replace(p, rule="unknown/v1")))


class Silent(Method):
    name: ClassVar[str] = "silent"
    summary: ClassVar[str] = "refuses everything"
    norms: ClassVar[frozenset[Norm]] = frozenset({"l2"})
    cost: ClassVar[str] = "none"
    text: ClassVar[str] = ""

    def refuses(self, network: Network, norm: Norm) -> str | None:
        return self.text

    def propose(self, network: Network, norm: Norm, time_limit: float | None) -> Proposal:
        raise NotImplementedError


class Useless(Silent):
    text: ClassVar[str] = "not today"


def test_refusals_need_a_text_and_must_not_be_all() -> None:
    with pytest.raises(AssertionError, match="one line of text"):
        check_method(Silent())
    with pytest.raises(AssertionError, match="serves no network"):
        check_method(Useless())


def test_orders_can_fail() -> None:
    with pytest.raises(AssertionError, match="is above"):
        check_order(find_method("product"), find_method("eclipse-fast"), "l2")
    with pytest.raises(AssertionError, match="nothing to compare"):
        check_order(Useless(), find_method("product"), "l2")


def test_the_zoo_has_every_activation_and_small_networks_only() -> None:
    kinds = {node.op.kind for network in zoo().values() for node in network.nodes}
    assert set(TABLE) <= kinds
    assert {"Dense", "Conv", "ConvTranspose", "AvgPool", "Scale", "Gather", "Reshape", "Sum", "Concat"} <= kinds
    assert {"Sort", "Extremum", "MaxPool", "Softmax"} <= kinds
    assert max(node.size for network in zoo().values() for node in network.nodes) <= 64


def test_regions_are_all_found() -> None:
    """Three lines in general position cut the plane into seven regions; two parallel ones and a third into six."""
    general = mlp([np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), np.ones((1, 3))])
    assert len(list(region_points(general))) == 7
    parallel = mlp([np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), np.ones((1, 3))])
    assert len(list(region_points(parallel))) == 6


def test_counted_regions_give_the_exact_constant() -> None:
    """|a| + |b| behind one dense layer: four regions, the largest slope is known."""
    first = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    network = mlp([first, np.array([[3.0, 3.0, 4.0, 4.0]])])
    assert is_countable(network)
    jacobians = jacobians_of(network)
    assert lower_bound("l2", jacobians) == pytest.approx(5.0, rel=1e-11)
    assert lower_bound("linf", jacobians) == pytest.approx(7.0, rel=1e-11)
    assert lower_bound("l1", jacobians) == pytest.approx(4.0, rel=1e-11)
    assert lower_bound("l2", jacobians) < 5.0


def test_few_networks_only_are_counted() -> None:
    assert not is_countable(mlp(matrices(1, 3, 9, 2)))
    assert sum(is_countable(network) for network in zoo().values()) >= 8
