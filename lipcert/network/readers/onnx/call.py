"""One node of an ONNX graph with its inputs, and typed access to its attributes and inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.lib.array_utils import normalize_axis_index

from lipcert.errors import Unsupported
from lipcert.network.builder import Builder
from lipcert.network.enclosure import Enclosure, Float
from lipcert.network.readers.onnx.graph import Graph
from lipcert.network.readers.onnx.values import Array, Refusal, Tensor, Value, Whole

# what cannot change the function: hints for training, gradients, memory, and rules for cases that cannot occur here
HARMLESS = {
    *("antialias", "consumed_inputs", "cubic_coeff_a", "exclude_outside", "extrapolation_value", "is_test"),
    *("kernel_shape", "momentum", "ratio", "round_mode", "saturate", "seed", "stash_type", "storage_order"),
}


@dataclass
class Call:
    """One node with its inputs.

    Attributes:
        graph: the network being built.
        proto: the node as stored.
        name: name for people, and of the nodes that it becomes.
        inputs: the values of its inputs; None where an optional one is left out.
        read: names of the attributes that were asked for.
    """

    graph: Graph
    proto: Any
    name: str
    inputs: list[Value | None]
    read: set[str] = field(default_factory=set)

    @property
    def builder(self) -> Builder:
        """Where nodes are added."""
        return self.graph.builder

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """The attributes that are set. Floats are the float32 values that the file holds."""
        return {a.name: onnx.helper.get_attribute_value(a) for a in self.proto.attribute}

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute as it is stored."""
        self.read.add(name)
        return self.attributes.get(name, default)

    def check_attributes(self) -> None:
        """Refuse attributes that nobody asked for: they may change what the operator means."""
        left = self.attributes.keys() - self.read - HARMLESS
        if left:
            raise Refusal(f"has attributes {sorted(left)} that are not known for this operator")

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute."""
        return int(self.get(name, default))

    def number(self, name: str, default: float) -> float:
        """Return a float attribute; a default is rounded to float32, the type of attributes."""
        return float(np.float32(self.get(name, default)))

    def flag(self, name: str, default: int = 0) -> bool:
        """Return an attribute that is 0 or 1."""
        value = self.get(name, default)
        if value not in (0, 1):
            raise Refusal(f"has {name}={value}, where 0 or 1 is meant")
        return bool(value)

    def axis(self, default: int, rank: int) -> int:
        """Return the attribute `axis`, counted from the front; ValueError where it is no axis of data of that rank."""
        return normalize_axis_index(self.integer("axis", default), rank)

    def choice(self, name: str, default: str, *others: str) -> str:
        """Return a string attribute that is one of the values named here."""
        value = self.get(name, default)
        text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        supported = dict.fromkeys((default, *others))
        if text not in supported:
            raise Refusal(f"has {name} '{text}'; supported: {', '.join(supported)}")
        return text

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
        stored = self.get(name)
        if stored is not None:
            return [int(i) for i in np.atleast_1d(stored)]
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
        with np.errstate(invalid="ignore"):  # signalling NaN
            numbers = array.astype(np.float64)  # float16, bfloat16, float32, float64: exact
        if np.isnan(numbers).any():
            raise ValueError(f"'{where}' holds NaN; repair or re-export the checkpoint")
        return Enclosure.exact(numbers)
    raise Refusal(f"'{where}' holds {array.dtype}, which is neither float16/32/64, bfloat16 nor an integer type")
