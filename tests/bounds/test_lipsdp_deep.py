"""Deep chains: where the interior-point method starts, and how it comes near the central path cheaply."""

import time

import numpy as np
import pytest

from benchmarks.networks.seeded import SEEDED, seeded
from lipcert.bounds.engine import bound
from lipcert.bounds.lipsdp import LipSdpStatus, _layers, solve_lipsdp
from lipcert.bounds.lipsdp._arrays import array, cholesky, to_numpy
from lipcert.bounds.lipsdp._barrier import factor_at
from lipcert.bounds.lipsdp._centre import Inverse, Linear, Logarithm, Point, centre
from lipcert.bounds.lipsdp._clock import Clock
from lipcert.bounds.lipsdp._layers import CentredLayers
from lipcert.bounds.lipsdp._newton import Local
from lipcert.bounds.lipsdp._reduce import reduce_lifted
from lipcert.bounds.lipsdp._schur import Schur
from lipcert.bounds.lipsdp._start import Plan, start
from lipcert.bounds.lipsdp._tridiag import Band, factorise
from lipcert.network.operators import Dense
from lipcert.proof.claims import Level
from lipcert.proof.lifted import lift
from lipcert.proof.subject import subject
from lipcert.testing.zoo import zoo

DEVICES = ("cpu", "cpu:0")  # numpy, torch


def deep(layers, width):
    """A chain with so many weights, all square."""
    return seeded(f"seeded/{layers - 1}x{width}")


def lifted_of(net):
    return lift(subject(net, "output"))


def test_sixty_four_layers_converge_and_are_proved():
    net = deep(64, 3)
    found = bound(net, "lipsdp")
    assert found.level is Level.VERIFIED
    assert found.solver.status == LipSdpStatus.OPTIMAL.value
    assert found.value < 0.5 * bound(net, "eclipse-fast").value
    stopped = solve_lipsdp(lifted_of(net), gap=1e-2)
    assert stopped.primal <= found.value <= stopped.value
    assert stopped.iterations <= 30


@pytest.mark.slow
def test_four_thousand_neurons_in_sixty_four_layers():
    net = deep(64, 64)
    began = time.process_time()
    found = bound(net, "lipsdp")
    assert found.solver.gap <= 1e-4
    assert time.process_time() - began < 60.0
    assert found.value < 0.13 * bound(net, "eclipse-fast").value


@pytest.mark.parametrize("seed", range(3))
def test_layers_do_not_depend_on_the_unit_of_the_gain(seed):
    """Gains of 1e-120 once lost the share of the mean gain that keeps vanishing ones positive."""
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((7, 4))
    gain, alpha, beta = root @ root.T, np.zeros(7), np.ones(7)
    layers = CentredLayers(Clock())
    small = layers.layer(np.ldexp(gain, -420), alpha, beta)
    assert np.array_equal(small, np.ldexp(layers.layer(gain, alpha, beta), -420))


@pytest.mark.parametrize("slopes", [(0.0, 1.0), (-1.0, 1.0), (0.3, 1.0), (0.999, 1.0), (-0.129, 1.129), (0.0, 1e-3)])
def test_layers_stay_in_the_domain(slopes):
    rng = np.random.default_rng(5)
    root = rng.standard_normal((9, 9))
    gain, alpha, beta = root @ root.T, np.full(9, slopes[0]), np.full(9, slopes[1])
    inverse = CentredLayers(Clock()).layer(gain, alpha, beta)
    r = 0.5 * (beta - alpha)
    assert np.linalg.eigvalsh(np.diag(inverse) - r[:, None] * gain * r)[0] > 0


@pytest.mark.parametrize("rank", [3, 12])
def test_the_means_of_wide_layers_find_what_others_find(rank, monkeypatch):
    """Low rank, and conjugate gradients in the place of a factorisation: the same maximum."""
    rng = np.random.default_rng(rank)
    root = rng.standard_normal((12, rank))
    root[0] *= 1e-30  # weight decay leaves such rows
    gain, alpha, beta = root @ root.T, np.zeros(12), np.ones(12)
    monkeypatch.setattr(_layers, "_ENOUGH", 1e-3)
    plain = CentredLayers(Clock()).layer(gain, alpha, beta)
    monkeypatch.setattr(_layers, "_WIDE", 4)
    assert isinstance(_layers._gains(gain), _layers._Narrow if rank == 3 else _layers._Whole)
    np.testing.assert_allclose(CentredLayers(Clock()).layer(gain, alpha, beta), plain, rtol=1e-3)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [1, 2, 40])
