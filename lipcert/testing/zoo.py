"""Tiny networks, one or more for each thing that a method may get wrong. All are made in code, from fixed seeds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

import numpy as np

from lipcert.network.activations import TABLE
from lipcert.network.builder import Builder
from lipcert.network.enclosure import Enclosure
from lipcert.network.graph import Network, Shape
from lipcert.network.operators import (
    AvgPool,
    Concat,
    ConvTranspose,
    Elementwise,
    Extremum,
    Gather,
    MaxPool,
    Operator,
    Reshape,
    Scale,
    Softmax,
    Sort,
    Sum,
)
from lipcert.testing.build import RELU, chain, conv, dense, exact, matrices, mlp

PARAMETERS: Mapping[str, tuple[float, ...]] = MappingProxyType(  # of the activations that have some
    {
        "leaky_relu": (0.01,),
        "elu": (4.0,),
        "celu": (0.5,),
        "softplus": (2.0,),
        "clip": (-0.5, 1.0),
        "hardsigmoid": (0.2, 0.5),
        "softshrink": (0.3,),
    }
)


@cache
def zoo() -> Mapping[str, Network]:
    """Return all networks by name."""
    parts = (_chains(), _scales(), _activations(), _graphs(), _images(), _pools(), _shift_invariant())
    return MappingProxyType({name: network for part in parts for name, network in part.items()})


def _chains() -> dict[str, Network]:
    first, second, third = (dense(w) for w in matrices(10, 3, 4, 3, 2))
    return {
        "small ReLU chain": mlp(matrices(0, 3, 4, 3, 2)),
        "deep narrow ReLU chain": mlp(matrices(1, 2, 2, 2, 2, 2, 1)),
        "one-neuron layers": mlp(matrices(2, 3, 1, 1, 2)),
        "one input, one neuron, one output": mlp(matrices(7, 1, 1, 1)),
        "bottlenecks": mlp(matrices(8, 6, 2, 7, 2, 5)),
        "wide ReLU chain": mlp(matrices(9, 12, 24, 12, 4)),
        "trailing ReLU": chain((3,), first, RELU, second, RELU),
        "activation on the input": chain((3,), RELU, first, RELU, second),
        "affine": chain((3,), first, second, third),
        "identity": chain((3,), Scale(exact(1.0), exact(0.0))),
    }


def _scales() -> dict[str, Network]:
    """Slopes and sizes out of the ordinary."""
    dead = matrices(3, 4, 6, 5, 3)
    dead[0][2], dead[1][:, 4], dead[1][1] = 0.0, 0.0, 0.0
    large, small = matrices(5, 4, 5, 4, 3), matrices(6, 4, 5, 3)
    slopes = np.array([-0.5, 0.0, 0.01, 1.0, 2.5, 1.0])
    half = Elementwise("leaky_relu", (np.array(-0.5),))
    folded = Scale(exact(1.0) / exact(np.array([3.0, 0.7, 1.1])), exact(0.25))
    first, second = (dense(w) for w in matrices(15, 3, 3, 2))
    return {
        "dead neurons": mlp(dead),
        "a layer of zeros": mlp([matrices(16, 3, 4)[0], np.zeros((4, 4)), matrices(17, 4, 2)[0]]),
        "leaky slopes, one per neuron": mlp(matrices(4, 4, 6, 3), Elementwise("leaky_relu", (slopes,))),
        "slopes [-0.5, 1] on unit weights": mlp([np.eye(1), np.eye(1)], half),
        "layers scaled by 2^40 and 2^-40": mlp([large[0] * 2.0**40, large[1] * 2.0**-40, large[2]]),
        "weights of 1e-5": mlp([1e-5 * w for w in small]),
        "batch norm with quotients": chain((3,), first, folded, RELU, second),
    }


def _activations() -> dict[str, Network]:
    """Every activation of the table, between three layers."""
    made = {}
    for position, name in enumerate(TABLE):
        parameters = tuple(np.array(p) for p in PARAMETERS.get(name, ()))
        made[f"chain with {name}"] = mlp(matrices(20 + position, 3, 5, 4, 2), Elementwise(name, parameters))
    return made


def _graphs() -> dict[str, Network]:
    return {
        "residual x + g(x)": _residual(),
        "ReLU behind sums, one with a minus": _two_residuals(),
        "concatenation with a skip": _concatenation(),
        "one node used three times": _reused(),
        "maximum and minimum": _extrema(),
        "MaxMin": _maxmin(),
        "softmax": chain((3,), *(dense(w) for w in matrices(52, 3, 4, 3)), Softmax(0)),
        "log-softmax": chain((3,), dense(matrices(54, 3, 5)[0]), RELU, Softmax(0, log=True)),
    }


def _residual() -> Network:
    first, second = (dense(w) for w in matrices(40, 4, 5, 4))
    builder = Builder((4,))
    inner = builder.add(RELU, builder.add(first, 0))
    builder.add(Sum((1, 1)), 0, builder.add(second, inner))
    return builder.build()


def _two_residuals() -> Network:
    first, second, third = (dense(w) for w in matrices(42, 3, 3, 3, 2))
    builder = Builder((3,))
    inner = builder.add(RELU, builder.add(first, 0))
    outer = builder.add(RELU, builder.add(Sum((1, 1)), 0, inner))
    again = builder.add(Sum((1, -1)), builder.add(second, outer), outer)
    builder.add(third, builder.add(RELU, again))
    return builder.build()


def _concatenation() -> Network:
    first, second = dense(matrices(45, 3, 3)[0]), dense(matrices(46, 6, 3)[0])
    builder = Builder((3,))
    inner = builder.add(RELU, builder.add(first, 0))
    builder.add(second, builder.add(Concat(0), inner, 0))
    return builder.build()


def _reused() -> Network:
    builder = Builder((3,))
    inner = builder.add(Elementwise("tanh"), builder.add(dense(matrices(47, 3, 3)[0]), 0))
    outer = builder.add(Sum((1, 1, -1)), inner, inner, 0)
    builder.add(Sum((1, 1)), outer, inner)
    return builder.build()


def _extrema() -> Network:
    first, second = (dense(w) for w in matrices(48, 3, 3, 3))
    builder = Builder((3,))
    upper = builder.add(Extremum(True), 0, builder.add(first, 0))
    builder.add(Extremum(False), upper, builder.add(second, upper))
    return builder.build()


def _maxmin() -> Network:
    first, second = (dense(w) for w in matrices(50, 4, 6, 3))
    pairs = np.array([[0, 3], [1, 4], [2, 5]])
    back = np.argsort(pairs.ravel())
    return chain((4,), first, Gather(pairs), Sort(), Gather(back), second)


def _images() -> dict[str, Network]:
    """Convolutions, each followed by a ReLU and a dense head."""
    one, two, skew = ((1, 1),), ((1, 1), (1, 1)), ((1, 0), (0, 1))
    onto_itself = conv(68, (2, 1, 2), padding=((2, 2),), dilation=2, circular=True)
    transposed = ConvTranspose(
        conv(66, (2, 2, 2, 2)).weight, exact(np.zeros((2, 1, 1))), (2, 2), ((0, 0),) * 2, (1, 0), (1, 1)
    )
    layers = {
        "convolution": ((1, 4, 4), conv(60, (2, 1, 3, 3), padding=two)),
        "strided convolution, uneven padding": ((2, 5, 4), conv(61, (2, 2, 3, 2), stride=2, padding=skew)),
        "grouped convolution": ((4, 3, 3), conv(62, (4, 2, 2, 2), groups=2)),
        "dilated convolution": ((1, 5, 5), conv(63, (2, 1, 2, 2), dilation=2)),
        "circular convolution, even kernel": ((2, 4, 3), conv(64, (2, 2, 2, 2), padding=skew, circular=True)),
        "circular convolution, grid below the kernel": ((1, 2, 2), conv(65, (2, 1, 3, 3), padding=two, circular=True)),
        "circular convolution, dilated onto itself": ((1, 2), onto_itself),
        "transposed convolution": ((2, 2, 3), transposed),
        "1d convolution": ((2, 6), conv(67, (3, 2, 3), padding=one)),
    }
    return {name: _with_head(shape, layer, RELU) for name, (shape, layer) in layers.items()}


def _with_head(shape: Shape, *ops: Operator) -> Network:
    """Return the operators followed by a flattening and a dense layer with two outputs."""
    builder = Builder(shape)
    last = 0
    for op in ops:
        last = builder.add(op, last)
    size = builder.nodes[last].size
    flat = builder.add(Reshape(), last, shape=(size,))
    builder.add(dense(matrices(size, size, 2)[0]), flat)
    return builder.build()


def _pools() -> dict[str, Network]:
    layer, second = conv(70, (2, 1, 3, 3), padding=((1, 1), (1, 1))), conv(71, (1, 2, 2, 2))
    plain, skew = ((0, 0), (0, 0)), ((1, 1), (0, 1))
    average = AvgPool((2, 2), (2, 2), plain, np.full((2, 2), 4.0))
    uneven = AvgPool((3, 2), (1, 2), ((1, 1), (0, 0)), np.array([[4.0, 4.0], [6.0, 6.0], [6.0, 6.0], [4.0, 4.0]]))
    inexact = Enclosure(np.full((2, 1, 1), 0.3), np.full((2, 1, 1), 1e-9))
    shape = (1, 4, 4)
    return {
        "average pooling": _with_head(shape, layer, RELU, average),
        "average pooling, overlapping and padded": _with_head(shape, layer, RELU, uneven),
        "max pooling": _with_head(shape, layer, MaxPool((2, 2), (2, 2), plain, (1, 1))),
        "max pooling, overlapping and padded": _with_head(shape, layer, MaxPool((3, 2), (1, 1), skew, (1, 1))),
        "channels scaled by uncertain numbers": _with_head(shape, layer, RELU, Scale(inexact, exact(0.0)), second),
    }


def _shift_invariant() -> dict[str, Network]:
    """Stride-1 convolutions that end in their map, or in an average over all of it."""
    one, plain, leaky = ((1, 1), (1, 1)), ((0, 0), (0, 0)), Elementwise("leaky_relu", (np.array(0.1),))
    average = AvgPool((4, 4), (1, 1), plain, np.full((1, 1), 16.0))
    builder = Builder((1, 4, 4))
    last = 0
    for op in (conv(72, (3, 1, 3, 3), padding=one), RELU, conv(73, (2, 3, 3, 3), padding=one), leaky, average):
        last = builder.add(op, last)
    flat = builder.add(RELU, builder.add(dense(matrices(74, 2, 3)[0]), builder.add(Reshape(), last, shape=(2,))))
    builder.add(dense(matrices(75, 3, 2)[0]), flat)
    around = [conv(seed, (2, 2, 3, 3), padding=one, circular=True) for seed in (76, 77)]
    apart = conv(78, (4, 1, 3), padding=((2, 2),), dilation=2, groups=2)
    return {
        "convolutions, global average, layers": builder.build(),
        "circular convolutions": chain((2, 3, 4), around[0], leaky, around[1]),
        "1d convolutions, grouped and dilated": chain((2, 5), apart, RELU, conv(79, (2, 4, 2))),
    }
