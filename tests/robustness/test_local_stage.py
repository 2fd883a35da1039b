"""Local methods as stages: what they prove counts at its level, and only there."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from small_networks import labelled, random_chain

from benchmarks.networks import open_network
from lipcert.bounds.local.method import Bounds, Crown
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


def _rows(folder):
    lines = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    return [line for line in lines if "status" in line]


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


@pytest.mark.parametrize("method", ["intervals", "crown", "alpha-crown"])
def test_what_is_derived_again_counts_as_verified(case, method, tmp_path):
    base = _run(case, method="product").certified_count
    numerical = _run(case, method=method, level="numerical")
    verified = _run(case, method=method, folder=tmp_path)
    assert verified.level == "verified" and sum(verified.certified_count.values()) > sum(base.values())
    for key, count in numerical.certified_count.items():
        assert verified.certified_count[key] <= count
    if method != "crown":  # its second look (`bounds.local.second_look`) is not derived again
        assert verified.certified_count == numerical.certified_count
        assert not any("--level numerical" in note for note in verified.notes)
    rows = _rows(tmp_path)
    assert {lv for row in rows for s, lv in zip(row["status"], row["level"], strict=True) if s == "certified"} == {
        "verified"
    }


def test_what_only_rounding_certifies_does_not_count(case, monkeypatch):
    """A sample that the proposing pass certifies and the derivation does not stays unknown, and the report says so."""
    network, (images, labels) = case
    ones = lambda self, view, ball, labels: Bounds(torch.ones(len(labels), view.classes - 1))  # noqa: E731
    monkeypatch.setattr(Crown, "_bound", ones)
    certified = certify(network, (images, (labels + 1) % 4), eps=[0.3], method="crown")
    honest = certify(network, (images, labels), eps=[0.3], method="crown")
    assert certified.certified_count == {"0.3": 0}
    assert 0 < honest.certified_count["0.3"] < len(labels)
    assert any("level numerical only" in note for note in honest.notes)


def test_a_network_without_verified_rules_is_refused():
    network = random_chain(3, (6, 12, 4), "sin")
    data = labelled(network, 4)
    with pytest.raises(UsageError, match=r"sin.*--level numerical"):
        certify(network, data, eps=[0.1], method="crown")
    assert certify(network, data, eps=[0.1], method="crown", level="numerical").samples == 4


def test_real_networks_lose_nothing_to_rounding(shared_data):
    network, images, labels = open_network(shared_data, "models/autolirpa/mnist_fc_3layer.pth")
    data = np.float32(images[:100]), labels[:100]
    numerical, verified = (
        certify(network, data, eps=[0.1, 0.3], method="crown", level=level).certified_count
        for level in ("numerical", "verified")
    )
    assert verified == numerical
    assert verified["0.1"] >= 96 and verified["0.3"] >= 69  # auto_LiRPA's CROWN


def test_what_is_certified_is_never_attacked(case):
    certified = _run(case, method="alpha-crown", level="numerical").certified_count
    attacked = _run(case, method="cascade", attack=Attack(steps=40, restarts=2))
    total = attacked.samples
    for key, count in certified.items():
        assert count <= total - attacked.attacked_count[key]


def test_records_hold_the_level_and_can_be_resumed(case, tmp_path):
    first = _run(case, method="crown", level="numerical", folder=tmp_path)
    rows = _rows(tmp_path)
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
