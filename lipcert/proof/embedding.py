r"""Chains of stride-1 convolutions, embedded in a torus on which every one of them is a circular convolution.

Embedding. On an axis let the map in front of a convolution have n entries, the map behind it m, and let output o
read the inputs o + dilation t - before for the taps t. Both maps are functions on Z_N, zero outside [0, n) and [0, m).
For o in [0, m) the reads lie in [-before, n - 1 + after], since m = n + before + after - dilation (taps - 1). Hence

* zero padding: if N >= n + max(before, after, 0), a read outside [0, n) stays outside of it modulo N, where the input
  is zero: on [0, m) the circular convolution is the padded one;
* circular padding: reads count modulo n, so N = n is needed.

With N >= m as well, the layer is the circular convolution on Z_N, its activation, and a mask that keeps [0, m). For two
inputs an entry that is kept has dv = s dz with s in [alpha, beta], one that is masked has dv = 0 dz. So where m < N on
some axis, the masked activation has its slopes in the hull of [alpha, beta] and 0, and the masks are gone. A
convolution that is followed by no activation, but by another convolution or the pooling, is masked alike: slopes
between 0 and 1. Slopes that differ within a channel are replaced by their hull.

The smallest N of this kind is taken: 29 for maps of 28 entries and kernels of 3 with padding 1.

Ends. Behind the last activation v stands nothing, a convolution (whose values on the torus are those wanted and
others, so its norm can only grow), or a sum over the whole map divided by a count. As v is zero outside the map this
sum is one over the torus: sqrt(prod N) times the coefficient of frequency 0 in an orthonormal Fourier basis. What
follows the pooling is any network, the *tail*, that reads nothing else.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from lipcert.network.activations import slope_interval
from lipcert.network.enclosure import Enclosure, Float
from lipcert.network.graph import Network, Node, Shape
from lipcert.network.operators import AvgPool, Conv, Elementwise, Input, Reshape
from lipcert.proof.lifted import Lifted, lift
from lipcert.proof.refusal import Refused
from lipcert.proof.torus import Layer, Stencil, Torus

MOST_ENTRIES = 2**32  # of all symbols together: some minutes of work


def embed(network: Network) -> Torus:
    """Return a normal form on a torus.

    Raises:
        Refused: it is not a chain of stride-1 convolutions and elementwise activations with an end of the kinds above,
            or too large.
    """
    layers: list[tuple[Layer, Shape]] = []
    convolutions: list[tuple[Conv, Shape, Shape]] = []
    stencil: Stencil | None = None
    for index, node in enumerate(network.nodes[1:], start=1):
        if node.inputs != (index - 1,) or len(network.consumers[index - 1]) != 1:
            raise Refused(f"'{node.name}' joins or leaves branches: the network is not a chain of convolutions")
        before = network.nodes[index - 1].shape
        pooled = isinstance(node.op, AvgPool) and _is_global(node.op, before)
        if stencil is not None and (isinstance(node.op, Conv) or pooled):
            layers.append((_linear(stencil, index - 1), before))
            stencil = None
        if isinstance(node.op, Conv):
            stencil = _stencil(node, before)
            convolutions.append((node.op, before, node.shape))
        elif isinstance(node.op, Elementwise) and len(before) > 1:
            layers.append((_activated(stencil or _identity(before), node, index), node.shape))
            stencil = None
        elif pooled:
            return _torus(layers, convolutions, None, _tail(network, index), node.op)
        elif isinstance(node.op, Reshape) and all(isinstance(n.op, Reshape) for n in network.nodes[index:]):
            break
        else:
            raise Refused(f"{node.op.kind} at '{node.name}' is no stride-1 convolution, activation or global average")
    return _torus(layers, convolutions, stencil, None, None)


def _torus(
    layers: list[tuple[Layer, Shape]],
    convolutions: list[tuple[Conv, Shape, Shape]],
    closing: Stencil | None,
    tail: Lifted | None,
    pool: object,
) -> Torus:
    if not layers or not convolutions:
        raise Refused("the network has no convolution with an activation")
    grid = tuple(_points(convolutions, axis) for axis in range(len(convolutions[0][1]) - 1))
    entries = math.prod(grid) * sum(4 * math.prod(layer.stencil.channels) for layer, _ in layers)
    if entries > MOST_ENTRIES:
        raise Refused(f"the symbols on a grid of {' x '.join(map(str, grid))} points are too many")
    masked = tuple(_masked(layer) if shape[1:] != grid else layer for layer, shape in layers)
    pooling = Enclosure.exact(1.0)
    if isinstance(pool, AvgPool):
        count = Enclosure.exact(pool.counts.ravel()[0])
        pooling = Enclosure.exact(float(math.prod(grid))).sqrt() / count
    return Torus(grid, masked, closing, tail, pooling)


def _points(convolutions: list[tuple[Conv, Shape, Shape]], axis: int) -> int:
    """Return the smallest N that the embedding allows on an axis."""
    least, wrapped = 1, set()
    for op, before, after in convolutions:
        pads = op.padding[axis]
        n = before[1 + axis]
        if op.circular and pads != (0, 0):
            wrapped.add(n)
            least = max(least, n, after[1 + axis])
        else:
            least = max(least, n + max(*pads, 0), after[1 + axis])
    if len(wrapped) > 1 or (wrapped and least > max(wrapped)):
        raise Refused("circular paddings and the sizes of the maps fit no common torus")
    return least


def _stencil(node: Node, before: Shape) -> Stencil:
    op = node.op
    assert isinstance(op, Conv)
    if any(s != 1 for s in op.stride):
        raise Refused(f"the convolution '{node.name}' has a stride")
    if op.circular and any(min(pads) < 0 for pads in op.padding):
        raise Refused(f"the convolution '{node.name}' crops before it wraps around")
    out, inner, *kernel = op.weight.shape
    rows, taps = out // op.groups, math.prod(kernel)

    def whole(numbers: Float) -> Float:
        full = np.zeros((op.groups, rows, op.groups, inner, taps))
        group = np.arange(op.groups)
        full[group, :, group] = numbers.reshape(op.groups, rows, inner, taps)
        return full.reshape(out, before[0], taps)

    shifts = tuple(
        tuple(d * t - start for t in range(k)) for k, d, (start, _) in zip(kernel, op.dilation, op.padding, strict=True)
    )
    return Stencil(op.weight.map(whole), shifts)


def _identity(shape: Shape) -> Stencil:
    return Stencil(Enclosure.exact(np.eye(shape[0])[:, :, None]), ((0,),) * (len(shape) - 1))


def _activated(stencil: Stencil, node: Node, index: int) -> Layer:
    assert isinstance(node.op, Elementwise)
    alpha, beta = (
        np.broadcast_to(side, node.shape).reshape(node.shape[0], -1) for side in slope_interval(node.op, node.name)
    )
    return Layer(index, stencil, alpha.min(axis=1), beta.max(axis=1))


def _linear(stencil: Stencil, index: int) -> Layer:
    ones = np.ones(stencil.channels[0])
    return Layer(index, stencil, ones, ones)


def _masked(layer: Layer) -> Layer:
    return replace(layer, alpha=np.minimum(layer.alpha, 0.0), beta=np.maximum(layer.beta, 0.0))


def _is_global(op: AvgPool, before: Shape) -> bool:
    """Whether there is a single window, and every entry of the map lies in it."""
    sides = zip(before[1:], op.window, op.padding, strict=True)
    return op.counts.size == 1 and all(start >= 0 and k - start >= n for n, k, (start, _) in sides)


def _tail(network: Network, pool: int) -> Lifted:
    """Return the lifted form of what follows the pooling at node `pool`."""
    nodes = [Node("pooled", Input(), (), network.nodes[pool].shape)]
    for node in network.nodes[pool + 1 :]:
        if min(node.inputs) < pool:
            raise Refused(f"'{node.name}' reads what is before the pooling")
        nodes.append(replace(node, inputs=tuple(i - pool for i in node.inputs)))
    return lift(replace(network, nodes=tuple(nodes)))
