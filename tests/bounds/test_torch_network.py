"""The torch executor computes what `network.evaluate` computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from strategies import ELEMENTWISE, networks

from lipcert.bounds.torch_activations import FUNCTIONS
from lipcert.bounds.torch_kernels import parts_of
from lipcert.bounds.torch_moves import move_kernel
from lipcert.bounds.torch_network import compile_network
from lipcert.bounds.torch_precision import full_precision, has_full
from lipcert.errors import UnsupportedError
from lipcert.network import Builder, Enclosure
from lipcert.network.activations import TABLE
from lipcert.network.evaluate import evaluate
from lipcert.network.operators import Conv, Dense, Elementwise, Gather, Sort, Sum


def _inputs(network, seed=0, count=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, *network.input_shape)) * rng.choice([0.1, 1.0, 10.0])


@settings(max_examples=120, deadline=None)
@given(networks(max_depth=6))
def test_agrees_with_the_evaluator(network):
    x = _inputs(network)
    expected = evaluate(network, x)
    found = compile_network(network, dtype=torch.float64)(torch.from_numpy(x)).numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * (1.0 + np.abs(expected).max()))


@settings(max_examples=30, deadline=None)
@given(networks(max_depth=5))
def test_trace_gives_every_node(network):
    x = torch.from_numpy(_inputs(network))
    compiled = compile_network(network, dtype=torch.float64)
    trace = compiled.trace(x)
    assert [tuple(value.shape[1:]) for value in trace] == [node.shape for node in network.nodes]
    torch.testing.assert_close(trace[-1], compiled(x), rtol=0, atol=0)


@settings(max_examples=30, deadline=None)
@given(networks(max_depth=4))
def test_samples_of_a_batch_do_not_touch_each_other(network):
    x = torch.from_numpy(_inputs(network, count=4))
    compiled = compile_network(network, dtype=torch.float64)
    alone = torch.cat([compiled(row[None]) for row in x])
    torch.testing.assert_close(compiled(x), alone, rtol=1e-12, atol=1e-12)


def test_every_activation_of_the_table_has_a_function():
    assert set(FUNCTIONS) == set(TABLE)


@pytest.mark.parametrize("name", sorted(TABLE))
def test_activations_are_finite_and_right_at_extremes(name):
    rng = np.random.default_rng(0)
    params = ELEMENTWISE.get(name, lambda rng, shape: ())(rng, ())
    x = np.array([-1e30, -500.0, -90.0, -1.0, -1e-30, 0.0, 1e-30, 1.0, 90.0, 500.0, 1e30])
    x = x[np.abs(x) < 1e3] if name in ("sin", "cos", "gelu_tanh") else x
    found = FUNCTIONS[name](torch.from_numpy(x), *(torch.from_numpy(np.asarray(p)) for p in params)).numpy()
    with np.errstate(all="ignore"):
        expected = TABLE[name].function(x, *params)
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-14)
    single = FUNCTIONS[name](torch.from_numpy(x).float(), *(torch.from_numpy(np.asarray(p)).float() for p in params))
    assert torch.isfinite(single).all()


@pytest.mark.parametrize("name", sorted(TABLE))
def test_gradients_are_those_of_the_function(name):
    rng = np.random.default_rng(1)
    params = [torch.from_numpy(np.asarray(p)) for p in ELEMENTWISE.get(name, lambda rng, shape: ())(rng, ())]
    x = torch.from_numpy(rng.normal(size=20) * 2.0 + 0.01).requires_grad_(True)
    (slope,) = torch.autograd.grad(FUNCTIONS[name](x, *params).sum(), x)
    step = 1e-6
    ahead, behind = (FUNCTIONS[name](x.detach() + s, *params) for s in (step, -step))
    np.testing.assert_allclose(slope.numpy(), ((ahead - behind) / (2 * step)).numpy(), rtol=1e-5, atol=1e-7)


MOVES = {
    "transpose": lambda i: i.transpose(1, 2, 0),
    "crop": lambda i: i[:, 1:, :-1],
    "pad": lambda i: np.pad(i, [(0, 0), (1, 2), (3, 0)], constant_values=-1),
    "pad and crop": lambda i: np.pad(i[:, 1:], [(0, 0), (0, 0), (2, 2)], constant_values=-1),
    "reflect": lambda i: np.pad(i, [(0, 0), (1, 1), (1, 1)], mode="reflect"),
    "stride": lambda i: i[::2, ::2],
    "repeat": lambda i: np.repeat(i, 2, axis=1),
    "flip": lambda i: i[:, ::-1],
    "nothing": lambda i: np.full((2, 2), -1),
    "flat transpose": lambda i: i.transpose(2, 0, 1).reshape(-1),
}


@pytest.mark.parametrize("move", sorted(MOVES))
def test_index_maps(move):
    shape = (3, 4, 4)
    index = np.ascontiguousarray(MOVES[move](np.arange(48).reshape(shape)))
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    flat = np.concatenate([x.reshape(2, -1).numpy(), np.zeros((2, 1), np.float32)], axis=1)
    found = move_kernel(index, shape, torch.device("cpu"))(x)
    np.testing.assert_array_equal(found.numpy(), flat[:, index])


def test_zero_padding_keeps_nan_out():
    builder = Builder((2,))
    builder.add(Gather(np.array([0, -1])), 0)
    out = compile_network(builder.build())(torch.tensor([[torch.nan, 1.0]]))
    assert out[0, 1] == 0.0


def test_pairs_are_sorted_like_longer_groups():
    for width in (2, 3):
        builder = Builder((4, width))
        builder.add(Sort(), 0)
        x = torch.randn(5, 4, width, generator=torch.Generator().manual_seed(0))
        np.testing.assert_array_equal(compile_network(builder.build())(x).numpy(), np.sort(x.numpy(), axis=-1))


def test_values_are_dropped_after_their_last_use():
    builder = Builder((3,))
    first = builder.add(Elementwise("relu"), 0)
    second = builder.add(Elementwise("tanh"), first)
    builder.add(Sum((1, -1)), second, first)
    compiled = compile_network(builder.build())
    assert [sorted(dead) for dead in compiled._dead_after] == [[], [0], [], [1, 2]]


def test_a_convolution_of_four_axes_is_refused_with_its_name():
    builder = Builder((1, 2, 2, 2, 2))
    weight, bias = Enclosure.exact(np.ones((1, 1, 1, 1, 1, 1))), Enclosure.exact(0.0)
    one = (1,) * 4
    builder.add(Conv(weight, bias, one, ((0, 0),) * 4, one), 0, name="deep")
    with pytest.raises(UnsupportedError, match="deep"):
        compile_network(builder.build())


def test_full_precision_restores_the_settings():
    torch.set_float32_matmul_precision("high")
    try:
        with full_precision():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_this_machine_computes_full_precision(monkeypatch):
    assert has_full(torch.float32)
    assert has_full(torch.float64)
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    assert not has_full(torch.float32)


def test_a_shorter_format_would_be_noticed(monkeypatch):
    real = torch.nn.functional.linear
    monkeypatch.setattr(
        torch.nn.functional, "linear", lambda x, w: real(x.to(torch.bfloat16), w.to(torch.bfloat16)).to(x.dtype)
    )
    assert not has_full(torch.float32)


@pytest.mark.parametrize("chunk", [1, 3, 4, 9, 10, 11])
@pytest.mark.parametrize("leading", [(), (2,)])
def test_dot_products_in_parts(chunk, leading):
    rng = np.random.default_rng(0)
    builder = Builder((*leading, 10))
    bias = rng.normal(size=(*leading, 5))
    builder.add(Dense(Enclosure.exact(rng.normal(size=(5, 10))), Enclosure.exact(bias)), 0)
    network, x = builder.build(), rng.normal(size=(4, *leading, 10))
    found = compile_network(network, dtype=torch.float64, chunk=chunk)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, evaluate(network, x), rtol=0, atol=1e-13)
    count, size = parts_of(10, chunk)
    assert size <= chunk and (count - 1) * size < 10 <= count * size
