"""One pass over an ONNX graph: nodes are read in stored order, and what is unsupported is collected."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from lipcert.errors import Unsupported, UnsupportedError, UsageError
from lipcert.network.builder import Builder, prune
from lipcert.network.graph import Node
from lipcert.network.readers.common import reshape
from lipcert.network.readers.onnx.call import Call, constant_value
from lipcert.network.readers.onnx.constants import FOLDS
from lipcert.network.readers.onnx.graph import Graph
from lipcert.network.readers.onnx.input import Dims, input_layout, stored_dims
from lipcert.network.readers.onnx.operators import OPERATORS, reason
from lipcert.network.readers.onnx.store import FLOATS, stored_array
from lipcert.network.readers.onnx.values import Refusal, Refused, Tensor, Unknown, Value

OLDEST, NEWEST = 6, 28  # versions of the operator set whose definitions were read for this reader
# how attributes or inputs that do not fit an operator show
MALFORMED = (ValueError, LookupError, TypeError, ArithmeticError, MemoryError, UsageError)


def needed_nodes(graph: Any) -> list[Any]:
    """Return the nodes on which an output depends, in stored order."""
    wanted = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(used_names(node))
    return kept[::-1]


def used_names(node: Any) -> set[str]:
    """Return the names that a node uses, those inside its branches or loop body too."""
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            names.update(*(used_names(inner) for inner in body.node), (output.name for output in body.output))
    return names


class Reading:
    """One pass over a graph.

    Attributes:
        model: the `ModelProto`.
        nodes: those of its nodes on which an output depends.
        names: their names, made up from operator and position where the file gives none.
        used: the names that they use, and those of the outputs.
        values: what is known about each name so far.
        items: unsupported parts whose output has no known shape.
        ends: nodes of the network that an unsupported part or the output uses.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.nodes = needed_nodes(model.graph)
        self.names = [node.name or f"{node.op_type}_{position}" for position, node in enumerate(self.nodes)]
        self.used = {name for node in self.nodes for name in used_names(node)}
        self.used |= {output.name for output in model.graph.output}
        self.values: dict[str, Value | None] = {"": None}
        self.items: list[Unsupported] = []
        self.ends: set[int] = set()
        self.shapes: dict[str, Dims | None] | None = None
        self.graph: Graph

    # --- the pass ---

    def run(self, input_shape: tuple[int, ...] | None) -> str:
        """Read all nodes; return the float type of the data, several joined by "+"."""
        self._read_input(input_shape)
        for tensor in self.model.graph.initializer:
            if tensor.name in self.used:
                self.values[tensor.name] = self._stored(tensor)
        for name in self.used.intersection(sparse.values.name for sparse in self.model.graph.sparse_initializer):
            self.items.append(Unsupported(name, "sparse tensor", "store it as a dense tensor"))
            self.values[name] = Unknown()
        for name, proto in zip(self.names, self.nodes, strict=True):
            self._read_node(proto, name)
        return "+".join(sorted(self.graph.kinds))

    def result(self, path: str) -> list[Node]:
        """Return the nodes of the network, the output last.

        Raises:
            UnsupportedError: anything on the way to the output is unsupported.
        """
        builder = self.graph.builder
        outputs = [self.values.get(output.name) for output in self.model.graph.output]
        self.ends.update(value.node for value in outputs if isinstance(value, Tensor))
        standing = [
            node.op.item
            for end in sorted(self.ends)
            for node in prune(builder.nodes, end)
            if isinstance(node.op, Refused)
        ]
        items = list(dict.fromkeys([*self.items, *standing]))
        if items:
            order = {name: position for position, name in enumerate(self.names)}
            raise UnsupportedError(sorted(items, key=lambda item: order.get(item.where, -1)))
        if not isinstance(outputs[0], Tensor):
            raise UsageError(f"{path}: the output '{self.model.graph.output[0].name}' does not depend on the input")
        shape = builder.nodes[outputs[0].node].shape
        return prune(builder.nodes, reshape(builder, outputs[0].node, shape or (1,), "output"))

    # --- inputs and constants ---

    def _read_input(self, input_shape: tuple[int, ...] | None) -> None:
        stored = {tensor.name for tensor in self.model.graph.initializer}
        inputs = [i for i in self.model.graph.input if i.name in self.used and i.name not in stored]
        if not inputs:
            raise UsageError("the graph has no input that its output depends on")
        first, *others = inputs
        kind = first.type.tensor_type.elem_type
        if kind not in FLOATS:
            names = {number: name.lower() for name, number in onnx.TensorProto.DataType.items()}
            why = f"holds {names.get(kind, 'an unknown type')}; only inputs of a float type are supported"
            self.items.append(Unsupported(first.name, "model input", why))
        own, sizes, batched = input_layout(first.name, stored_dims(first), input_shape)
        self.graph = Graph(Builder(own), sizes, self._version(), {FLOATS.get(kind, "float32")})
        self.values[first.name] = Tensor(0, batched)
        for other in others:
            why = "is a second input; only models with one input are supported, make it a constant"
            self.items.append(Unsupported(other.name, "model input", why))
            self.values[other.name] = Unknown()
        for output in self.model.graph.output[1:]:
            why = "is a second output; only models with one output are supported, export one of them"
            self.items.append(Unsupported(output.name, "model output", why))

    def _version(self) -> int:
        versions = [int(o.version) for o in self.model.opset_import if o.domain in ("", "ai.onnx")]
        version = max(versions, default=1)
        if not OLDEST <= version <= NEWEST:
            why = f"version {version} is not between {OLDEST} and {NEWEST}; convert the model"
            self.items.append(Unsupported("the model", "operator set", why))
        return version

    def _stored(self, tensor: Any) -> Value:
        try:
            return constant_value(stored_array(tensor), tensor.name)
        except ValueError as error:
            raise UsageError(str(error)) from None
        except Refusal as error:
            self.items.append(Unsupported(tensor.name, "stored tensor", str(error)))
            return Unknown()

    # --- nodes ---

    def _read_node(self, proto: Any, name: str) -> None:
        missing = [i for i in proto.input if i not in self.values]
        if missing:
            raise UsageError(f"'{name}' ({proto.op_type}) uses '{missing[0]}', which nothing defines before it")
        call = Call(self.graph, proto, name, [self.values[i] for i in proto.input])
        try:
            found = self._apply(call)
        except Refusal as error:
            found = [self._stand_in(call, str(error))]
        except MALFORMED as error:
            text = " ".join(str(error).split())
            if not self.items and not any(isinstance(n.op, Refused) for n in self.graph.builder.nodes):
                raise UsageError(f"'{name}' ({proto.op_type}): {text}") from None
            found = [self._stand_in(call, f"does not fit its inputs: {text}")]
        values = found if isinstance(found, list) else [found]
        for position, output in enumerate(proto.output):
            self.values[output] = values[position] if position < len(values) else Unknown()
            missing_output = position > 0 and isinstance(self.values[output], Unknown)
            if missing_output and not isinstance(values[0], Unknown) and output in self.used:
                self.items.append(call.item(f"its output {position} ('{output}') is not supported"))
                self._need(call)

    def _apply(self, call: Call) -> Value | list[Value]:
        operator = str(call.proto.op_type)
        if call.proto.domain not in ("", "ai.onnx"):
            raise Refusal(f"is an operator of '{call.proto.domain}'; export with standard operators only")
        constant = all(not isinstance(v, (Tensor, Unknown)) for v in call.inputs)
        handler = (FOLDS if constant else OPERATORS).get(operator)
        if handler is None:
            raise Refusal(reason(operator, constant))
        if any(isinstance(v, Unknown) for v in call.inputs):
            self._need(call)
            return [Unknown()]
        with np.errstate(all="ignore"):  # what overflows is infinite, and refused by the network
            found = handler(call)
        call.check_attributes()
        return found

    def _stand_in(self, call: Call, why: str) -> Value:
        """Return what stands for the output of an unsupported node; it is reported if the output needs it."""
        item = call.item(why)
        own = self._inferred(call.proto.output[0]) if call.proto.output else None
        if own is None or any(isinstance(v, Unknown) for v in call.inputs):
            self.items.append(item)
            self._need(call)
            return Unknown()
        nodes = tuple(v.node for v in call.inputs if isinstance(v, Tensor))
        return self.graph.refuse(Refused(item), nodes, *own)

    def _inferred(self, name: str) -> tuple[tuple[int, ...], bool] | None:
        """Return the node shape that shape inference finds for a value, and whether it is batched."""
        if self.shapes is None:
            try:
                graph = onnx.shape_inference.infer_shapes(self.model, data_prop=True).graph
            except Exception:  # what it raises is not part of its interface; without it less is known
                graph = self.model.graph
            self.shapes = {value.name: stored_dims(value) for value in (*graph.value_info, *graph.output)}
        dims = self.shapes.get(name)
        if not dims or None in dims[1:]:
            return None
        own = tuple(d for d in dims[1:] if d is not None)
        if dims[0] is None or dims[0] == 1 or dims[0] in self.graph.sizes:
            return own, True
        return (dims[0], *own), False

    def _need(self, call: Call) -> None:
        """Note that an unsupported part uses these inputs, so that what stands in for them is reported too."""
        self.ends.update(v.node for v in call.inputs if isinstance(v, Tensor))
