"""Every operator and convention of the ONNX reader against onnxruntime, on small models."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from onnx_models import agrees, batch, evaluate_model, floats, helper, ints, make_model, read, run, single

from lipcert.errors import UnsupportedError
from lipcert.network.operators import Elementwise, Gather

quick = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
f32 = np.float32

ACTIVATIONS = {
    "abs": single("Abs", batch(6)),
    "celu": single("Celu", batch(6), alpha=1.7),
    "clip attributes": single("Clip", batch(6), opset=6 + 1, min=-0.3, max=0.4),
    "clip inputs": single("Clip", batch(6), f32(-0.3), f32(0.4)),
    "clip above": single("Clip", batch(6), None, f32(0.4)),
    "cos": single("Cos", batch(6)),
    "elu": single("Elu", batch(6), alpha=2.5),
    "erf": single("Erf", batch(6)),
    "gelu": single("Gelu", batch(6), opset=20),
    "gelu tanh": single("Gelu", batch(6), opset=20, approximate="tanh"),
    "hard sigmoid": single("HardSigmoid", batch(6), alpha=0.3, beta=0.4),
    "hard swish": single("HardSwish", batch(6)),
    "leaky relu": single("LeakyRelu", batch(6), alpha=0.2),
    "mish": single("Mish", batch(6), opset=18),
    "prelu": single("PRelu", batch(3, 4, 4), floats(3, 1, 1)),
    "prelu shared": single("PRelu", batch(5), floats(1)),
    "relu": single("Relu", batch(6)),
    "selu": single("Selu", batch(6)),
    "selu own": single("Selu", batch(6), alpha=1.1, gamma=0.7),
    "shrink": single("Shrink", batch(6), lambd=0.3, bias=0.3),
    "sigmoid": single("Sigmoid", batch(6)),
    "sin": single("Sin", batch(6)),
    "softplus": single("Softplus", batch(6)),
    "softsign": single("Softsign", batch(6)),
    "tanh": single("Tanh", batch(6)),
    "softmax": single("Softmax", batch(3, 4), axis=-2),
    "softmax flattens": single("Softmax", batch(3, 4), opset=11),
    "softmax flattens from 2": single("Softmax", batch(3, 4, 2), opset=9, axis=2),
    "log softmax": single("LogSoftmax", batch(5), axis=1),
    "max with constant": single("Max", batch(5), floats(5)),
    "min with constant": single("Min", batch(3, 2), floats(3, 1)),
    "max grows": single("Max", batch(3, 1), floats(1, 1, 4)),
    "top k": single("TopK", batch(5), ints(3), count=2),
    "top k smallest": single("TopK", batch(2, 6), ints(6), count=2, largest=0, axis=1 + 1),
}
AFFINE = {
    "gemm": single("Gemm", batch(5), floats(5, 4), floats(4)),
    "gemm transposed": single("Gemm", batch(5), floats(4, 5), floats(1, 4), transB=1, alpha=0.5, beta=2.0),
    "gemm scalar": single("Gemm", batch(5), floats(4, 5), f32(0.25), transB=1, beta=-1.5),
    "gemm no bias": single("Gemm", batch(5), floats(5, 4), opset=11),
    "gemm of one sample": single("Gemm", [4, 6], floats(4, 3), floats(6, 1), transA=1),
    "gemm constant left": single("Gemm", [4, 6], floats(3, 4), None, position=1, alpha=2.0),
    "gemm constant left, turned": single("Gemm", [6, 4], floats(4, 3), floats(3, 6), position=1, transA=1, transB=1),
    "matmul": single("MatMul", batch(3, 5), floats(5, 4)),
    "matmul vector": single("MatMul", batch(3, 5), floats(5)),
    "matmul to scalar": single("MatMul", batch(5), floats(5)),
    "matmul left": single("MatMul", batch(5, 3), floats(4, 5), position=1),
    "matmul left vector": single("MatMul", batch(5, 3), floats(5), position=1),
    "matmul stack of one": single("MatMul", batch(3, 5), floats(1, 5, 4)),
    "matmul one axis": single("MatMul", [5], floats(5, 4)),
    "matmul one axis left": single("MatMul", [5], floats(4, 5), position=1),
    "matmul of one sample": single("MatMul", [1, 5], floats(5, 1)),
    "add": single("Add", batch(3, 4), floats(3, 1)),
    "add grows": single("Add", batch(3, 1), floats(4)),
    "add full rank": single("Add", batch(3, 4), floats(1, 3, 4)),
    "add moves one sample": single("Add", [1, 4], floats(3, 1)),
    "sub": single("Sub", batch(3, 4), floats(4)),
    "sub from": single("Sub", batch(3, 4), floats(4), position=1),
    "mul": single("Mul", batch(3, 4), floats(3, 4)),
    "mul scalar": single("Mul", batch(3, 4), f32(1.2)),
    "div": single("Div", batch(3, 4), floats(3, 1)),
    "neg": single("Neg", batch(3)),
    "sum": single("Sum", batch(3), floats(3), floats(1)),
    "mean": single("Mean", batch(3), floats(3), floats(1)),
    "batch norm": single(
        "BatchNormalization", batch(3, 4, 4), floats(3), floats(3), floats(3), np.abs(floats(3)), epsilon=1e-3
    ),
    "batch norm vector": single(
        "BatchNormalization", batch(3), floats(3), floats(3), floats(3), np.abs(floats(3)), opset=9
    ),
    "identity": single("Identity", batch(3)),
    "cast": single("Cast", batch(3), to=1),
    "dropout": single("Dropout", batch(3), opset=11, ratio=0.4),
    "dropout new": single("Dropout", batch(3), f32(0.4), np.array(False)),
}
MOVES = {
    "flatten": single("Flatten", batch(2, 3, 4)),
    "flatten from 2": single("Flatten", [1, 2, 3, 4], axis=2),
    "flatten negative": single("Flatten", [1, 2, 3, 4], axis=-1),
    "reshape": single("Reshape", batch(2, 6), ints(-1, 3, 4)),
    "reshape zero": single("Reshape", batch(2, 6), ints(0, -1)),
    "reshape away the batch of one": single("Reshape", [1, 2, 6], ints(12)),
    "transpose": single("Transpose", batch(2, 3, 4), perm=[0, 3, 1, 2]),
    "transpose all of one": single("Transpose", [1, 2, 3]),
    "squeeze": single("Squeeze", batch(1, 3, 1), ints(1, -1)),
    "squeeze old": single("Squeeze", batch(1, 3), opset=11, axes=[1]),
    "squeeze all of one": single("Squeeze", [1, 1, 3, 1]),
    "unsqueeze": single("Unsqueeze", batch(3), ints(-1, 1)),
    "unsqueeze of one": single("Unsqueeze", [1, 3], ints(0)),
    "slice": single("Slice", batch(5, 6), ints(1, -4), ints(9, -1), ints(1, 2)),
    "slice backwards": single("Slice", batch(5, 6), ints(-1), ints(-(2**63) + 1), ints(2), ints(-2)),
    "slice old": single("Slice", batch(5), opset=9, starts=[1], ends=[4], axes=[1]),
    "gather": single("Gather", batch(5, 2), np.array([[0, 2], [-1, 1]]), axis=1),
    "gather one": single("Gather", batch(5, 2), np.array(3), axis=1),
    "expand": single("Expand", batch(1, 3), ints(1, 4, 1)),
    "tile": single("Tile", batch(2, 3), ints(1, 2, 3)),
    "depth to space": single("DepthToSpace", batch(8, 2, 3), blocksize=2),
    "depth to space crd": single("DepthToSpace", batch(8, 2, 3), blocksize=2, mode="CRD"),
    "space to depth": single("SpaceToDepth", batch(2, 4, 6), blocksize=2),
    "upsample old": single("Upsample", batch(2, 3, 3), opset=7, scales=[1.0, 1.0, 2.0, 3.0]),
    "upsample": single("Upsample", batch(2, 3, 3), np.array([1, 1, 2, 3], f32), opset=9),
    "resize 10": single("Resize", batch(2, 3, 3), np.array([1, 1, 2, 3], f32), opset=10),
    "resize half pixel": single("Resize", batch(2, 3, 3), None, np.array([1, 1, 2, 5], f32)),
    "resize asymmetric": single(
        "Resize",
        batch(2, 3, 3),
        None,
        np.array([1, 1, 4, 3], f32),
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    ),
    "resize by sizes": single("Resize", [1, 2, 3, 3], None, None, ints(1, 2, 6, 9)),
    "resize axes": single("Resize", batch(2, 3, 3), None, np.array([2, 3], f32), opset=18, axes=[2, 3]),
    "pad": single("Pad", batch(2, 3, 3), ints(0, 0, 1, 2, 0, 0, 3, 0)),
    "pad value": single("Pad", batch(2, 3), ints(0, 0, 1, 0, 1, 0), f32(0.7)),
    "pad crops": single("Pad", batch(2, 5), ints(0, 0, -1, 0, 0, 2)),
    "pad reflect": single("Pad", batch(2, 5), ints(0, 0, 2, 0, 0, 4), mode="reflect"),
    "pad edge": single("Pad", batch(2, 3), ints(0, 0, 2, 0, 1, 4), mode="edge"),
    "pad wrap": single("Pad", batch(5), ints(0, 3, 0, 2), opset=19, mode="wrap"),
    "pad axes": single("Pad", batch(2, 5), ints(1, 2), f32(0.5), ints(-1), opset=18),
    "pad old": single("Pad", batch(2, 3), opset=9, pads=[0, 0, 1, 0, 0, 2], value=0.5),
}
REDUCTIONS = {
    "global average": single("GlobalAveragePool", batch(3, 4, 5)),
    "global max": single("GlobalMaxPool", batch(3, 4, 5)),
    "mean": single("ReduceMean", batch(3, 4, 5), axes=[2, 3]),
    "mean inputs": single("ReduceMean", batch(3, 4, 5), ints(-1, 1), opset=18, keepdims=0),
    "mean of one sample": single("ReduceMean", [1, 3, 4], keepdims=0),
    "sum": single("ReduceSum", batch(3, 4, 5), ints(2)),
    "sum nothing": single("ReduceSum", batch(3, 4), noop_with_empty_axes=1),
    "max": single("ReduceMax", batch(3, 4, 5), axes=[2, 3], keepdims=0),
    "max of two": single("ReduceMax", batch(3, 2, 5), axes=[2]),
    "min": single("ReduceMin", batch(3, 4, 5), axes=[1]),
    "min of two": single("ReduceMin", batch(3, 2, 1), axes=[2, 3], keepdims=0),
}


@pytest.mark.parametrize("model", ACTIVATIONS.values(), ids=ACTIVATIONS.keys())
def test_activations(model, tmp_path):
    agrees(model, tmp_path, scale=2.0)


@pytest.mark.parametrize("model", AFFINE.values(), ids=AFFINE.keys())
def test_affine(model, tmp_path):
    network = agrees(model, tmp_path)
    assert network.hidden_neurons == 0


@pytest.mark.parametrize("model", MOVES.values(), ids=MOVES.keys())
def test_moves(model, tmp_path):
    network = agrees(model, tmp_path)
    assert network.is_exact


@pytest.mark.parametrize("model", REDUCTIONS.values(), ids=REDUCTIONS.keys())
def test_reductions(model, tmp_path):
    assert agrees(model, tmp_path).is_exact


def test_swish_of_the_newest_operator_set(tmp_path):
    """onnxruntime may not know it yet: the definition itself is the oracle."""
    x = floats(4, 5)
    found = evaluate_model(single("Swish", batch(5), opset=24, alpha=1.7), tmp_path, x)
    np.testing.assert_allclose(found, x / (1 + np.exp(-np.float64(np.float32(1.7)) * x)), rtol=1e-12)


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 18])
def test_a_small_network_in_every_age(opset, tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "k", "b"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "c"], ["y"], transB=1),
    ]
    constants = {"k": floats(4, 2, 3, 3), "b": floats(4), "w": floats(3, 16), "c": floats(3)}
    network = agrees(make_model(nodes, batch(2, 8, 8), constants, opset=opset), tmp_path)
    assert [n.op.kind for n in network.nodes] == ["Input", "Conv", "relu", "MaxPool", "Reshape", "Dense"]


# --- geometry -----------------------------------------------------------------------------------------------

pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
pads = st.tuples(*[st.integers(0, 2)] * 4)


@quick
@given(pairs, pairs, pairs, pads, st.sampled_from([(4, 6, 1), (4, 6, 2), (3, 3, 3)]), st.integers(1, 3))
def test_convolutions(tmp_path, kernel, stride, dilation, pad, channels, rank):
    inside, outside, groups = channels
    weight = floats(outside, inside // groups, *(*kernel, 2)[:rank])
    attributes = {
        "strides": (*stride, 1)[:rank],
        "dilations": (*dilation, 1)[:rank],
        "group": groups,
        "pads": (*pad[:2], 1)[:rank] + (*pad[2:], 0)[:rank],
    }
    size = (7, 8, 3)[:rank]
    agrees(single("Conv", batch(inside, *size), weight, floats(outside), **attributes), tmp_path)


@quick
@given(pairs, pairs, st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]))
def test_automatic_padding(tmp_path, kernel, stride, mode):
    attributes = {"auto_pad": mode, "strides": stride, "kernel_shape": kernel}
    agrees(single("Conv", batch(3, 7, 8), floats(2, 3, *kernel), **attributes), tmp_path)
    if all(k >= s for k, s in zip(kernel, stride, strict=True)):  # onnxruntime refuses the rest
        agrees(single("MaxPool", batch(3, 7, 8), **attributes), tmp_path)
        agrees(single("AveragePool", batch(3, 7, 8), **attributes), tmp_path)


@quick
@given(pairs, pairs, pairs, st.tuples(*[st.integers(0, 1)] * 4), st.sampled_from([(4, 6, 1), (4, 6, 2)]), st.booleans())
def test_transposed_convolutions(tmp_path, kernel, stride, dilation, pad, channels, extra):
    inside, outside, groups = channels
    weight = floats(inside, outside // groups, *kernel)
    more = [min(s - 1, 1) if extra else 0 for s in stride]
    full = [(5 - 1) * s + d * (k - 1) + 1 + e for s, d, k, e in zip(stride, dilation, kernel, more, strict=True)]
    if any(f <= a + b for f, a, b in zip(full, pad[:2], pad[2:], strict=True)):
        return
    model = single(
        "ConvTranspose",
        batch(inside, 5, 5),
        weight,
        floats(outside),
        group=groups,
        pads=pad,
        strides=stride,
        dilations=dilation,
        output_padding=more,
    )
    agrees(model, tmp_path)


@quick
@given(pairs, pairs, st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER"]), st.integers(0, 2))
def test_transposed_convolutions_by_shape(tmp_path, kernel, stride, mode, less):
    attributes = {"strides": stride, "kernel_shape": kernel}
    if mode != "NOTSET":
        attributes["auto_pad"] = mode
    if mode == "NOTSET" or less:
        full = [4 * s + k for s, k in zip(stride, kernel, strict=True)]
        attributes["output_shape"] = [f - less for f in full]
    elif any(k < s for k, s in zip(kernel, stride, strict=True)):
        return  # onnxruntime pads the output there, the standard says nothing
    agrees(single("ConvTranspose", batch(2, 5, 5), floats(2, 3, *kernel), **attributes), tmp_path)


@quick
@given(pairs, pairs, pairs, st.tuples(*[st.integers(0, 1)] * 4), st.booleans(), st.booleans())
def test_pooling(tmp_path, kernel, stride, dilation, pad, ceil, include):
    kernel = tuple(max(k, 2) for k in kernel)
    common = {"kernel_shape": kernel, "strides": stride, "pads": pad, "ceil_mode": int(ceil)}
    agrees(single("MaxPool", batch(2, 7, 9), dilations=dilation, **common), tmp_path)
    common |= {"dilations": dilation, "count_include_pad": int(include)}
    agrees(single("AveragePool", batch(2, 7, 9), opset=19, **common), tmp_path)


# --- several branches ---------------------------------------------------------------------------------------


def test_branches(tmp_path):
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Tanh", ["x"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["s"]),
        helper.make_node("Sub", ["s", "x"], ["d"]),
        helper.make_node("Max", ["d", "b", "c"], ["m"]),
        helper.make_node("Concat", ["m", "a"], ["j"], axis=1),
        helper.make_node("Split", ["j", "sizes"], ["p", "q", "r"], axis=1),
        helper.make_node("Mean", ["p", "r"], ["y"]),
    ]
    agrees(make_model(nodes, batch(6, 2), {"c": floats(1), "sizes": ints(5, 2, 5)}), tmp_path)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_space_to_depth_undoes_depth_to_space(mode, tmp_path):
    nodes = [
        helper.make_node("DepthToSpace", ["x"], ["d"], blocksize=2, mode=mode),
        helper.make_node("SpaceToDepth", ["d"], ["y"], blocksize=2, mode=mode),
    ]
    x = floats(2, 8, 2, 3)
    np.testing.assert_array_equal(evaluate_model(make_model(nodes, batch(8, 2, 3), opset=28), tmp_path, x), x)


def test_even_split(tmp_path):
    nodes = [
        helper.make_node("Split", ["x"], ["p", "q", "r"], axis=1, num_outputs=3),
        helper.make_node("Concat", ["r", "p", "q"], ["y"], axis=1),
    ]
    agrees(make_model(nodes, batch(8), opset=18), tmp_path)


def test_branches_of_different_ranks_in_one_sample(tmp_path):
    nodes = [
        helper.make_node("Reshape", ["x", "flat"], ["f"]),
        helper.make_node("Add", ["x", "f"], ["y"]),
    ]
    agrees(make_model(nodes, [1, 3, 4], {"flat": ints(4, 3, 1)}), tmp_path)


def test_concat_with_a_constant_in_one_sample(tmp_path):
    nodes = [helper.make_node("Concat", ["c", "x"], ["y"], axis=-1)]
    agrees(make_model(nodes, [1, 3, 4], {"c": floats(1, 3, 2)}), tmp_path)


def test_gemm_with_a_branch_as_its_bias(tmp_path):
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Gemm", ["r", "w", "x"], ["y"], alpha=0.5, beta=-2.0),
    ]
    agrees(make_model(nodes, batch(4), {"w": floats(4, 4)}), tmp_path)


# --- activations in several nodes ---------------------------------------------------------------------------


def _kinds(network):
    return [n.op.kind for n in network.nodes if isinstance(n.op, Elementwise)]


def N(op, inputs, output, **attributes):
    return helper.make_node(op, inputs.split(), [output], **attributes)


PATTERNS = {
    "silu": ("silu", [N("Sigmoid", "x", "s"), N("Mul", "x s", "y")]),
    "silu scaled": ("silu", [N("Mul", "x c", "t"), N("Sigmoid", "t", "s"), N("Mul", "s x", "y")]),
    "silu negative": ("silu", [N("Mul", "x n", "t"), N("Sigmoid", "t", "s"), N("Mul", "s x", "y")]),
    "silu by tanh": (
        "silu",
        [N("Mul", "x half", "h"), N("Tanh", "h", "t"), N("Add", "t one", "u"), N("Mul", "h u", "y")],
    ),
    "gelu": (
        "gelu",
        [
            N("Div", "x root", "t"),
            N("Erf", "t", "e"),
            N("Add", "e one", "u"),
            N("Mul", "x u", "v"),
            N("Mul", "v half", "y"),
        ],
    ),
    "gelu by factor": (
        "gelu",
        [
            N("Mul", "x c", "t"),
            N("Erf", "t", "e"),
            N("Add", "one e", "u"),
            N("Mul", "x half", "h"),
            N("Mul", "u h", "y"),
        ],
    ),
    "gelu halved inside": (
        "gelu",
        [
            N("Mul", "x c", "t"),
            N("Erf", "t", "e"),
            N("Mul", "e half", "f"),
            N("Add", "f half", "u"),
            N("Mul", "u x", "y"),
        ],
    ),
    "mish": ("softplus mish", [N("Softplus", "x", "p"), N("Tanh", "p", "t"), N("Mul", "x t", "y")]),
    "hard swish": (
        "hardswish",
        [N("Add", "x three", "t"), N("Clip", "t zero six", "c6"), N("Mul", "x c6", "m"), N("Div", "m six", "y")],
    ),
    "hard swish by factor": (
        "hardswish",
        [N("HardSigmoid", "x", "t", alpha=1 / 6, beta=0.5), N("Mul", "t x", "y")],
    ),
    "softplus of torch": (
        "softplus",
        [N("Softplus", "x", "s"), N("Greater", "x twenty", "g"), N("Where", "g x s", "y")],
    ),
    "softsign": ("softsign", [N("Abs", "x", "a"), N("Add", "a one", "b"), N("Div", "x b", "y")]),
}
GELU_TANH = [
    [
        N("Pow", "x three", "p"),
        N("Mul", "p cubic", "q"),
        N("Add", "x q", "r"),
        N("Mul", "r pi", "t"),
        N("Tanh", "t", "h"),
        N("Add", "h one", "u"),
        N("Mul", "x half", "v"),
        N("Mul", "v u", "y"),
    ],
    [
        N("Mul", "x x", "p"),
        N("Mul", "p cubic", "q"),
        N("Add", "q one", "r"),
        N("Mul", "x r", "w"),
        N("Mul", "w pi", "t"),
        N("Tanh", "t", "h"),
        N("Add", "h one", "u"),
        N("Mul", "u half", "v"),
        N("Mul", "v x", "y"),
    ],
]
CONSTANTS = {
    "c": f32(0.70710677),
    "n": f32(-1.3),
    "half": f32(0.5),
    "one": f32(1),
    "root": f32(np.sqrt(2)),
    "three": f32(3),
    "six": f32(6),
    "zero": f32(0),
    "twenty": f32(20),
    "cubic": f32(0.044715),
    "pi": f32(np.sqrt(2 / np.pi)),
}


@pytest.mark.parametrize(("kind", "nodes"), PATTERNS.values(), ids=PATTERNS.keys())
def test_activations_written_as_several_nodes(kind, nodes, tmp_path):
    network = agrees(make_model(nodes, batch(6), CONSTANTS), tmp_path, scale=2.0)
    assert _kinds(network) == [kind.split()[-1]]


@pytest.mark.parametrize("nodes", GELU_TANH)
def test_gelu_by_tanh(nodes, tmp_path):
    """In float64 the constants are those of the function; rounded to float32 they make another one."""
    kinds = {name: np.float64(c) for name, c in CONSTANTS.items()}
    exact = kinds | {"cubic": np.float64(0.044715), "pi": np.sqrt(2 / np.pi)}
    model = make_model(nodes, batch(6), exact, kind=TensorProto.DOUBLE)
    x = 2.0 * np.random.default_rng(0).standard_normal((4, 6))
    np.testing.assert_allclose(evaluate_model(model, tmp_path, x), run(model, x), rtol=0, atol=1e-14)
    assert _kinds(read(model, tmp_path)) == ["gelu_tanh"]
    with pytest.raises(UnsupportedError, match="operator set 20") as caught:
        read(make_model(nodes, batch(6), CONSTANTS), tmp_path)
    assert len(caught.value.items) == 1


@pytest.mark.parametrize(
    "nodes",
    [
        [N("Sigmoid", "x", "s"), N("Add", "x half", "t"), N("Mul", "t s", "y")],  # (x + 1/2) sigmoid(x)
        [N("Erf", "x", "e"), N("Add", "e half", "u"), N("Mul", "x u", "y")],  # x (1/2 + erf x)
        [N("Add", "x half", "t"), N("Clip", "t zero six", "u"), N("Mul", "x u", "y")],  # not centred
        [N("Mul", "x x", "y")],
        [N("Softplus", "x", "s"), N("Greater", "x six", "g"), N("Where", "g x s", "y")],
        [N("Softplus", "x", "s"), N("Greater", "s twenty", "g"), N("Where", "g x s", "y")],
        [N("Softplus", "x", "s"), N("Greater", "x twenty", "g"), N("Where", "g s x", "y")],
        [N("Sigmoid", "x", "s"), N("Log", "s", "y")],  # the deployed pass is -inf below -104
        [N("Pow", "x three", "y")],
        [N("Sigmoid", "x", "s"), N("Relu", "x", "r"), N("Mul", "r s", "y")],
        [N("Tanh", "x", "t"), N("Mul", "x t", "y")],
        [
            N("Pow", "x three", "p"),
            N("Mul", "p c", "q"),
            N("Add", "x q", "r"),
            N("Mul", "r pi", "t"),
            N("Tanh", "t", "h"),
            N("Add", "h one", "u"),
            N("Mul", "x u", "y"),
        ],  # another cubic coefficient
        [N("Abs", "x", "a"), N("Sub", "one a", "b"), N("Div", "x b", "y")],  # x / (1 - |x|)
    ],
)
def test_what_only_looks_like_an_activation_is_refused(nodes, tmp_path):
    with pytest.raises(UnsupportedError) as caught:
        read(make_model(nodes, batch(6), CONSTANTS), tmp_path)
    assert {item.what for item in caught.value.items} <= {"Mul", "Div", "Pow", "Greater", "Where", "Log"}


MAX_MIN = {
    "halves": [
        N("Split", "x", "a", axis=1),
        N("Max", "a b", "u"),
        N("Min", "a b", "v"),
        N("Concat", "u v", "y", axis=1),
    ],
    "neighbours": [
        N("Slice", "x zero_ last_ one_ two_", "a"),
        N("Slice", "x one_ last_ one_ two_", "b"),
        N("Min", "b a", "u"),
        N("Max", "a b", "v"),
        N("Unsqueeze", "u two_", "s"),
        N("Unsqueeze", "v two_", "t"),
        N("Concat", "s t", "j", axis=2),
        N("Reshape", "j shape_", "y"),
    ],
    "reductions": [
        N("Reshape", "x grouped_", "g"),
        N("ReduceMax", "g", "a", axes=[2]),
        N("ReduceMin", "g", "b", axes=[2]),
        N("Concat", "a b", "j", axis=2),
        N("Reshape", "j shape_", "y"),
    ],
    "two branches": [
        N("Relu", "x", "a"),
        N("Neg", "x", "b"),
        N("Max", "a b", "u"),
        N("Min", "a b", "v"),
        N("Concat", "v u", "y", axis=1),
    ],
}
MAX_MIN["halves"][0].output.append("b")


@pytest.mark.parametrize("nodes", MAX_MIN.values(), ids=MAX_MIN.keys())
def test_max_min(nodes, tmp_path):
    constants = {
        "zero_": ints(0),
        "one_": ints(1),
        "two_": ints(2),
        "last_": ints(2**62),
        "shape_": ints(0, 6, 4),
        "grouped_": ints(0, 3, 2, 4),
    }
    network = agrees(make_model(nodes, batch(6, 4), constants), tmp_path)
    assert [n.op.kind for n in network.nodes].count("Sort") == 1
    assert not any(n.op.kind == "Extremum" for n in network.nodes)


def test_a_gather_keeps_its_zero(tmp_path):
    """Zero padding and a slice after it are two index maps, and what is padded stays zero."""
    nodes = [N("Pad", "x pads", "p"), N("Slice", "p start end axis", "y")]
    constants = {"pads": ints(0, 2, 0, 1), "start": ints(1), "end": ints(7), "axis": ints(1)}
    network = agrees(make_model(nodes, batch(5), constants), tmp_path)
    assert all(isinstance(n.op, Gather) for n in network.nodes[1:])
