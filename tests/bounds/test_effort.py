"""What methods are said to need, and what `auto` makes of it."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from lipcert.bounds.eclipse_fast import EclipseFast
from lipcert.bounds.effort import (
    BEGUN,
    ESTIMATES,
    MOST_BYTES,
    beyond_memory,
    joint,
    joint_begun,
    layerwise,
    narrowed_widths,
)
from lipcert.bounds.lipsdp import _solve, method
from lipcert.bounds.lipsdp._barrier import hessian
from lipcert.bounds.lipsdp._clock import Clock
from lipcert.bounds.lipsdp._result import LipSdpStatus
from lipcert.bounds.lipsdp._system import System
from lipcert.bounds.lipsdp._tridiag import factorise
from lipcert.bounds.lipsdp.method import LipSdp, fixed_slopes_norm
from lipcert.bounds.method import derive
from lipcert.bounds.registry import COMPOSITIONAL, choose_method
from lipcert.network import Network
from lipcert.network.enclosure import Enclosure
from lipcert.network.operators import Dense, Elementwise
from lipcert.proof.lifted import lift
from lipcert.proof.narrow import narrowed
from lipcert.proof.subject import subject
from lipcert.testing.build import RELU, chain, matrices, mlp
from lipcert.testing.zoo import zoo


def normal(*widths: int) -> Network:
    return subject(mlp(matrices(2, *widths)), "output")


def shape_alone(*widths: int) -> Network:
    """Zeros that take no time to draw; plans look at shapes."""
    ops: list[Dense | Elementwise] = []
    for n, m in pairwise(widths):
        ops += [Dense(Enclosure(np.zeros((m, n))), Enclosure(np.zeros(m))), RELU]
    return chain(widths[:1], *ops[:-1])


class Counted(np.ndarray):  # type: ignore[type-arg]
    """Counts the flops of products of matrices with it."""

    flops = 0.0

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        left, right = (np.asarray(a) for a in (*inputs, *inputs)[:2])
        if ufunc is np.matmul:
            Counted.flops += 2.0 * left.shape[0] * left.shape[1] * right.shape[1]
        plain = tuple(np.asarray(a) for a in inputs)
        return getattr(ufunc, method)(*plain, **({"out": out} if out is not None else {}), **kwargs)


@pytest.mark.parametrize("widths", [(9, 4, 7, 3), (3, 8, 8, 2), (12, 5), (5, 5, 5)])
def test_widths_are_those_of_the_narrowed_form(widths: tuple[int, ...]) -> None:
    network = normal(*widths)
    assert narrowed_widths(network) == narrowed(lift(network)).sizes


def test_flops_of_a_hessian_are_those_of_its_products() -> None:
    """Of the 4 n s of the estimate the inverse takes a quarter, and products with the rows the rest, counted here."""
    widths = (60, 60, 60, 60, 60, 60, 60)
    lifted = lift(normal(*widths, 60))
    system = System.of(lifted, Clock(), "cpu")
    y = np.append(system.join(EclipseFast().multipliers(lifted)), 1e-9)
    factor = factorise(system.band(y, 1.0))
    assert factor is not None
    counted = replace(system, rows=[{j: w.view(Counted) for j, w in row.items()} for row in system.rows])
    Counted.flops = 0.0
    hessian(counted, y, factor)
    links = sum(a * b for a, b in pairwise(widths))
    assert 0.6 <= Counted.flops / (4.0 * sum(widths) * links) <= 0.9


def test_estimates_grow_with_the_network_and_begin_before_they_end() -> None:
    small, wide, deep = (shape_alone(*widths) for widths in ([50] * 4, [100] * 4, [50] * 8))
    assert joint(small).seconds < joint(deep).seconds
    assert 4 * joint(small).seconds < joint(wide).seconds
    for network in (small, wide, deep):
        assert layerwise(network).seconds < joint_begun(network).seconds < joint(network).seconds
        assert joint_begun(network).bytes == layerwise(network).bytes <= joint(network).bytes
    assert set(BEGUN) <= set(ESTIMATES)


def test_ten_thousand_neurons_fit_and_twenty_thousand_with_gradients_alone() -> None:
    assert 0.4 * MOST_BYTES < joint(shape_alone(*[1000] * 12)).bytes < MOST_BYTES
    large = shape_alone(*[2000] * 12)
    assert beyond_memory("lipsdp", large) is None
    if not torch.cuda.is_available():
        assert joint(large).bytes > MOST_BYTES
        assert choose_method(large, "l2", 1e9).method.name != "lipsdp"


def test_auto_takes_the_solver_where_it_ends_in_time() -> None:
    moderate = shape_alone(64, 512, 1024, 10)
    assert 1.0 < joint(moderate).seconds < 60.0
    choice = choose_method(moderate, "l2")
    assert choice.method.name == "lipsdp"
    assert choice.reason == "1536 hidden neurons: the best multipliers, in seconds"
    assert choose_method(moderate, "l2", 600.0).method.name == "lipsdp"
    assert choose_method(moderate, "l2", 0.5 * joint(moderate).seconds).method.name != "lipsdp"


def test_auto_begins_where_it_may_not_end() -> None:
    large = shape_alone(784, 4704, 1600, 120, 84, 10)
    assert joint_begun(large).seconds < 120.0 < joint(large).seconds
    choice = choose_method(large, "l2")
    assert choice.method is COMPOSITIONAL
    assert "by lipsdp" in choice.reason
    ample = choose_method(large, "l2", 2.0 * joint(large).seconds)
    assert ample.method.name == "lipsdp"
    assert f"in about {joint(large).seconds:.0f} s" in ample.reason


def test_what_is_left_for_the_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit covers the proof: four times what a target takes is kept back."""
    network, asked = normal(5, 8, 8, 3), []
    target, solve = method.provable_target, method.solve_lipsdp

    def slow_target(*arguments: object) -> float:
        time.sleep(0.2)
        return target(*arguments)  # type: ignore[arg-type]

    def seen(*arguments: object, time_limit: float, **others: object) -> object:
        asked.append(time_limit)
        return solve(*arguments, time_limit=time_limit, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(method, "provable_target", slow_target)
    monkeypatch.setattr(method, "solve_lipsdp", seen)
    LipSdp().propose(network, "l2", 2.0)
    assert len(asked) == 1
    assert 0.0 < asked[0] <= 2.0 - 5.0 * 0.2
    proposal = LipSdp().propose(network, "l2", 0.9)
    assert len(asked) == 1
    assert "before the solver began" in proposal.notes[0]
    assert derive(network, "l2", proposal)[1].bound > 0


def test_a_start_that_is_better_than_where_centring_got_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    network, starts = lift(normal(5, 8, 8, 3)), []
    begin = _solve.start

    def seen(*arguments: object) -> object:
        starts.append(begin(*arguments))  # type: ignore[arg-type]
        return starts[-1]

    monkeypatch.setattr(_solve, "start", seen)
    monkeypatch.setattr(_solve, "centre", lambda system, y, aim: (0.01 * y, 1))
    monkeypatch.setattr(_solve, "follow", lambda *_: LipSdpStatus.TIME_LIMIT)
    result = _solve.solve_lipsdp(network)
    (first,) = starts
    best, away = (_solve.best_f(first.system, share * first.y[:-1]) for share in (1.0, 0.01))
    assert best > away
    expected = (best * first.unit) ** -0.5
    assert result.value == pytest.approx(expected * 2.0 ** round(np.log2(result.value / expected)), rel=1e-12)


@pytest.mark.parametrize("name", ["small ReLU chain", "residual x + g(x)", "leaky slopes, one per neuron"])
def test_the_norm_with_fixed_slopes_is_that_of_the_linear_network(name: str) -> None:
    """Written backwards; here forwards, from the input on."""
    lifted = lift(subject(zoo()[name], "output"))
    seen = [np.eye(lifted.inputs)]
    for block in lifted.blocks:
        slope = np.where(np.abs(block.alpha) > block.beta, block.alpha, block.beta)
        seen.append(slope[:, None] * sum(w.mid @ seen[j] for j, w in block.row.items()))
    whole = sum(w.mid @ seen[j] for j, w in lifted.output.items())
    assert fixed_slopes_norm(lifted) == pytest.approx(float(np.linalg.norm(whole, 2)), rel=1e-12)
