"""What a network is: an immutable directed acyclic graph of operators."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np

from lipcert.errors import UsageError
from lipcert.network.enclosure import Enclosure
from lipcert.network.operators import Activation, Affine, Elementwise, Input, Operator

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Node:
    """One operator applied to the outputs of earlier nodes.

    Attributes:
        name: the node's name in the model's own words, for people.
        op: the operator.
        inputs: indices of earlier nodes.
        shape: per-sample shape of the output.
    """

    name: str
    op: Operator
    inputs: tuple[int, ...]
    shape: Shape

    @property
    def size(self) -> int:
        """Number of entries of the output."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Source:
    """Where a network came from.

    Attributes:
        path: file name as given, or a description such as ``"torch.nn.Module"``.
        form: ``"onnx"``, ``"pt2"``, ``"module"``, ``"factory"`` or ``"built"``.
        sha256: digest of the file's bytes (of its external data too), or None where there is no file.
        parameters: number of stored parameters, as a person would count them.
    """

    path: str = "built in Python"
    form: str = "built"
    sha256: str | None = None
    parameters: int | None = None


@dataclass(frozen=True, eq=False)
class Network:
    """A function from one input to one output: the graph that real arithmetic would compute.

    Node 0 is the `Input`, the last node is the output, inputs precede their users.

    Attributes:
        nodes: the nodes in topological order.
        dtype: arithmetic of the deployed forward pass: ``"float32"``, ``"float64"``, ``"float16"``, ``"bfloat16"``,
            or several joined by ``+`` where it casts between them (its rounding is modelled for the first two only).
        source: where it came from.
        notes: things a reader decided that a person should know (shown by ``lipcert inspect``).
    """

    nodes: tuple[Node, ...]
    dtype: str = "float32"
    source: Source = field(default_factory=Source)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.nodes or not isinstance(self.nodes[0].op, Input):
            raise ValueError("a network starts with its Input node")
        for position, node in enumerate(self.nodes):
            if any(not 0 <= i < position for i in node.inputs):
                raise ValueError(f"node '{node.name}' uses a node that does not precede it")
            # parameters of activations may be infinite (a clip without a limit), but never NaN
            broken = any(np.isnan(array).any() for array in _arrays(node.op) if array.dtype.kind == "f")
            if broken or not all(array.is_finite for array in _enclosures(node.op)):
                raise UsageError(
                    f"the model has NaN or infinite numbers at '{node.name}' ({node.op.kind}): "
                    "nothing can be certified; repair or re-export the checkpoint"
                )

    @property
    def input_shape(self) -> Shape:
        """Per-sample shape of the input."""
        return self.nodes[0].shape

    @property
    def output_shape(self) -> Shape:
        """Per-sample shape of the output."""
        return self.nodes[-1].shape

    @cached_property
    def consumers(self) -> tuple[tuple[int, ...], ...]:
        """For each node, the indices of the nodes that use it."""
        users: list[list[int]] = [[] for _ in self.nodes]
        for position, node in enumerate(self.nodes):
            for i in node.inputs:
                users[i].append(position)
        return tuple(tuple(u) for u in users)

    @property
    def hidden_neurons(self) -> int:
        """Number of scalar elementwise activations that are not exactly linear."""
        return sum(n.size for n in self.nodes if isinstance(n.op, Elementwise))

    @property
    def is_exact(self) -> bool:
        """Whether every number of the network is known exactly (no folded quotients or roots)."""
        return all(array.is_exact for node in self.nodes for array in _enclosures(node.op))

    def affine_nodes(self) -> Iterator[tuple[int, Node]]:
        """Yield the positions and nodes that are affine with one input."""
        return ((i, n) for i, n in enumerate(self.nodes) if isinstance(n.op, Affine))

    def activation_nodes(self) -> Iterator[tuple[int, Node]]:
        """Yield the positions and nodes that are not affine."""
        return ((i, n) for i, n in enumerate(self.nodes) if isinstance(n.op, Activation))

    @cached_property
    def graph_digest(self) -> str:
        """SHA-256 of the structure: operators, settings, shapes and wiring; names and numbers left out."""
        rows = [[n.op.kind, _settings(n.op), list(n.inputs), list(n.shape)] for n in self.nodes]
        text = json.dumps([self.dtype, rows], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def weights_digest(self) -> str:
        """SHA-256 of all numbers, centres and radii, as little-endian float64/int64 in node order."""
        digest = hashlib.sha256()
        for node in self.nodes:
            for array in _arrays(node.op):
                kind = "<f8" if array.dtype.kind == "f" else "<i8"
                digest.update(f"{array.shape}{kind};".encode())
                digest.update(np.ascontiguousarray(array, dtype=kind).tobytes())
        return digest.hexdigest()


def _field_values(op: Operator) -> Iterator[tuple[str, Any]]:
    return ((f.name, getattr(op, f.name)) for f in fields(op))


def _enclosures(op: Operator) -> Iterator[Enclosure]:
    return (value for _, value in _field_values(op) if isinstance(value, Enclosure))


def _arrays(op: Operator) -> Iterator[np.ndarray[Any, Any]]:
    for _, value in _field_values(op):
        if isinstance(value, Enclosure):
            yield value.mid
            if value.rad is not None:
                yield value.rad
        elif isinstance(value, np.ndarray):
            yield value
        elif isinstance(value, tuple):
            yield from (item for item in value if isinstance(item, np.ndarray))


def _settings(op: Operator) -> dict[str, Any]:
    """Return the fields of an operator that are plain settings, not arrays."""
    plain = {}
    for name, value in _field_values(op):
        simple = not isinstance(value, tuple) or not any(isinstance(item, np.ndarray) for item in value)
        if isinstance(value, (bool, int, str, tuple)) and simple:
            plain[name] = value
        elif isinstance(value, Enclosure):
            plain[name] = "exact" if value.is_exact else "enclosed"
    return plain
