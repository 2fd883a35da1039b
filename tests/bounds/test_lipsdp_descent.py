"""Multipliers by gradients alone: the gradient, where it ends, and when `lipsdp` takes it."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from lipcert.bounds.chain import lifted_obstacle
from lipcert.bounds.eclipse_fast import EclipseFast
from lipcert.bounds.engine import bound
from lipcert.bounds.lipsdp import method, solve_lipsdp
from lipcert.bounds.lipsdp._arrays import array, to_numpy
from lipcert.bounds.lipsdp._clock import Clock
from lipcert.bounds.lipsdp._descent import Descent, descend
from lipcert.bounds.lipsdp._result import LipSdpStatus
from lipcert.bounds.targets import propose_target, provable_target
from lipcert.proof.lifted import Lifted, lift
from lipcert.proof.rules import RULES
from lipcert.proof.rules.multipliers import Multipliers
from lipcert.proof.subject import subject
from lipcert.testing.build import matrices, mlp
from lipcert.testing.truth import jacobians_of, lower_bound
from lipcert.testing.zoo import zoo

DEVICES = ("cpu", "cpu:0")  # numpy, torch
NAMES = ("small ReLU chain", "ReLU behind sums, one with a minus", "leaky slopes, one per neuron", "chain with tanh")


def form(name: str) -> Lifted:
    return lift(subject(zoo()[name], "output"))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_the_slope_is_that_of_differences(name: str, device: str) -> None:
    lifted = form(name)
    descent = Descent.at(lifted, EclipseFast().multipliers(lifted), Clock(), device)
    rng = np.random.default_rng(1)
    u = rng.uniform(0.0, 0.01, len(to_numpy(descent.u)))
    direction = rng.standard_normal(len(u))
    here = descent._place(array(u, device), 8.0)
    ahead, behind = (descent._place(array(u + step * direction, device), 8.0) for step in (1e-3, -1e-3))
    assert here is not None
    assert ahead is not None
    assert behind is not None
    expected = (ahead.h - behind.h) / 2e-3
    assert float(to_numpy(here.slope) @ direction) == pytest.approx(expected, rel=2e-3, abs=1e-6)
    assert math.log(here.top) <= here.h + 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_it_comes_near_the_optimum_and_never_below(name: str) -> None:
    lifted = form(name)
    closed = EclipseFast().multipliers(lifted)
    found, best = descend(lifted, closed, Clock(), "cpu"), solve_lipsdp(lifted, gap=1e-8)
    assert found.status is LipSdpStatus.GRADIENTS
    assert best.primal <= found.value <= 1.01 * best.value
    assert provable_target(lifted, found.lam) ** -0.5 == pytest.approx(found.value, rel=1e-6)


def test_without_time_it_keeps_the_better_start() -> None:
    for name in NAMES:
        lifted = form(name)
        closed = EclipseFast().multipliers(lifted)
        found = descend(lifted, closed, Clock(0.0), "cpu")
        assert found.iterations == 0
        assert found.value <= provable_target(lifted, closed) ** -0.5 * (1.0 + 1e-9)


def test_lipsdp_takes_it_where_another_would_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    network = mlp(matrices(4, 10, 30, 30, 30, 5))
    ample = bound(network, "lipsdp", time_limit=100.0)
    monkeypatch.setattr(method, "SAFE", 1e9)
    began = time.monotonic()
    found = bound(network, "lipsdp", time_limit=5.0)
    assert time.monotonic() - began < 10.0
    assert ample.solver is not None
    assert found.solver is not None
    assert ample.solver.name == method.SOLVER
    assert found.solver.name == method.GRADIENTS
    assert found.solver.gap is None
    assert "how far" in found.notes[0]
    assert lower_bound("l2", jacobians_of(network)) <= ample.value <= found.value * (1.0 + 1e-9)
    assert found.value <= 1.01 * ample.value
    assert found.value < 0.95 * bound(network, "eclipse-fast").value


def test_chains_alone_are_not_all() -> None:
    """Every network of the zoo that has a lifted form: never above the start."""
    seen = 0
    for network in zoo().values():
        normal = subject(network, "output")
        if lifted_obstacle(normal) is not None:
            continue
        lifted = lift(normal)
        closed = EclipseFast().multipliers(lifted)
        target = provable_target(lifted, closed)
        if target > 0.0:
            assert descend(lifted, closed, Clock(0.05), "cpu").value <= target**-0.5 * (1.0 + 1e-6)
            seen += 1
    assert seen > 10


def test_what_one_output_does_not_see_stays_definite() -> None:
    """One output of many neurons: the best multipliers are on the boundary, those proposed can be proved."""
    for seed in range(3):
        normal = subject(mlp(matrices(seed, 6, 40, 40, 1)), "output")
        lifted = lift(normal)
        found = descend(lifted, EclipseFast().multipliers(lifted), Clock(3.0), "cpu")
        assert RULES[Multipliers.id].derive(
            normal, "l2", propose_target(found.lam, provable_target(lifted, found.lam)).witness
        ).bound <= found.value * (1.0 + 1e-6)
