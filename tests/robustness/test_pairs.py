"""Certification with a bound for every pair of classes: sound, never worse, repeatable from its certificate."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small_networks import chain, labelled, random_chain

from lipcert.bounds.engine import bound
from lipcert.errors import CertificateError, UsageError
from lipcert.network.operators import Elementwise, Softmax
from lipcert.proof import Certificate, check
from lipcert.robustness.attack import Attack, Attacker
from lipcert.robustness.certifier import certify
from lipcert.testing.truth import SLACK, jacobians_of

EPS = (0.05, 0.2)


def run(network, data, **settings):
    return certify(network, data, **({"eps": EPS, "method": "lipsdp"} | settings))


@pytest.fixture(scope="module")
def network():
    return random_chain(4, sizes=(6, 10, 8, 4))


@pytest.fixture(scope="module")
def data(network):
    return labelled(network, 40, scale=0.7)


@pytest.fixture(scope="module")
def reports(network, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {q: run(network, data, quantity=q, folder=folder / q) for q in ("output", "features", "margins")}


def radii(report):
    rows = [json.loads(line) for line in Path(report.records).read_text().splitlines()]
    return np.array([row["radius"] for row in rows if "index" in row])


def test_every_radius_is_at_least_that_of_one_bound(reports):
    features, margins = radii(reports["features"]), radii(reports["margins"])
    assert (margins >= features).all()
    assert reports["margins"].mean_certified_radius > 1.05 * reports["features"].mean_certified_radius
    assert reports["margins"].mean_certified_radius > 1.05 * reports["output"].mean_certified_radius


def test_the_report_says_which_was_used(reports):
    margins = reports["margins"]
    assert margins.bound.quantity == "features"
    assert margins.margins.quantity == "margins"
    assert margins.margins.bound == max(map(max, margins.margins.margins))
    assert any("bound of its own" in note for note in margins.notes)
    assert any("6 of 6 pairs of outputs have multipliers of their own" in note for note in margins.notes)
    assert reports["features"].margins is None
    assert not any("bound of its own" in note for note in reports["features"].notes)


@pytest.mark.parametrize("seed", range(3))
def test_no_radius_reaches_an_adversarial_input(seed, tmp_path):
    """A tiny network, whose largest slopes of every margin are known, against strong attacks at each radius."""
    network = random_chain(seed, sizes=(3, 4, 3, 3))
    images, labels = labelled(network, 25, seed=seed)
    report = run(network, (images, labels), folder=tmp_path)
    table = np.array(report.margins.margins)
    rows = np.stack(jacobians_of(network))
    truth = np.linalg.norm(rows[:, :, None] - rows[:, None], axis=-1).max(axis=0) * (1.0 - SLACK)
    assert (table >= truth).all()
    box = (float(images.min()) - 10.0, float(images.max()) + 10.0)
    attacker = Attacker(network, Attack(steps=30, restarts=3), "l2", box)
    for image, label, radius in zip(images, labels, radii(report), strict=True):
        assert radius > 0
        broken, _ = attacker.run(image[None], np.array([label]), float(radius))
        assert not broken[0]


def test_the_deployed_pass_costs_a_little_radius(network, data, reports):
    plain, deployed = reports["margins"], run(network, data, level="verified-exec")
    assert (plain.level, deployed.level) == ("verified", "verified-exec")
    assert deployed.margins is not None
    assert deployed.mean_certified_radius <= plain.mean_certified_radius
    assert deployed.mean_certified_radius == pytest.approx(plain.mean_certified_radius, rel=1e-4)


def test_a_certificate_gives_the_same_radii(network, data, reports, tmp_path):
    stored = reports["margins"].margins.certificate
    assert check(Certificate.load(stored), network).valid
    report = certify(network, data, eps=EPS, certificate=stored, method="global", folder=tmp_path)
    assert report.bound.quantity == "margins"
    assert report.margins is not None
    found, direct = radii(report), radii(reports["margins"])
    assert (found <= direct * (1 + 1e-9)).all()  # the features may do better on some pair
    assert report.certified_count == reports["margins"].certified_count


def test_a_certificate_that_does_not_serve(network, data, reports, tmp_path):
    one = tmp_path / "one.lipcert"
    bound(network, "lipsdp", quantity="margin 0 1").certificate.save(one)
    with pytest.raises(UsageError, match="'margin 0 1' alone"):
        run(network, data, certificate=one)
    with pytest.raises(CertificateError, match="does not hold"):
        run(random_chain(5, sizes=(6, 10, 8, 4)), data, certificate=reports["margins"].margins.certificate)


def test_linf_margins_are_never_above_those_of_the_features(network, data):
    features, margins = (
        run(network, data, norm="linf", method="absolute", quantity=q) for q in ("features", "margins")
    )
    assert margins.margins is not None
    assert margins.mean_certified_radius > features.mean_certified_radius
    assert all(margins.certified_count[key] >= features.certified_count[key] for key in features.certified_count)


def test_methods_without_multipliers_keep_the_features(network, data):
    report = run(network, data, method="product")
    assert report.margins is None
    assert any("every rival has its own factor" in note for note in report.notes)


@pytest.mark.parametrize("tail", [Softmax(0), Elementwise("relu")])
def test_what_stands_behind_the_last_layer(tail):
    weights = [(np.array([[1.0, 0.5], [0.25, -1.0], [0.5, 0.5]]), np.zeros(3)), (np.eye(3), np.ones(3))]
    network = chain(*weights, tail=[tail])
    images = np.array([[2.0, 0.0], [0.0, -2.0]], dtype=np.float32)
    report = run(network, (images, np.array([0, 1])))
    assert report.margins is not None
    assert report.certified_count["0.05"] == 2


def test_two_classes_have_one_margin(data):
    network = random_chain(1, sizes=(6, 5, 2))
    report = run(network, labelled(network, 10))
    assert len(report.margins.margins) == 2
