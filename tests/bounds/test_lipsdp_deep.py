"""Deep chains: where the interior-point method starts, and how it comes near the central path cheaply."""

import time

import numpy as np
import pytest
import torch

from lipcert.bounds.engine import bound
from lipcert.bounds.lipsdp import LipSdpStatus, solve_lipsdp
from lipcert.bounds.lipsdp._barrier import factor_at
from lipcert.bounds.lipsdp._centre import Inverse, Linear, Logarithm, Point, centre
from lipcert.bounds.lipsdp._clock import Clock
from lipcert.bounds.lipsdp._layers import CentredLayers
from lipcert.bounds.lipsdp._newton import Local
from lipcert.bounds.lipsdp._reduce import reduce_lifted
from lipcert.bounds.lipsdp._schur import Schur
from lipcert.bounds.lipsdp._start import Plan, start
from lipcert.proof.claims import Level
from lipcert.proof.lifted import lift
from lipcert.proof.subject import subject
from lipcert.testing.build import mlp


def orthogonal(rng, size):
    q, r = np.linalg.qr(rng.standard_normal((size, size)))
    return q * np.sign(np.diag(r))


def deep(layers, width, seed=0):
    """Weights (q * uniform(0.7, 1.3)) @ p with q, p orthogonal, float32."""
    rng = np.random.default_rng(seed)
    weights = []
    for _ in range(layers):
        q, p = orthogonal(rng, width), orthogonal(rng, width)
        weights.append(((q * rng.uniform(0.7, 1.3, width)) @ p).astype(np.float32).astype(np.float64))
    return mlp(weights)


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


@pytest.mark.parametrize("by_columns", [True, False])
@pytest.mark.parametrize("size", [1, 2, 40])
def test_one_right_hand_side(size, by_columns):
    torch.manual_seed(size)
    root = torch.randn(size, size, dtype=torch.float64)
    matrix = root @ root.T + torch.eye(size, dtype=torch.float64)
    rhs = torch.randn(size, dtype=torch.float64)
    schur = Schur.of(matrix.tril())
    assert schur is not None
    ordered = Schur(schur.root.mT.contiguous().mT if by_columns else schur.root.contiguous(), schur.scale)
    assert torch.allclose(ordered.solve(rhs), torch.linalg.solve(matrix, rhs), rtol=1e-9, atol=1e-12)


def begin(layers, width):
    lifted = reduce_lifted(lifted_of(deep(layers, width))).small
    kappa = sum(lifted.sizes) / 10.0
    return start(lifted, Plan(kappa, Clock(), "cpu")), kappa


def test_a_secant_pair_is_reproduced_and_the_inverse_stays_positive():
    here, kappa = begin(12, 4)
    first = Point.of(here.system, here.y, Logarithm(kappa))
    local = Local.at(here.system, here.y, first.factor)
    inverse = Inverse(local.schur)
    torch.manual_seed(0)
    for _ in range(4):
        second = Point.of(here.system, here.y * (1.0 + 0.01 * torch.rand_like(here.y)), Logarithm(kappa))
        step, change = second.y - first.y, second.g - first.g
        inverse.learn(step, change)
        assert torch.allclose(inverse.of(change), step, rtol=1e-8, atol=1e-12)
        some = torch.randn_like(step)
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
    assert torch.allclose(y, z, rtol=1e-5)
