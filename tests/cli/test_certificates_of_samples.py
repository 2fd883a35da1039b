"""``certify --proofs`` and ``check --data`` on the command line."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lipcert.network.evaluate import evaluate
from lipcert.network.graph import Network
from lipcert.proof.local import LocalCertificate, any_certificate

CERTIFY = ("certify", "m", "--data", "d.npz", "--eps", "0.3", "--norm", "linf", "--method", "crown")
CHECK = ("check", "r/proofs/crown-0.3.lipcert", "m")


@pytest.fixture
def data(network: Network, tmp_path: Path) -> None:
    """Twenty samples that are classified correctly."""
    images = np.random.default_rng(0).random((20, 4), dtype=np.float32)
    labels = evaluate(network, images.astype(np.float64)).argmax(axis=1)
    np.savez(tmp_path / "d.npz", images=images, labels=labels)
    np.savez(tmp_path / "other.npz", images=images[::-1] * 0.5, labels=labels)


def test_proofs_are_written_and_checked(cli: Any, loaded: Any, data: None, tmp_path: Path) -> None:
    run = cli(*CERTIFY, "--report", "r", "--proofs", "--json")
    assert run.code == 0
    (proof,) = run.document["proofs"]
    assert (proof["path"], proof["method"], proof["eps"]) == ("r/proofs/crown-0.3.lipcert", "crown", 0.3)
    assert 0 < proof["samples"] <= run.document["certified_count"]["0.3"]
    assert f"lipcert check {proof['path']} " in (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    for more in ((), ("--data", "d.npz"), ("--data", "d.npz", "--scale", "1")):
        found = cli(*CHECK, *more)
        assert found.code == 0 and found.out.startswith(f"valid  {proof['samples']} samples keep their classes")
    found = cli(*CHECK, "--data", "other.npz")
    assert (found.code, found.out.split()[0]) == (3, "invalid")


def test_a_certificate_without_its_samples_asks_for_the_data(cli: Any, loaded: Any, data: None, tmp_path: Path) -> None:
    cli(*CERTIFY, "--report", "r", "--proofs")
    path = tmp_path / "r" / "proofs" / "crown-0.3.lipcert"
    whole = any_certificate(path.read_bytes())
    assert isinstance(whole, LocalCertificate) and whole.samples is not None
    replace(whole, samples=None).save(path)
    found = cli(*CHECK)
    assert found.code == 3 and "--data FILE" in found.out
    np.savez(tmp_path / "own.npz", images=whole.samples.inputs.astype(np.float32), labels=whole.samples.labels)
    assert cli(*CHECK, "--data", "own.npz").code == 0
    assert cli(*CHECK, "--data", "other.npz").code == 3


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((*CERTIFY, "--proofs"), "--proofs writes into the folder of the report"),
        ((*CERTIFY, "--proofs", "--report", "r", "--level", "numerical"), "level verified, not numerical"),
        ((*CERTIFY, "--proofs", "--report", "r", "--task", "regression"), "--proofs is about classes"),
        (("check", "r/bound.lipcert", "m", "--scale", "2"), "--data"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    cli: Any, loaded: Any, data: None, arguments: tuple[str, ...], why: str
) -> None:
    found = cli(*arguments)
    assert found.code == 2 and why in found.err and found.err.count("\n") == 1 and not found.out


def test_comparing_samples_with_data_needs_no_torch() -> None:
    code = "import sys, lipcert.robustness.data.belonging; print({'torch', 'scipy', 'cvxpy', 'PIL'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
