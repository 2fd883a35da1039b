"""Balls cut by the input box: more is proved, inside only, and it is said."""

from __future__ import annotations

import numpy as np
import pytest
from small_networks import random_chain

from lipcert.cli import app
from lipcert.errors import UsageError
from lipcert.network.evaluate import evaluate
from lipcert.proof.local import any_certificate
from lipcert.report.wording import claim
from lipcert.robustness.certifier import certify

EPS = (0.1, 0.2)
BOX = (0.0, 1.0)


@pytest.fixture(scope="module")
def case():
    """Samples near the corners of the box, where it takes much of the ball away."""
    network = random_chain(3)
    images = np.random.default_rng(1).beta(0.2, 0.2, size=(60, 6)).astype(np.float32)
    return network, (images, evaluate(network, images.astype(np.float64)).argmax(axis=1))


@pytest.fixture(scope="module")
def reports(case, tmp_path_factory):
    folder = tmp_path_factory.mktemp("box")
    cut = certify(*case, eps=EPS, method="crown", box=BOX, folder=folder, proofs=True)
    return certify(*case, eps=EPS, method="crown"), cut, folder


def test_the_box_proves_more_and_the_report_says_so(reports):
    whole, cut, _ = reports
    assert all(cut.certified_count[key] >= whole.certified_count[key] for key in whole.certified_count)
    assert sum(cut.certified_count.values()) > sum(whole.certified_count.values())
    assert "whose entries lie in [0.0, 1.0]" in claim(cut) and "entries" not in claim(whole)


def test_no_point_of_the_box_near_a_certified_sample_is_classified_otherwise(case, reports):
    network, _ = case
    rng = np.random.default_rng(2)
    for path in (reports[2] / "proofs").iterdir():
        certificate = any_certificate(path.read_bytes(), path.name)
        assert certificate.claim.box == BOX
        for x, label in zip(certificate.samples.inputs, certificate.samples.labels, strict=True):
            away = rng.normal(size=(2000, 6))
            away *= certificate.claim.eps / np.linalg.norm(away, axis=1, keepdims=True)
            points = np.clip(x + away, *BOX)
            assert (evaluate(network, points).argmax(axis=1) == label).all()


def test_samples_outside_the_box_are_refused(case):
    with pytest.raises(UsageError, match="not inside the box"):
        certify(*case, eps=EPS, method="crown", box=(0.2, 1.0))
    with pytest.raises(UsageError, match="empty"):
        certify(*case, eps=EPS, method="crown", box=(1.0, 1.0))


def test_the_command_takes_two_numbers(capsys):
    assert app.run(["certify", "m.onnx", "--data", "d.npz", "--eps", "0.1", "--box", "0"]) == 2
    assert "--box takes two numbers" in capsys.readouterr().err
