"""Small classifiers for the tests of this room."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from lipcert.network import Builder, Enclosure, Network
from lipcert.network.operators import Dense, Elementwise, Reshape, Scale
from lipcert.testing.build import conv


def dense(weight, bias=None) -> Dense:
    weight = np.asarray(weight)
    return Dense(Enclosure.exact(weight), Enclosure.exact(np.zeros(len(weight)) if bias is None else np.asarray(bias)))


def chain(*layers, activation: str = "relu", tail=()) -> Network:
    """(weight, bias) layers with an activation between them, then further operators."""
    builder, x = Builder((layers[0][0].shape[1],)), 0
    for number, (weight, bias) in enumerate(layers):
        x = builder.add(dense(weight, bias), x)
        if number < len(layers) - 1:
            x = builder.add(Elementwise(activation), x)
    for op in tail:
        x = builder.add(op, x)
    return builder.build()


def random_chain(seed: int, sizes=(6, 12, 12, 4), activation: str = "relu") -> Network:
    """Float32 weights of usual size."""
    rng = np.random.default_rng(seed)
    layers = [
        ((rng.normal(size=(b, a)) / np.sqrt(a)).astype(np.float32), rng.normal(size=b).astype(np.float32) * 0.1)
        for a, b in pairwise(sizes)
    ]
    return chain(*((w.astype(np.float64), b.astype(np.float64)) for w, b in layers), activation=activation)


def image_chain(shape, weight, bias) -> Network:
    """A linear classifier on images."""
    builder = Builder(shape)
    flat = builder.add(Reshape(), 0, shape=(int(np.prod(shape)),))
    builder.add(dense(weight, bias), flat)
    return builder.build()


def scaled(network: Network, factor: float) -> Network:
    """The same network behind a scaling of its output."""
    builder = Builder(network.input_shape)
    builder.nodes = list(network.nodes)
    builder.add(Scale(Enclosure.exact(factor), Enclosure.exact(0.0)), len(network.nodes) - 1)
    return builder.build()


def labelled(network: Network, count: int, seed: int = 0, scale: float = 1.0):
    """Random inputs with the classes that the network gives them."""
    from lipcert.network.evaluate import evaluate

    rng = np.random.default_rng(seed)
    images = (rng.normal(size=(count, *network.input_shape)) * scale).astype(np.float32)
    return images, evaluate(network, images.astype(np.float64)).reshape(count, -1).argmax(axis=1)


def convolutions(depth: int) -> Network:
    """Return a network of small convolutions with ReLUs and a dense head, for pictures of 20 x 20."""
    shapes = [(4, 1, 3, 3)] + [(4, 4, 3, 3)] * (depth - 1)
    layers = [conv(seed, shape, padding=((1, 1), (1, 1))) for seed, shape in enumerate(shapes)]
    builder, last = Builder((1, 20, 20)), 0
    for layer in layers:
        last = builder.add(Elementwise("relu"), builder.add(layer, last))
    flat = builder.add(Reshape(), last, shape=(1600,))
    builder.add(dense(np.random.default_rng(depth).normal(size=(3, 1600))), flat)
    return builder.build()
