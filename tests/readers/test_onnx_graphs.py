"""What stands around the operators: constant sub-graphs, shapes, the batch axis, float types, provenance."""

from __future__ import annotations

import hashlib
from fractions import Fraction

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper
from onnx_models import agrees, batch, evaluate_model, floats, helper, ints, make_model, onnx, read, save, single

from lipcert.errors import UnsupportedError, UsageError
from lipcert.network import evaluate
from lipcert.network.readers.onnx.file import read_onnx

f32 = np.float32


def N(op, inputs, output, **attributes):
    return helper.make_node(op, inputs.split(), [output], **attributes)


def constant(output, value):
    return helper.make_node("Constant", [], [output], value=numpy_helper.from_array(np.asarray(value)))


# --- constant sub-graphs ------------------------------------------------------------------------------------


def exactly(enclosure, position):
    mid, rad = (Fraction(float(a[position])) for a in (enclosure.mid, enclosure.radius))
    return mid - rad, mid + rad


def test_weights_divided_by_a_stored_sigma_are_enclosed(tmp_path):
    """W / (u' W v), as spectral norm is exported, against exact rational arithmetic."""
    w, u, v = floats(4, 6), floats(4, seed=5), floats(6, seed=6)
    nodes = [
        N("MatMul", "w v", "wv"),
        N("MatMul", "u wv", "sigma"),
        N("Div", "w sigma", "weight"),
        N("Gemm", "x weight", "z", transB=1),
        N("Mul", "z scale", "y"),
    ]
    model = make_model(nodes, batch(6), {"w": w, "u": u, "v": v, "scale": f32(1.2)})
    network = agrees(model, tmp_path)
    weight = network.nodes[1].op.weight
    assert not weight.is_exact
    rows = [[Fraction(float(e)) for e in row] for row in w]
    left, right = ([Fraction(float(e)) for e in vector] for vector in (u, v))
    sigma = sum(left[i] * rows[i][j] * right[j] for i in range(4) for j in range(6))
    for i, row in enumerate(rows):
        for j, e in enumerate(row):
            low, high = exactly(weight, (i, j))
            assert low <= e / sigma <= high
            assert high - low <= abs(e / sigma) * Fraction(1, 2**45)


def test_batch_norm_is_enclosed(tmp_path):
    gamma, beta, mean, variance = floats(3), floats(3, seed=4), floats(3, seed=5), np.abs(floats(3, seed=6))
    network = read(single("BatchNormalization", batch(3, 2), gamma, beta, mean, variance), tmp_path)
    factor = network.nodes[1].op.factor
    for k in range(3):
        low, high = exactly(factor, (k, 0))
        wanted = Fraction(float(gamma[k])) ** 2 / (Fraction(float(variance[k])) + Fraction(float(f32(1e-5))))
        assert min(abs(low), abs(high)) ** 2 <= wanted <= max(abs(low), abs(high)) ** 2


def test_exact_constants_stay_exact(tmp_path):
    nodes = [N("Transpose", "w", "t"), N("Mul", "t two", "u"), N("MatMul", "x u", "z"), N("Div", "z four", "y")]
    model = make_model(nodes, batch(5), {"w": floats(3, 5), "two": f32(2), "four": f32(4)})
    assert agrees(model, tmp_path).is_exact


def test_numbers_that_the_deployed_pass_rounds_are_no_stored_weights(tmp_path):
    """Three float32 numbers may add up exactly in float64, but the deployed pass rounds twice."""
    nodes = [N("Add", "a b", "c"), N("Add", "c a", "d"), N("Mul", "x d", "y")]
    stored = {"a": f32(1), "b": f32(2.0**-30)}
    network = agrees(make_model(nodes, batch(5), stored), tmp_path)
    factor = network.nodes[1].op.factor
    assert not network.is_exact
    assert float(factor.mid) == 2 + 2.0**-30
    assert 0 < float(factor.radius) < 2.0**-1070
    doubles = {name: np.float64(value) for name, value in stored.items()}
    assert read(make_model(nodes, batch(5), doubles, kind=TensorProto.DOUBLE), tmp_path).is_exact


