"""What becomes of mutants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.proof.certificate import Certificate
from lipcert.proof.checker import check
from lipcert.proof.claims import Quantity
from lipcert.proof.reasons import Malformed
from lipcert.proof.subject import subject
from lipcert.testing.mutations import files, models, witnesses
from lipcert.testing.mutations.case import Case, Filed, Mutation, Rng
from lipcert.testing.truth import jacobians_of, lower_bound

Fate = Literal["rejected", "harmless", "false", "split", "crashed"]
FAULTS: frozenset[Fate] = frozenset({"false", "split", "crashed"})

MUTATIONS: Mapping[str, Mutation] = {
    "a bit of the file": files.flip_bit,
    "a bit of the arrays": files.flip_blob_bit,
    "cut and spliced": files.cut,
    "a field of the document": files.change_field,
    "the document's keys": files.change_keys,
    "a digest": files.change_digest,
    "the layout of an array": files.change_layout,
    "a lower claim": witnesses.lower_claim,
    "a number of the witness": witnesses.change_number,
    "an array of the witness": witnesses.change_array,
    "the names of the arrays": witnesses.change_names,
    "a lower claim with its witness": witnesses.claim_more,
    "another rule": witnesses.change_rule,
    "a bit of a weight": models.flip_weight_bit,
    "a slope of the model": models.change_slope,
}


@dataclass(frozen=True, eq=False)
class Mutant:
    """A changed certificate file and the network that it is checked against."""

    kind: str
    content: bytes
    network: Network


def mutants(case: Case, seed: int, rounds: int) -> Iterator[Mutant]:
    """Yield `rounds` mutants of every kind that applies; the same seed yields the same."""
    return mutated(case, MUTATIONS, seed, rounds)


def mutated(
    case: Filed, mutations: Mapping[str, Callable[[Any, Rng], tuple[bytes, Network] | None]], seed: int, rounds: int
) -> Iterator[Mutant]:
    """Yield what `mutants` does, by any mutations."""
    original = case.content
    for number, (kind, mutate) in enumerate(mutations.items()):
        rng = np.random.default_rng((seed, number))
        for _ in range(rounds):
            made = mutate(case, rng)
            if made is not None and (made[0] != original or made[1] is not case.network):
                yield Mutant(kind, *made)


def fate_of(mutant: Mutant) -> Fate:
    """Check a mutant by both engines."""
    try:
        certificate = Certificate.from_bytes(mutant.content)
        fast, exact = (check(certificate, mutant.network, engine).valid for engine in ("float64", "exact"))
    except Malformed:
        return "rejected"
    except Exception:
        return "crashed"
    if fast and not exact:
        return "split"
    if not exact:
        return "rejected"
    return "harmless" if _is_true(certificate, mutant.network) else "false"


def kill_rate(fates: Counter[tuple[str, Fate]]) -> float:
    """Return the fraction of mutants that were rejected among those that are not harmless."""
    harmful = sum(count for (_, fate), count in fates.items() if fate != "harmless")
    return sum(count for (_, fate), count in fates.items() if fate == "rejected") / max(1, harmful)


def _is_true(certificate: Certificate, network: Network) -> bool:
    """Whether no slope was found above the claim (of ``margins``: above the largest)."""
    claim = certificate.claim
    return claim.bound >= lower_bound(claim.norm, _jacobians(network, claim.widest))


@lru_cache(maxsize=8)
def _jacobians(network: Network, quantity: Quantity) -> list[Float]:
    return jacobians_of(subject(network, quantity))
