"""Reading an ONNX file.

`read_onnx` walks the graph once, in the order in which it is stored. Constant sub-graphs are folded, everything
else becomes nodes of the network. Nodes that cannot be read leave a stand-in and are reported all at once.
Only onnx and numpy are used; nothing in the file is executed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from lipcert.errors import Unsupported, UnsupportedError, UsageError
from lipcert.network.builder import Builder, prune
from lipcert.network.graph import Network
from lipcert.network.readers.common import reshape
from lipcert.network.readers.onnx_call import Call, constant_value
from lipcert.network.readers.onnx_input import input_layout
from lipcert.network.readers.onnx_operators import FOLDS, OPERATORS, reason
from lipcert.network.readers.onnx_store import open_model
from lipcert.network.readers.onnx_values import Graph, Refusal, Refused, Tensor, Unknown, Value

OLDEST, NEWEST = 6, 28  # versions of the default operator set whose definitions were read
UNITS = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
FLOATS = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.DOUBLE: "float64",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.BFLOAT16: "bfloat16",
}


def read_onnx(path: Path, input_shape: tuple[int, ...] | None = None) -> Network:
    """Read an ONNX file as a network.

    Args:
        path: the file; external data must lie in its folder.
        input_shape: per-sample shape of the input; needed only where the file leaves it open, or where the first
            axis is fixed to something other than 1 (give the shape with it where it is no batch axis).

    Returns:
        The network of real arithmetic with exactly the stored weights. Its `dtype` is the coarsest float type
        that data take in the graph.

    Raises:
        UsageError: the file is damaged or not ONNX, holds NaN, or its input shape stays open.
        UnsupportedError: with every part that cannot be read.
    """
    model, source = open_model(Path(path))
    return _Reading(model).network(source, input_shape)


class _Reading:
    """One pass over a graph."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.items: list[Unsupported] = []
        self.values: dict[str, Value | None] = {"": None}
        self.nodes = _needed(model.graph)
        self._shapes: dict[str, list[int | None]] | None = None

    def network(self, source: Any, input_shape: tuple[int, ...] | None) -> Network:
        graph = self._start(input_shape)
        for position, proto in enumerate(self.nodes):
            self._node(graph, proto, proto.name or f"{proto.op_type}_{position}")
        output = self.values.get(self.model.graph.output[0].name)
        if isinstance(output, Tensor):
            nodes = prune(graph.builder.nodes, self._output(graph, output))
            self.items += [n.op.item for n in nodes if isinstance(n.op, Refused)]
        if self.items:
            raise UnsupportedError(self.items)
        if not isinstance(output, Tensor):
            raise UsageError(f"{source.path}: the output does not depend on the input")
        kind = max(graph.kinds, key=lambda name: UNITS[name])
        return Network(tuple(nodes), kind, source, tuple(graph.notes))
