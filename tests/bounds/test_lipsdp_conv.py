"""`lipsdp-conv`: the barrier's derivatives, the gap, what it gains, and that no solver can lie it below the truth."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles import lower_bound_by_sampling

from benchmarks.networks import open_bare
from lipcert.bounds.lipsdp_conv import method
from lipcert.bounds.lipsdp_conv._bands import feasible
from lipcert.bounds.lipsdp_conv._family import Family, Group
from lipcert.bounds.lipsdp_conv._solve import Result, solve
from lipcert.bounds.lipsdp_conv._spectrum import family_of
from lipcert.bounds.lipsdp_conv._start import safe
from lipcert.bounds.lipsdp_conv.method import LipSdpConv
from lipcert.bounds.registry import choose_method
from lipcert.errors import InconclusiveError
from lipcert.network.evaluate import evaluate
from lipcert.network.operators import Elementwise
from lipcert.proof.embedding import embed
from lipcert.proof.rules import RULES
from lipcert.proof.subject import subject
from lipcert.testing.build import RELU, chain, conv, exact
from lipcert.testing.zoo import zoo

ONE = ((1, 1), (1, 1))
SERVED = ("convolutions, global average, layers", "circular convolutions", "1d convolutions, grouped and dilated")


def derived(network, proposal) -> float:
    return RULES[proposal.rule].derive(network, "l2", proposal.witness).bound


def random_family(alpha: float) -> Family:
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> torch.Tensor:
        return 0.3 * torch.randn(*shape, dtype=torch.complex128, generator=generator)

    first = Group([numbers(1, 3, 2), numbers(1, 4, 3), numbers(1, 2, 4)], 3.0 * numbers(1, 3, 2))
    rest = Group([numbers(5, 3, 2), numbers(5, 4, 3)], None)
    sizes = (3, 4, 2)
    slopes = [[torch.full((n,), value, dtype=torch.float64) for n in sizes] for value in (alpha, 1.0)]
    return Family([first, rest], *slopes)


def barrier(family: Family, y: torch.Tensor) -> torch.Tensor:
    """The barrier from dense matrices, for automatic differentiation."""
    own = family.signed > 0
    total = -(y[:-1][own].log()).sum()
    for group in family.groups:
        diagonal, below = family.band(group, y)
        ends = np.cumsum([0, *group.sizes])
        z = torch.zeros(len(group), ends[-1], ends[-1], dtype=torch.complex128)
        for k, block in enumerate(diagonal):
            z[:, ends[k] : ends[k + 1], ends[k] : ends[k + 1]] = block
        for k, block in enumerate(below):
            z[:, ends[k + 1] : ends[k + 2], ends[k] : ends[k + 1]] = block
            z[:, ends[k] : ends[k + 1], ends[k + 1] : ends[k + 2]] = block.mH
        total = total - torch.logdet(z).real.sum()
    return total


@pytest.mark.parametrize("alpha", [0.0, -0.3, 0.1])
def test_derivatives_of_the_barrier(alpha):
    family = random_family(alpha)
    y = torch.tensor([0.5] * 9 + [0.02], dtype=torch.float64)
    factors = family.factors(y)
    assert factors is not None
    leaf = y.clone().requires_grad_()
    (expected,) = torch.autograd.grad(barrier(family, leaf), leaf)
    assert torch.allclose(family.gradient(y, factors), expected, rtol=1e-12, atol=1e-12)
    second = torch.autograd.functional.hessian(lambda point: barrier(family, point), y)
    assert torch.allclose(family.hessian(y), second, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", SERVED)
def test_the_optimum_lies_within_the_gap(name):
    """Looser and tighter runs bracket each other: F rises, and F (1 + gap)^2 is never below a later F."""
    family = family_of(embed(subject(zoo()[name], "output")))
    with torch.no_grad():
        rough, fine = solve(family, 0.1, math.inf), solve(family, 1e-6, math.inf)
    assert (rough.status, fine.status) == ("optimal", "optimal")
    assert rough.f <= fine.f * (1 + 1e-6)
    assert fine.f <= rough.f * (1 + rough.gap) ** 2 * (1 + 1e-9)


@pytest.mark.parametrize("name", SERVED)
def test_the_start_is_feasible_for_every_frequency(name):
    family = family_of(embed(subject(zoo()[name], "output")))
    multipliers, f = safe(family)
    y = torch.cat([*multipliers, torch.tensor([f])])
    assert all(bool(feasible(*family.band(group, y)).all()) for group in family.groups)


@pytest.mark.parametrize("name", SERVED)
@pytest.mark.parametrize("limit", [0.0, 0.05])
def test_whatever_the_time_there_is_a_bound(name, limit):
    network = zoo()[name]
    normal = subject(network, "output")
    bound = derived(normal, LipSdpConv().propose(normal, "l2", limit))
    assert bound >= lower_bound_by_sampling(network, "l2", np.random.default_rng(0), 40)


def test_channels_that_play_no_part():
    """One without input, one without output: the bound is that of the network without them."""
    first, second = conv(1, (4, 1, 3, 3), padding=ONE), conv(2, (2, 4, 3, 3), padding=ONE)
    first = conv_of(first, first.weight.mid * np.array([1.0, 0.0, 1.0, 1.0]).reshape(4, 1, 1, 1), first.bias.mid)
    second = conv_of(second, second.weight.mid * np.array([1.0, 1.0, 0.0, 1.0]).reshape(1, 4, 1, 1), second.bias.mid)
    whole = subject(chain((1, 3, 3), first, RELU, second, RELU), "output")
    kept = [0, 3]
    small = subject(
        chain(
            (1, 3, 3),
            conv_of(first, first.weight.mid[kept], first.bias.mid[kept]),
            RELU,
            conv_of(second, second.weight.mid[:, kept], second.bias.mid),
            RELU,
        ),
        "output",
    )
    values = [derived(n, LipSdpConv().propose(n, "l2", None)) for n in (whole, small)]
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert values[0] >= lower_bound_by_sampling(whole, "l2", np.random.default_rng(0), 40)


def conv_of(like, weight, bias):
    return replace(like, weight=exact(weight), bias=exact(bias))


def test_refusals():
    linear = Elementwise("leaky_relu", (np.array([1.0, 0.1]).reshape(2, 1),))
    around = chain((2, 4), conv(0, (2, 2, 3), padding=((1, 1),), circular=True), linear)
    assert "linear" in LipSdpConv().refuses(subject(around, "output"), "l2")
    nothing = conv_of(conv(0, (2, 1, 3)), np.zeros((2, 1, 3)), np.zeros((2, 1)))
    assert "constant" in LipSdpConv().refuses(subject(chain((1, 4), nothing, RELU), "output"), "l2")


def wrong(change):
    def solver(family, gap, time_limit):
        right = solve(family, gap, time_limit)
        return change(right)

    return solver


LIES = {
    "NaN": lambda r: Result([x * math.nan for x in r.multipliers], r.f, 0.0, "optimal"),
    "infinite": lambda r: Result([x * math.inf for x in r.multipliers], r.f, 0.0, "optimal"),
    "infeasible": lambda r: Result([x * 50.0 for x in r.multipliers], r.f, 0.0, "optimal"),
    "negative": lambda r: Result([-x for x in r.multipliers], r.f, 0.0, "optimal"),
    "a better F": lambda r: Result(r.multipliers, 1.5 * r.f, 0.0, "optimal"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_solver_that_lies_gets_no_bound(lie, monkeypatch):
    monkeypatch.setattr(method, "solve", wrong(LIES[lie]))
    normal = subject(zoo()["circular convolutions"], "output")
    with pytest.raises(InconclusiveError):
        LipSdpConv().propose(normal, "l2", None)


def test_a_real_network(shared_data):
    """Little more than half of the product of all norms on the torus, within seconds, and what `auto` takes."""
    network = open_bare(shared_data, "models/glipsdp/cnn_C3_CH8.onnx")
    normal = subject(network, "output")
    assert choose_method(normal, "l2").method.name == "lipsdp-conv"
    proposal = LipSdpConv().propose(normal, "l2", None)
    assert proposal.solver.gap <= 1e-6
    bound = derived(normal, proposal)
    family = family_of(embed(normal))
    (group,) = family.groups
    norms = [float(torch.linalg.matrix_norm(w, 2).max()) for w in (*group.weights, group.last)]
    assert bound <= 0.55 * math.prod(norms)
    x = np.random.default_rng(0).normal(size=(40, *normal.input_shape))
    outputs, steps = np.diff(evaluate(normal, x), axis=0), np.diff(x, axis=0).reshape(39, -1)
    assert bound >= (np.linalg.norm(outputs, axis=1) / np.linalg.norm(steps, axis=1)).max()
