"""One node of an ONNX graph with its inputs, and typed access to its attributes and inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx

from lipcert.errors import Unsupported
from lipcert.network.builder import Builder
from lipcert.network.enclosure import Enclosure, Float
from lipcert.network.readers.onnx_values import Array, Graph, Refusal, Tensor, Value, Whole


@dataclass
class Call:
    """One node with its inputs.

    Attributes:
        graph: the network being built.
        proto: the node as stored.
        name: name for people, and of the nodes that it becomes.
        inputs: the values of its inputs; None where an optional one is left out.
    """

    graph: Graph
    proto: Any
    name: str
    inputs: list[Value | None]

    @property
    def builder(self) -> Builder:
        """Where nodes are added."""
        return self.graph.builder

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """The attributes that are set. Floats are the float32 values that the file holds."""
        return {a.name: onnx.helper.get_attribute_value(a) for a in self.proto.attribute}

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute."""
        return int(self.attributes.get(name, default))

    def number(self, name: str, default: float) -> float:
        """Return a float attribute; a default is rounded to float32, the type of attributes."""
        return float(np.float32(self.attributes.get(name, default)))

    def text(self, name: str, default: str) -> str:
        """Return a string attribute."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else str(value)

    def has(self, position: int) -> bool:
        """Whether an input is given."""
        return position < len(self.inputs) and self.inputs[position] is not None

    def data(self, position: int = 0) -> Tensor:
        """Return an input that depends on the network's input."""
        value = self.inputs[position] if position < len(self.inputs) else None
        if not isinstance(value, Tensor):
            raise Refusal(f"needs input {position} to depend on the network's input")
        return value

    def sample(self, position: int = 0) -> int:
        """Return the node of an input that the operator takes sample by sample along axis 0."""
        value = self.data(position)
        if not value.batched:
            raise Refusal(f"treats the first axis of {self.graph.shape(value)} as a batch, which it is not")
        return value.node

    def numbers(self, position: int) -> Enclosure:
        """Return a constant float input."""
        value = self.inputs[position] if position < len(self.inputs) else None
        if isinstance(value, Tensor):
            raise Refusal(f"needs input {position} to be constant, but it depends on the network's input")
        if not isinstance(value, Enclosure):
            raise Refusal(f"needs input {position} to be constant numbers")
        return value

    def exact(self, position: int) -> Float:
        """Return a constant float input that is known exactly."""
        value = self.numbers(position)
        if not value.is_exact:
            raise Refusal(f"needs input {position} to be stored, not computed with rounding")
        return value.mid

    def whole(self, position: int) -> Whole:
        """Return a constant integer input."""
        value = self.inputs[position] if position < len(self.inputs) else None
        if not isinstance(value, Whole):
            raise Refusal(f"needs input {position} to be constant integers (no data-dependent shapes or indices)")
        return value

    def option(self, name: str, position: int) -> list[int] | None:
        """Return integers that are an attribute in old versions and an input in new ones, None where not given."""
        if name in self.attributes:
            return [int(i) for i in np.atleast_1d(self.attributes[name])]
        if not self.has(position):
            return None
        return [int(i) for i in np.atleast_1d(self.whole(position).pure())]

    def item(self, why: str) -> Unsupported:
        """Return what to report about this node."""
        return Unsupported(self.name, str(self.proto.op_type), why)


Handler = Callable[[Call], Value | list[Value]]


def constant_value(array: Array, where: str) -> Value:
    """Return a stored array as a value.

    Raises:
        Refusal: neither real numbers nor integers.
        ValueError: NaN among the numbers, or integers that int64 cannot hold.
    """
    if array.dtype.kind == "b":
        return Whole(array)
    if array.dtype.kind in "iu":
        if array.size and int(array.max()) >= 2**63:
            raise ValueError(f"'{where}' holds integers beyond int64")
        return Whole(array.astype(np.int64))
    if array.dtype.kind == "f" or array.dtype.name == "bfloat16":
        numbers = array.astype(np.float64)  # float16, bfloat16, float32, float64: exact
        if np.isnan(numbers).any():
            raise ValueError(f"'{where}' holds NaN; repair or re-export the checkpoint")
        return Enclosure.exact(numbers)
    raise Refusal(f"'{where}' holds {array.dtype}, which is neither float16/32/64, bfloat16 nor an integer type")
