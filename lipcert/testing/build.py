"""Short ways to build tiny networks from fixed seeds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from lipcert.network.builder import Builder
from lipcert.network.enclosure import Enclosure, Float
from lipcert.network.graph import Network, Shape
from lipcert.network.operators import Conv, Dense, Elementwise, Operator, Pads

RELU = Elementwise("relu")


def exact(values: Float | float) -> Enclosure:
    """Return numbers as an exact enclosure."""
    return Enclosure.exact(np.asarray(values, dtype=np.float64))


def single(values: Float) -> Float:
    """Round to float32 numbers, as checkpoints hold them."""
    return np.asarray(values, dtype=np.float32).astype(np.float64)


def matrices(seed: int, *widths: int) -> list[Float]:
    """Return random weights (n_k, n_{k-1}) of float32 numbers, their norms of order 1."""
    rng = np.random.default_rng(seed)
    return [single(rng.normal(size=(m, n)) / np.sqrt(n)) for n, m in pairwise(widths)]


def dense(weight: Float) -> Dense:
    """Return a dense layer with biases of a third of its largest weight, so that kinks lie near the origin."""
    largest = float(np.abs(weight).max(initial=0.0))
    return Dense(exact(weight), exact(0.3 * largest * np.cos(1.0 + np.arange(len(weight)))))


def mlp(weights: Sequence[Float], activation: Elementwise = RELU) -> Network:
    """Return a chain of dense layers with an activation between them."""
    ops: list[Operator] = []
    for weight in weights:
        ops += [dense(weight), activation]
    return chain(weights[0].shape[1:], *ops[:-1])


def chain(shape: Shape, *ops: Operator) -> Network:
    """Return a network that applies one operator after the other (none of them a `Reshape`)."""
    builder = Builder(shape)
    last = 0
    for op in ops:
        last = builder.add(op, last)
    return builder.build()


def conv(
    seed: int,
    shape: Shape,
    *,
    stride: int = 1,
    padding: Pads | None = None,
    dilation: int = 1,
    groups: int = 1,
    circular: bool = False,
) -> Conv:
    """Return a convolution with a random float32 kernel of `shape`, (out, in / groups, *kernel)."""
    rank = len(shape) - 2
    kernel = single(np.random.default_rng(seed).normal(size=shape) / np.sqrt(np.prod(shape[1:])))
    bias = exact(np.full((shape[0],) + (1,) * rank, 0.125))
    pads = padding or ((0, 0),) * rank
    return Conv(exact(kernel), bias, (stride,) * rank, pads, (dilation,) * rank, groups, circular)
