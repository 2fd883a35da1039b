"""Random small networks over all operators.

`random_network` makes one from a seed, `networks` is the same as a hypothesis strategy. What their Lipschitz
constants are at least is told by `oracles.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from hypothesis import strategies as st
from oracles import exact_jacobian, lower_bound_by_sampling, operator_norm

from lipcert.network import Builder, Enclosure, Network
from lipcert.network.enclosure import Float
from lipcert.network.operators import (
    AvgPool,
    Concat,
    Conv,
    ConvTranspose,
    Dense,
    Elementwise,
    Extremum,
    Gather,
    MaxPool,
    Reshape,
    Scale,
    Softmax,
    Sort,
    Sum,
)

__all__ = [
    "BLOCKS",
    "CHAIN",
    "exact_jacobian",
    "lower_bound_by_sampling",
    "networks",
    "operator_norm",
    "random_network",
]

Shape = tuple[int, ...]
Rng = np.random.Generator
Block = Callable[[Builder, int, Rng], int]  # appends nodes behind one node, returns the last

INPUT_SHAPES: tuple[Shape, ...] = ((4,), (6,), (2, 5), (1, 6), (1, 4, 4), (2, 5, 3), (2, 1, 3))
LARGEST = 60  # entries of a node


# --- numbers ------------------------------------------------------------------------------------------------


def numbers(rng: Rng, *shape: int, fan_in: int = 1) -> Enclosure:
    """Float32 numbers of a layer's usual size; in one of four cases divided by a constant, so not exact."""
    exact = Enclosure.exact(np.float32(rng.normal(size=shape) / math.sqrt(fan_in)))
    return exact / Enclosure.exact(np.float32(rng.uniform(0.5, 3.0))) if rng.random() < 0.25 else exact


def _broadcastable(rng: Rng, shape: Shape) -> Shape:
    """A random shape that broadcasts to `shape`: leading axes dropped, others collapsed to 1."""
    kept = shape[int(rng.integers(0, len(shape) + 1)) :]
    return tuple(int(size) if rng.random() < 0.7 else 1 for size in kept)


ELEMENTWISE: dict[str, Callable[[Rng, Shape], tuple[Float, ...]]] = {
    "leaky_relu": lambda rng, shape: (rng.uniform(-1.0, 1.5, _broadcastable(rng, shape)),),
    "elu": lambda rng, shape: (np.array(rng.uniform(-1.0, 4.0)),),
    "celu": lambda rng, shape: (np.array(rng.uniform(0.25, 4.0)),),
    "softplus": lambda rng, shape: (np.array(rng.uniform(0.5, 3.0)),),
    "clip": lambda rng, shape: (np.array(rng.choice([-np.inf, -0.5])), np.array(rng.choice([0.5, np.inf]))),
    "hardsigmoid": lambda rng, shape: (np.array(rng.uniform(-1.0, 1.0)), np.array(0.5)),
    "softshrink": lambda rng, shape: (np.array(rng.uniform(0.0, 0.5)),),
} | {
    name: lambda rng, shape: ()
    for name in (
        *("relu", "selu", "gelu", "gelu_tanh", "silu", "mish", "sigmoid", "tanh", "softsign", "abs"),
        *("hardswish", "logsigmoid", "tanhshrink", "erf", "sin", "cos"),
    )
}


# --- blocks -------------------------------------------------------------------------------------------------


def _dense(builder: Builder, x: int, rng: Rng, features: int | None = None) -> int:
    *_, columns = builder.nodes[x].shape
    rows = features or int(rng.integers(2, 7))
    return builder.add(Dense(numbers(rng, rows, columns, fan_in=columns), numbers(rng, rows)), x)


def _geometry(rng: Rng, rank: int, low: int, high: int) -> Shape:
    return tuple(int(n) for n in rng.integers(low, high + 1, rank))


