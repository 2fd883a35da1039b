"""Claims about single logits and margins: their names, the networks they speak of, their certificates."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipcert.bounds.engine import bound
from lipcert.errors import CertificateError, UsageError
from lipcert.network.evaluate import evaluate
from lipcert.network.graph import Network
from lipcert.network.operators import Reshape, Softmax
from lipcert.proof import Certificate, Claim, Reason, Refused, check
from lipcert.proof.claims import classes_of, logit, margin
from lipcert.proof.subject import subject
from lipcert.testing.build import RELU, chain, conv, dense, matrices, mlp
from lipcert.testing.zoo import zoo

SAID = [name for name in zoo() if zoo()[name].nodes[-1].size > 1]
TABLE = ((0.0, 1.0, 2.0), (1.0, 0.0, 0.5), (2.0, 0.5, 0.0))


@given(st.integers(0, 10**8), st.integers(0, 10**8))
def test_names_can_be_read_again(i: int, j: int) -> None:
    assert classes_of(logit(i)) == (i,)
    if i != j:
        assert classes_of(margin(i, j)) == (i, j)


@pytest.mark.parametrize("name", ["output", "features", "margins"])
def test_some_names_have_no_class(name: str) -> None:
    assert classes_of(name) == ()


@pytest.mark.parametrize(
    "name",
    ["", "logit", "logit -1", "logit 01", "logit 1 ", "logit ٣", "logit 1 2", "margin 1", "margin 2 2", "margin 1 2 3",
     "margin 1 02", "logits", "Output", "logit 99999999999", "margin 1\n2"],
)  # fmt: skip
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no quantity"):
        classes_of(name)
    with pytest.raises(ValueError, match="no quantity"):
        Claim("l2", name, 1.0)


@pytest.mark.parametrize("name", SAID)
def test_a_direction_is_that_of_the_network(name: str) -> None:
    """Logits of the network as read, a last softmax set aside by hand."""
    network = zoo()[name]
    x = np.random.default_rng(0).normal(size=(5, *network.input_shape))
    whole = network
    if name in ("softmax", "log-softmax"):
        whole = replace(network, nodes=network.nodes[:-1])
    y = evaluate(whole, x).reshape(5, -1)
    last = y.shape[1] - 1
    for classes in ((0,), (last,), (0, last), (last, 0)):
        found = evaluate(subject(network, logit(*classes) if len(classes) == 1 else margin(*classes)), x)
        expected = y[:, classes[0]] - (y[:, classes[1]] if len(classes) == 2 else 0.0)
        assert found.shape == (5, 1)
        np.testing.assert_allclose(found[:, 0], expected, rtol=1e-9, atol=1e-11 * np.abs(y).max())


def test_rows_of_float32_weights_stay_exact() -> None:
    weights = matrices(3, 4, 6, 5)
    found = subject(mlp(weights), margin(3, 1)).nodes[-1].op.weight  # type: ignore[attr-defined]
    assert found.is_exact
    exact = [Fraction(a) - Fraction(b) for a, b in zip(weights[-1][3], weights[-1][1], strict=True)]
    assert [Fraction(value) for value in found.mid[0]] == exact


@pytest.mark.parametrize("quantity", ["logit 5", "margin 0 5", "margin 5 0"])
def test_there_is_no_such_output(quantity: str) -> None:
    with pytest.raises(Refused, match="no output 5: the network has 5"):
        subject(mlp(matrices(1, 4, 6, 5)), quantity)
    with pytest.raises(UsageError, match="no output 5"):
        bound(mlp(matrices(1, 4, 6, 5)), quantity=quantity)


def test_one_output_has_no_margins() -> None:
    network = mlp(matrices(1, 4, 3, 1))
    with pytest.raises(UsageError, match="no margins"):
        bound(network, quantity="margins")
    assert bound(network, "product", quantity="logit 0").value > 0


def test_a_softmax_is_set_aside() -> None:
    bare = mlp(matrices(2, 4, 6, 3))
    whole = chain((4,), *(node.op for node in bare.nodes[1:]), Softmax(0))
    for quantity in ("logit 2", "margin 0 2"):
        assert bound(whole, "product", quantity=quantity).value == bound(bare, "product", quantity=quantity).value


def flat_convolution() -> Network:
    network = chain((1, 4, 4), conv(5, (2, 1, 3, 3)), RELU, conv(6, (3, 2, 2, 2)))
    flat = replace(network.nodes[-1], op=Reshape(), inputs=(len(network.nodes) - 1,), shape=(3,))
    return replace(network, nodes=(*network.nodes, flat))


@pytest.mark.parametrize("quantity", ["logit 1", "margin 1 0"])
@pytest.mark.parametrize(
    "network",
    [mlp(matrices(1, 4, 6, 5)), chain((3,), dense(matrices(4, 3, 4)[0]), RELU), flat_convolution()],
    ids=["dense", "trailing ReLU", "convolution"],
)
def test_every_rule_certifies_directions(network: Network, quantity: str) -> None:
    for method, norm in (("product", "l2"), ("absolute", "linf"), ("eclipse-fast", "l2"), ("lipsdp", "l2")):
        made = bound(network, method, norm, quantity=quantity)  # type: ignore[arg-type]
        again = Certificate.from_bytes(made.certificate.to_bytes())
        assert again.claim == made.certificate.claim
        assert check(again, network).valid
        assert made.value <= bound(network, method, norm).value * (2.0 if norm == "linf" else 2**0.5) * (1 + 1e-6)  # type: ignore[arg-type]
        low = replace(again, claim=replace(again.claim, bound=0.5 * made.value))
        assert check(low, network).reason is Reason.TOO_LOW


def test_a_certificate_of_one_logit_says_nothing_of_another() -> None:
    weights = matrices(1, 4, 6, 2)
    weights[-1][1] *= 8
    network = mlp(weights)
    made = bound(network, "lipsdp", quantity="logit 0").certificate
    for quantity in ("logit 1", "margin 0 1", "output", "margins"):
        table = ((0.0, made.claim.bound), (made.claim.bound, 0.0)) if quantity == "margins" else None
        moved = replace(made, claim=Claim("l2", quantity, made.claim.bound, table))
        assert not check(moved, network).valid


def test_tables_of_margins_are_checked_for_form() -> None:
    assert Claim("l2", "margins", 2.0, TABLE).widest == "margin 0 2"
    wrong = {
        "no table": (2.0, None),
        "ragged": (2.0, ((0.0, 1.0), (1.0,))),
        "not square": (1.0, ((0.0, 1.0),)),
        "one class": (0.0, ((0.0,),)),
        "not symmetric": (2.0, ((0.0, 1.0), (2.0, 0.0))),
        "a diagonal": (2.0, ((2.0, 1.0), (1.0, 0.0))),
        "another largest": (1.5, ((0.0, 1.0), (1.0, 0.0))),
        "negative": (1.0, ((0.0, 1.0, -1.0), (1.0, 0.0, 1.0), (-1.0, 1.0, 0.0))),
        "not a number": (1.0, ((0.0, float("nan")), (float("nan"), 0.0))),
    }
    for bound_, table in wrong.values():
        with pytest.raises(ValueError, match=r"margins|inhomogeneous"):
            Claim("l2", "margins", bound_, table)
    with pytest.raises(ValueError, match="no other has"):
        Claim("l2", "output", 2.0, TABLE)


def test_the_table_stands_in_the_file() -> None:
    made = Certificate(Claim("l2", "margins", 2.0, TABLE), "directions/v1", "0" * 64, "1" * 64, {"gram": np.eye(3)})
    again = Certificate.from_bytes(made.to_bytes())
    assert again.claim == made.claim
    assert set(again.witness) == {"gram"}
    missing = made.to_bytes().replace(b'"claim.margins"', b'"claim_margins"')
    assert missing != made.to_bytes()
    with pytest.raises(CertificateError, match="not a valid certificate"):
        Certificate.from_bytes(missing)
    other = made.to_bytes().replace(b'quantity\\": \\"margins', b'quantity\\": \\"outputs')
    with pytest.raises(CertificateError, match="no quantity"):
        Certificate.from_bytes(other)