def test_weight_norm(tmp_path):
    nodes = [
        N("Mul", "v v", "squares"),
        N("ReduceSum", "squares last", "sums"),
        N("Sqrt", "sums", "norms"),
        N("Div", "v norms", "unit"),
        N("Mul", "unit g", "w"),
        N("Gemm", "x w", "y", transB=1),
    ]
    agrees(make_model(nodes, batch(5), {"v": floats(3, 5), "g": floats(3, 1), "last": ints(1)}), tmp_path)


CHAINS = {
    "norms": [N("ReduceL2", "w", "n", axes=[1], keepdims=1), N("Div", "w n", "v")],
    "powers": [
        N("Pow", "w two", "a"),
        N("ReduceMean", "a", "b"),
        N("Sqrt", "b", "c"),
        N("Reciprocal", "c", "d"),
        N("Mul", "w d", "v"),
    ],
    "gemm": [
        N("Gemm", "w w", "a", transB=1, alpha=0.5),
        N("MatMul", "a w", "b"),
        N("Neg", "b", "c"),
        N("Sub", "w c", "v"),
    ],
    "selections": [
        N("Abs", "w", "a"),
        N("Max", "a one", "b"),
        N("Greater", "w one", "g"),
        N("Where", "g b w", "c"),
        N("Concat", "c c", "d", axis=0),
        N("Slice", "d from to", "v"),
    ],
    "squares": [N("ReduceSumSquare", "w", "s", axes=[0], keepdims=0), N("Add", "w s", "v")],
    "expanded": [
        N("ConstantOfShape", "shape", "z"),
        N("Expand", "one shape", "o"),
        N("Add", "z o", "a"),
        N("Add", "a w", "v"),
    ],
}


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS.keys())
def test_constant_chains(chain, tmp_path):
    constants = {
        "w": floats(3, 5),
        "two": f32(2),
        "one": f32(1),
        "from": ints(1, 0),
        "to": ints(4, 5),
        "shape": ints(3, 5),
    }
    agrees(make_model([*chain, N("Gemm", "x v", "y", transB=1)], batch(5), constants), tmp_path)


# --- shapes -------------------------------------------------------------------------------------------------

FLATTENS = {
    "batch size and -1": [
        N("Shape", "x", "s"),
        N("Gather", "s zero", "n"),
        N("Unsqueeze", "n zero_", "u"),
        N("Concat", "u minus", "t", axis=0),
        N("Reshape", "x t", "y"),
    ],
    "product of sizes": [
        N("Shape", "x", "s", start=1),
        N("ReduceProd", "s", "p"),
        N("Shape", "x", "b", end=1),
        N("Concat", "b p", "t", axis=0),
        N("Reshape", "x t", "y"),
    ],
    "size over batch size": [
        N("Size", "x", "s"),
        N("Mul", "s two", "d"),
        N("Div", "d two", "e"),
        N("Div", "e twelve", "n"),
        N("Reshape", "n one_", "m"),
        N("Concat", "m minus", "t", axis=0),
        N("Reshape", "x t", "y"),
    ],
    "casts and floats": [
        N("Shape", "x", "s"),
        N("Slice", "s one_ last zero_", "h"),
        N("Cast", "h", "f", to=1),
        N("Mul", "f ones", "g"),
        N("Floor", "g", "k"),
        N("Cast", "k", "i", to=7),
        N("Slice", "s zero_ one_", "b"),
        N("Concat", "b i", "t", axis=0),
        N("Reshape", "x t", "y"),
    ],
    "range and equal": [
        N("Range", "zero one twelve_", "r"),
        N("Reshape", "r minus", "i"),
        N("Flatten", "x", "f"),
        N("Gather", "f i", "y", axis=1),
    ],
    "where": [
        N("Equal", "minus one_", "e"),
        N("Where", "e one_ minus", "m"),
        N("Concat", "zero_ m", "t", axis=0),
        N("Reshape", "x t", "y"),
    ],
}


