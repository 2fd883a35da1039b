"""What else runs in the process: flush-to-zero, the number of BLAS threads, TF32. A proof holds or is refused.

Threads are set by the environment before BLAS is loaded, so those tests run processes of their own. The oracle is the
statement itself: what one process proved, the other has to prove from the same certificate.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import lipcert
from lipcert.bounds.engine import bound
from lipcert.bounds.local.registry import find_local
from lipcert.errors import LipcertError
from lipcert.network import Network
from lipcert.proof import Certificate, Reason, check
from lipcert.proof.local import Evaluator, Region
from lipcert.proof.local.proposal import NOTHING
from lipcert.proof.refusal import Refused
from lipcert.testing.build import matrices, mlp
from lipcert.testing.jacobian import exact_jacobian, operator_norm
from lipcert.testing.zoo import zoo

PLAIN = mlp(matrices(41, 6, 9, 8, 4))
METHODS = ("product", "eclipse-fast", "lip-lt", "lipsdp", "compositional")


def certificates() -> dict[str, tuple[Network, Certificate]]:
    """Return certificates of every rule."""
    made = {name: (PLAIN, bound(PLAIN, name).certificate) for name in METHODS}
    made["absolute"] = PLAIN, bound(PLAIN, "absolute", "linf").certificate
    made["margins"] = PLAIN, bound(PLAIN, "eclipse-fast", quantity="margins").certificate
    made["convolution"] = zoo()["convolution"], bound(zoo()["convolution"], "product").certificate
    return made


@pytest.fixture(scope="module")
def made() -> dict[str, tuple[Network, Certificate]]:
    return certificates()


@pytest.fixture
def flushing(made: object) -> Iterator[None]:
    """Flush subnormal numbers to zero in this thread."""
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormal numbers to zero")
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


# --- flush-to-zero ----------------------------------------------------------------------------------------------


def test_nothing_is_checked_under_flush_to_zero(made: dict[str, tuple[Network, Certificate]], flushing: None) -> None:
    for engine in ("float64", "exact"):
        for network, certificate in made.values():
            verdict = check(certificate, network, engine)
            assert not verdict.valid
            assert verdict.reason is Reason.ARITHMETIC
            assert "subnormal" in verdict.detail


def test_nothing_is_bounded_under_flush_to_zero(flushing: None) -> None:
    for method in METHODS:
        with pytest.raises(LipcertError, match="subnormal"):
            bound(PLAIN, method)


def test_nothing_is_read_or_certified_under_flush_to_zero(flushing: None) -> None:
    """A subnormal weight would be read as 0, and the claim would be one about another network."""
    with pytest.raises(LipcertError, match="subnormal"):
        lipcert.load(torch.nn.Linear(2, 2).eval(), input_shape=(2,))
    with pytest.raises(LipcertError, match="subnormal"):
        lipcert.certify(PLAIN, (np.zeros((3, 6)), np.zeros(3, dtype=int)), eps=(0.1,))


@pytest.mark.parametrize("name", ["intervals", "crown"])
def test_no_margin_is_verified_under_flush_to_zero(name: str, flushing: None) -> None:
    region, labels = Region.around(np.zeros((1, 6)), 0.1), np.zeros(1, dtype=np.int64)
    with pytest.raises(Refused, match="subnormal"):
        find_local(name).verified_margins(Evaluator(PLAIN), region, labels, NOTHING)


def test_the_checks_hold_again_afterwards(made: dict[str, tuple[Network, Certificate]]) -> None:
    for name, (network, certificate) in made.items():
        assert check(certificate, network).valid, name


# --- TF32 ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def tf32() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_tf32_changes_no_bound_and_no_verdict(made: dict[str, tuple[Network, Certificate]], tf32: None) -> None:
    assert torch.backends.cuda.matmul.allow_tf32
    for name, (network, certificate) in made.items():
        assert check(certificate, network).valid, name
    for name in ("product", "eclipse-fast", "lip-lt"):
        assert bound(PLAIN, name).value == made[name][1].claim.bound
    rng = np.random.default_rng(3)
    truth = max(operator_norm(exact_jacobian(PLAIN, x), "l2") for x in rng.normal(size=(50, 6))) * (1 - 2.0**-40)
    assert bound(PLAIN, "lipsdp").value >= truth


# --- threads --------------------------------------------------------------------------------------------------------

PROGRAM = """
import sys
from pathlib import Path
from lipcert.bounds.engine import bound
from lipcert.network.readers import load
from lipcert.proof import Certificate, check
from lipcert.testing.build import matrices, mlp

command, folder, model = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
network = load(model) if model else mlp(matrices(42, 200, 96, 96, 10))
for method in ("product", "eclipse-fast", "lipsdp"):
    path = folder / f"{method}.lipcert"
    if command == "make":
        bound(network, method).certificate.save(path)
    else:
        verdict = check(Certificate.load(path), network)
        assert verdict.valid, (method, verdict.text)
"""


def run(command: str, folder: Path, model: str, threads: int) -> None:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, **dict.fromkeys(names, str(threads))}
    arguments = [sys.executable, "-c", PROGRAM, command, str(folder), model]
    subprocess.run(arguments, check=True, env=environment, cwd=Path(__file__).parents[1], timeout=300)


def both_ways(folder: Path, model: str) -> None:
    for threads in (1, 2):
        run("make", folder / str(threads), model, threads)
        run("check", folder / str(threads), model, 3 - threads)


@pytest.mark.slow
def test_certificates_of_one_thread_check_with_two_and_the_other_way_round(tmp_path: Path) -> None:
    both_ways(tmp_path, "")


@pytest.mark.slow
def test_the_same_for_a_real_network(tmp_path: Path, shared_data: Path) -> None:
    both_ways(tmp_path, str(shared_data / "models" / "glipsdp" / "mlp_L5_W16.onnx"))
