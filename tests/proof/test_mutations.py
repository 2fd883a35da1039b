"""A thousand wrong certificates: none is believed, none crashes the checker, and both engines say the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lipcert.bounds.engine import bound
from lipcert.network import Network
from lipcert.network.readers import load
from lipcert.proof import Certificate, Claim, Level, Reason, Verdict
from lipcert.proof.rules.stretches import pack
from lipcert.testing.build import matrices, mlp
from lipcert.testing.mutations import FAULTS, MUTATIONS, Case, Fate, Mutant, fate_of, kill_rate, mutants
from lipcert.testing.mutations import fates as fates_module
from lipcert.testing.zoo import zoo

ROUNDS = 6


def cases() -> Iterator[Case]:
    """Yield certificates of all rules on several networks."""
    wanted = [
        ("small ReLU chain", "product", "l2", "output"),
        ("one input, one neuron, one output", "product", "linf", "output"),
        ("convolution", "product", "l2", "output"),
        ("MaxMin", "product", "l2", "features"),
        ("batch norm with quotients", "absolute", "linf", "output"),
        ("small ReLU chain", "absolute", "l1", "output"),
        ("small ReLU chain", "eclipse-fast", "l2", "output"),
        ("residual x + g(x)", "gershgorin", "l2", "output"),
        ("batch norm with quotients", "gershgorin", "l2", "output"),
        ("small ReLU chain", "eclipse-fast", "l2", "margins"),
        ("small ReLU chain", "lip-lt", "l2", "output"),
    ]
    for name, method, norm, quantity in wanted:
        yield Case(bound(zoo()[name], method, norm, quantity=quantity).certificate, zoo()[name])
    network = mlp(matrices(3, 4, 6, 5, 3))
    parts = [("product/v1", {"nodes": np.array([1]), "norms": np.array([3.0])}),
             ("product/v1", {"nodes": np.array([1, 3]), "norms": np.array([3.0, 3.0])})]  # fmt: skip
    yield Case(Certificate.of(network, Claim("l2", "output", 27.0), "stretches/v1", pack([2], parts)), network)


CASES = list(cases())


def tally(case: Case, seed: int, rounds: int) -> Counter[tuple[str, Fate]]:
    return Counter((mutant.kind, fate_of(mutant)) for mutant in mutants(case, seed, rounds))


@pytest.mark.parametrize("number", range(len(CASES)))
def test_no_mutant_is_believed(number: int) -> None:
    case = CASES[number]
    assert fate_of(Mutant("none", case.content, case.network)) == "harmless"
    fates = tally(case, number, ROUNDS)
    assert not [entry for entry in fates if entry[1] in FAULTS]
    assert kill_rate(fates) == 1.0
    assert sum(fates.values()) > 8 * ROUNDS


def test_every_kind_of_mutation_is_made() -> None:
    kinds = {mutant.kind for case in CASES[:7] for mutant in mutants(case, 5, 2)}
    assert kinds == set(MUTATIONS)


def test_the_same_seed_makes_the_same_mutants() -> None:
    first, second = ([mutant.content for mutant in mutants(CASES[0], 1, 2)] for _ in range(2))
    assert first == second
    assert len(set(first)) > len(MUTATIONS)


def believing(certificate: Certificate, network: Network, engine: str = "float64") -> Verdict:
    return Verdict(True, Level.VERIFIED, Reason.PROVED)


def trusting_float64(certificate: Certificate, network: Network, engine: str = "float64") -> Verdict:
    return Verdict(engine == "float64", None, Reason.PROVED)


def breaking(certificate: Certificate, network: Network, engine: str = "float64") -> Verdict:
    raise IndexError


@pytest.mark.parametrize(
    ("checker", "fate"), [(believing, "false"), (trusting_float64, "split"), (breaking, "crashed")]
)
def test_a_broken_checker_is_found_out(monkeypatch: pytest.MonkeyPatch, checker: object, fate: str) -> None:
    case = CASES[0]
    low = replace(case.certificate, claim=Claim("l2", "output", 1e-3))
    assert fate_of(Mutant("low", low.to_bytes(), case.network)) == "rejected"
    monkeypatch.setattr(fates_module, "check", checker)
    assert fate_of(Mutant("low", low.to_bytes(), case.network)) == fate


def test_a_real_certificate(shared_data: Path) -> None:
    network = load(shared_data / "models" / "marabou" / "mnist2x10.onnx")
    for method in ("product", "eclipse-fast"):
        fates = tally(Case(bound(network, method).certificate, network), 0, 1)
        assert not [entry for entry in fates if entry[1] in FAULTS]