def _conv(builder: Builder, x: int, rng: Rng) -> int:
    channels, *size = builder.nodes[x].shape
    rank, groups = len(size), int(rng.choice([g for g in (1, 2) if channels % g == 0]))
    kernel, dilation = _geometry(rng, rank, 1, 3), _geometry(rng, rank, 1, 2)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    before = _geometry(rng, rank, 0, 2)
    padding = tuple((b, max(0, r - n - b)) for b, r, n in zip(before, reach, size, strict=True))
    outputs, per_group = groups * int(rng.integers(1, 3)), channels // groups
    weight = numbers(rng, outputs, per_group, *kernel, fan_in=per_group * math.prod(kernel))
    bias = numbers(rng, outputs, *(1,) * rank)
    circular = bool(rng.random() < 0.3)
    return builder.add(Conv(weight, bias, _geometry(rng, rank, 1, 2), padding, dilation, groups, circular), x)


def _conv_transpose(builder: Builder, x: int, rng: Rng) -> int:
    channels, *size = builder.nodes[x].shape
    rank, groups = len(size), int(rng.choice([g for g in (1, 2) if channels % g == 0]))
    kernel, stride = _geometry(rng, rank, 1, 3), _geometry(rng, rank, 1, 2)
    padding = tuple((int(rng.integers(0, 2)) if k > 2 else 0, 0) for k in kernel)
    extra = tuple(int(rng.integers(0, s)) for s in stride)
    weight = numbers(rng, channels, 1, *kernel, fan_in=channels * math.prod(kernel))
    bias = numbers(rng, groups, *(1,) * rank)
    return builder.add(ConvTranspose(weight, bias, stride, padding, extra, (1,) * rank, groups), x)


