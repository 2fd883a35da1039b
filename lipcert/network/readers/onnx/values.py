"""What flows along the edges of an ONNX graph while it is read.

Every value is one of three: a `Tensor` that depends on the input (a node of the network being built), an
`Enclosure` of constant real numbers, or a `Whole`: constant integers (shapes, axes), exact for every batch size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lipcert.errors import Unsupported
from lipcert.network.enclosure import Enclosure
from lipcert.network.operators import Operator

Array = npt.NDArray[Any]


class Refusal(Exception):
    """A node that lipcert has no sound rule for; the text says why and what to do."""


@dataclass(frozen=True, eq=False)
class Refused(Operator):
    """Stands in the place of an unsupported node until it is known whether the output needs it.

    What turns out to be part of a known activation is replaced with it; whatever is left is reported.

    Attributes:
        item: what to report.
        role: what the node computes, where a pattern may ask for it: "product" of its two inputs, "power" of its
            only input with exponent `number`, or "above", whether its only input is larger than `number`.
        number: see there.
    """

    item: Unsupported
    role: Literal["", "product", "power", "above"] = ""
    number: float = 0.0


@dataclass(frozen=True, eq=False)
class Tensor:
    """A value that depends on the input.

    Attributes:
        node: its index in the builder.
        batched: whether the graph's shape has a batch axis before the node's shape.
    """

    node: int
    batched: bool


@dataclass(frozen=True, eq=False)
class Whole:
    """Constant integers or booleans: ``constant + slope * N`` for the batch size N.

    Attributes:
        constant: int64 or bool array.
        slope: int64 array of the same shape, or None where nothing depends on the batch size.
    """

    constant: Array
    slope: Array | None = None

    def __post_init__(self) -> None:
        if self.slope is not None and not self.slope.any():
            object.__setattr__(self, "slope", None)

    def at(self, size: int) -> Array:
        """Return the numbers for one batch size."""
        return self.constant if self.slope is None else np.asarray(self.constant + self.slope * size)

    def pure(self) -> Array:
        """Return the numbers, which must not depend on the batch size."""
        if self.slope is not None:
            raise Refusal("uses the batch size as a number; export the model with its batch size fixed to 1")
        return self.constant

    def map(self, move: Callable[[Array], Any]) -> Whole:
        """Apply a function that only moves entries."""
        slope = None if self.slope is None else np.asarray(move(self.slope))
        return Whole(np.asarray(move(self.constant)), slope)


@dataclass(frozen=True, eq=False)
class Unknown:
    """The output of an unsupported node, of unknown shape; what uses it cannot be looked at."""


Value = Tensor | Enclosure | Whole | Unknown
