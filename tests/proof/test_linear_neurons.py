"""Linear neurons put into the rows that read them: the same function of differences, and bounds that lose nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipcert.bounds.engine import bound
from lipcert.bounds.lipsdp import solve_lipsdp
from lipcert.network import Builder, Network
from lipcert.network.operators import Elementwise, Sum
from lipcert.proof import check, linear_neurons
from lipcert.proof.lifted import Lifted, lift
from lipcert.proof.linear_neurons import without_linear
from lipcert.proof.rules.multipliers import proves
from lipcert.proof.subject import subject
from lipcert.testing.build import dense, matrices, mlp
from lipcert.testing.truth import jacobians_of, lower_bound

SEEDS = st.integers(0, 9999)


def leaky(slopes: list[float]) -> Elementwise:
    return Elementwise("leaky_relu", (np.array(slopes),))


def mixed(seed: int) -> Network:
    """A network with skips in which some neurons of every layer are linear, one of them constant."""
    rng = np.random.default_rng(seed)
    first, second, third, last = matrices(seed, 3, 5, 4, 4, 2)
    builder = Builder((3,))
    one = builder.add(leaky(rng.choice([1.0, 0.0, 0.3], 5).tolist()), builder.add(dense(first), 0))
    two = builder.add(leaky(rng.choice([1.0, 0.0, -0.5], 4).tolist()), builder.add(dense(second), one))
    three = builder.add(leaky([1.0, 0.0, 1.0, 0.2]), builder.add(dense(third), two))
    builder.add(dense(last), builder.add(Sum((1, -1)), three, two))
    return builder.build()


def output_of(lifted: Lifted, slopes: list[np.ndarray]) -> np.ndarray:
    """The Jacobian of the output for fixed slopes."""
    jacobians = [np.eye(lifted.inputs)]
    for block, slope in zip(lifted.blocks, slopes, strict=True):
        jacobians.append(slope[:, None] * sum(w.mid @ jacobians[j] for j, w in block.row.items()))
    return np.asarray(sum(w.mid @ jacobians[j] for j, w in lifted.output.items()))


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_every_choice_of_slopes_gives_the_same_jacobian(seed: int) -> None:
    lifted = lift(subject(mixed(seed), "output"))
    found = without_linear(lifted)
    rng = np.random.default_rng(seed)
    slopes = [rng.uniform(block.alpha, block.beta) for block in lifted.blocks]
    np.testing.assert_allclose(output_of(found, slopes), output_of(lifted, slopes), rtol=1e-12, atol=1e-12)
    assert found.sizes == lifted.sizes
    for k, block in enumerate(found.blocks, start=1):
        linear = block.alpha == block.beta
        assert not any(w.mid[linear].any() or w.radius[linear].any() for w in block.row.values())
        readers = [later.row for later in found.blocks] + [found.output]
        assert not any(row[k].mid[:, linear].any() for row in readers if k in row)


@pytest.mark.parametrize("seed", range(6))
def test_multipliers_that_prove_a_bound_still_prove_it(seed: int) -> None:
    """Without the substitution linear neurons have large multipliers; what proves so proves with it."""
    lifted = lift(subject(mixed(seed), "output"))
    found = solve_lipsdp(lifted)
    target = 0.999 * found.value**-2
    assert proves(lifted, found.lam, target)
    assert proves(without_linear(lifted), found.lam, target)
    ordinary = [
        np.where(block.alpha < block.beta, values, 1.0) for block, values in zip(lifted.blocks, found.lam, strict=True)
    ]
    assert proves(without_linear(lifted), ordinary, target)
    assert not proves(lifted, ordinary, target)


@pytest.mark.parametrize("method", ["eclipse-fast", "lipsdp"])
def test_bounds_hold_and_check_in_both_engines(method: str) -> None:
    pytest.importorskip("flint")
    for seed in range(4):
        network = mixed(seed)
        found = bound(network, method)
        assert found.value >= lower_bound("l2", jacobians_of(network))
        assert check(found.certificate, network).valid
        assert check(found.certificate, network, engine="exact").valid


def test_a_linear_neuron_costs_nothing() -> None:
    """x1 beside relu(x2), three times: the constant is 1; linear neurons once cost 1e-5 and more."""
    network = mlp([np.eye(2)] * 4, leaky([1.0, 0.0]))
    assert 1.0 <= bound(network, "lipsdp").value <= 1.0 + 1e-7


def test_forms_without_linear_neurons_or_too_large_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = lift(subject(mlp(matrices(1, 4, 5, 3)), "output"))
    assert without_linear(plain) is plain
    lifted = lift(subject(mixed(1), "output"))
    assert without_linear(lifted) is not lifted
    monkeypatch.setattr(linear_neurons, "MOST", sum(lifted.sizes) - 1)
    assert without_linear(lifted) is lifted
    assert bound(mixed(1), "lipsdp").value >= lower_bound("l2", jacobians_of(mixed(1)))