@pytest.mark.parametrize("nodes", FLATTENS.values(), ids=FLATTENS.keys())
def test_shape_arithmetic(nodes, tmp_path):
    constants = {
        "zero": np.int64(0),
        "one": np.int64(1),
        "two": np.int64(2),
        "twelve": np.int64(12),
        "twelve_": np.int64(12),
        "zero_": ints(0),
        "one_": ints(1),
        "minus": ints(-1),
        "last": ints(2**62),
        "ones": floats(1) * 0 + 1,
    }
    network = agrees(make_model(nodes, batch(3, 4), constants), tmp_path)
    assert network.is_exact


def test_expand_to_the_batch_size(tmp_path):
    nodes = [
        N("Shape", "x", "s", end=1),
        N("Concat", "s rest", "t", axis=0),
        N("Expand", "x t", "y"),
    ]
    agrees(make_model(nodes, batch(1, 3), {"rest": ints(4, 3)}), tmp_path)


MIXING = {
    "flatten all": single("Flatten", batch(3, 4), axis=0),
    "reshape to one sample": single("Reshape", batch(3, 4), ints(1, -1)),
    "reshape splits samples": single("Reshape", batch(3, 4), ints(-1, 6)),
    "transpose": single("Transpose", batch(3, 3)),
    "reverse the batch": single("Slice", batch(3), ints(-1), ints(-(2**62)), ints(0), ints(-1)),
    "take one sample": single("Gather", batch(3), np.array(0), axis=0),
    "repeat the batch": single("Tile", batch(3), ints(2, 1)),
    "unsqueeze before": single("Unsqueeze", batch(3), ints(0)),
    "squeeze whatever": single("Squeeze", batch(1, 3)),
    "mean over the batch": single("ReduceMean", batch(3), axes=[0]),
    "softmax over the batch": single("Softmax", batch(3), axis=0),
    "softmax flattens the batch": single("Softmax", batch(3), opset=11, axis=0),
    "sort the batch": single("TopK", batch(3), ints(2), axis=0, count=2),
    "pad the batch": single("Pad", batch(3), ints(1, 0, 0, 0)),
    "matrix product over the batch": single("MatMul", batch(3), floats(4, 4), position=1),
    "transposed product": single("Gemm", batch(4), floats(4, 4), transA=1),
    "different samples": single("Add", batch(3), floats(4, 3)),
    "shifted axes": single("Add", batch(3), floats(1, 4, 3)),
    "size of the batch as a number": make_model(
        [N("Shape", "x", "s", end=1), N("Cast", "s", "n", to=1), N("Mul", "x n", "y")], batch(3)
    ),
    "joined along the batch": make_model([N("Concat", "x x", "y", axis=0)], batch(3)),
    "ranks differ": make_model([N("Flatten", "x", "f"), N("Add", "x f", "y")], batch(3, 3)),
}


@pytest.mark.parametrize("model", MIXING.values(), ids=MIXING.keys())
def test_whatever_touches_the_batch_axis_is_refused(model, tmp_path):
    with pytest.raises(UnsupportedError, match="batch"):
        read(model, tmp_path)


def test_a_number_that_equals_the_tried_batch_sizes_is_no_batch_size(tmp_path):
    """The maps are tried at N = 2 and 3: a constant 2 in a target shape must not pass for N."""
    for size in (2, 3):
        with pytest.raises(UnsupportedError, match="batch"):
            read(single("Reshape", batch(4), ints(size, -1)), tmp_path)


# --- the input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "given", "found"),
    [
        ([1, 3, 4], None, (3, 4)),
        (["N", 3, 4], None, (3, 4)),
        (["N", 3, 4], (3, 4), (3, 4)),
        (["N", "C", 4], (5, 4), (5, 4)),
        ([5], None, (5,)),
        (["N"], (5,), (5,)),
        ([4, 3], (4, 3), (4, 3)),
        ([4, 3], (3,), (3,)),
        (None, (3, 2), (3, 2)),
    ],
)
def test_the_shape_of_a_sample(shape, given, found, tmp_path):
    network = read(single("Relu", shape), tmp_path, given)
    assert network.input_shape == network.output_shape == found


