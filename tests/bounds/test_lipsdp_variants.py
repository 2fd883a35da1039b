"""LipSDP by one solver, and with one multiplier per layer: their order, and what is said of a missing solver."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from oracles import lower_bound_by_sampling

from lipcert.bounds.conic import mosek_missing
from lipcert.bounds.engine import bound, compare
from lipcert.bounds.lipsdp_solvers import LipSdpClarabel
from lipcert.bounds.registry import METHODS, VARIANTS
from lipcert.cli.diagnosis import diagnose
from lipcert.errors import UsageError
from lipcert.network.operators import Elementwise
from lipcert.proof.subject import subject
from lipcert.testing.build import RELU, matrices, mlp

ROOM = 1.0 + 1e-6  # between values that were found numerically
LEAKY = Elementwise("leaky_relu", (np.array(0.01),))
NETS = {
    "ReLU": mlp(matrices(100, 5, 7, 6, 3)),
    "leaky": mlp(matrices(101, 4, 6, 6, 5), LEAKY),
    "tanh": mlp(matrices(103, 4, 6, 3), Elementwise("tanh")),
    "deep": mlp([2.0 * w for w in matrices(107, 4, 5, 5, 5, 5, 2)]),
    "uneven scales": mlp([w * f for w, f in zip(matrices(108, 4, 6, 5, 3), (2.0**40, 2.0**-40, 1e-3), strict=True)]),
}


@pytest.mark.parametrize("name", NETS)
def test_one_multiplier_per_layer_stands_between(name):
    """Never below the best multipliers, never above the closed forms that are special cases of it."""
    network = NETS[name]
    found = {m: bound(network, m).value for m in ("lipsdp-cvxpy", "lipsdp-layer", "eclipse-fast", "lip-lt", "product")}
    assert found["lipsdp-cvxpy"] <= found["lipsdp-layer"] * ROOM
    for looser in ("eclipse-fast", "lip-lt", "product"):
        assert found["lipsdp-layer"] <= found[looser] * ROOM
    assert found["lipsdp-layer"] >= lower_bound_by_sampling(network, "l2", np.random.default_rng(0), samples=100)


def test_layers_cost_something_and_neurons_gain():
    network = NETS["ReLU"]
    assert bound(network, "lipsdp-layer").value > 1.05 * bound(network, "lipsdp-cvxpy").value


def test_its_multipliers_are_equal_within_a_layer():
    witness = bound(NETS["ReLU"], "lipsdp-layer").certificate.witness["multipliers"]
    for layer in (witness[:7], witness[7:]):
        assert np.ptp(layer) <= 1e-9 * layer.max()


@pytest.mark.parametrize("solver", ["scs", "clarabel"])
def test_one_solver_is_asked_and_no_other(solver):
    found = bound(NETS["ReLU"], f"lipsdp-cvxpy:{solver}")
    assert found.solver.name == f"cvxpy {solver.upper()}" and found.method == f"lipsdp-cvxpy:{solver}"
    assert found.value == pytest.approx(bound(NETS["ReLU"], "lipsdp-cvxpy").value, rel=1e-5)


def test_variants_run_only_where_they_are_named():
    assert not {method.name for method in VARIANTS} & {method.name for method in METHODS}
    assert {row.method for row in compare(NETS["tanh"], ["product"])} == {"product"}


def test_clarabel_refuses_what_its_factors_would_not_fit():
    wide = subject(mlp([np.ones((256, 2)), np.ones((256, 256)), np.ones((2, 256))], RELU), "output")
    assert "GiB (4 at most)" in LipSdpClarabel().refuses(wide, "l2")


def missing_line() -> str:
    """What `doctor` says of MOSEK."""
    (finding,) = [finding for finding in diagnose().findings if finding.name == "MOSEK"]
    assert finding.status == "absent"
    return f"{finding.detail}; {finding.remedy}"


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mosek", None)
    with pytest.raises(UsageError, match=r"MOSEK is not installed; pip install 'lipcert\[mosek\]'"):
        bound(NETS["ReLU"], "lipsdp-cvxpy:mosek")
    assert "not installed" in missing_line()


class Refusing:
    """An environment of MOSEK on a machine without a licence."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def checkoutlicense(self, feature):
        raise RuntimeError("err_missing_license_file(1008):")


def test_a_missing_licence_is_told_from_a_missing_package(monkeypatch):
    fake = SimpleNamespace(Env=Refusing, Error=RuntimeError, feature=SimpleNamespace(pton=1))
    monkeypatch.setitem(sys.modules, "mosek", fake)
    with pytest.raises(UsageError, match=r"MOSEK is installed, but has no licence .*1008.*MOSEKLM_LICENSE_FILE"):
        bound(NETS["ReLU"], "lipsdp-cvxpy:mosek")
    assert "no licence" in missing_line()


def test_with_a_licence_nothing_is_missing(monkeypatch):
    class Granting(Refusing):
        def checkoutlicense(self, feature):
            assert feature == 1

    fake = SimpleNamespace(Env=Granting, Error=RuntimeError, feature=SimpleNamespace(pton=1))
    monkeypatch.setitem(sys.modules, "mosek", fake)
    assert mosek_missing() is None