def _window(builder: Builder, x: int, rng: Rng) -> tuple[Shape, Shape, tuple[tuple[int, int], ...]]:
    """A pooling window, its stride and a padding that leaves part of the input in every window."""
    size = builder.nodes[x].shape[1:]
    window = tuple(int(rng.integers(1, min(n, 3) + 1)) for n in size)
    padding = tuple((int(rng.integers(0, k // 2 + 1)), int(rng.integers(0, k // 2 + 1))) for k in window)
    return window, _geometry(rng, len(size), 1, 3), padding


def _avg_pool(builder: Builder, x: int, rng: Rng) -> int:
    window, stride, padding = _window(builder, x, rng)
    size = builder.nodes[x].shape[1:]
    out = [(n + a + b - k) // s + 1 for n, k, s, (a, b) in zip(size, window, stride, padding, strict=True)]
    counts = rng.integers(1, math.prod(window) + 1, out).astype(np.float64)
    return builder.add(AvgPool(window, stride, padding, counts), x)


def _max_pool(builder: Builder, x: int, rng: Rng) -> int:
    window, stride, padding = _window(builder, x, rng)
    return builder.add(MaxPool(window, stride, padding, (1,) * len(window)), x)


def _scale(builder: Builder, x: int, rng: Rng) -> int:
    shape = builder.nodes[x].shape
    factor, shift = (numbers(rng, *_broadcastable(rng, shape)) for _ in range(2))
    return builder.add(Scale(factor, shift), x)


def _gather(builder: Builder, x: int, rng: Rng) -> int:
    """A permutation, or any entries with repetitions and zeros."""
    node = builder.nodes[x]
    if rng.random() < 0.5:
        return builder.add(Gather(rng.permutation(node.size).reshape(node.shape)), x)
    return builder.add(Gather(rng.integers(-1, node.size, node.shape)), x)


def _reshape(builder: Builder, x: int, rng: Rng) -> int:
    """To a vector, or from one to (channels, length)."""
    node = builder.nodes[x]
    if len(node.shape) > 1:
        return builder.add(Reshape(), x, shape=(node.size,))
    channels = int(rng.choice([c for c in (1, 2, 3) if node.size % c == 0]))
    return builder.add(Reshape(), x, shape=(channels, node.size // channels))


def _elementwise(builder: Builder, x: int, rng: Rng) -> int:
    name = str(rng.choice(sorted(ELEMENTWISE)))
    return builder.add(Elementwise(name, ELEMENTWISE[name](rng, builder.nodes[x].shape)), x)


def _relu(builder: Builder, x: int, rng: Rng) -> int:
    return builder.add(Elementwise("relu"), x)


def _branch(builder: Builder, x: int, rng: Rng) -> int:
    """A dense layer on the last axis and an activation, which keep the shape."""
    features = builder.nodes[x].shape[-1]
    return _elementwise(builder, _dense(builder, x, rng, features), rng)


def _residual(builder: Builder, x: int, rng: Rng) -> int:
    signs = tuple(int(s) for s in rng.choice([1, -1], 2))
    return builder.add(Sum(signs), x, _branch(builder, x, rng))


def _concat(builder: Builder, x: int, rng: Rng) -> int:
    branch = _branch(builder, x, rng)
    return builder.add(Concat(int(rng.integers(0, len(builder.nodes[x].shape)))), branch, x)


def _extremum(builder: Builder, x: int, rng: Rng) -> int:
    return builder.add(Extremum(bool(rng.integers(0, 2))), x, _branch(builder, x, rng))


def _group_sort(builder: Builder, x: int, rng: Rng) -> int:
    """GroupSort of random groups: gather, sort, put back in place."""
    node = builder.nodes[x]
    width = int(rng.choice([k for k in (1, 2, 3, node.size) if node.size % k == 0]))
    order = rng.permutation(node.size)
    grouped = builder.add(Gather(order.reshape(-1, width)), x)
    return builder.add(Gather(np.argsort(order).reshape(node.shape)), builder.add(Sort(), grouped))


def _softmax(builder: Builder, x: int, rng: Rng) -> int:
    axis = int(rng.integers(0, len(builder.nodes[x].shape)))
    return builder.add(Softmax(axis, bool(rng.integers(0, 2))), x)


BLOCKS: dict[str, Block] = {
    "dense": _dense,
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "avg_pool": _avg_pool,
    "max_pool": _max_pool,
    "scale": _scale,
    "gather": _gather,
    "reshape": _reshape,
    "elementwise": _elementwise,
    "relu": _relu,
    "residual": _residual,
    "concat": _concat,
    "extremum": _extremum,
    "group_sort": _group_sort,
    "softmax": _softmax,
}
SPATIAL = frozenset({"conv", "conv_transpose", "avg_pool", "max_pool"})
GROWING = frozenset({"conv_transpose", "concat"})
CHAIN = ("dense", "relu", "elementwise", "scale")  # what methods for plain chains accept


def random_network(seed: int, depth: int = 4, blocks: Sequence[str] = tuple(BLOCKS)) -> Network:
    """Return a network of `depth` random blocks on a random small input shape.

    Args:
        seed: the same seed gives the same network.
        depth: number of blocks; where none of those asked for fits, a reshape takes its place.
        blocks: keys of `BLOCKS` to choose from.
    """
    rng = np.random.default_rng(seed)
    builder = Builder(INPUT_SHAPES[int(rng.integers(len(INPUT_SHAPES)))])
    x = 0
    for _ in range(depth):
        node = builder.nodes[x]
        fitting = [
            name
            for name in blocks
            if not (name in SPATIAL and len(node.shape) < 2) and not (name in GROWING and node.size > LARGEST // 4)
        ]
        x = BLOCKS[str(rng.choice(fitting or ["reshape"]))](builder, x, rng)
    return builder.build(dtype=str(rng.choice(["float32", "float64"])))


def networks(blocks: Sequence[str] = tuple(BLOCKS), max_depth: int = 5) -> st.SearchStrategy[Network]:
    """Random networks; an example shrinks to fewer blocks."""
    seeds, depths = st.integers(0, 2**32 - 1), st.integers(1, max_depth)
    return st.builds(lambda seed, depth: random_network(seed, depth, blocks), seeds, depths)