@pytest.mark.parametrize(
    ("shape", "given"),
    [
        (["N", "C", 4], None),
        (["N"], None),
        ([4, 3], None),
        ([], None),
        (None, None),
        ([1, 3], (4,)),
        (["N", 3], (1, 3)),
        ([4, 3], (4,)),
        (["N", "C"], (0,)),
    ],
)
def test_a_shape_that_stays_open_is_one_clear_line(shape, given, tmp_path):
    with pytest.raises(UsageError) as caught:
        read(single("Relu", shape), tmp_path, given)
    assert "input" in str(caught.value) and "\n" not in str(caught.value)


def test_a_fixed_batch_size_is_tracked(tmp_path):
    ok = make_model([N("Reshape", "x shape", "y")], [4, 6], {"shape": ints(4, 2, 3)})
    assert read(ok, tmp_path, (6,)).output_shape == (2, 3)
    bad = make_model([N("Reshape", "x shape", "y")], [4, 6], {"shape": ints(2, 2, 6)})
    with pytest.raises(UnsupportedError, match="batch"):
        read(bad, tmp_path, (6,))
    assert read(bad, tmp_path, (4, 6)).output_shape == (2, 2, 6)


def test_one_sample_without_a_batch_axis_may_be_rearranged_freely(tmp_path):
    nodes = [
        N("Reshape", "x flat", "f"),
        N("MatMul", "f w", "m"),
        N("Unsqueeze", "m front", "u"),
        N("Relu", "u", "r"),
        N("Transpose", "r", "y"),
    ]
    agrees(make_model(nodes, [1, 2, 3], {"flat": ints(6), "w": floats(6, 4), "front": ints(0)}), tmp_path)


# --- float types --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "dtype"),
    [
        (TensorProto.DOUBLE, "float64", np.float64),
        (TensorProto.FLOAT, "float32", np.float32),
        (TensorProto.FLOAT16, "float16", np.float16),
    ],
)
def test_float_types_are_read_exactly(kind, name, dtype, tmp_path):
    w = np.random.default_rng(0).standard_normal((3, 5)).astype(dtype)
    network = read(make_model([N("Gemm", "x w", "y", transB=1)], batch(5), {"w": w}, kind=kind), tmp_path)
    assert network.dtype == name
    assert np.array_equal(network.nodes[1].op.weight.mid, w.astype(np.float64))


def test_bfloat16(tmp_path):
    values = [1.0, -2.5, 1.5 * 2.0**120, 2.0**-126]
    w = helper.make_tensor("w", TensorProto.BFLOAT16, [1, 4], values)
    model = make_model([N("Gemm", "x w", "y", transB=1)], batch(4), kind=TensorProto.BFLOAT16)
    model.graph.initializer.append(w)
    network = read(model, tmp_path)
    assert network.dtype == "bfloat16"
    assert network.nodes[1].op.weight.mid.tolist() == [values]


def test_every_type_on_the_way_counts(tmp_path):
    nodes = [N("Cast", "x", "h", to=int(TensorProto.FLOAT16)), N("Relu", "h", "r"), N("Cast", "r", "y", to=1)]
    assert read(make_model(nodes, batch(3)), tmp_path).dtype == "float16+float32"


def test_a_stored_number_is_rounded_by_a_cast(tmp_path):
    nodes = [constant("c", np.float64(0.1)), N("Cast", "c", "d", to=1), N("Mul", "x d", "y")]
    network = read(make_model(nodes, batch(3)), tmp_path)
    assert float(network.nodes[1].op.factor.mid) == float(f32(0.1))


