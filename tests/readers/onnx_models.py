"""Small ONNX models built node by node, and onnxruntime as the oracle for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from lipcert.network import Network, evaluate
from lipcert.network.readers.onnx.file import read_onnx

OPSET = 17


def make_model(nodes, shape, constants=None, *, output="y", opset=OPSET, kind=TensorProto.FLOAT, outputs=1):
    """Return a model with input "x" of the given graph shape (strings are open sizes).

    nodes: NodeProtos. constants: name -> array, stored as initializers.
    """
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(f"{output}{k or ''}", kind, None) for k in range(outputs)],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def single(op, shape, *constants, opset=OPSET, position=0, count=1, **attributes):
    """Return a model of one node: data at `position`, constants (None: left out) at the other inputs."""
    names = ["" if c is None else f"c{i}" for i, c in enumerate(constants)]
    names.insert(position, "x")
    node = helper.make_node(op, names, ["y", *(f"y{k}" for k in range(1, count))], name="node", **attributes)
    stored = {f"c{i}": c for i, c in enumerate(constants) if c is not None}
    return make_model([node], shape, stored, opset=opset)


def save(model, folder: Path, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def read(model, folder: Path, input_shape=None) -> Network:
    return read_onnx(save(model, folder), input_shape)


def session(model_or_path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    source = str(model_or_path) if isinstance(model_or_path, Path) else model_or_path.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run(model_or_path, x):
    """Run onnxruntime on one array of the graph's own shape."""
    found = session(model_or_path)
    return found.run(None, {found.get_inputs()[0].name: x})[0]


def agrees(model, folder: Path, *, samples=3, scale=1.0, input_shape=None) -> Network:
    """Assert that the network read from a model computes what onnxruntime computes, and return it."""
    dims = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    if dims[0] > 1:  # no batch axis
        input_shape = tuple(dims)
    network = read(model, folder, input_shape)
    x = scale * np.random.default_rng(7).standard_normal((samples, *network.input_shape))
    x = x.astype(np.float32)
    # an open batch size: all samples at once
    expected = run(model, x) if dims[0] == 0 else np.stack([run(model, sample.reshape(dims)) for sample in x])
    expected = expected.reshape(samples, *network.output_shape)
    found = evaluate(network, x.astype(np.float64))
    assert np.isfinite(expected).all()
    assert np.abs(found - expected).max() <= 1e-5 * max(np.abs(expected).max(), 1.0)
    return network


def batch(*shape):
    """Return a graph shape with an open batch size."""
    return ["N", *shape]


def floats(*shape, seed=3):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def ints(*values):
    return np.array(values, dtype=np.int64)


def evaluate_model(model, folder: Path, x):
    """Return what the network read from a model computes in float64."""
    return evaluate(read(model, folder), np.asarray(x, dtype=np.float64))


__all__ = [
    "agrees",
    "batch",
    "evaluate_model",
    "floats",
    "helper",
    "ints",
    "make_model",
    "onnx",
    "read",
    "run",
    "save",
    "session",
    "single",
]
