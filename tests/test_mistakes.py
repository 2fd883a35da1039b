"""Typical mistakes of somebody's first day: each is told in one line that helps, and ends with its exit code."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lipcert import api
from lipcert.cli import app
from lipcert.network.builder import Builder
from lipcert.network.enclosure import Enclosure
from lipcert.network.graph import Network
from lipcert.network.operators import Dense, Elementwise, Reshape
from lipcert.network.preprocess import with_normalisation

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "digits"
CERTIFY = ("certify", "digits.onnx", "--data", "test.npz", "--eps", "0.25", "--method", "product", "--limit", "100")


@dataclass(frozen=True)
class Told:
    """What a command ended with, and the lines on stderr and stdout."""

    code: int
    lines: list[str]
    out: str

    @property
    def error(self) -> str:
        """The one line of an error; nothing else may stand on stderr or stdout."""
        assert len(self.lines) == 1, self.lines
        assert self.lines[0].startswith("lipcert: error: ")
        assert self.out == ""
        return self.lines[0]

    @property
    def hint(self) -> str:
        """The one hint; it stands in the results, too."""
        hints = [line for line in self.lines if line.startswith("hint: ")]
        assert len(hints) == 1, self.lines
        assert hints[0].removeprefix("hint: ")[:60] in self.out
        return hints[0]


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run lipcert in a copy of the shipped example."""
    for name in ("digits.onnx", "test.npz"):
        shutil.copy(EXAMPLE / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIPCERT_DEBUG", raising=False)

    def run(*arguments: str) -> Told:
        capsys.readouterr()
        code = app.run(arguments)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Told(code, captured.err.splitlines(), captured.out)

    return run


def test_without_a_mistake_there_is_no_hint(tool: Any) -> None:
    told = tool(*CERTIFY)
    assert (told.code, told.lines) == (0, [])
    assert "Clean accuracy" not in told.out


# --- the twelve -------------------------------------------------------------------------------------------------


def test_1_a_wrong_path(tool: Any) -> None:
    told = tool("certify", "digit.onnx", *CERTIFY[2:])
    assert told.code == 2
    assert "there is no file 'digit.onnx': did you mean 'digits.onnx'?" in told.error
    told = tool("certify", "digits.onnx", "--data", "tests.npz", "--eps", "0.5")
    assert told.code == 2
    assert "'tests.npz'" in told.error


def test_2_a_wrong_shape(tool: Any) -> None:
    np.savez("wide.npz", images=np.zeros((30, 1, 9, 9), dtype=np.float32), labels=np.zeros(30, dtype=np.int64))
    told = tool("certify", "digits.onnx", "--data", "wide.npz", "--eps", "0.5")
    assert told.code == 2
    assert "(1, 9, 9)" in told.error
    assert "(1, 8, 8)" in told.error


def test_3_a_missing_normalisation(tool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mean, std, read = 0.3, 0.1, api.load

    def load(path: Any, **options: Any) -> Network:
        """The network as if it had been trained on (x - mean) / std."""
        return read(with_normalisation(read(path), -mean / std, 1 / std), **options)

    monkeypatch.setattr(api, "load", load)
    told = tool(*CERTIFY)
    assert told.code == 0
    assert "--mean" in told.hint
    assert "--std" in told.hint
    assert tool(*CERTIFY, "--mean", str(mean), "--std", str(std)).lines == []


def test_4_channels_last(tool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    let_load(monkeypatch, (2, 4, 4), 3)
    save_colours(2)
    told = tool("certify", "m.onnx", "--data", "hwc.npz", "--eps", "0.5")
    assert told.code == 2
    assert "channels last (HWC): transpose them with images.transpose(0, 3, 1, 2)" in told.error


def test_4_channels_last_where_nothing_shows_it(tool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    let_load(monkeypatch, (48,), 3)
    save_colours(3)
    told = tool("certify", "m.onnx", "--data", "hwc.npz", "--eps", "0.5")
    assert told.code == 2
    assert "channels last (HWC): transpose them with images.transpose(0, 3, 1, 2)" in told.error


def test_4_channels_last_of_colours_are_turned_and_it_is_said(tool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    let_load(monkeypatch, (3, 4, 4), 3)
    save_colours(3)
    told = tool("certify", "m.onnx", "--data", "hwc.npz", "--eps", "0.01", "--method", "product")
    assert told.code == 0
    assert "turned to channels first" in told.out


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_5_inputs_of_0_to_255(tool: Any, kind: type) -> None:
    with np.load("test.npz") as data:
        np.savez("pixels.npz", images=np.round(data["images"] * 255).astype(kind), labels=data["labels"])
    run = ("certify", "digits.onnx", "--data", "pixels.npz", *CERTIFY[4:])
    told = tool(*run, "--scale", "1")
    assert told.code == 0
    assert "--scale 1/255" in told.hint
    assert tool(*run, "--scale", "1/255").lines == []


def test_5_inputs_of_0_to_1_to_a_network_of_0_to_255(tool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read = api.load
    monkeypatch.setattr(api, "load", lambda path, **_: with_normalisation(read(path), 0.0, 255.0))
    assert "the network takes 0 to 255" in tool(*CERTIFY).hint
    assert tool(*CERTIFY, "--scale", "255").lines == []


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        (("bound", "digits.onnx", "--method", "prodcut"), "product"),
        (("compare", "digits.onnx", "--methods", "product,lipspd"), "lipsdp"),
        ((*CERTIFY[:6], "--method", "crwn"), "crown"),
        ((*CERTIFY[:6], "--method", "cascad"), "cascade"),
    ],
)
def test_6_an_unknown_method(tool: Any, arguments: tuple[str, ...], right: str) -> None:
    told = tool(*arguments)
    assert told.code == 2
    assert f"did you mean '{right}'?" in told.error


def test_6_a_local_method_where_there_are_no_samples(tool: Any) -> None:
    for arguments in (("bound", "digits.onnx", "--method", "crown"), ("compare", "digits.onnx", "--methods", "crown")):
        told = tool(*arguments)
        assert told.code == 2
        assert "`lipcert certify --method crown`" in told.error


def test_7_an_unsupported_layer(tool: Any) -> None:
    make_unsupported(Path("odd.onnx"))
    told = tool("bound", "odd.onnx")
    assert told.code == 4
    assert "2 unsupported part(s)" in told.error
    assert all(word in told.error for word in ("Det", "odd_det", "RandomNormalLike", "odd_noise"))


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_8_eps_in_pixels(tool: Any, norm: str) -> None:
    told = tool("certify", "digits.onnx", "--data", "test.npz", "--eps", "8", *CERTIFY[6:], "--norm", norm)
    assert told.code == 0
    assert "did you mean 8/255 = 0.03137?" in told.hint
    right = tool("certify", "digits.onnx", "--data", "test.npz", "--eps", "8/255", *CERTIFY[6:], "--norm", norm)
    assert right.lines == []
    assert "0.0313725" in right.out


@pytest.mark.parametrize(
    ("text", "right"), [("metod = 'product'", "method"), ("[certify]\nbatch-sise = 3", "batch-size")]
)
def test_9_a_misspelt_key(tool: Any, text: str, right: str) -> None:
    Path("lipcert.toml").write_text(text)
    told = tool(*CERTIFY)
    assert told.code == 2
    assert f"did you mean '{right}'?" in told.error
    assert "lipcert.toml" in told.error


@pytest.mark.parametrize("text", ["", " ", "certified_accuracy@0.25"])
def test_10_an_empty_requirement(tool: Any, text: str) -> None:
    told = tool(*CERTIFY, "--require", text)
    assert told.code == 2
    assert "certified_accuracy@0.5 >= 0.6" in told.error


def test_11_a_folder_that_cannot_be_made(tool: Any) -> None:
    told = tool(*CERTIFY, "--report", "test.npz/report")
    assert told.code == 2
    assert "'test.npz/report'" in told.error
    assert "another place" in told.error


@pytest.mark.parametrize(
    "arguments",
    [(*CERTIFY, "--report", "locked"), ("bound", "digits.onnx", "--out", "locked/m.lipcert")],
)
def test_11_a_folder_that_cannot_be_written_to(
    tool: Any, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    Path("locked").mkdir()
    if os.geteuid() == 0:  # to whom every folder is open
        access, is_locked = os.access, lambda path, mode: Path(path).name == "locked" and bool(mode & os.W_OK)
        monkeypatch.setattr(os, "access", lambda path, mode: not is_locked(path, mode) and access(path, mode))
    else:
        Path("locked").chmod(0o500)
    told = tool(*arguments)
    assert told.code == 2
    assert "the folder 'locked' cannot be written to" in told.error
    assert list(Path("locked").iterdir()) == []


def test_12_a_certificate_of_another_model(tool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tool("bound", "digits.onnx", "--method", "product", "--out", "digits.lipcert").code == 0
    read = api.load
    monkeypatch.setattr(api, "load", lambda path, **options: read(with_normalisation(read(path), 0.0, 0.5), **options))
    told = tool("check", "digits.lipcert", "digits.onnx")
    assert (told.code, told.lines) == (3, [])
    first, second = told.out.splitlines()[:2]
    assert first.startswith("invalid  ")
    assert "another structure" in first
    assert "lipcert bound digits.onnx --norm l2 --out digits.lipcert" in second
    told = tool(*CERTIFY, "--certificate", "digits.lipcert")
    assert told.code == 3
    assert "another structure" in told.error


def test_12_certificate_and_model_in_the_wrong_order(tool: Any) -> None:
    told = tool("check", "digits.onnx", "digits.lipcert")
    assert told.code == 2
    assert told.error.endswith("lipcert check digits.lipcert digits.onnx")


# --- and a few more ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told_of"),
    [
        (("inspect", "digits.onnx", "--mean", "0.1", "--mean", "0.2"), "--mean"),
        (("--config", "a.toml", "--config", "b.toml", "doctor"), "--config"),
        ((*CERTIFY, "--data", "other.npz"), "--data"),
        (("report", "merge", "a", "--out", "b", "--out", "c"), "--out"),
    ],
)
def test_an_option_of_one_value_given_twice(tool: Any, arguments: tuple[str, ...], told_of: str) -> None:
    told = tool(*arguments)
    assert told.code == 2
    assert f"{told_of} is given 2 times" in told.error


def test_what_may_stand_twice(tool: Any) -> None:
    told = tool(*CERTIFY, "--eps", "0.5", "--quiet", "--quiet")
    assert (told.code, told.lines) == (0, [])
    assert " 0.5 " in told.out


@pytest.mark.parametrize("shift", [1, -1])
def test_labels_that_are_shifted(tool: Any, shift: int) -> None:
    with np.load("test.npz") as data:
        np.savez("shifted.npz", images=data["images"], labels=(data["labels"] + shift) % 10)
    told = tool("certify", "digits.onnx", "--data", "shifted.npz", *CERTIFY[4:])
    assert told.code == 0
    assert f"label {'-' if shift > 0 else '+'} 1" in told.hint


def test_labels_that_count_from_1(tool: Any) -> None:
    with np.load("test.npz") as data:
        np.savez("ones.npz", images=data["images"], labels=data["labels"] + 1)
    told = tool("certify", "digits.onnx", "--data", "ones.npz", "--eps", "0.5")
    assert told.code == 2
    assert "counted from 1: subtract 1" in told.error


def test_images_on_their_side(tool: Any) -> None:
    with np.load("test.npz") as data:
        np.savez("turned.npz", images=data["images"].transpose(0, 1, 3, 2), labels=data["labels"])
    assert "on their side" in tool("certify", "digits.onnx", "--data", "turned.npz", *CERTIFY[4:]).hint


def test_labels_of_other_images(tool: Any) -> None:
    with np.load("test.npz") as data:
        labels = np.random.default_rng(0).permutation(data["labels"])
        np.savez("mixed.npz", images=data["images"], labels=labels)
    assert "no better than guessing" in tool("certify", "digits.onnx", "--data", "mixed.npz", *CERTIFY[4:]).hint


@pytest.mark.parametrize("name", ["resnet_2b", "cifar_base_kw"])
def test_a_missing_normalisation_of_a_real_network(tool: Any, shared_data: Path, name: str) -> None:
    model = str(shared_data / "models" / "vnncomp2021" / f"{name}.onnx")
    data = str(shared_data / "datasets" / "cifar10_test.npz")
    run = ("certify", model, "--data", data, "--eps", "2/255", "--norm", "linf", "--method", "product", "--limit", "60")
    assert "--mean" in tool(*run).hint
    assert tool(*run, "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225").lines == []


def test_hints_change_no_verdict(tool: Any) -> None:
    with np.load("test.npz") as data:
        np.savez("pixels.npz", images=data["images"] * np.float32(255), labels=data["labels"])
    loud = tool("certify", "digits.onnx", "--data", "pixels.npz", *CERTIFY[4:])
    quiet = tool("certify", "digits.onnx", "--data", "pixels.npz", *CERTIFY[4:], "--quiet")
    assert loud.lines != quiet.lines == []
    assert [line for line in loud.out.splitlines() if "/s on" not in line] == [
        line for line in quiet.out.splitlines() if "/s on" not in line
    ]


def let_load(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], classes: int) -> None:
    """Let every model be a small dense network on inputs of this shape."""
    generator, size = np.random.default_rng(2), int(np.prod(shape))
    builder = Builder(shape)
    flat = builder.add(Reshape(), 0, shape=(size,))
    hidden = builder.add(Dense(Enclosure(generator.normal(size=(8, size))), Enclosure(np.zeros(8))), flat)
    active = builder.add(Elementwise("relu"), hidden)
    builder.add(Dense(Enclosure(generator.normal(size=(classes, 8))), Enclosure(np.zeros(classes))), active)
    network = builder.build()
    monkeypatch.setattr(api, "load", lambda *_, **__: network)


def save_colours(channels: int) -> None:
    images = np.random.default_rng(3).uniform(size=(30, 4, 4, channels)).astype(np.float32)
    np.savez("hwc.npz", images=images, labels=np.arange(30) % 3)


def make_unsupported(path: Path) -> None:
    """Write a model with two operators that have no rule."""
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["y"], name="odd_noise"),
        helper.make_node("Det", ["y"], ["z"], name="odd_det"),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [1, 2, 2]), ("z", [1]))]
    graph = helper.make_graph(nodes, "odd", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(path))
