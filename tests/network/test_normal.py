"""The normal form is the same function, with what can be merged merged."""

from __future__ import annotations

import numpy as np
import pytest

from lipcert.network.builder import Builder
from lipcert.network.enclosure import Enclosure
from lipcert.network.evaluate import evaluate
from lipcert.network.graph import Network
from lipcert.network.normal import normal_form, split_head, strip_softmax
from lipcert.network.operators import (
    Concat,
    Conv,
    Dense,
    Elementwise,
    Gather,
    Operator,
    Reshape,
    Scale,
    Softmax,
    Sum,
)

RNG = np.random.default_rng(7)


def enclose(*shape: int, dtype: type = np.float32) -> Enclosure:
    return Enclosure.exact(RNG.normal(size=shape).astype(dtype))


def dense(outputs: int, inputs: int) -> Dense:
    return Dense(enclose(outputs, inputs), enclose(outputs))


def conv(outputs: int, inputs: int, kernel: int = 3, padding: int = 1, stride: int = 1, groups: int = 1) -> Conv:
    return Conv(
        enclose(outputs, inputs // groups, kernel, kernel),
        enclose(outputs, 1, 1),
        (stride, stride),
        ((padding, padding), (padding, padding)),
        (1, 1),
        groups,
    )


def chain(input_shape: tuple[int, ...], *steps: Operator | tuple[Operator, tuple[int, ...]]) -> Network:
    builder = Builder(input_shape)
    last = 0
    for step in steps:
        op, shape = step if isinstance(step, tuple) else (step, None)
        last = builder.add(op, last, shape=shape)
    return builder.build()


def kinds(network: Network) -> list[str]:
    return [node.op.kind for node in network.nodes]


def assert_same_function(network: Network, normal: Network) -> None:
    x = RNG.normal(size=(5, *network.input_shape))
    np.testing.assert_allclose(evaluate(normal, x), evaluate(network, x), rtol=1e-12, atol=1e-12)


relu = Elementwise("relu")


def test_normalisation_and_scale_factors_join_the_dense_layers() -> None:
    scale = Scale(enclose(1, 1, 1), enclose(1, 1, 1))
    network = chain((1, 4, 4), scale, (Reshape(), (16,)), dense(8, 16), Scale(enclose(), enclose()), relu, dense(3, 8))
    normal = normal_form(network)
    assert kinds(normal) == ["Input", "Reshape", "Dense", "relu", "Dense"]
    assert_same_function(network, normal)


def test_batch_norm_joins_the_convolution_before_it() -> None:
    network = chain((2, 5, 5), conv(4, 2), Scale(enclose(4, 1, 1), enclose(4, 1, 1)), relu)
    normal = normal_form(network)
    assert kinds(normal) == ["Input", "Conv", "relu"]
    assert_same_function(network, normal)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_shift_before_a_padded_convolution_keeps_its_border(groups: int) -> None:
    """A constant shift is not constant once the border is padded with zeros: the bias becomes a map."""
    network = chain((2, 5, 5), Scale(enclose(2, 1, 1), enclose(2, 1, 1)), conv(4, 2, groups=groups), relu)
    normal = normal_form(network)
    assert kinds(normal) == ["Input", "Conv", "relu"]
    assert_same_function(network, normal)


def test_a_factor_per_pixel_is_left_alone() -> None:
    network = chain((2, 5, 5), Scale(enclose(2, 5, 5), enclose(2, 5, 5)), conv(4, 2))
    assert kinds(normal_form(network)) == ["Input", "Scale", "Conv"]


def test_padding_joins_the_convolution() -> None:
    index = np.pad(np.arange(2 * 5 * 5).reshape(2, 5, 5), ((0, 0), (2, 1), (0, 3)), constant_values=-1)
    network = chain((2, 5, 5), Gather(index), conv(3, 2, padding=0), relu)
    normal = normal_form(network)
    assert kinds(normal) == ["Input", "Conv", "relu"]
    assert_same_function(network, normal)


def test_reflected_padding_stays_an_index_map() -> None:
    index = np.pad(np.arange(2 * 5 * 5).reshape(2, 5, 5), ((0, 0), (1, 1), (1, 1)), mode="reflect")
    network = chain((2, 5, 5), Gather(index), conv(3, 2, padding=0))
    normal = normal_form(network)
    assert kinds(normal) == ["Input", "Gather", "Conv"]
    assert_same_function(network, normal)


def test_a_convolution_over_the_whole_input_is_dense() -> None:
    network = chain((2, 5, 5), conv(6, 2, kernel=5, padding=0), relu, conv(3, 6, kernel=1, padding=0))
    normal = normal_form(network)
    assert "Conv" not in kinds(normal)
    assert_same_function(network, normal)


def test_a_shared_layer_is_not_swallowed() -> None:
    """The output of the first layer is used twice; scaling one use must not scale the other."""
    builder = Builder((4,))
    first = builder.add(dense(4, 4), 0)
    scaled = builder.add(Scale(enclose(4), enclose(4)), first)
    builder.add(Sum((1, -1)), first, scaled)
    network = builder.build()
    assert_same_function(network, normal_form(network))


def test_transposes_and_concatenations_keep_their_order() -> None:
    builder = Builder((2, 3, 4))
    swap = builder.add(Gather(np.arange(24).reshape(2, 3, 4).transpose(1, 2, 0)), 0)
    back = builder.add(Gather(np.arange(24).reshape(3, 4, 2).transpose(2, 0, 1)), swap)
    both = builder.add(Concat(0), back, 0)
    builder.add(conv(2, 4), both)
    network = builder.build()
    normal = normal_form(network)
    assert "Gather" not in kinds(normal)
    assert_same_function(network, normal)


def test_merging_counts_its_rounding() -> None:
    """Products of float64 weights are rounded, so the merged weights must enclose the exact products."""
    from fractions import Fraction

    first = Dense(enclose(3, 4, dtype=np.float64), enclose(3, dtype=np.float64))
    second = Dense(enclose(2, 3, dtype=np.float64), enclose(2, dtype=np.float64))
    merged = normal_form(chain((4,), first, second)).nodes[-1].op
    assert isinstance(merged, Dense)
    for i in range(2):
        for j in range(4):
            exact = sum(Fraction(second.weight.mid[i, k]) * Fraction(first.weight.mid[k, j]) for k in range(3))
            distance = abs(exact - Fraction(merged.weight.mid[i, j]))
            assert distance <= Fraction(merged.weight.radius[i, j])


def test_float32_products_stay_exact() -> None:
    merged = normal_form(chain((4,), dense(3, 4), Scale(enclose(3), enclose(3)))).nodes[-1].op
    assert isinstance(merged, Dense) and merged.weight.is_exact


def test_the_head_is_taken_out() -> None:
    network = chain((6,), dense(5, 6), relu, dense(3, 5))
    parts = split_head(normal_form(network))
    assert parts is not None
    body, head = parts
    x = RNG.normal(size=(7, 6))
    joined = evaluate(body, x) @ head.weight.mid.T + head.bias.mid
    np.testing.assert_allclose(joined, evaluate(network, x), rtol=1e-12)
    assert split_head(normal_form(chain((6,), dense(5, 6), relu))) is None


def test_only_a_softmax_over_the_whole_output_is_set_aside() -> None:
    network = chain((6,), dense(4, 6), Softmax(0))
    assert kinds(strip_softmax(network)) == ["Input", "Dense"]
    grouped = chain((6,), dense(4, 6), (Reshape(), (2, 2)), Softmax(1))
    assert strip_softmax(grouped) is grouped


def test_an_activation_without_a_choice_of_slope_is_a_scaling() -> None:
    straight = Elementwise("leaky_relu", (np.array([1.0, 1.0, 1.0]),))
    open_ended = Elementwise("clip", (np.array(-np.inf), np.array(np.inf)))
    network = chain((4,), dense(3, 4), straight, dense(3, 3), open_ended, relu)
    normal = normal_form(network)
    assert kinds(normal) == ["Input", "Dense", "relu"]
    assert_same_function(network, normal)
    bent = chain((4,), dense(3, 4), Elementwise("leaky_relu", (np.array([1.0, 1.0, 0.5]),)))
    assert kinds(normal_form(bent)) == ["Input", "Dense", "leaky_relu"]
