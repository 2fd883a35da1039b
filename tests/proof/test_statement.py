"""What network a claim speaks of, in words."""

from __future__ import annotations

from dataclasses import replace

from lipcert.bounds.documents import model_info
from lipcert.proof.statement import statement
from lipcert.testing.zoo import zoo


def test_exact_numbers_are_said_to_be_exact() -> None:
    network = zoo()["small ReLU chain"]
    text = statement(network)
    assert text == "the network in real arithmetic, with exactly the float32 numbers that the model holds"
    assert "exactly the float64 numbers" in statement(replace(network, dtype="float64"))


def test_folded_numbers_are_counted_one_by_one() -> None:
    network = zoo()["batch norm with quotients"]
    inexact = sum(
        int((part.radius > 0).sum())
        for node in network.nodes
        for part in (getattr(node.op, "factor", None), getattr(node.op, "weight", None))
        if part is not None
    )
    assert inexact > 0
    assert f"; {inexact} numbers that its graph computes are enclosed in intervals" in statement(network)


def test_documents_say_it() -> None:
    network = zoo()["small ReLU chain"]
    assert model_info(network).statement == statement(network)
