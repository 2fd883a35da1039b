"""Which pairs of outputs get multipliers of their own, and which methods serve margins at all."""

from __future__ import annotations

import numpy as np
import pytest

from lipcert.bounds import margins
from lipcert.bounds.engine import bound
from lipcert.bounds.margins import propose_margins
from lipcert.bounds.registry import find_method
from lipcert.errors import InconclusiveError
from lipcert.network.graph import Network
from lipcert.proof.subject import subject
from lipcert.testing.build import matrices, mlp
from lipcert.testing.zoo import zoo

NETWORK = subject(mlp(matrices(1, 5, 8, 7, 4)), "margins")


def pairs(network: Network, method: str, time_limit: float | None = None) -> list[list[int]]:
    proposal = propose_margins(network, find_method(method), "l2", time_limit)
    assert f"{len(proposal.witness['pairs'])} of 6 pairs" in proposal.notes[-1]
    found: list[list[int]] = proposal.witness["pairs"].tolist()
    return found


def test_small_networks_get_all_pairs_the_largest_bound_first() -> None:
    found = pairs(NETWORK, "lipsdp")
    assert sorted(found) == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    together = margins.gram_margins(propose_margins(NETWORK, find_method("lipsdp"), "l2", None).witness["gram"])
    sizes = [together[i, j] for i, j in found]
    assert sizes == sorted(sizes, reverse=True)


def test_larger_networks_get_pairs_only_within_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(margins, "FEW_NEURONS", 14)
    assert pairs(NETWORK, "lipsdp") == []
    assert len(pairs(NETWORK, "lipsdp", 1e6)) == 6
    assert pairs(NETWORK, "lipsdp", 0.0) == []


def test_methods_that_do_not_look_at_the_last_layer_are_asked_once() -> None:
    assert pairs(NETWORK, "eclipse-fast") == []


def test_methods_without_multipliers() -> None:
    with pytest.raises(InconclusiveError, match="'product' proposes no multipliers"):
        bound(zoo()["small ReLU chain"], "product", quantity="margins")
    with pytest.raises(InconclusiveError, match="no multipliers"):
        bound(zoo()["MaxMin"], quantity="margins")


def test_own_multipliers_gain_on_every_pair() -> None:
    together = margins.gram_margins(propose_margins(NETWORK, find_method("lipsdp"), "l2", 0.0).witness["gram"])
    own = bound(mlp(matrices(1, 5, 8, 7, 4)), "lipsdp", quantity="margins").margins
    assert own is not None
    off = ~np.eye(4, dtype=bool)
    assert (own[off] <= together[off] * (1 + 1e-6)).all()
    assert own[off].mean() < 0.98 * together[off].mean()
