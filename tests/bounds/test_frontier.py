"""Covariance bounds through graphs, against the inverse of the multiplier rule's whole matrix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipcert.bounds import frontier as frontier_module
from lipcert.bounds.chain import propagate, propagate_narrow
from lipcert.bounds.eclipse_fast import EclipseFast
from lipcert.bounds.frontier import Addition, Frontier, last_reader
from lipcert.bounds.gershgorin import Gershgorin
from lipcert.network.enclosure import Float
from lipcert.proof.inequality import assemble
from lipcert.proof.lifted import Lifted, lift
from lipcert.proof.subject import subject
from lipcert.testing.conformance import bound_of
from lipcert.testing.truth import jacobians_of, lower_bound
from lipcert.testing.zoo import zoo


def served() -> list[str]:
    method = EclipseFast()
    return [name for name, network in zoo().items() if method.refuses(subject(network, "output"), "l2") is None]


def whole(lifted: Lifted, multipliers: list[Float]) -> Float:
    """Z without its output term, dense."""
    ends = np.cumsum([0, *lifted.sizes])
    matrix = np.zeros((ends[-1], ends[-1]))
    for (i, j), block in assemble(lifted, multipliers).items():
        matrix[ends[i] : ends[i + 1], ends[j] : ends[j + 1]] = block.mid
        matrix[ends[j] : ends[j + 1], ends[i] : ends[i + 1]] = block.mid.T
    return matrix


@pytest.mark.parametrize("name", served())
@given(seed=st.integers(0, 999))
def test_the_last_frontier_is_a_block_of_the_inverse(name: str, seed: int) -> None:
    """For any multipliers in the domain, and so also for those whose frontier is never cut down."""
    lifted = lift(subject(zoo()[name], "output"))
    rng = np.random.default_rng(seed)
    last = last_reader(lifted)
    frontier = Frontier.of_input(lifted.inputs)
    multipliers = []
    for k, block in enumerate(lifted.blocks, start=1):
        keep = tuple(b for b in (*frontier.blocks, k) if last[b] > k)
        new = Addition(k, block.row, frontier.gain(block.row), block.alpha, block.beta, keep)
        inverse = Gershgorin().layer(new.gain, block.alpha, block.beta) * rng.uniform(1.0, 3.0, block.size)
        frontier = new.join(frontier, inverse)
        multipliers.append(0.5 / inverse)
    inverse_matrix = np.linalg.inv(whole(lifted, multipliers))
    ends = np.cumsum([0, *lifted.sizes])
    index = np.concatenate([np.arange(ends[b], ends[b + 1]) for b in frontier.blocks])
    expected = inverse_matrix[np.ix_(index, index)]
    np.testing.assert_allclose(frontier.covariance, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("lanczos", [0, 400])
def test_the_outlook_is_the_gain_of_the_next_reader(lanczos: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the whole covariance, joined; by Lanczos to its accuracy. And it is convex in D."""
    monkeypatch.setattr(frontier_module, "LANCZOS", lanczos)
    seen = 0
    for name in ("residual x + g(x)", "ReLU behind sums, one with a minus", "small ReLU chain"):
        lifted = lift(subject(zoo()[name], "output"))
        last, frontier = last_reader(lifted), Frontier.of_input(lifted.inputs)
        rows = [*(block.row for block in lifted.blocks), lifted.output]
        for k, block in enumerate(lifted.blocks, start=1):
            keep = tuple(b for b in (*frontier.blocks, k) if last[b] > k)
            new = Addition(k, block.row, frontier.gain(block.row), block.alpha, block.beta, keep)
            inverse = EclipseFast().layer(new.gain, block.alpha, block.beta)
            reader = next(row for row in rows[k:] if k in row)
            norm = new.outlook(frontier, reader)
            values = [norm(inverse * factor) for factor in (1.5, 2.5, 3.5)]
            assert values[1] <= 0.5 * (values[0] + values[2]) * 1.001
            joined = new.join(frontier, inverse * 2.5)
            assert values[1] == pytest.approx(np.linalg.norm(joined.gain(reader), 2), rel=1e-9 if lanczos else 1e-3)
            frontier = new.join(frontier, inverse)
            seen += 1
    assert seen >= 5


@given(seed=st.integers(0, 999), rank=st.integers(1, 6))
def test_narrow_gains_are_carried_on_as_whole_ones(seed: int, rank: int) -> None:
    rng = np.random.default_rng(seed)
    half = rng.standard_normal((6, rank))
    alpha, beta = rng.uniform(-1.0, 0.5, 6), rng.uniform(0.5, 1.0, 6)
    inverse = EclipseFast().layer(half @ half.T, alpha, beta) * rng.uniform(1.0, 2.0, 6)
    whole = propagate(half @ half.T, inverse, alpha, beta)
    np.testing.assert_allclose(propagate_narrow(half, inverse, alpha, beta), whole, rtol=1e-6, atol=1e-6 * whole.max())


def test_residual_networks_are_served_and_never_below_the_truth() -> None:
    names = [name for name in served() if "residual" in name or "concat" in name]
    assert names
    for name in names:
        network = zoo()[name]
        found = bound_of(EclipseFast(), network, "l2")
        assert found is not None
        assert found.bound >= lower_bound("l2", jacobians_of(network))


def test_readers() -> None:
    lifted = lift(subject(zoo()["residual x + g(x)"], "output"))
    assert last_reader(lifted)[0] == len(lifted.sizes)
