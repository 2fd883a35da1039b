"""What the ONNX reader refuses: every unsupported part at once, and every damage in one clear line."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx_models import batch, floats, helper, ints, make_model, read, save, single

from lipcert.errors import UnsupportedError, UsageError
from lipcert.network.readers.onnx.file import read_onnx

f32 = np.float32


def N(op, inputs, output, **attributes):
    return helper.make_node(op, inputs.split(), [output], name=attributes.pop("name", output), **attributes)


# --- unsupported parts --------------------------------------------------------------------------------------

UNSUPPORTED = {
    "exp": (single("Exp", batch(3)), "slope"),
    "sqrt": (single("Sqrt", batch(3)), "slope"),
    "log": (single("Log", batch(3)), "slope"),
    "power": (single("Pow", batch(3), f32(2)), "slope"),
    "reciprocal by division": (single("Div", batch(3), f32(1), position=1), "slope"),
    "sign": (single("Sign", batch(3)), "jumps"),
    "thresholded relu": (single("ThresholdedRelu", batch(3)), "jumps"),
    "hard shrink": (single("Shrink", batch(3), lambd=0.5), "jumps"),
    "layer norm": (single("LayerNormalization", batch(3), floats(3)), "statistic"),
    "instance norm": (single("InstanceNormalization", batch(3, 4), floats(3), floats(3)), "statistic"),
    "batch norm in training": (
        single("BatchNormalization", batch(3), *[np.abs(floats(3))] * 4, opset=15, training_mode=1, count=3),
        "training",
    ),
    "dropout in training": (single("Dropout", batch(3), f32(0.5), np.array(True)), "training"),
    "lp pool": (single("LpPool", batch(2, 4), kernel_shape=[2]), "no rule"),
    "linear resize": (single("Resize", batch(2, 3, 3), None, np.array([1, 1, 2, 2], f32), mode="linear"), "nearest"),
    "uneven resize": (single("Resize", batch(2, 4, 4), None, np.array([1, 1, 1.5, 1], f32)), "whole factors"),
    "uneven nearest": (
        single(
            "Resize", batch(2, 3, 3), None, np.array([1, 1, 2, 2], f32), coordinate_transformation_mode="align_corners"
        ),
        "align_corners",
    ),
    "nearest that rounds down from half pixels": (
        single("Resize", batch(2, 3, 3), None, np.array([1, 1, 2, 2], f32), nearest_mode="floor"),
        "evenly",
    ),
    "unknown attribute": (single("Relu", batch(3), alpha=0.3), "alpha"),
    "unknown padding": (single("Conv", batch(1, 5), floats(1, 1, 2), auto_pad="FULL"), "FULL"),
    "flag that is none": (single("Gemm", batch(3), floats(3, 3), transB=2), "0 or 1"),
    "cast to integers": (single("Cast", batch(3), to=7), "jumps"),
    "celu": (single("Celu", batch(3), alpha=-1.0), "alpha > 0"),
    "indices of a sort": (
        make_model(
            [helper.make_node("TopK", ["x", "k"], ["v", "i"]), N("Cast", "i", "y", to=1)], batch(3), {"k": ints(2)}
        ),
        "no slope|not supported|cannot",
    ),
    "a stack of matrices": (single("MatMul", batch(4, 1, 3), floats(4, 3, 2)), "stack"),
    "negative padding": (single("Conv", batch(1, 5), floats(1, 1, 2), pads=[-1, 0]), "negative"),
    "weights that depend on the data": (
        make_model(
            [N("Reshape", "x s", "w"), N("Conv", "k w", "y")], [1, 4], {"s": ints(1, 1, 4), "k": floats(1, 1, 6)}
        ),
        "constant|depend",
    ),
    "slopes that depend on the data": (make_model([N("PRelu", "x x", "y")], batch(3)), "constant"),
    "a shape that depends on the data": (
        make_model([N("Cast", "x", "i", to=7), N("Reshape", "c i", "y")], [2], {"c": floats(4)}),
        "jumps|data",
    ),
    "where": (make_model([N("Greater", "x c", "g"), N("Where", "g x c", "y")], batch(3), {"c": f32(0)}), "jumps"),
    "operator of another domain": (
        make_model([helper.make_node("FastGelu", ["x"], ["y"], name="y", domain="com.microsoft")], batch(3)),
        "com.microsoft",
    ),
    "constant exp": (make_model([N("Exp", "c", "e"), N("Mul", "x e", "y")], batch(3), {"c": f32(0.1)}), "fold"),
    "strings": (make_model([N("Gather", "x c", "y")], batch(3), {"c": np.array(["a"], dtype=object)}), "neither"),
    "old operator set": (single("Relu", batch(3), opset=5), "version 5"),
    "unknown operator": (single("Bernoulli", batch(3)), "no rule"),
}


@pytest.mark.parametrize(("model", "reason"), UNSUPPORTED.values(), ids=UNSUPPORTED.keys())
def test_unsupported_parts(model, reason, tmp_path):
    with pytest.raises(UnsupportedError, match=reason) as caught:
        read(model, tmp_path)
    assert "\n" not in str(caught.value)


def test_everything_unsupported_is_listed_once_with_names(tmp_path):
    nodes = [
        N("Exp", "x", "first"),
        N("Gemm", "first w", "a"),
        N("LayerNormalization", "a s", "second"),
        N("Mul", "second a", "third"),
        N("Sigmoid", "third", "gate"),
        N("Mul", "gate third", "silu"),
        N("Sign", "silu", "fourth"),
        N("Add", "fourth silu", "y"),
        N("Sqrt", "x", "dead"),
    ]
    with pytest.raises(UnsupportedError) as caught:
        read(make_model(nodes, batch(4), {"w": floats(4, 4), "s": floats(4)}), tmp_path)
    assert [item.where for item in caught.value.items] == ["first", "second", "third", "fourth"]
    assert [item.what for item in caught.value.items] == ["Exp", "LayerNormalization", "Mul", "Sign"]


def test_what_follows_a_node_of_unknown_shape_is_looked_at(tmp_path):
    nodes = [
        N("Tanh", "x", "t"),
        N("Mul", "t x", "product"),
        N("NonZero", "product", "first"),
        N("Cast", "first", "c", to=1),
        N("Relu", "c", "r"),
        N("Sign", "r", "second"),
        N("Exp", "second", "y"),
    ]
    with pytest.raises(UnsupportedError) as caught:
        read(make_model(nodes, batch(4)), tmp_path)
    assert [item.where for item in caught.value.items] == ["product", "first", "second", "y"]


def test_several_inputs_and_outputs(tmp_path):
    model = make_model([N("Add", "x z", "y"), N("Relu", "y", "y1"), N("Exp", "y1", "y2")], batch(3), outputs=3)
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 3]))
    with pytest.raises(UnsupportedError) as caught:
        read(model, tmp_path)
    assert {item.where for item in caught.value.items} == {"z", "y1", "y2"}


def test_control_flow(tmp_path):
    output = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    branch = helper.make_graph([N("Relu", "x", "z")], "b", [], [output])
    nodes = [helper.make_node("If", ["c"], ["y"], name="choice", then_branch=branch, else_branch=branch)]
    with pytest.raises(UnsupportedError, match="control flow") as caught:
        read(make_model(nodes, batch(3), {"c": np.array(True)}), tmp_path)
    assert [item.where for item in caught.value.items] == ["choice"]


def test_integer_inputs(tmp_path):
    with pytest.raises(UnsupportedError, match="uint8"):
        read(make_model([N("Cast", "x", "y", to=1)], batch(3), kind=TensorProto.UINT8), tmp_path)


def test_self_attention(shared_data):
    with pytest.raises(UnsupportedError) as caught:
        read_onnx(shared_data / "models/marabou/self-attention-mnist.onnx")
    assert [item.where for item in caught.value.items] == ["MatMul__102", "MatMul__148"]
    assert all(item.what == "MatMul" and "depend on the input" in item.why for item in caught.value.items)


# --- damage -------------------------------------------------------------------------------------------------


@pytest.fixture
def gemm():
    return make_model(
        [N("Gemm", "x w", "h"), N("Relu", "h", "r"), N("Gemm", "r v", "y")],
        batch(32),
        {"w": floats(32, 32), "v": floats(32, 10)},
    )


def test_messages_are_one_printable_line(tmp_path):
    nodes = [helper.make_node("Exp", ["x"], ["y"], name="two\nlines \x1b[31m")]
    with pytest.raises(UnsupportedError) as caught:
        read(make_model(nodes, batch(3)), tmp_path)
    assert str(caught.value).isprintable()


def one_line(call, *words):
    with pytest.raises(UsageError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words)


def test_a_truncated_file_is_refused_wherever_it_is_cut(gemm, tmp_path):
    data = gemm.SerializeToString()
    path = tmp_path / "cut.onnx"
    for end in range(0, len(data), 97):
        path.write_bytes(data[:end])
        with pytest.raises((UsageError, UnsupportedError)) as caught:
            read_onnx(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + bytes(100), bytes(1000), b"\x80\x04." * 50])
def test_other_files(content, tmp_path):
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    one_line(lambda: read_onnx(path), str(path), "ONNX")


def test_a_missing_file(tmp_path):
    one_line(lambda: read_onnx(tmp_path / "none.onnx"), "none.onnx", "No such file")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers(bad, tmp_path):
    w = floats(4, 3)
    w[2, 1] = bad
    model = make_model([N("Gemm", "x weights", "y")], batch(4), {"weights": w})
    one_line(lambda: read(model, tmp_path), "NaN")


def test_numbers_that_become_infinite(tmp_path):
    model = make_model([N("Div", "w zero", "v"), N("Gemm", "x v", "y")], batch(4), {"w": floats(4, 3), "zero": f32(0)})
    one_line(lambda: read(model, tmp_path), "infinite")
    variance = np.array([1.0, -1.0, 1.0], f32)
    norm = single("BatchNormalization", batch(3), *[floats(3)] * 3, variance)
    one_line(lambda: read(norm, tmp_path), "NaN or infinite")


def test_shapes_that_do_not_fit(tmp_path):
    one_line(lambda: read(single("Gemm", batch(5), floats(4, 3)), tmp_path), "node", "Gemm")
    one_line(lambda: read(single("Conv", batch(3, 8, 8), floats(4, 2, 3, 3)), tmp_path), "node", "channels")
    one_line(lambda: read(single("Conv", batch(3, 2, 2), floats(4, 3, 5, 5)), tmp_path), "node", "larger")
    one_line(lambda: read(single("Add", batch(3), floats(4)), tmp_path), "node", "Add")
    one_line(lambda: read(single("PRelu", batch(3), floats(4)), tmp_path), "node", "PRelu")
    one_line(lambda: read(single("Gather", batch(3), ints(3), axis=1), tmp_path), "node", "Gather")
    one_line(lambda: read(single("MaxPool", batch(1, 4), kernel_shape=[2], pads=[3, 0]), tmp_path), "padding")
    one_line(lambda: read(single("Pad", batch(3), ints(0, 3, 0, 0), mode="reflect"), tmp_path), "padding")


def test_names_that_nothing_defines(tmp_path):
    model = make_model([N("Add", "x nowhere", "y")], batch(3))
    one_line(lambda: read(model, tmp_path), "nowhere")
    one_line(lambda: read(make_model([N("Relu", "x", "z")], batch(3)), tmp_path), "output")


def test_an_output_that_does_not_depend_on_the_input(tmp_path):
    one_line(lambda: read(make_model([N("Neg", "c", "y")], batch(3), {"c": floats(3)}), tmp_path), "input")
    nodes = [N("Shape", "x", "s"), N("Cast", "s", "y", to=1)]
    one_line(lambda: read(make_model(nodes, [1, 3]), tmp_path), "output")


def test_a_stored_tensor_of_the_wrong_size(gemm, tmp_path):
    gemm.graph.initializer[0].raw_data = gemm.graph.initializer[0].raw_data[:-4]
    one_line(lambda: read(gemm, tmp_path), "'w'")


@pytest.fixture
def external(gemm, tmp_path):
    path = tmp_path / "big.onnx"
    onnx.save(gemm, path, save_as_external_data=True, location="big.onnx.data", size_threshold=100)
    return path


def test_missing_external_data(external):
    external.with_name("big.onnx.data").unlink()
    one_line(lambda: read_onnx(external), "big.onnx.data")


def test_truncated_external_data(external):
    data = external.with_name("big.onnx.data")
    data.write_bytes(data.read_bytes()[:-8])
    one_line(lambda: read_onnx(external), "big.onnx.data", "bytes")


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../secret", ""])
def test_external_data_outside_the_folder(external, location):
    (external.parent.parent / "secret").write_bytes(bytes(10**5))
    model = onnx.load(external, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path = save(model, external.parent, "changed.onnx")
    one_line(lambda: read_onnx(path), "outside")


def test_external_data_behind_a_link_that_leaves_the_folder(external, tmp_path):
    data = external.with_name("big.onnx.data")
    target = data.rename(tmp_path.parent / "elsewhere.data")
    data.symlink_to(target)
    one_line(lambda: read_onnx(external), "outside")