def test_one_right_hand_side(size, device, order):
    rng = np.random.default_rng(size)
    root = rng.standard_normal((size, size))
    matrix, rhs = root @ root.T + np.eye(size), rng.standard_normal(size)
    schur = Schur.of(array(np.tril(matrix), device))
    assert schur is not None
    ordered = Schur(schur.root.T.copy().T if order == "F" and device == "cpu" else schur.root, schur.scale)
    np.testing.assert_allclose(to_numpy(ordered.solve(array(rhs, device))), np.linalg.solve(matrix, rhs), rtol=1e-9)


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_not_positive_definite_has_no_factor(device):
    for matrix in (np.diag([1.0, -1.0, 2.0]), np.full((2, 2), np.nan), np.diag([1.0, np.nan, 1.0]), np.zeros((3, 3))):
        assert cholesky(array(matrix, device)) is None
        assert (
            factorise(
                Band([array(np.eye(2), device), array(matrix, device)], [array(np.zeros((len(matrix), 2)), device)])
            )
            is None
        )


def test_both_kinds_of_arrays_find_the_same():
    """numpy on the CPU, torch elsewhere: slopes of both signs, rows that read far back, blocks joined to a group."""
    for name in (
        "deep narrow ReLU chain",
        "ReLU behind sums, one with a minus",
        "leaky slopes, one per neuron",
        "chain with tanh",
    ):
        lifted = lifted_of(zoo()[name])
        values = [solve_lipsdp(lifted, gap=1e-9, device=device).value for device in DEVICES]
        assert values[0] == pytest.approx(values[1], rel=1e-9), name


def begin(layers, width):
    lifted = reduce_lifted(lifted_of(deep(layers, width))).small
    kappa = sum(lifted.sizes) / 10.0
    return start(lifted, Plan(kappa, Clock(), "cpu")), kappa


def test_a_secant_pair_is_reproduced_and_the_inverse_stays_positive():
    here, kappa = begin(12, 4)
    first = Point.of(here.system, here.y, Logarithm(kappa))
    local = Local.at(here.system, here.y, first.factor)
    inverse = Inverse(local.schur)
    rng = np.random.default_rng(0)
    for _ in range(4):
        second = Point.of(here.system, here.y * (1.0 + 0.01 * rng.random(len(here.y))), Logarithm(kappa))
        step, change = second.y - first.y, second.g - first.g
        inverse.learn(step, change)
        np.testing.assert_allclose(inverse.of(change), step, rtol=1e-8, atol=1e-12)
        some = rng.standard_normal(len(step))
        assert float(some @ inverse.of(some)) > 0
    inverse.learn(step, -change)  # no function that is convex does this
    assert len(inverse.pairs) == 4


def test_windows_leave_little_to_do():
    here, kappa = begin(40, 6)
    assert factor_at(here.system, here.y) is not None
    y, hessians = centre(here.system, here.y, Logarithm(kappa))
    assert hessians <= 5
    point = Point.of(here.system, y, Logarithm(kappa))
    local = Local.at(here.system, y, point.factor)
    assert local.decrement < 0.3
    assert local.nearest * float(y[-1]) == pytest.approx(kappa, rel=0.05)


def test_both_aims_lead_to_the_same_path():
    here, kappa = begin(6, 5)
    y, _ = centre(here.system, here.y, Logarithm(kappa), 1e-5)
    z, _ = centre(here.system, here.y, Linear(kappa / float(y[-1])), 1e-5)
    np.testing.assert_allclose(y, z, rtol=1e-5)


def test_seeded_networks():
    """Weights near orthogonal, the same each time, all in float32; the names of the benchmark are known."""
    first, again = (
        [node.op.weight.mid for node in seeded("seeded/2x5").nodes if isinstance(node.op, Dense)] for _ in range(2)
    )
    assert [weight.shape for weight in first] == [(5, 5)] * 3
    for one, two in zip(first, again, strict=True):
        assert np.array_equal(one, two)
        assert np.array_equal(one, one.astype(np.float32))
        values = np.linalg.svd(one, compute_uv=False)
        assert 0.69 < values.min() <= values.max() < 1.31
    for name, (layers, width) in SEEDED.items():
        assert name == f"seeded/{layers}x{width}"
    for name in ("other/2x5", "seeded/0x5"):
        with pytest.raises(ValueError, match="not of the form"):
            seeded(name)
