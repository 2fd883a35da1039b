"""The operators that a network is made of.

Shapes are per sample: there is no batch axis anywhere. A new layer is one class here plus one entry in each
table that must know it (`network.evaluate`, `proof.rules`, ...); whatever a table lacks is reported, never
skipped. Every operator is immutable and compares by identity.

Affine operators (one input, linear plus constant) carry their numbers as `Enclosure`s. Index maps (transpose,
slice, padding, channel shuffle, upsampling by repetition) are all one operator, `Gather`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lipcert.network.enclosure import Enclosure

Ints = npt.NDArray[np.int64]
Pads = tuple[tuple[int, int], ...]  # (before, after) per spatial axis


@dataclass(frozen=True, eq=False)
class Operator:
    """Base of all operators."""

    @property
    def kind(self) -> str:
        """Name shown to people."""
        return type(self).__name__


@dataclass(frozen=True, eq=False)
class Affine(Operator):
    """Base of the operators x -> A x + b with one input."""


@dataclass(frozen=True, eq=False)
class Activation(Operator):
    """Base of the operators that are not affine."""


@dataclass(frozen=True, eq=False)
class Input(Operator):
    """The input of the network; always node 0."""


@dataclass(frozen=True, eq=False)
class Dense(Affine):
    """y = W x + b on the last axis; further leading axes are treated independently.

    weight: (m, n); bias: broadcastable to the output shape (..., m).
    """

    weight: Enclosure
    bias: Enclosure


@dataclass(frozen=True, eq=False)
class Conv(Affine):
    """Cross-correlation over (C, *spatial) with zero or circular padding.

    weight: (out, in / groups, *kernel); bias: broadcastable to the output shape, usually (out, 1, ..., 1).
    stride, padding, dilation: one entry per spatial axis; `circular` wraps the padded positions around.
    Reflect and replicate padding are a `Gather` before a Conv without padding.
    """

    weight: Enclosure
    bias: Enclosure
    stride: tuple[int, ...]
    padding: Pads
    dilation: tuple[int, ...]
    groups: int = 1
    circular: bool = False


@dataclass(frozen=True, eq=False)
class ConvTranspose(Affine):
    """The adjoint of a zero-padded Conv, as deep-learning libraries define it.

    weight: (in, out / groups, *kernel). padding: (before, after) cropped from the full output;
    output_padding: rows added after the end.
    """

    weight: Enclosure
    bias: Enclosure
    stride: tuple[int, ...]
    padding: Pads
    output_padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1


@dataclass(frozen=True, eq=False)
class AvgPool(Affine):
    """Windowed sums over the spatial axes of (C, *spatial), each divided by an exact integer count.

    counts: float64 array of the output's spatial shape; it expresses every convention for padded windows.
    Global average pooling is a window that covers the whole input.
    """

    window: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pads
    counts: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scale(Affine):
    """y = factor * x + shift, entrywise; both broadcastable to the node's shape."""

    factor: Enclosure
    shift: Enclosure


@dataclass(frozen=True, eq=False)
class Gather(Affine):
    """y = x.ravel()[index], with index -1 standing for the constant 0.

    index: int64 array of the output shape. Covers transpose, slice, split, zero/reflect/replicate padding,
    channel shuffle and nearest upsampling.
    """

    index: Ints


@dataclass(frozen=True, eq=False)
class Reshape(Affine):
    """The same entries, in C order, in the node's shape."""


@dataclass(frozen=True, eq=False)
class Sum(Operator):
    """Signed sum of inputs of equal shape; signs: one of +1, -1 per input."""

    signs: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Concat(Operator):
    """Concatenation of the inputs along one axis (0 is the first per-sample axis)."""

    axis: int


@dataclass(frozen=True, eq=False)
class Elementwise(Activation):
    """An activation applied to each entry: a row of `network.activations.TABLE` with its parameters.

    name: key of the table. params: float64 arrays broadcastable to the node's shape (0-d where shared).
    """

    name: str
    params: tuple[npt.NDArray[np.float64], ...] = ()

    @property
    def kind(self) -> str:
        """Name of the activation."""
        return self.name


@dataclass(frozen=True, eq=False)
class Sort(Activation):
    """Sorts the last axis, ascending: GroupSort and MaxMin, with `Gather`s that bring groups there and back."""


@dataclass(frozen=True, eq=False)
class Extremum(Activation):
    """Entrywise maximum (or minimum) of two or more inputs of equal shape."""

    maximum: bool


@dataclass(frozen=True, eq=False)
class MaxPool(Activation):
    """Maximum over windows of the spatial axes of (C, *spatial); padded positions never win."""

    window: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pads
    dilation: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Softmax(Activation):
    """Softmax along one axis, or its logarithm."""

    axis: int
    log: bool = False
