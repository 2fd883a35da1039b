"""Forward passes stay within their error bounds: one-sided, against float64 and exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import chain, dense, random_chain
from strategies import networks

from lipcert.bounds.torch_network import compile_network
from lipcert.network import Builder, Enclosure
from lipcert.network.enclosure import UNIT
from lipcert.network.operators import Dense, Elementwise
from lipcert.network.readers import load
from lipcert.robustness.passes.forward import ForwardPass, _norms, l2_steps
from lipcert.robustness.passes.precision import FLOAT32, FLOAT64, gamma_up
from lipcert.robustness.passes.rounding_model import ELEMENTWISE, model_nodes


def _images(network, seed, count=4):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, *network.input_shape)) * rng.choice([0.1, 1.0, 10.0])).astype(np.float32)


@settings(max_examples=150, deadline=None)
@given(networks(max_depth=6), st.integers(0, 1000))
def test_float32_is_within_its_error_of_float64(network, seed):
    images, steps = _images(network, seed), l2_steps(network)
    coarse, fine = (ForwardPass(network, steps, precision)(images) for precision in (FLOAT32, FLOAT64))
    distance = np.linalg.norm(coarse.logits - fine.logits, axis=1)
    assert (distance <= coarse.error + fine.error).all()
    # not vacuous: float64's bound is smaller by about the ratio of the units
    assert (fine.error <= 2.0**-20 * coarse.error + 1e-7).all()


@settings(max_examples=100, deadline=None)
@given(networks(max_depth=5), st.integers(0, 1000), st.floats(0.0, 2.0))
def test_the_deployed_pass_stays_within_its_error_in_the_whole_ball(network, seed, radius):
    images, steps = _images(network, seed), l2_steps(network)
    deployed = ForwardPass(network, steps, FLOAT64, FLOAT32)(images).deployed
    shift = np.random.default_rng(seed).normal(size=images.shape)
    shift *= radius / np.linalg.norm(shift.reshape(len(shift), -1), axis=1).reshape(-1, *(1,) * (images.ndim - 1))
    moved = (images + shift).astype(np.float32)
    real = np.linalg.norm((moved.astype(float) - images).reshape(len(images), -1), axis=1)
    assert (real <= deployed.reach).all()
    coarse, fine = (ForwardPass(network, steps, precision)(moved) for precision in (FLOAT32, FLOAT64))
    distance = np.linalg.norm(coarse.logits - fine.logits, axis=1)
    assert (distance <= (deployed.base + deployed.growth * real) * (1 + 1e-12) + fine.error).all()


def _exact(weight, bias, x):
    return [
        sum((Fraction(float(w)) * Fraction(float(v)) for w, v in zip(row, x, strict=True)), Fraction(float(b)))
        for row, b in zip(weight, bias, strict=True)
    ]


@pytest.mark.parametrize("precision", [FLOAT32, FLOAT64])
def test_cancellation_in_exact_arithmetic(precision):
    """Sums of large numbers that nearly cancel: the computed result may have no correct digit."""
    rng = np.random.default_rng(0)
    half = rng.normal(size=(5, 400)) * 10.0 ** rng.uniform(0, 6, 400)
    weight = np.concatenate([half, -half], axis=1).astype(np.float32).astype(np.float64)
    bias = rng.normal(size=5)
    network = chain((weight, bias))
    x = np.concatenate([rng.normal(size=400)] * 2).astype(np.float32)
    x[7] += 1e-3
    found = ForwardPass(network, l2_steps(network), precision)(x[None])
    exact = _exact(weight, bias, x)
    distance = [Fraction(float(v)) - e for v, e in zip(found.logits[0], exact, strict=True)]
    assert sum(d * d for d in distance) <= Fraction(float(found.error[0])) ** 2
    assert any(distance)


def test_weights_that_are_not_known_exactly():
    """Numbers within the radius of the enclosure may all be the true ones; the pass uses the centres."""
    rng = np.random.default_rng(1)
    mid, rad = rng.normal(size=(4, 6)), np.full((4, 6), 1e-3)
    builder = Builder((6,))
    builder.add(Dense(Enclosure(mid, rad), Enclosure(np.zeros(4), np.full(4, 1e-2))), 0)
    network = builder.build()
    x = rng.normal(size=(1, 6)).astype(np.float32)
    found = ForwardPass(network, l2_steps(network), FLOAT64)(x)
    worst = (mid + rad * np.sign(x)) @ x[0].astype(float) + 1e-2
    assert np.linalg.norm(worst - found.logits[0]) <= found.error[0]
    assert found.error[0] <= 10 * np.linalg.norm(worst - found.logits[0])


def test_float32_casts_of_float64_weights_are_counted():
    weight = np.full((1, 1), 1.0 + 2.0**-25)
    network = chain((weight, np.zeros(1)))
    found = ForwardPass(network, l2_steps(network), FLOAT32)(np.ones((1, 1), np.float32))
    assert Fraction(float(found.logits[0, 0])) - Fraction(1.0 + 2.0**-25) != 0
    assert abs(found.logits[0, 0] - (1.0 + 2.0**-25)) <= found.error[0]


def test_an_overflow_that_a_relu_hides_is_not_missed():
    network = chain((np.full((1, 2), -1e38), np.zeros(1)), (np.ones((2, 1)), np.array([1.0, 2.0])))
    images = np.full((1, 2), 30.0, np.float32)
    coarse = ForwardPass(network, l2_steps(network), FLOAT32)(images)
    assert np.isfinite(coarse.logits).all()  # -inf became 0
    assert coarse.error[0] == np.inf
    assert ForwardPass(network, l2_steps(network), FLOAT64)(images).error[0] < np.inf


def test_nan_and_infinity_give_infinite_errors():
    network = chain((np.array([[1e30, -1e30]]), np.zeros(1)), (np.full((2, 1), 1e30), np.zeros(2)))
    images = np.array([[1e30, 1e30], [1.0, 0.0]], np.float32)
    assert (ForwardPass(network, l2_steps(network), FLOAT32)(images).error == np.inf).all()


def test_numbers_too_small_for_float32_are_counted():
    weight = np.full((1, 3), 2.0**-100)
    network = chain((weight, np.zeros(1)), (np.ones((1, 1)) * 2.0**100, np.zeros(1)))
    images = np.full((1, 3), 2.0**-49, np.float32)
    found = ForwardPass(network, l2_steps(network), FLOAT32)(images)
    assert abs(float(found.logits[0, 0]) - 3 * 2.0**-49) <= found.error[0]


@pytest.mark.parametrize("count", [1, 3, 2**14, 2**14 + 1, 100_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_norms_are_upper_bounds(count, dtype):
    generator = torch.Generator().manual_seed(count)
    x = torch.randn(3, count, generator=generator, dtype=dtype) * 10.0 ** torch.tensor([[-30.0], [0.0], [15.0]])
    found = _norms(x)
    for row, value in zip(x.numpy(), found, strict=True):
        exact = sum(Fraction(float(v)) ** 2 for v in row) if count < 1000 else None
        square = exact if exact is not None else Fraction(float(np.square(row.astype(np.longdouble)).sum()))
        assert Fraction(float(value)) ** 2 >= square
    assert found[1] <= float(np.linalg.norm(x[1].double())) * 1.01 + 1e-15


def test_norms_of_zeros_and_tiny_numbers():
    tiny = torch.full((1, 10), 1e-40)
    assert _norms(tiny)[0] >= np.sqrt(10) * 1e-40
    assert np.isinf(_norms(torch.full((1, 10), 1e25))[0])


@pytest.mark.parametrize("name", sorted(ELEMENTWISE))
def test_elementwise_model_against_float64(name):
    """|fl32(f)(z) - f(z)| <= u (p |z| + q) on a grid of floats of every size."""
    from lipcert.bounds.torch_activations import FUNCTIONS
    from lipcert.network.activations import SOFTPLUS_GAP

    params = {
        "leaky_relu": (0.01,),
        "elu": (1.7,),
        "celu": (0.3,),
        "softplus": (2.5,),
        "clip": (-0.3, 6.1),
        "hardsigmoid": (1 / 6, 0.5),
        "softshrink": (0.37,),
    }.get(name, ())
    z = np.concatenate([s * 10.0 ** np.linspace(-30, 4, 4001) for s in (1, -1)] + [np.linspace(-12, 12, 4001)])
    z = z.astype(np.float32)
    coarse = FUNCTIONS[name](torch.from_numpy(z), *(torch.tensor(p, dtype=torch.float32) for p in params))
    fine = FUNCTIONS[name](torch.from_numpy(z).double(), *(torch.tensor(p, dtype=torch.float64) for p in params))
    p, q = ELEMENTWISE[name](*(abs(value) for value in params))
    q = (130.0 + SOFTPLUS_GAP * 2**24) / params[0] if name == "softplus" else q
    allowed = FLOAT32.unit * (p * np.abs(z.astype(float)) + q) + 16 * FLOAT32.tiny
    # three times the room: float64's own error, and other libraries'
    assert (np.abs(coarse.double().numpy() - fine.numpy()) <= allowed).all()


def test_gamma_is_rounded_up_and_ends():
    assert Fraction(gamma_up(10, UNIT)) >= 10 * Fraction(UNIT) / (1 - 10 * Fraction(UNIT))
    assert gamma_up(2**23, FLOAT32.unit) == np.inf


def test_operators_in_common_are_not_bounded_twice(monkeypatch):
    network = random_chain(0)
    steps = l2_steps(network)
    monkeypatch.setattr("lipcert.robustness.passes.forward.certified_norm", None)
    assert l2_steps(network, network, steps) == steps


@pytest.mark.parametrize("name", ["vnncomp2021/mnist-net_256x2.onnx", "vnncomp2021/Convnet_maxpool.onnx"])
def test_real_networks(shared_data, name):
    network = load(shared_data / "models" / name)
    data = np.load(shared_data / "datasets" / "mnist_test.npz")
    images = (data["images"][:32] / 255.0).astype(np.float32).reshape(32, *network.input_shape)
    steps = l2_steps(network)
    coarse, fine = (ForwardPass(network, steps, precision)(images) for precision in (FLOAT32, FLOAT64))
    distance = np.linalg.norm(coarse.logits - fine.logits, axis=1)
    assert (distance <= coarse.error + fine.error).all()
    assert (fine.error < 1e-6).all()
    plain = compile_network(network)(torch.from_numpy(images)).double().numpy().reshape(32, -1)
    assert (np.linalg.norm(plain - fine.logits, axis=1) <= coarse.error + fine.error).all()


def test_dense_layers_on_leading_axes():
    builder = Builder((3, 4))
    x = builder.add(dense(np.random.default_rng(0).normal(size=(5, 4))), 0)
    builder.add(Elementwise("gelu"), x)
    network = builder.build()
    images = _images(network, 0)
    coarse, fine = (ForwardPass(network, l2_steps(network), p)(images) for p in (FLOAT32, FLOAT64))
    assert (np.linalg.norm(coarse.logits - fine.logits, axis=1) <= coarse.error + fine.error).all()


def test_far_from_a_quiet_sample_the_deployed_error_grows():
    """At zero nothing rounds; in the ball around it everything that rounds is growth."""
    rng = np.random.default_rng(0)
    half = rng.normal(size=(8, 300)) * 10.0 ** rng.uniform(0, 4, 300)
    weight = np.concatenate([half, -half], axis=1).astype(np.float32).astype(np.float64)
    network = chain((weight, np.zeros(8)), (rng.normal(size=(3, 8)).astype(np.float32).astype(np.float64), np.zeros(3)))
    steps, zero = l2_steps(network), np.zeros((1, 600), np.float32)
    deployed = ForwardPass(network, steps, FLOAT64, FLOAT32)(zero).deployed
    moved = np.concatenate([rng.normal(size=300)] * 2).astype(np.float32)[None]
    radius = float(np.linalg.norm(moved.astype(float)))
    coarse, fine = (ForwardPass(network, steps, precision)(moved) for precision in (FLOAT32, FLOAT64))
    distance = float(np.linalg.norm(coarse.logits - fine.logits))
    assert deployed.base[0] < 1e-20 < distance
    assert distance <= deployed.base[0] + deployed.growth * radius + fine.error[0]


@pytest.mark.parametrize("number", [1.0 + 2.0**-25, 1e-50])
def test_weights_that_float32_does_not_hold_cost_their_cast(number):
    """The cast alone moves a weight by up to u; gamma is about the operations that follow."""
    held, cast = (chain((np.full((1, 4), value), np.zeros(1))) for value in (1.0, number))
    models = [model_nodes(network, {1: 2.1}, FLOAT32)[1] for network in (held, cast)]
    size = 2.0 * number
    assert models[1].relative - models[0].relative * number >= FLOAT32.unit * size
    assert model_nodes(cast, {1: 2.1}, FLOAT64)[1].relative < models[1].relative
