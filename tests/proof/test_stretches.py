"""The stretch rule: products of certified parts, and no other witness than one for true cuts."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import lower_bound_by_sampling, networks

from lipcert.bounds.eclipse_fast import EclipseFast
from lipcert.bounds.method import Method
from lipcert.bounds.product import Product
from lipcert.network import Network
from lipcert.network.cut import cut_nodes, stretch
from lipcert.network.operators import Softmax
from lipcert.proof.certificate import Certificate, Witness
from lipcert.proof.checker import check
from lipcert.proof.claims import Claim
from lipcert.proof.refusal import Refused
from lipcert.proof.rules import RULES
from lipcert.proof.rules.stretches import Stretches, pack, unpack
from lipcert.proof.subject import subject
from lipcert.testing.build import RELU, chain, dense, matrices
from lipcert.testing.zoo import zoo

RULE = RULES[Stretches.id]
A, B, C = (dense(w) for w in matrices(7, 5, 6, 4, 3))
NETWORK = chain((5,), A, RELU, B, RELU, C, Softmax(0))  # nodes 1 to 6
RESIDUAL = subject(zoo()["ReLU behind sums, one with a minus"], "output")
Arrays = dict[str, np.ndarray]


def parts(network: Network, cuts: list[int], methods: list[Method], norm: str = "l2") -> list[tuple[str, Witness]]:
    ends = [0, *cuts, len(network.nodes) - 1]
    found = []
    for (start, end), method in zip(pairwise(ends), methods, strict=True):
        proposal = method.propose(stretch(network, start, end), norm, None)  # type: ignore[arg-type]
        found.append((proposal.rule, proposal.witness))
    return found


def witness() -> Arrays:
    return dict(pack([3, 5], parts(NETWORK, [3, 5], [EclipseFast(), Product(), Product()])))


def derive(network: Network, arrays: Witness, norm: str = "l2") -> float:
    return RULE.derive(network, norm, arrays).bound  # type: ignore[arg-type]


# --- what it derives -----------------------------------------------------------------------------------------


def test_the_bound_is_the_product_of_the_stretches_rounded_up() -> None:
    found = RULE.derive(NETWORK, "l2", witness())
    factors = [step.factor for step in found.steps]
    exact = math.prod(map(Fraction, factors))
    assert exact <= Fraction(found.bound) <= exact * (1 + Fraction(4, 2**53))
    assert [step.node for step in found.steps] == [3, 5, 6]
    assert found.steps[-1].cumulative == found.bound
    _, _, witnesses = unpack(witness())
    for (start, end), factor, rule, arrays in zip(
        pairwise([0, 3, 5, 6]), factors, ("multipliers/v1", "product/v1", "product/v1"), witnesses, strict=True
    ):
        assert factor == RULES[rule].derive(stretch(NETWORK, start, end), "l2", arrays).bound


@settings(max_examples=100, deadline=None)
@given(networks(), st.data(), st.sampled_from(["l1", "l2", "linf"]))
def test_no_cut_gives_a_bound_below_a_jacobian(network: Network, data: st.DataObject, norm: str) -> None:
    normal = subject(network, "output")
    inner = cut_nodes(normal)[1:-1]
    chosen = sorted(data.draw(st.sets(st.sampled_from(inner)))) if inner else []
    if len(normal.nodes) == 1:
        return
    arrays = pack(chosen, parts(normal, chosen, [Product()] * (len(chosen) + 1), norm))
    found = derive(normal, arrays, norm)
    assert found >= lower_bound_by_sampling(network, norm, np.random.default_rng(0), 6)
    whole = RULES["product/v1"].derive(normal, norm, Product().propose(normal, norm, None).witness).bound  # type: ignore[arg-type]
    assert found == pytest.approx(whole, rel=1e-9)


def test_one_stretch_is_the_rule_itself() -> None:
    (part,) = parts(NETWORK, [], [Product()])
    assert derive(NETWORK, pack([], [part])) == RULES["product/v1"].derive(NETWORK, "l2", part[1]).bound


def test_witnesses_survive_packing_and_files() -> None:
    stretches = parts(NETWORK, [3, 5], [EclipseFast(), Product(), Product()])
    cuts, rules, witnesses = unpack(pack([3, 5], stretches))
    assert cuts == [3, 5]
    assert rules == [rule for rule, _ in stretches]
    for arrays, (_, before) in zip(witnesses, stretches, strict=True):
        assert arrays.keys() == before.keys()
        assert all(np.array_equal(arrays[name], before[name]) for name in before)
    bound = derive(NETWORK, witness())
    certificate = Certificate.of(NETWORK, Claim("l2", "output", bound), Stretches.id, witness())
    assert check(Certificate.from_bytes(certificate.to_bytes()), NETWORK).valid
    lower = Certificate.of(NETWORK, Claim("l2", "output", bound * (1 - 1e-9)), Stretches.id, witness())
    assert not check(lower, NETWORK).valid


# --- witnesses that were tampered with -----------------------------------------------------------------------


def names(text: str) -> np.ndarray:
    return np.array([ord(letter) for letter in text], dtype=np.int64)


def moved(old: int, new: int) -> Callable[[Arrays], object]:
    """Exchange the arrays of two stretches."""

    def change(w: Arrays) -> None:
        first = {k: w.pop(k) for k in list(w) if k.startswith(f"{old}.")}
        second = {k: w.pop(k) for k in list(w) if k.startswith(f"{new}.")}
        w.update({k.replace(f"{old}.", f"{new}.", 1): a for k, a in first.items()})
        w.update({k.replace(f"{new}.", f"{old}.", 1): a for k, a in second.items()})

    return change


THREE = "multipliers/v1 product/v1 product/v1"
REFUSED: dict[str, Callable[[Arrays], object]] = {
    "a cut one node earlier": lambda w: w.update(cuts=np.array([2, 5])),
    "a cut one node later": lambda w: w.update(cuts=np.array([4, 5])),
    "cuts in another order": lambda w: w.update(cuts=np.array([5, 3])),
    "a cut twice": lambda w: w.update(cuts=np.array([3, 3])),
    "a cut at the input": lambda w: w.update(cuts=np.array([0, 5])),
    "a cut at the output": lambda w: w.update(cuts=np.array([3, 6])),
    "a cut before the network": lambda w: w.update(cuts=np.array([-1, 5])),
    "a cut behind the network": lambda w: w.update(cuts=np.array([3, 2**62])),
    "a cut missing": lambda w: w.update(cuts=np.array([3])),
    "a cut more": lambda w: w.update(cuts=np.array([3, 4, 5])),
    "cuts as floats": lambda w: w.update(cuts=np.array([3.0, 5.0])),
    "cuts as a matrix": lambda w: w.update(cuts=np.array([[3, 5]])),
    "no cuts": lambda w: w.pop("cuts"),
    "no rules": lambda w: w.pop("rules"),
    "a stretch without its arrays": lambda w: [w.pop(k) for k in list(w) if k.startswith("1.")],
    "the arrays of two stretches exchanged": moved(0, 1),
    "the arrays of a stretch under another number": moved(1, 7),
    "rules exchanged": lambda w: w.update(rules=names("product/v1 multipliers/v1 product/v1")),
    "a rule for other norms": lambda w: w.update(rules=names("multipliers/v1 product/v1 absolute/v1")),
    "an unknown rule": lambda w: w.update(rules=names("multipliers/v1 product/v1 product/v9")),
    "stretches within stretches": lambda w: w.update(rules=names("multipliers/v1 product/v1 stretches/v1")),
    "a rule missing": lambda w: w.update(rules=names("multipliers/v1 product/v1")),
    "a blank too much": lambda w: w.update(rules=names(THREE + " ")),
    "rules that are no text": lambda w: w.update(rules=names(THREE) - 200),
    "rules beyond all letters": lambda w: w.update(rules=names(THREE) * 2**50),
    "rules as floats": lambda w: w.update(rules=names(THREE).astype(np.float64)),
    "an extra array": lambda w: w.update(room=np.array([1.0])),
    "an extra array of a stretch": lambda w: w.update({"1.room": np.array([1.0])}),
    "an array of a fourth stretch": lambda w: w.update({"3.norms": np.array([1.0])}),
    "an array without a name": lambda w: w.update({"1.": np.array([1.0])}),
    "an array of stretch -1": lambda w: w.update({"-1.norms": np.array([1.0])}),
    "an array of stretch 00": lambda w: w.update({"00.norms": np.array([1.0])}),
    "an array with a very long number": lambda w: w.update({"9" * 10_000 + ".norms": np.array([1.0])}),
    "a norm halved": lambda w: w.update({"1.norms": 0.5 * w["1.norms"]}),
    "an inverse square doubled": lambda w: w.update({"0.inverse_square": 2 * w["0.inverse_square"]}),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_tampered_witnesses_are_refused(name: str) -> None:
    arrays = witness()
    assert derive(NETWORK, arrays) > 0
    REFUSED[name](arrays)
    with pytest.raises(Refused) as refusal:
        derive(NETWORK, arrays)
    assert "\n" not in str(refusal.value)


def test_cuts_within_a_residual_block_are_refused() -> None:
    allowed = set(cut_nodes(RESIDUAL))
    inside = [i for i in range(1, len(RESIDUAL.nodes) - 1) if i not in allowed]
    assert inside
    for cut in inside:
        before = stretch(RESIDUAL, 0, cut)
        first = "product/v1", Product().propose(before, "l2", None).witness
        assert RULES["product/v1"].derive(before, "l2", first[1]).bound > 0
        with pytest.raises(Refused, match="cannot be cut so"):
            derive(RESIDUAL, pack([cut], [first, first]))


def test_a_certificate_of_another_network_is_refused() -> None:
    """The same structure with other weights: the stretches' own rules refuse even without the digests."""
    a, b, c = (dense(2 * w) for w in matrices(7, 5, 6, 4, 3))
    with pytest.raises(Refused):
        derive(chain((5,), a, RELU, b, RELU, c, Softmax(0)), witness())


def test_an_input_alone_has_no_stretch() -> None:
    alone = subject(zoo()["identity"], "output")
    with pytest.raises(Refused, match="no stretch"):
        derive(alone, pack([], [("product/v1", Product().propose(alone, "l2", None).witness)]))
