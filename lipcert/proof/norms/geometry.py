"""Which output of a convolution reads which input, axis by axis.

`Conv` and `ConvTranspose` become one thing, a `Kernel`: matrices of channels per group and tap, and one
`Axis` per spatial axis. (The transposed operator has the same l2 norm.) On an axis, output o reads input
i = stride o + dilation k - before for tap k, where 0 <= i < inputs, or modulo `inputs` on a circular axis.

Dilation. With g = gcd(stride, dilation) and period = dilation / g, outputs o and o' share an input only if
o = o' modulo the period: stride (o - o') = dilation (k' - k). With o = period m + r the inputs read are
dilation (stride/g m + k) + (stride r - before), so each residue r is a convolution of its own, without
dilation, of stride stride/g, on its own inputs. The operator is their direct sum, its norm their maximum
(Yu & Koltun 2016 describe the same decomposition for speed).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from lipcert.network.enclosure import Float
from lipcert.network.operators import Conv, ConvTranspose

Shape = tuple[int, ...]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a convolution; see the module's text."""

    outputs: int
    inputs: int
    taps: int
    stride: int
    dilation: int
    before: int
    circular: bool = False

    def pairs(self, tap: int) -> tuple[Indices, Indices]:
        """Return the outputs that read an input by this tap, ascending, and those inputs."""
        outputs = np.arange(self.outputs)
        inputs = self.stride * outputs + self.dilation * tap - self.before
        if self.circular:
            return outputs, inputs % self.inputs
        inside = (inputs >= 0) & (inputs < self.inputs)
        return outputs[inside], inputs[inside]

    @property
    def is_simple(self) -> bool:
        """Whether each pair of output and input meets in at most one tap, so that entries are single weights."""
        return not self.circular or self.dilation * (self.taps - 1) < self.inputs

    @property
    def band(self) -> int:
        """Largest distance of two outputs that share an input, at dilation 1."""
        return (self.taps - 1) // self.stride

    def residues(self) -> tuple[Axis, ...]:
        """Return the distinct convolutions without dilation that this axis is the direct sum of."""
        if self.circular:
            return (self,)
        shared = math.gcd(self.stride, self.dilation)
        period, stride = self.dilation // shared, self.stride // shared
        found: dict[Axis, None] = {}
        for r in range(min(period, self.outputs)):
            offset = self.stride * r - self.before  # inputs are dilation * j + offset with low <= j <= high
            low, high = -(offset // self.dilation), (self.inputs - 1 - offset) // self.dilation
            outputs = (self.outputs - r + period - 1) // period
            if high >= low:
                found[Axis(outputs, high - low + 1, self.taps, stride, 1, low)] = None
        return tuple(found)


@dataclass(frozen=True, eq=False)
class Kernel:
    """A convolution for the purpose of its l2 norm.

    Attributes:
        weight: (groups, outputs / groups, inputs / groups, *taps) float64 centres.
        axes: one per spatial axis.
    """

    weight: Float
    axes: tuple[Axis, ...]

    @property
    def groups(self) -> int:
        """Number of groups: the operator is their direct sum, so its norm is their maximum."""
        return int(self.weight.shape[0])

    @property
    def channels(self) -> tuple[int, int]:
        """Output and input channels per group."""
        return int(self.weight.shape[1]), int(self.weight.shape[2])

    def parts(self) -> list[tuple[Axis, ...]]:
        """Return the axes of the distinct convolutions without dilation that this one is the direct sum of."""
        return list(product(*(axis.residues() for axis in self.axes)))


def kernel_of(op: Conv | ConvTranspose, weight: Float, in_shape: Shape, out_shape: Shape) -> Kernel | None:
    """Return the kernel with the given numbers, or None where cropping comes before wrapping around."""
    outputs, inputs, circular = out_shape, in_shape, False
    if isinstance(op, ConvTranspose):
        outputs, inputs = in_shape, out_shape
    else:
        circular = op.circular
    axes = []
    for o, i, k, s, d, (before, after) in zip(
        outputs[1:], inputs[1:], op.weight.shape[2:], op.stride, op.dilation, op.padding, strict=True
    ):
        if circular and min(before, after) < 0:
            return None
        axes.append(Axis(o, i, k, s, d, before, circular and (before, after) != (0, 0)))
    rows, columns, *taps = weight.shape
    return Kernel(weight.reshape(op.groups, rows // op.groups, columns, *taps), tuple(axes))
