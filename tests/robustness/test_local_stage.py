"""Local methods as stages: what they prove counts at its level, and only there."""

from __future__ import annotations

import json

import numpy as np
import pytest
from small_networks import labelled, random_chain

from lipcert.bounds.local.registry import find_local
from lipcert.errors import UsageError
from lipcert.robustness.attack import Attack
from lipcert.robustness.certifier import certify

EPS = (0.02, 0.1, 0.3)


@pytest.fixture(scope="module")
def case():
    network = random_chain(3, (6, 12, 12, 4))
    images, labels = labelled(network, 60)
    return network, (images, labels)


def _run(case, **settings):
    network, data = case
    return certify(network, data, eps=EPS, **settings)


@pytest.mark.parametrize("method", ["intervals", "crown", "alpha-crown"])
def test_a_numerical_proof_counts_only_where_it_was_asked_for(case, method):
    base = _run(case, method="product").certified_count
    numerical, verified = (_run(case, method=method, level=level) for level in ("numerical", "verified"))
    assert numerical.level == "numerical" and verified.level == "verified"
    for key, count in numerical.certified_count.items():
        assert base[key] <= verified.certified_count[key] <= count
    assert sum(numerical.certified_count.values()) > sum(base.values())
    if not find_local(method).derived:
        assert verified.certified_count == base
        assert any("--level numerical" in note for note in verified.notes)


def test_what_is_certified_is_never_attacked(case):
    certified = _run(case, method="alpha-crown", level="numerical").certified_count
    attacked = _run(case, method="cascade", attack=Attack(steps=40, restarts=2))
    total = attacked.samples
    for key, count in certified.items():
        assert count <= total - attacked.attacked_count[key]


def test_records_hold_the_level_and_can_be_resumed(case, tmp_path):
    first = _run(case, method="crown", level="numerical", folder=tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()[1:]]
    levels = {level for row in rows for s, level in zip(row["status"], row["level"], strict=True) if s == "certified"}
    assert levels == {"numerical", "verified"}
    for row in rows:
        reached = [eps for eps, status in zip(EPS, row["status"], strict=True) if status == "certified"]
        assert not reached or row["radius"] >= max(reached)
    again = _run(case, method="crown", level="numerical", folder=tmp_path, resume=True)
    assert again.certified_count == first.certified_count and again.level == "numerical"


def test_an_unknown_method_is_refused(case):
    with pytest.raises(UsageError, match="crwn"):
        _run(case, method="crwn", level="numerical")


def test_larger_balls_certify_fewer(case):
    counts = list(_run(case, method="crown", level="numerical").certified_count.values())
    assert np.all(np.diff(counts) <= 0)
