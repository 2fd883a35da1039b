"""Affine operators, pooling and their shapes against torch in float64.

Inputs and coefficients are small integers, so both sides are exact and must agree to the last bit.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from lipcert.errors import UsageError
from lipcert.network import Builder, Enclosure, evaluate
from lipcert.network.linear import apply_adjoint, apply_linear, coefficients, dense_matrix, offset
from lipcert.network.operators import (
    Affine,
    AvgPool,
    Concat,
    Conv,
    ConvTranspose,
    Dense,
    Elementwise,
    Extremum,
    Gather,
    MaxPool,
    Operator,
    Pads,
    Reshape,
    Scale,
    Softmax,
    Sort,
    Sum,
)

CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}
AVERAGE = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
MAXIMUM = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}


def integers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-9, 10, shape).astype(np.float64)


def tensor(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(x, dtype=np.float64))


def flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1)


def flat_padding(padding: Pads) -> list[int]:
    """torch's order: last axis first."""
    return [side for pair in reversed(padding) for side in pair]


def tuples(draw: st.DrawFn, rank: int, low: int, high: int) -> tuple[int, ...]:
    return tuple(draw(st.integers(low, high)) for _ in range(rank))


def run(op: Operator, x: np.ndarray) -> np.ndarray:
    """The operator on a batch, through the builder and the evaluator."""
    builder = Builder(x.shape[1:])
    builder.add(op, 0)
    return evaluate(builder.build(), x)


