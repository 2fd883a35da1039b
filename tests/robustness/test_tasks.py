"""Other margins: the label among the k largest, one logit, rows of norm one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from small_networks import chain, dense, labelled, random_chain

from lipcert.errors import InconclusiveError, UsageError
from lipcert.network import Builder
from lipcert.network.evaluate import evaluate
from lipcert.network.operators import Elementwise, Reshape
from lipcert.robustness.attack import Attack, Attacker
from lipcert.robustness.certifier import certify
from lipcert.robustness.margins import correct, least

QUICK = {"lower_seconds": 0.0, "attack": Attack(steps=10, restarts=2), "quantity": "features"}
EPS = (0.05, 0.2, 0.6)


# --- top k ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_label_is_among_the_k_largest(rank):
    for logits in itertools.product([0.0, 1.0, 2.0], repeat=4):
        above = sum(value >= logits[0] for value in logits[1:])  # a tie is a loss
        assert correct(np.array([logits]), np.array([0]), rank)[0] == (above < rank)
    assert not correct(np.array([[np.nan, 0.0, 0.0]]), np.array([0]), 1)[0]
    rows = np.random.default_rng(0).normal(size=(20, 5))
    np.testing.assert_array_equal(least(rows, rank), np.sort(rows, axis=1)[:, rank - 1])


def test_top_k_on_a_linear_network_against_its_exact_radius():
    """The k-th nearest boundary of a linear network bounds how far the label stays among the k largest."""
    rng = np.random.default_rng(1)
    weight, bias = rng.normal(size=(5, 8)), rng.normal(size=5)
    network = chain((weight, bias))
    images, labels = labelled(network, 40)
    logits = images.astype(np.float64) @ weight.T + bias
    for k in (1, 2, 3):
        report = certify(network, (images, labels), eps=EPS, method="product", top_k=k, **QUICK)
        rows = np.arange(40)
        with np.errstate(all="ignore"):
            apart = np.linalg.norm(weight[labels][:, None] - weight[None], axis=2)
            exact = (logits[rows, labels][:, None] - logits) / apart
        exact[rows, labels] = np.inf
        exact = np.sort(exact, axis=1)[:, k - 1]
        for eps in EPS:
            assert report.certified_count[f"{eps:g}"] == int((exact >= eps).sum())
        assert report.mean_certified_radius <= exact.mean() * (1 + 1e-12)


def test_more_places_certify_more_and_break_less():
    network = random_chain(3, (6, 12, 12, 5))
    images, labels = labelled(network, 30)
    labels[::3] = (labels[::3] + 1) % 5
    found = [certify(network, (images, labels), eps=EPS, top_k=k, **QUICK) for k in (1, 2, 3)]
    for one, two in itertools.pairwise(found):
        assert one.clean_count <= two.clean_count
        for key in one.certified_count:
            assert one.certified_count[key] <= two.certified_count[key]
    for k, report in enumerate(found, start=1):
        attacker = Attacker(network, Attack(steps=40, restarts=3), "l2", (-1e3, 1e3), rank=k)
        for eps in EPS:
            broken, points = attacker.run(images, labels, eps)
            logits = evaluate(network, points[broken].astype(float))
            own = logits[np.arange(len(logits)), labels[broken]]
            assert ((logits >= own[:, None] - 1e-5).sum(axis=1) > k).all()
            assert report.certified_count[f"{eps:g}"] <= 30 - broken.sum()


def test_there_are_not_so_many_classes():
    network = random_chain(0)
    with pytest.raises(UsageError, match="4 classes"):
        certify(network, labelled(network, 4), eps=(0.1,), top_k=4)
    with pytest.raises(UsageError, match="at least 1"):
        certify(network, labelled(network, 4), eps=(0.1,), top_k=0)


# --- one logit --------------------------------------------------------------------------------------------------


def _one_logit(sigmoid: bool, reshaped: bool = False):
    rng = np.random.default_rng(2)
    builder = Builder((5,))
    x = builder.add(dense(rng.normal(size=(9, 5))), 0)
    x = builder.add(Elementwise("relu"), x)
    x = builder.add(dense(rng.normal(size=(1, 9)), [0.3]), x)
    x = builder.add(Elementwise("sigmoid"), x) if sigmoid else x
    if reshaped:
        builder.add(Reshape(), x, shape=(1, 1))
    return builder.build()


@pytest.mark.parametrize("reshaped", [False, True])
def test_one_logit_is_certified_by_its_sign(reshaped):
    network, plain = _one_logit(sigmoid=True, reshaped=reshaped), _one_logit(sigmoid=False)
    images = np.random.default_rng(3).normal(size=(50, 5)).astype(np.float32)
    logits = evaluate(plain, images.astype(float))[:, 0]
    labels = (logits > 0).astype(np.int64)
    labels[::10] = 1 - labels[::10]
    whole = certify(network, (images, labels), eps=EPS, **QUICK)
    assert (
        whole.clean_count == 45
        and whole.certified_count == certify(plain, (images, labels), eps=EPS, **QUICK).certified_count
    )
    assert whole.attacked_count["0.6"] > 0
    crown = certify(network, (images, labels), eps=EPS, method="crown").certified_count
    assert 0 < crown["0.2"] <= whole.certified_count["0.2"]
    rng = np.random.default_rng(4)
    flips = np.zeros(50, dtype=bool)
    for _ in range(300):
        step = rng.normal(size=images.shape)
        step *= 0.2 / np.linalg.norm(step, axis=1, keepdims=True)
        flips |= (evaluate(plain, images + step)[:, 0] > 0) != (logits > 0)
    right = labels == (logits > 0)
    assert whole.certified_count["0.2"] <= int((right & ~flips).sum())


def test_what_one_logit_refuses(tmp_path):
    images, labels = np.zeros((4, 5), np.float32), np.array([0, 1, 2, 0])
    with pytest.raises(UsageError, match="--task regression"):
        certify(_one_logit(sigmoid=False), (images, labels), eps=EPS)
    with pytest.raises(InconclusiveError, match="sigmoid"):
        certify(_one_logit(sigmoid=True), (images, labels % 2), eps=EPS, level="verified-exec")
    assert certify(_one_logit(sigmoid=False), (images, labels % 2), eps=EPS, level="verified-exec").samples == 4
    with pytest.raises(UsageError, match="no certificate"):
        certify(_one_logit(sigmoid=False), (images, labels % 2), eps=EPS, certificate=tmp_path / "c.lipcert")
    certify(_one_logit(sigmoid=False), (images, labels % 2), eps=EPS, folder=tmp_path)
    assert not list(tmp_path.glob("*.lipcert"))  # it would not be about the file that was given


# --- rows of norm one -------------------------------------------------------------------------------------------


def test_rows_of_norm_one_have_a_factor_for_each_pair():
    """Not sqrt 2 (for that, rows would have to be orthogonal): ||w_y - w_j|| is up to 2."""
    angles = np.array([0.0, 0.3, np.pi])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    network = chain((rows, np.zeros(3)))
    images = np.array([[1.0, 0.05]], np.float32)
    report = certify(network, (images, np.array([0])), eps=(0.01,), method="product", **QUICK)
    logits = rows @ images[0].astype(float)
    exact = min((logits[0] - logits[j]) / np.linalg.norm(rows[0] - rows[j]) for j in (1, 2))
    assert 0.999 * exact < report.mean_certified_radius <= exact * (1 + 1e-12)
    opposite = chain((rows[[0, 2]], np.zeros(2)))
    far = certify(opposite, (images, np.array([0])), eps=(0.01,), method="product", **QUICK).mean_certified_radius
    assert far <= 1.0 < 2.0 * float(images[0, 0]) / np.sqrt(2.0)  # sqrt 2 would claim 1.41; the border is at 1
