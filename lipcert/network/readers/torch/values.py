"""What flows through an exported torch graph while it is read, and one call of an operator in it.

A value is `Traced` (depends on the input; a node of the network being built), `Known` (constant real numbers), a
`Size` (an integer computed from the batch size), `Missing` (an output that lipcert has no rule for) or plain
Python data.

Numbers. Parameters are the exact numbers of their dtype. What the graph computes from them (``W / sigma``) is the
real number that the expression denotes, enclosed. A Python number that meets a float32 tensor is converted to
float32 by torch's kernels, so it is the float32 number here too; casts round in the same way.

The batch axis is axis 0 of every `Traced` value, and shapes here are without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lipcert.network.builder import Builder
from lipcert.network.enclosure import Enclosure
from lipcert.network.graph import Shape
from lipcert.network.operators import Operator

MIXES = (
    "mixes the samples of a batch or moves the batch axis (axis 0), so that no function of one sample is "
    "computed; keep axis 0 as it is"
)
COMPUTED = "is computed from the input where a constant is needed: its slope has no global bound"


class Refused(Exception):
    """A call that lipcert has no sound rule for; the text says why and what to do."""


@dataclass(frozen=True, eq=False)
class Traced:
    """A value that depends on the input: the index of its node in the builder."""

    node: int


@dataclass(frozen=True, eq=False)
class Known:
    """Constant numbers, and the dtype that torch holds them in."""

    value: Enclosure
    dtype: torch.dtype


@dataclass(frozen=True)
class Size:
    """An integer computed from the batch size: its value at each batch size where index maps are tried."""

    at: tuple[int, ...]


@dataclass(frozen=True)
class Missing:
    """An output that cannot be used; `why` is None where an earlier part of the model is the reason."""

    why: str | None = None


Value = Any  # Traced | Known | Size | Missing | number | str | None | torch.dtype | list of these


def flatten(value: Value) -> Iterator[Value]:
    """Yield a value, or what its lists hold."""
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from flatten(item)
    else:
        yield value


def enclose(tensor: torch.Tensor) -> Enclosure:
    """Return the exact numbers of a tensor.

    Raises:
        Refused: float64 does not hold them (complex, quantised, sparse, integers beyond 2^53).
    """
    if tensor.is_meta:
        raise Refused("holds no numbers (device 'meta'); load the weights first")
    if tensor.is_complex() or tensor.is_quantized or tensor.layout != torch.strided:
        raise Refused(f"holds numbers of type {tensor.dtype} ({tensor.layout}); only dense real numbers are read")
    plain = tensor.detach().cpu()
    wide = plain.double() if plain.is_floating_point() else plain
    try:
        return Enclosure.exact(wide.numpy())
    except ValueError as error:
        raise Refused(str(error)) from None


def rounded(value: Enclosure, dtype: torch.dtype) -> Enclosure:
    """Return what rounding to `dtype` makes of numbers; rounding is monotone, so the ends enclose it."""
    if dtype == torch.float64 or not dtype.is_floating_point:
        return value
    mid = _cast(value.mid, dtype)
    if value.rad is None:
        return Enclosure(mid)
    low = _cast(np.nextafter(value.mid - value.rad, -np.inf), dtype)
    high = _cast(np.nextafter(value.mid + value.rad, np.inf), dtype)
    return Enclosure(mid, np.nextafter(np.maximum(mid - low, high - mid), np.inf))


def _cast(array: Any, dtype: torch.dtype) -> Any:
    return torch.from_numpy(np.array(array)).to(dtype).double().numpy()


@dataclass(frozen=True, eq=False)
class Step:
    """One call of an operator: its arguments by the names of the operator's schema.

    Attributes:
        builder: where nodes go.
        target: the operator.
        name: name of the node, for people.
        arguments: values by name, defaults filled in.
        shape: shape of the output; without the batch axis where it depends on the input.
        dtype: dtype of the output.
        sizes: batch sizes at which index maps are tried.
        notes: collects what a person should know.
    """

    builder: Builder
    target: torch._ops.OpOverload
    name: str
    arguments: Mapping[str, Value]
    shape: Shape
    dtype: torch.dtype
    sizes: tuple[int, ...]
    notes: list[str]

    @property
    def op(self) -> str:
        """Name of the operator without overload, ``"conv2d"``."""
        return str(self.target._schema.name).rpartition("::")[2]

    @property
    def x(self) -> int:
        """The first argument, which must depend on the input: its node."""
        return self.node(next(iter(self.arguments)))

    def get(self, name: str, default: Value = None) -> Value:
        """Return an argument, or `default` where the operator has none of this name."""
        return self.arguments.get(name, default)

    def node(self, name: str) -> int:
        """Return the node of an argument that depends on the input."""
        value = self.arguments[name]
        if not isinstance(value, Traced):
            raise Refused(f"its argument '{name}' is constant, where one that depends on the input is supported")
        return value.node

    def rank(self, node: int) -> int:
        """Return the number of axes of a node, without the batch axis."""
        return len(self.builder.nodes[node].shape)

    def constant(self, name: str) -> Enclosure:
        """Return a constant argument; numbers of a wider type are rounded to the output's, as torch does."""
        value = self.arguments[name]
        if isinstance(value, Known):
            return rounded(value.value, self.dtype) if _is_wider(value, self.dtype) else value.value
        if isinstance(value, Traced):
            raise Refused(f"its argument '{name}' {COMPUTED}")
        return rounded(Enclosure.exact(self.number(name)), self.dtype)

    def maybe(self, name: str) -> Enclosure | None:
        """Return a constant argument, or None where it is left out."""
        return None if self.get(name) is None else self.constant(name)

    def number(self, name: str) -> float:
        """Return an argument that is a plain number, as it is written."""
        value = self.arguments[name]
        if isinstance(value, Size):
            raise Refused("uses the batch size as a number; export the model with its batch size fixed to 1")
        if not isinstance(value, (bool, int, float)):
            raise Refused(f"its argument '{name}' is not a plain number")
        return float(value)

    def fitted(self, name: str) -> Enclosure:
        """Return a constant argument without its batch axis, which must be of size 1 where the constant has it."""
        value, rank = self.constant(name), len(self.shape) + 1
        if value.mid.ndim > rank or (value.mid.ndim == rank and value.shape[0] != 1):
            raise Refused(MIXES)
        return value.reshape(*value.shape[1:]) if value.mid.ndim == rank else value

    def parameter(self, name: str) -> np.ndarray[Any, Any]:
        """Return a constant argument as a parameter of an activation, broadcastable to the output."""
        return self.exact(self.fitted(name))

    def exact(self, value: Enclosure) -> np.ndarray[Any, Any]:
        """Return the numbers of a constant that must be known exactly."""
        if not value.is_exact:
            raise Refused("has a parameter that the graph computes and float64 cannot hold; store it in the checkpoint")
        return np.array(value.mid)

    def scalar(self, name: str) -> np.ndarray[Any, Any]:
        """Return a number as a parameter of an activation: 0-d float64, rounded to the output's dtype."""
        return np.array(rounded(Enclosure.exact(self.number(name)), self.dtype).mid)

    def integers(self, name: str, count: int, default: int = 0) -> tuple[int, ...]:
        """Return `count` integers from an argument that may be one number, a list, or left out (`default`)."""
        value = self.get(name)
        if value is None or value == []:
            value = default
        listed = list(value) if isinstance(value, (list, tuple)) else [value]
        if any(isinstance(v, bool) or not isinstance(v, int) for v in listed) or len(listed) not in (
            1,
            count,
        ):
            raise Refused(f"its argument '{name}' is not {count} plain integers")
        return tuple(listed * count if len(listed) == 1 else listed)

    def axes(self, value: Value, node: int) -> list[int]:
        """Return axes, given as torch counts them, without the batch axis.

        Raises:
            Refused: the batch axis is among them, or it is said that all axes are meant.
        """
        rank = self.rank(node) + 1
        listed = list(flatten(value)) if value is not None else []
        found = sorted({int(axis) % rank for axis in listed})
        if not found or found[0] == 0:
            raise Refused(MIXES)
        return [axis - 1 for axis in found]

    def axis(self, value: Value, node: int) -> int:
        """Return one axis as `axes` does."""
        return self.axes([value], node)[0]

    def add(self, op: Operator, *nodes: int) -> int:
        """Append a node of this step's name; its input is the first argument unless nodes are given."""
        return self.builder.add(op, *(nodes or (self.x,)), name=self.name)


def _is_wider(known: Known, dtype: torch.dtype) -> bool:
    """Whether torch rounds a constant before use: a 0-d tensor does not widen the other operand."""
    both = known.dtype.is_floating_point and dtype.is_floating_point
    return both and known.value.mid.ndim == 0 and known.dtype.itemsize > dtype.itemsize