def check_linear(op: Affine, x: np.ndarray, expected: np.ndarray, rng: np.random.Generator) -> None:
    """Values, linear part, adjoint and dense matrix all say the same as the expected values."""
    found = run(op, x)
    np.testing.assert_array_equal(found, expected)
    numbers, constant = coefficients(op), offset(op)
    weight = None if numbers is None else numbers.mid
    linear = apply_linear(op, x, weight, expected.shape[1:])
    np.testing.assert_array_equal(linear if constant is None else linear + constant.mid, expected)
    y = integers(rng, *expected.shape)
    back = apply_adjoint(op, y, weight, x.shape[1:])
    assert back.shape == x.shape
    matrix = dense_matrix(op, x.shape[1:], expected.shape[1:])
    if isinstance(op, AvgPool):  # its quotients round
        np.testing.assert_allclose(flat(x) @ matrix.T, flat(linear), rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(flat(y) @ matrix, flat(back), rtol=1e-13, atol=1e-13)
        return
    np.testing.assert_array_equal(flat(x) @ matrix.T, flat(linear))
    np.testing.assert_array_equal(flat(y) @ matrix, flat(back))
    np.testing.assert_array_equal((linear * y).sum(), (x * back).sum())


@st.composite
def convolutions(draw: st.DrawFn, circular: bool) -> tuple[Conv, np.ndarray, np.random.Generator]:
    rank = draw(st.integers(1, 3))
    largest = {1: 9, 2: 6, 3: 4}[rank]
    size, kernel = tuples(draw, rank, 1, largest), tuples(draw, rank, 1, 4 if rank < 3 else 3)
    stride, dilation = tuples(draw, rank, 1, 3), tuples(draw, rank, 1, 3)
    # enough padding for one window, then some more on either side; zero padding may crop, too
    padding = []
    for n, k, d in zip(size, kernel, dilation, strict=True):
        before = draw(st.integers(0 if circular else -2, 4))
        padding.append((before, max(d * (k - 1) + 1 - n - before, draw(st.integers(0 if circular else -2, 4)))))
    groups, outs, ins = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weight = Enclosure(integers(rng, groups * outs, ins, *kernel))
    bias = Enclosure(integers(rng, groups * outs, *(1,) * rank))
    op = Conv(weight, bias, stride, tuple(padding), dilation, groups, circular)
    return op, integers(rng, 2, groups * ins, *size), rng


def padded(x: np.ndarray, padding: Pads, circular: bool) -> np.ndarray:
    """Entry i along each axis is entry i - before of the image: modulo its size, or zero outside."""
    for axis, (before, after) in enumerate(padding, start=2):
        size = x.shape[axis]
        places = np.arange(-before, size + after)
        x = np.take(x, places % size, axis=axis)
        if not circular:
            inside = (places >= 0) & (places < size)
            x = x * inside.reshape(-1, *(1,) * (x.ndim - 1 - axis))
    return x


def convolve(op: Conv, x: np.ndarray) -> np.ndarray:
    image = tensor(padded(x, op.padding, op.circular))
    bias = tensor(op.bias.mid.ravel())
    function = CONV[len(op.stride)]
    return function(image, tensor(op.weight.mid), bias, op.stride, 0, op.dilation, op.groups).numpy()


@settings(max_examples=150)
@given(convolutions(circular=False))
def test_convolution(case) -> None:
    op, x, rng = case
    check_linear(op, x, convolve(op, x), rng)


@settings(max_examples=100)
@given(convolutions(circular=True))
def test_circular_convolution(case) -> None:
    """Also where the padding, or the kernel, is larger than the image."""
    op, x, rng = case
    check_linear(op, x, convolve(op, x), rng)


@pytest.mark.parametrize("kernel", [3, 4, 5])
def test_circular_convolution_agrees_with_torch_modules(kernel: int) -> None:
    rng = np.random.default_rng(kernel)
    layer = torch.nn.Conv2d(2, 3, kernel, padding="same", padding_mode="circular", dtype=torch.float64)
    weight, bias = integers(rng, 3, 2, kernel, kernel), integers(rng, 3)
    layer.load_state_dict({"weight": tensor(weight), "bias": tensor(bias)})
    x = integers(rng, 2, 2, 5, 6)
    before = (kernel - 1) // 2
    padding = ((before, kernel - 1 - before),) * 2
    op = Conv(Enclosure(weight), Enclosure(bias[:, None, None]), (1, 1), padding, (1, 1), 1, True)
    check_linear(op, x, layer(tensor(x)).detach().numpy(), rng)


@st.composite
def transposed_convolutions(draw: st.DrawFn) -> tuple[ConvTranspose, np.ndarray, np.random.Generator]:
    rank = draw(st.integers(1, 3))
    size, kernel = tuples(draw, rank, 1, 5 if rank < 3 else 3), tuples(draw, rank, 1, 4 if rank < 3 else 3)
    stride, dilation = tuples(draw, rank, 1, 3), tuples(draw, rank, 1, 3)
    extra, padding = [], []
    for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        extra.append(draw(st.integers(0, max(s, d) - 1)))
        full = (n - 1) * s + d * (k - 1) + 1
        before = draw(st.integers(0, min(3, (full - 1) // 2)))
        padding.append((before, draw(st.integers(0, min(3, (full - 1) // 2)))))
    groups, outs, ins = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weight = Enclosure(integers(rng, groups * ins, outs, *kernel))
    bias = Enclosure(integers(rng, groups * outs, *(1,) * rank))
    op = ConvTranspose(weight, bias, stride, tuple(padding), tuple(extra), dilation, groups)
    return op, integers(rng, 2, groups * ins, *size), rng


@settings(max_examples=150)
@given(transposed_convolutions())
def test_transposed_convolution(case) -> None:
    """torch crops both sides alike, so the uncropped output is cropped here, and extended by the bias."""
    op, x, rng = case
    rank = len(op.stride)
    full = TRANSPOSED[rank](tensor(x), tensor(op.weight.mid), None, op.stride, 0, 0, op.groups, op.dilation)
    crop = [(-a, extra - b) for (a, b), extra in zip(op.padding, op.output_padding, strict=True)]
    expected = functional.pad(full, flat_padding(tuple(crop))).numpy() + op.bias.mid
    check_linear(op, x, expected, rng)
    if all(a == b for a, b in op.padding):
        padding = [a for a, _ in op.padding]
        direct = TRANSPOSED[rank](
            tensor(x),
            tensor(op.weight.mid),
            tensor(op.bias.mid.ravel()),
            op.stride,
            padding,
            op.output_padding,
            op.groups,
            op.dilation,
        )
        np.testing.assert_array_equal(direct.numpy(), expected)


@st.composite
def pools(draw: st.DrawFn) -> tuple[int, dict, np.ndarray]:
    """Geometries that torch accepts: padding of at most half the window, alike on both sides."""
    rank = draw(st.integers(1, 3))
    window = tuples(draw, rank, 1, 4)
    size = tuple(draw(st.integers(k, k + 5 if rank < 3 else k + 2)) for k in window)
    settings = {
        "kernel_size": window,
        "stride": tuples(draw, rank, 1, 4),
        "padding": tuple(draw(st.integers(0, k // 2)) for k in window),
        "ceil_mode": draw(st.booleans()),
    }
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rank, settings, integers(rng, 2, 2, *size)


def end_padding(size: tuple[int, ...], settings: dict, out: tuple[int, ...]) -> Pads:
    """The padding with which whole windows alone give torch's number of windows."""
    geometry = zip(size, settings["kernel_size"], settings["stride"], settings["padding"], out, strict=True)
    return tuple((p, max(0, (o - 1) * s + k - p - n)) for n, k, s, p, o in geometry)


def window_counts(size: tuple[int, ...], settings: dict, out: tuple[int, ...], include: bool) -> np.ndarray:
    """How many entries torch divides by: inside the image, or inside the image with its padding."""
    counts = np.ones(())
    for n, k, s, p, o in zip(size, settings["kernel_size"], settings["stride"], settings["padding"], out, strict=True):
        low, high = (-p, n + p) if include else (0, n)
        here = [sum(low <= i * s - p + j < high for j in range(k)) for i in range(o)]
        counts = np.multiply.outer(counts, np.array(here, dtype=np.float64))
    return counts


@settings(max_examples=150)
@given(pools(), st.booleans())
def test_average_pool(case, include: bool) -> None:
    rank, settings, x = case
    expected = AVERAGE[rank](tensor(x), **settings, count_include_pad=include).numpy()
    out, size = expected.shape[2:], x.shape[2:]
    counts = window_counts(size, settings, out, include)
    op = AvgPool(settings["kernel_size"], settings["stride"], end_padding(size, settings, out), counts)
    check_linear(op, x, expected, np.random.default_rng(0))


def test_average_pool_with_a_fixed_divisor_and_a_global_one() -> None:
    rng = np.random.default_rng(3)
    x = integers(rng, 2, 3, 5, 7)
    expected = functional.avg_pool2d(tensor(x), (2, 3), (2, 2), (1, 1), divisor_override=5).numpy()
    op = AvgPool((2, 3), (2, 2), ((1, 1), (1, 1)), np.full(expected.shape[2:], 5.0))
    check_linear(op, x, expected, rng)
    whole = AvgPool((5, 7), (1, 1), ((0, 0), (0, 0)), np.full((1, 1), 35.0))
    check_linear(whole, x, functional.adaptive_avg_pool2d(tensor(x), 1).numpy(), rng)


@settings(max_examples=150)
@given(pools(), st.data())
def test_max_pool(case, data: st.DataObject) -> None:
    rank, settings, x = case
    x = x - 20  # negative everywhere: a padded zero would win
    dilation = tuple(
        data.draw(st.integers(1, 2 if k > 1 and n >= 2 * (k - 1) + 1 else 1))
        for n, k in zip(x.shape[2:], settings["kernel_size"], strict=True)
    )
    expected = MAXIMUM[rank](tensor(x), **settings, dilation=dilation).numpy()
    reach = [d * (k - 1) + 1 for k, d in zip(settings["kernel_size"], dilation, strict=True)]
    padding = end_padding(x.shape[2:], {**settings, "kernel_size": reach}, expected.shape[2:])
    op = MaxPool(settings["kernel_size"], settings["stride"], padding, dilation)
    np.testing.assert_array_equal(run(op, x), expected)


@given(st.data())
def test_dense_on_vectors_and_on_further_axes(data: st.DataObject) -> None:
    leading = data.draw(st.sampled_from([(), (3,), (2, 3)]))
    rows, columns = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    weight, x = integers(rng, rows, columns), integers(rng, 2, *leading, columns)
    bias = integers(rng, *data.draw(st.sampled_from([(rows,), (), (*leading, rows)])))
    expected = functional.linear(tensor(x), tensor(weight)).numpy() + bias
    check_linear(Dense(Enclosure(weight), Enclosure(bias)), x, expected, rng)


@given(st.data())
def test_scale_with_every_broadcast_shape(data: st.DataObject) -> None:
    shape = (2, 3, 4)
    kinds = st.sampled_from([(), (1,), (4,), (3, 1), (2, 1, 1), (1, 3, 4), shape])
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    factor, shift = integers(rng, *data.draw(kinds)), integers(rng, *data.draw(kinds))
    x = integers(rng, 2, *shape)
    check_linear(Scale(Enclosure(factor), Enclosure(shift)), x, x * factor + shift, rng)


@given(st.data())
def test_gather_with_repetitions_and_zeros(data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from([(5,), (2, 3), (2, 2, 3)]))
    out = data.draw(st.sampled_from([(4,), (3, 2), (1, 2, 5), ()]))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    index = rng.integers(-1, np.prod(shape), out)
    x = integers(rng, 2, *shape)
    expected = np.array([[0.0 if i < 0 else row.ravel()[i] for i in np.ravel(index)] for row in x])
    check_linear(Gather(np.asarray(index, dtype=np.int64)), x, expected.reshape(2, *out), rng)


def test_reshape_keeps_the_order() -> None:
    rng = np.random.default_rng(5)
    x = integers(rng, 2, 3, 4)
    builder = Builder((3, 4))
    builder.add(Reshape(), 0, shape=(2, 6))
    np.testing.assert_array_equal(evaluate(builder.build(), x), x.reshape(2, 2, 6))
    np.testing.assert_array_equal(apply_adjoint(Reshape(), x.reshape(2, 2, 6), None, (3, 4)), x)
    np.testing.assert_array_equal(dense_matrix(Reshape(), (3, 4), (2, 6)), np.eye(12))


def test_operators_that_are_not_affine() -> None:
    rng = np.random.default_rng(6)
    x = integers(rng, 3, 2, 4)
    np.testing.assert_array_equal(run(Sort(), x), tensor(x).sort(dim=-1).values.numpy())
    for axis in (0, 1):
        for log, function in ((False, functional.softmax), (True, functional.log_softmax)):
            expected = function(tensor(x), dim=axis + 1).numpy()
            np.testing.assert_allclose(run(Softmax(axis, log), x), expected, rtol=1e-13, atol=1e-300)
    slope = np.array([0.5, -2.0])[:, None]
    np.testing.assert_array_equal(
        run(Elementwise("leaky_relu", (slope,)), x), functional.prelu(tensor(x), tensor(slope.ravel())).numpy()
    )


def test_operators_with_several_inputs() -> None:
    rng = np.random.default_rng(7)
    x = integers(rng, 3, 2, 4)
    builder = Builder((2, 4))
    shifted = builder.add(Scale(Enclosure.exact(2.0), Enclosure.exact(1.0)), 0)
    signed = builder.add(Sum((1, -1, 1)), 0, shifted, 0)
    np.testing.assert_array_equal(evaluate(builder.build(), x), np.full(x.shape, -1.0))
    for axis in (0, 1):
        builder.add(Concat(axis), 0, signed)
        np.testing.assert_array_equal(
            evaluate(builder.build(), x), np.concatenate([x, np.full(x.shape, -1.0)], axis=axis + 1)
        )
    for maximum, function in ((True, np.maximum), (False, np.minimum)):
        builder.add(Extremum(maximum), 0, shifted, signed)
        expected = function(function(x, 2 * x + 1), -1.0)
        np.testing.assert_array_equal(evaluate(builder.build(), x), expected)


def test_nodes_that_do_not_reach_the_output_are_left_out() -> None:
    builder = Builder((3,))
    builder.add(Elementwise("abs"), 0, name="unused")
    builder.add(Elementwise("relu"), 0, name="used")
    network = builder.build()
    assert [node.name for node in network.nodes] == ["input", "used"]
    assert network.nodes[1].inputs == (0,)


def test_large_values_do_not_overflow_the_softmax() -> None:
    x = np.array([[1000.0, 0.0, -1000.0]])
    np.testing.assert_array_equal(run(Softmax(0), x), [[1.0, 0.0, 0.0]])
    np.testing.assert_array_equal(run(Softmax(0, log=True), x), [[0.0, -1000.0, -2000.0]])


def exact(*shape: int) -> Enclosure:
    return Enclosure(np.zeros(shape))


@pytest.mark.parametrize(
    ("shape", "op"),
    [
        ((), Dense(exact(2, 3), exact(2))),
        ((4,), Dense(exact(2, 3), exact(2))),
        ((3,), Dense(exact(2, 3), exact(3))),
        ((), Conv(exact(2, 3, 1), exact(2, 1), (1,), ((0, 0),), (1,))),
        ((3, 4), Conv(exact(2, 3, 1, 1), exact(2, 1, 1), (1, 1), ((0, 0),) * 2, (1, 1))),
        ((4, 4), Conv(exact(2, 3, 1), exact(2, 1), (1,), ((0, 0),), (1,))),
        ((4, 4), Conv(exact(3, 2, 1), exact(3, 1), (1,), ((0, 0),), (1,), groups=2)),
        ((3, 4), Conv(exact(2, 3, 5), exact(2, 1), (1,), ((0, 0),), (1,))),
        ((3, 4), Conv(exact(2, 3, 1), exact(2, 1), (0,), ((0, 0),), (1,))),
        ((3, 4), Conv(exact(2, 3, 1), exact(2, 1), (1, 1), ((0, 0),), (1,))),
        ((3, 4), Conv(exact(2, 3, 1), exact(2, 5), (1,), ((0, 0),), (1,))),
        ((3, 4), ConvTranspose(exact(2, 3, 1), exact(2, 1), (1,), ((0, 0),), (0,), (1,))),
        ((3, 4), ConvTranspose(exact(3, 3, 1), exact(3, 1), (1,), ((0, 0),), (0,), (1,), groups=2)),
        ((3, 4), ConvTranspose(exact(3, 3, 1), exact(3, 1), (1,), ((2, 2),), (0,), (1,))),
        ((3, 4), AvgPool((2,), (2,), ((0, 0),), np.full(3, 2.0))),
        ((3, 4), AvgPool((2,), (2,), ((0, 0),), np.array([2.0, 0.0]))),
        ((3, 4), AvgPool((2, 2), (2, 2), ((0, 0),) * 2, np.full((1, 2), 4.0))),
        ((3, 4), MaxPool((2,), (2,), ((2, 0),), (1,))),
        ((3, 4), MaxPool((5,), (2,), ((0, 0),), (1,))),
        ((3,), Gather(np.array([0, 3]))),
        ((3,), Gather(np.array([-2]))),
        ((3,), Reshape()),
        ((3,), Scale(exact(2, 3), exact())),
        ((3,), Scale(exact(2), exact())),
        ((3,), Softmax(-1)),
        ((3,), Softmax(1)),
        ((), Sort()),
        ((3,), Concat(1)),
        ((3,), Concat(-1)),
        ((3,), Sum((1, 1))),
        ((3,), Sum((2,))),
        ((3,), Elementwise("leaky_relu", (np.zeros(2),))),
    ],
)
def test_what_does_not_fit_is_refused_by_name(shape: tuple[int, ...], op: Operator) -> None:
    with pytest.raises(UsageError, match="'here'"):
        Builder(shape).add(op, 0, name="here")


def test_numbers_of_inputs_are_checked() -> None:
    for op in (Sort(), Reshape(), Elementwise("relu"), MaxPool((1,), (1,), ((0, 0),), (1,))):
        for inputs in ((), (0, 0)):
            with pytest.raises(UsageError, match="inputs"):
                Builder((2, 3)).add(op, *inputs, shape=(2, 3))
    with pytest.raises(UsageError, match="shape"):
        Builder((3,)).add(Reshape(), 0, shape=(4,))
    with pytest.raises(UsageError, match="expected"):
        Builder((3,)).add(Sort(), 0, shape=(4,))
