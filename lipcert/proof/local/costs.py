"""What it costs to send linear functions through a network, in multiplications, counted from shapes alone.

One place of an image node reaches a window of every node after it (see `windows`). A coefficient costs the terms of its
sum at affine nodes, and about as much as `_EACH` multiplications at every node for what only touches memory. Decides
what is done first, never what is true.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from lipcert.network.enclosure import Float
from lipcert.network.graph import Network, Shape
from lipcert.network.linear import row_terms
from lipcert.network.operators import Activation, AvgPool, Conv, Elementwise, Scale, Sum
from lipcert.proof.local.images import image_shape

MOST = 2**24  # coefficients that one may have at a node
_EACH = 32.0
_MUCH, _LEAST = 5.0, 1e8  # times cheaper; and what sending back has to cost at least
_ROOM = 2.0**25  # coefficients of all samples: 256 MB in float64
_SYMBOLS = 4.0  # for each input, those of neurons among them, where it is not much more than that


class Costs:
    """Of one network.

    Args of the constructor:
        network: a normal form.
    """

    def __init__(self, network: Network) -> None:
        self._network, self._images = network, [image_shape(node.shape) for node in network.nodes]
        self._seen: dict[int, tuple[Float, Float]] = {}

    def numbers(self, source: int) -> Float:
        """Return, for every node, how many of its coefficients a symbol of a node has."""
        return self._of_symbol(source)[0]

    def forwards(self, source: int) -> Float:
        """Return, for every node, what it costs to send a symbol of a node there."""
        return self._of_symbol(source)[1]

    def growth(self, index: int) -> float:
        """Return by how many places of a node the window of one of its entries grows on the way back, half-way."""
        return float((self.numbers(0)[index] / self._images[index][2]) ** 0.5 - 1.0) / 2.0

    @cached_property
    def backwards(self) -> Float:
        """For every node, what it costs to send one of its entries and the negative of it back to the input."""
        nodes, found = self._network.nodes, np.zeros(len(self._network.nodes))
        for source, node in enumerate(nodes):
            pairs = node.size * self.numbers(source) / np.array([other.size for other in nodes])
            found += 2.0 * pairs * (row_terms(node.op) + _EACH)
        return found

    @cached_property
    def narrowing(self) -> float:
        """What it costs to narrow the boxes of all neurons that activations read, by functions sent back.

        Those before every activation have exact boxes, and outputs of elementwise ones are as narrow as their inputs.
        """
        nodes, behind = self._network.nodes, set[int]()
        for index, node in enumerate(nodes):
            if isinstance(node.op, Activation) or any(i in behind for i in node.inputs):
                behind.add(index)
        read = [i for i in self._read & behind if not isinstance(nodes[i].op, Elementwise)]
        return float(sum(nodes[i].size * self.backwards[i] for i in read))

    @cached_property
    def look(self) -> float:
        """What it costs at least to narrow them by a zonotope: where no neuron is unstable."""
        return float(self._network.nodes[0].size * self.forwards(0)[max(self._read, default=0)])

    @cached_property
    def looks(self) -> bool:
        """Whether zonotopes are so much cheaper than functions sent back that it is worth to look at them first."""
        return self.narrowing >= max(_LEAST, _MUCH * self.look)

    @cached_property
    def at_once(self) -> int:
        """Of how many samples zonotopes fit the memory at a time."""
        numbers = _SYMBOLS * self._network.nodes[0].size * float(self.numbers(0).max())
        return max(1, int(_ROOM / min(float(MOST), numbers)))

    @property
    def _read(self) -> set[int]:
        return {i for _, node in self._network.activation_nodes() for i in node.inputs}

    def _of_symbol(self, source: int) -> tuple[Float, Float]:
        if source not in self._seen:
            nodes, sizes = self._network.nodes, {source: (1, 1)}
            numbers = np.zeros(len(nodes))
            numbers[source] = self._images[source][2]
            for index in range(source + 1, len(nodes)):
                reached = [sizes[i] for i in nodes[index].inputs if i in sizes]
                if reached:
                    sizes[index] = self._window(index, (max(h for h, _ in reached), max(w for _, w in reached)))
                    numbers[index] = sizes[index][0] * sizes[index][1] * self._images[index][2]
            terms = np.array([row_terms(node.op) + _EACH for node in nodes])
            self._seen[source] = numbers, np.cumsum(numbers * terms)
        return self._seen[source]

    def _window(self, index: int, before: Shape) -> tuple[int, int]:
        """Return the window of a node that answers to one of its inputs."""
        op, (height, width, _) = self._network.nodes[index].op, self._images[index]
        match op:
            case Elementwise() | Sum() | Scale():
                return min(height, before[0]), min(width, before[1])
            case Conv() if len(op.stride) == 2:
                reach = tuple(1 + (k - 1) * d for k, d in zip(op.weight.shape[2:], op.dilation, strict=True))
            case AvgPool() if len(op.stride) == 2:
                reach = op.window
            case _:
                return height, width
        h, w = ((n + k - 2) // s + 1 for n, k, s in zip(before, reach, op.stride, strict=True))
        return min(height, h), min(width, w)