def test_float_attributes_are_float32(tmp_path):
    network = read(single("LeakyRelu", batch(3), alpha=0.1), tmp_path)
    assert float(network.nodes[1].op.params[0]) == float(f32(0.1))
    assert float(read(single("LeakyRelu", batch(3)), tmp_path).nodes[1].op.params[0]) == float(f32(0.01))


# --- the rest of a file -------------------------------------------------------------------------------------


def test_constant_nodes_of_every_form(tmp_path):
    nodes = [
        helper.make_node("Constant", [], ["a"], value_float=0.5),
        helper.make_node("Constant", [], ["b"], value_floats=[1.0, 2.0, 3.0]),
        helper.make_node("Constant", [], ["i"], value_int=1),
        helper.make_node("Constant", [], ["j"], value_ints=[0, 2, 1]),
        N("Mul", "x a", "p"),
        N("Add", "p b", "q"),
        N("Gather", "q j", "r", axis=1),
        N("Unsqueeze", "i zero", "k"),
        N("Unsqueeze", "r k", "s"),
        N("Squeeze", "s k", "y"),
    ]
    agrees(make_model(nodes, batch(3), {"zero": ints(0)}), tmp_path)


def test_initializers_may_be_listed_as_inputs(tmp_path):
    model = make_model([N("Mul", "x c", "y")], batch(3), {"c": floats(3)}, opset=8)
    model.graph.input.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, [3]))
    agrees(model, tmp_path)


def test_dead_parts_do_not_matter(tmp_path):
    nodes = [N("Exp", "x", "dead"), N("NonZero", "dead", "deader"), N("Relu", "x", "y")]
    assert len(read(make_model(nodes, batch(3)), tmp_path).nodes) == 2


def test_local_functions_are_written_out(tmp_path):
    body = [helper.make_node("Sigmoid", ["a"], ["s"]), helper.make_node("Mul", ["a", "s"], ["b"])]
    function = helper.make_function("own", "Swish", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    model = make_model([helper.make_node("Swish", ["x"], ["y"], domain="own")], batch(4))
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    network = agrees(model, tmp_path)
    assert [n.op.kind for n in network.nodes] == ["Input", "silu"]


def test_old_broadcasting_by_axis(tmp_path):
    """Before version 7 the second operand lines up from an axis; onnxruntime no longer runs it."""
    c, x = floats(3), floats(2, 3, 4, seed=8)
    model = single("Add", batch(3, 4), c, opset=6, broadcast=1, axis=1)
    np.testing.assert_array_equal(evaluate_model(model, tmp_path, x), x.astype(float) + c[:, None].astype(float))
    slope = np.abs(floats(3))
    found = evaluate_model(single("PRelu", batch(3, 4), slope, opset=6), tmp_path, x)
    np.testing.assert_array_equal(found, np.where(x >= 0, x, slope[:, None].astype(float) * x))


def test_source(tmp_path):
    model = make_model(
        [N("Reshape", "x s", "f"), N("Gemm", "f w b", "y", transB=1)],
        batch(2, 3),
        {"w": floats(4, 6), "b": floats(4), "s": ints(0, -1)},
    )
    path = save(model, tmp_path)
    source = read_onnx(path).source
    assert (source.path, source.form, source.parameters) == (str(path), "onnx", 28)
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_external_data(tmp_path):
    constants = {"w": floats(64, 64), "b": floats(64), "c": floats(64, seed=9)}
    model = make_model([N("Gemm", "x w b", "h"), N("Add", "h c", "y")], batch(64), constants)
    expected = evaluate_model(model, tmp_path, np.eye(64))
    one = tmp_path / "one.onnx"
    onnx.save(model, one, save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=100)
    names = sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".onnx")
    assert len(names) == 3
    network = read_onnx(one)
    digest = hashlib.sha256(one.read_bytes())
    for name in names:
        digest.update((tmp_path / name).read_bytes())
    assert network.source.sha256 == digest.hexdigest()
    np.testing.assert_array_equal(evaluate(network, np.eye(64)), expected)
