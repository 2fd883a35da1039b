"""Loading: every form through one door, files that are damaged or dangerous, weights, preprocessing."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.networks import open_network
from benchmarks.networks.architectures import factory_of
from lipcert.errors import LipcertError, UnsupportedError, UsageError
from lipcert.network import Builder, Enclosure, evaluate
from lipcert.network.operators import Dense, Elementwise, Scale
from lipcert.network.preprocess import with_normalisation
from lipcert.network.readers import load
from lipcert.network.readers.torch.weights import load_into, read_weights

FACTORY_FILE = """
from torch import nn

class Small(nn.Module):
    input_shape = (1, 4, 4)

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.SiLU(), nn.Flatten(), nn.Linear(8, 3))

    def forward(self, x):
        return self.net(x)

def broken():
    raise RuntimeError("no such\\nnetwork")

number = 3
"""


class Small(nn.Module):
    """The same network as in the factory file, trained a little bit: its batch norm has statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.SiLU(), nn.Flatten(), nn.Linear(8, 3))
        with torch.no_grad():
            self.net(torch.randn(10, 1, 4, 4))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.target}",)


@pytest.fixture
def small() -> Small:
    torch.manual_seed(0)
    return Small()


@pytest.fixture
def factory(tmp_path: Path) -> str:
    path = tmp_path / "nets.py"
    path.write_text(FACTORY_FILE)
    return f"{path}:Small"


def assert_same(network_of: object, module: nn.Module, **settings: object) -> None:
    network = load(network_of, **settings)  # type: ignore[arg-type]
    x = torch.randn(6, *network.input_shape)
    with torch.no_grad():
        np.testing.assert_allclose(evaluate(network, x.numpy()), module(x).numpy(), rtol=2e-5, atol=2e-6)


# --- forms --------------------------------------------------------------------------------------------------


def test_factory_with_weights(tmp_path: Path, small: Small, factory: str) -> None:
    torch.save({"state_dict": [small.state_dict()]}, tmp_path / "w.pt")
    save_file(small.state_dict(), tmp_path / "w.safetensors")
    assert_same((factory, tmp_path / "w.pt"), small)
    assert_same(f"{factory}@{tmp_path / 'w.safetensors'}", small)
    network = load((factory, tmp_path / "w.pt"))
    assert network.source.form == "factory" and network.source.path == str(tmp_path / "w.pt")
    assert network.source.sha256 == hashlib.sha256((tmp_path / "w.pt").read_bytes()).hexdigest()
    assert network.source.parameters == sum(p.numel() for p in small.parameters())
    assert network.notes == ("the weights were found at ['state_dict'][0] in 'w.pt'",)


def test_weights_of_every_kind(tmp_path: Path, small: Small) -> None:
    state = small.state_dict()
    half = {key: tensor.to(torch.bfloat16) if key == "net.4.bias" else tensor for key, tensor in state.items()}
    kinds = {
        "plain.pt": state,
        "nested.pth": {"epoch": 3, "best": 0.5, "state_dict": [state], "optimizer": {"state": {}}},
        "numpy.pt": {"model": state, "loss": np.zeros(3), "at": np.float64(2.0), "on": np.bool_(True)},
        "parallel.ckpt": {f"module.{key}": tensor for key, tensor in state.items()},
        "arrays.pt": {key: tensor.numpy() for key, tensor in state.items()},
        "half.model": half,
    }
    for name, content in kinds.items():
        torch.save(content, tmp_path / name)
    torch.save(state, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    save_file(half, tmp_path / "w.safetensors")
    for name in (*kinds, "legacy.pth", "w.safetensors"):
        found, notes, digest = read_weights(tmp_path / name)
        module = Small()
        notes += load_into(module, found, name)
        for key, tensor in module.state_dict().items():
            expected = half[key].to(tensor.dtype) if name in ("half.model", "w.safetensors") else state[key]
            assert torch.equal(tensor, expected), (name, key)
        assert bool(notes) == (name in ("nested.pth", "numpy.pt", "parallel.ckpt"))
        assert len(digest) == 64


def test_factories_find_their_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lipcert_test_widths.py").write_text("WIDTH = 3")
    code = "from torch import nn\nfrom lipcert_test_widths import WIDTH\ndef make():\n    return nn.Linear(WIDTH, 2)"
    (tmp_path / "lipcert_test_nets.py").write_text(code)
    linear = nn.Linear(3, 2)
    torch.save(linear.state_dict(), tmp_path / "w.pt")
    before = list(sys.path)
    assert_same((f"{tmp_path / 'lipcert_test_nets.py'}:make", tmp_path / "w.pt"), linear, input_shape=(3,))
    monkeypatch.chdir(tmp_path)
    assert_same(("lipcert_test_nets:make", "w.pt"), linear, input_shape=(3,))
    assert sys.path == before


def test_importable_factory_and_callable(tmp_path: Path) -> None:
    module = nn.Identity()
    torch.save({}, tmp_path / "none.pt")
    with pytest.raises(UsageError, match="no state dict"):
        load(("torch.nn:Identity", tmp_path / "none.pt"), input_shape=(3,))
    linear = nn.Linear(3, 2)
    torch.save(linear.state_dict(), tmp_path / "w.pt")
    assert_same((lambda: nn.Linear(3, 2), tmp_path / "w.pt"), linear, input_shape=(3,))
    with pytest.raises(UsageError, match="input_shape"):
        load((lambda: nn.Linear(3, 2), tmp_path / "w.pt"))
    with pytest.raises(UsageError, match="training mode"):
        load(module.train(), input_shape=(3,))


@pytest.mark.parametrize("batch", ["open", 1, 2])
@pytest.mark.parametrize("decomposed", [False, True])
def test_pt2_files(tmp_path: Path, small: Small, batch: str | int, decomposed: bool) -> None:
    example = torch.randn(2 if batch == "open" else int(batch), 1, 4, 4)
    shapes = ({0: torch.export.Dim("n")},) if batch == "open" else None
    program = torch.export.export(small, (example,), dynamic_shapes=shapes)
    if decomposed:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch uses a deprecated function of its own
            program = program.run_decompositions()
    torch.export.save(program, tmp_path / "model.pt2")
    assert_same(tmp_path / "model.pt2", small)
    network = load(tmp_path / "model.pt2", input_shape=(1, 4, 4))
    assert network.source.form == "pt2" and network.source.parameters == sum(p.numel() for p in small.parameters())
    assert [n.op.name for n in network.nodes if isinstance(n.op, Elementwise)] == ["silu"]


def test_pt2_of_another_shape(tmp_path: Path, small: Small) -> None:
    torch.export.save(torch.export.export(small, (torch.randn(1, 1, 4, 4),)), tmp_path / "model.pt2")
    with pytest.raises(UsageError, match=r"\(1, 4, 4\), not \(1, 5, 5\)"):
        load(tmp_path / "model.pt2", input_shape=(1, 5, 5))


def test_pt2_of_a_fixed_large_batch_is_refused(tmp_path: Path, small: Small) -> None:
    torch.export.save(torch.export.export(small, (torch.randn(64, 1, 4, 4),)), tmp_path / "model.pt2")
    with pytest.raises(UsageError, match="batches of 64"):
        load(tmp_path / "model.pt2")


def test_pt2_exported_in_training_mode_is_refused(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout())
    torch.export.save(torch.export.export(module, (torch.randn(2, 3),)), tmp_path / "model.pt2")
    with pytest.raises(UnsupportedError, match=r"model\.eval\(\)") as caught:
        load(tmp_path / "model.pt2")
    found = [item.what for item in caught.value.items]
    assert all(any(layer in what for what in found) for layer in ("batch_norm", "dropout", "buffer"))


def test_networks_are_read_without_torch(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    code = "import sys, lipcert; print(lipcert.load(sys.argv[1]).input_shape); assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", code, str(tmp_path / "m.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(3,)"


# --- files that are not what they should be ------------------------------------------------------------------


def one_line(error: LipcertError) -> bool:
    return "\n" not in str(error) and len(str(error)) < 600 and error.exit_code == 2


def test_paths_that_lead_nowhere(tmp_path: Path, factory: str) -> None:
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "empty.pt").touch()
    (tmp_path / "model.h5").write_bytes(b"x")
    (tmp_path / "w.safetensors").write_bytes(b"x")
    (tmp_path / "folder.pt2").mkdir()
    cases: dict[object, str] = {
        tmp_path / "missing.onnx": "there is no file",
        str(tmp_path / "missing.pt2"): "there is no file",
        tmp_path / "folder.pt2": "folder",
        tmp_path / "empty.onnx": "empty",
        tmp_path / "model.h5": "suffix",
        tmp_path / "w.safetensors": "package.module:factory",
        (factory, tmp_path / "missing.pt"): "there is no file",
        (factory, tmp_path / "empty.pt"): "empty",
        f"{factory}@{tmp_path / 'missing.pt'}": "there is no file",
        3: "int",
        (1, 2, 3): "tuple",
    }
    for model, message in cases.items():
        with pytest.raises(UsageError, match=message) as caught:
            load(model)
        assert one_line(caught.value)


def test_factories_that_are_none(tmp_path: Path, small: Small, factory: str) -> None:
    weights = tmp_path / "w.pt"
    torch.save(small.state_dict(), weights)
    path = factory.removesuffix(":Small")
    (tmp_path / "wrong.py").write_text("import no_such_package_here")
    cases = {
        "nonsense": "no factory",
        "no_such_package_here:f": "cannot import",
        f"{path}:missing": "no callable",
        f"{path}:number": "no callable",
        f"{path}:broken": "failed: RuntimeError: no such",
        f"{tmp_path / 'gone.py'}:f": "there is no file",
        f"{tmp_path / 'wrong.py'}:f": "cannot be run",
        "builtins:dict": "not a torch.nn.Module",
    }
    for text, message in cases.items():
        with pytest.raises(UsageError, match=message) as caught:
            load((text, weights))
        assert one_line(caught.value)


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "old.pth", "m.pt2"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.98])
def test_truncated_files(tmp_path: Path, small: Small, factory: str, name: str, part: float) -> None:
    state = small.state_dict()
    whole = tmp_path / f"whole.{name}"
    if name == "w.safetensors":
        save_file(state, whole)
    elif name == "m.pt2":
        torch.export.save(torch.export.export(small, (torch.randn(2, 1, 4, 4),)), whole)
    else:
        torch.save(state, whole, _use_new_zipfile_serialization=name == "w.pt")
    data = whole.read_bytes()
    (tmp_path / name).write_bytes(data[: int(part * len(data))])
    model = tmp_path / name if name == "m.pt2" else (factory, tmp_path / name)
    with pytest.raises(UsageError, match=r"damaged|no checkpoint|cannot be read") as caught:
        load(model)
    assert one_line(caught.value)


def test_weights_that_do_not_fit_are_all_named(tmp_path: Path, small: Small, factory: str) -> None:
    state = small.state_dict()
    state["extra"] = torch.zeros(1)
    state["net.0.weight"] = torch.zeros(2, 1, 5, 5)
    del state["net.4.bias"]
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(UsageError) as caught:
        load((factory, tmp_path / "w.pt"))
    for text in ("missing net.4.bias", "unexpected extra", "'net.0.weight' has shape (2, 1, 5, 5), not (2, 1, 3, 3)"):
        assert text in str(caught.value)
    assert one_line(caught.value)


def test_ambiguous_checkpoints_are_refused(tmp_path: Path, small: Small, factory: str) -> None:
    state = small.state_dict()
    for found in ({"model": state, "state_dict": state}, {"state_dict": [state, state]}, {"epoch": 3}, [1, 2]):
        torch.save(found, tmp_path / "w.pt")
        with pytest.raises(UsageError) as caught:
            load((factory, tmp_path / "w.pt"))
        assert one_line(caught.value)


def test_float64_weights_in_a_float32_module_are_mentioned(tmp_path: Path, small: Small, factory: str) -> None:
    torch.save(
        {k: v.double() if v.is_floating_point() else v for k, v in small.state_dict().items()}, tmp_path / "w.pt"
    )
    assert any("rounds weights" in note for note in load((factory, tmp_path / "w.pt")).notes)


# --- pickles ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["zip", "legacy", "bare", "among weights"])
def test_a_pickle_bomb_does_not_go_off(tmp_path: Path, small: Small, factory: str, kind: str) -> None:
    target, weights = tmp_path / "exploded", tmp_path / "w.pt"
    if kind == "bare":
        weights.write_bytes(pickle.dumps(Bomb(target)))
    elif kind == "among weights":
        torch.save({"state_dict": small.state_dict(), "args": Bomb(target)}, weights)
    else:
        torch.save(Bomb(target), weights, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(UsageError) as caught:
        load((factory, weights))
    assert not target.exists()
    assert one_line(caught.value)
    if kind != "bare":
        assert "system" in str(caught.value) and "allow_pickle=True" in str(caught.value)


def test_other_objects_need_permission(tmp_path: Path, small: Small, factory: str) -> None:
    torch.save({"state_dict": small.state_dict(), "args": Namespace(lr=0.1)}, tmp_path / "w.pt")
    with pytest.raises(UsageError, match=r"argparse\.Namespace.*allow_pickle=True"):
        load((factory, tmp_path / "w.pt"))
    assert_same((factory, tmp_path / "w.pt"), small, allow_pickle=True)


def edit_archive(path: Path, edit: Callable[[str, bytes], bytes]) -> None:
    """Rewrite the entries of an archive in place."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: edit(name, archive.read(name)) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def test_numpy_arrays_under_their_old_name(tmp_path: Path, small: Small) -> None:
    """Checkpoints written with numpy 1 name its functions differently."""
    path = tmp_path / "w.pt"
    torch.save({"model": small.state_dict(), "loss": np.arange(3.0)}, path)
    edit_archive(path, lambda _, content: content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert b"numpy.core" in path.read_bytes()
    assert read_weights(path)[0].keys() == small.state_dict().keys()


@pytest.mark.parametrize("kind", ["sample inputs", "weights", "expression", "string in an expression", "constant"])
def test_a_pt2_bomb_does_not_go_off(tmp_path: Path, small: Small, kind: str) -> None:
    target, path = tmp_path / "exploded", tmp_path / "model.pt2"
    program = torch.export.export(small, (torch.randn(2, 1, 4, 4),), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.export.save(program, path)
    torch.save(Bomb(target), tmp_path / "bomb.pt")
    bomb = (tmp_path / "bomb.pt").read_bytes()
    call = f"__import__('os').system('touch {target}')"

    def edit(name: str, content: bytes) -> bytes:
        if kind == "sample inputs" and "sample_inputs" in name:
            return bomb
        if kind == "weights" and name.endswith("weight_0"):
            return bomb
        if kind == "weights" and name.endswith("weights_config.json"):
            return content.replace(b'"use_pickle": false', b'"use_pickle": true', 1)
        if kind == "constant" and name.endswith("constants_config.json"):
            entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
            return json.dumps({"config": {"x": entry}}).encode()
        if "expression" in kind and name.endswith("model.json"):
            text = call if kind == "expression" else f'Max("{call}", 1)'
            old = b"\"Symbol('"
            start = content.index(old)
            end = content.index(b'"', start + 1)
            return content[:start] + json.dumps(text).encode() + content[end + 1 :]
        return content

    edit_archive(path, edit)
    with pytest.raises(UsageError, match="allow_pickle=True") as caught:
        load(path)
    assert not target.exists()
    assert one_line(caught.value)


def test_a_rewritten_archive_without_a_bomb_still_loads(tmp_path: Path, small: Small) -> None:
    """The oracle of the test above: rewriting the entries is not what is refused."""
    program = torch.export.export(small, (torch.randn(2, 1, 4, 4),), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.export.save(program, tmp_path / "model.pt2")
    edit_archive(tmp_path / "model.pt2", lambda _, content: content)
    assert_same(tmp_path / "model.pt2", small)


# --- preprocessing ------------------------------------------------------------------------------------------


def test_normalisation_encloses_the_exact_map() -> None:
    builder = Builder((3, 2, 2))
    builder.add(Elementwise("relu"), 0)
    mean, std = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
    network = with_normalisation(builder.build(), mean, std)
    scale = network.nodes[1].op
    assert isinstance(scale, Scale) and scale.factor.shape == (3, 1, 1)
    for c in range(3):
        exact_factor, exact_shift = 1 / Fraction(std[c]), -Fraction(mean[c]) / Fraction(std[c])
        for part, exact in ((scale.factor, exact_factor), (scale.shift, exact_shift)):
            mid, rad = Fraction(float(part.mid[c, 0, 0])), Fraction(float(part.radius[c, 0, 0]))
            assert abs(exact - mid) <= rad <= abs(exact) * Fraction(1, 2**50)
    x = np.random.default_rng(0).uniform(size=(4, 3, 2, 2))
    by_hand = np.maximum((x - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1)), 0)
    np.testing.assert_allclose(evaluate(network, x), by_hand, rtol=1e-12, atol=1e-14)
    assert "0.4914" in network.notes[-1]


def test_normalisation_by_numbers_that_divide_exactly_is_exact() -> None:
    builder = Builder((4,))
    builder.add(Dense(Enclosure.exact(np.eye(4)), Enclosure.exact(np.zeros(4))), 0)
    network = with_normalisation(builder.build(), 0.25, 0.5)
    assert network.is_exact
    np.testing.assert_array_equal(evaluate(network, np.ones((1, 4))), np.full((1, 4), 1.5))


def test_normalisation_through_load(tmp_path: Path, small: Small, factory: str) -> None:
    torch.save(small.state_dict(), tmp_path / "w.pt")
    plain = load((factory, tmp_path / "w.pt"))
    shifted = load((factory, tmp_path / "w.pt"), mean=[0.1], std=0.5)
    x = np.random.default_rng(0).uniform(size=(4, 1, 4, 4))
    np.testing.assert_allclose(evaluate(shifted, x), evaluate(plain, (x - 0.1) / 0.5), rtol=1e-12)
    assert len(shifted.nodes) == len(plain.nodes) + 1 and shifted.source == plain.source


@pytest.mark.parametrize(
    ("mean", "std"),
    [(0.0, 0.0), (0.0, -1.0), (float("nan"), 1.0), (0.0, float("inf")), ([0.1] * 4, 1.0), ([0.1] * 3, [1.0] * 2)],
)
def test_normalisations_that_make_no_sense(mean: float | list[float], std: float | list[float]) -> None:
    builder = Builder((3, 2, 2))
    builder.add(Elementwise("relu"), 0)
    with pytest.raises(UsageError):
        with_normalisation(builder.build(), mean, std)


# --- real checkpoints ---------------------------------------------------------------------------------------

REAL = (
    "models/glipsdp/FC-R18.pt",
    "models/glipsdp/LeNet5ReLU.pt",
    "models/glipsdp/mlp_L3_W16.state_dict.pt",
    "models/glipsdp/cnn_C3_CH8.state_dict.pt",
    "models/abcrown/mnist_6_100_nat.pth",
    "models/vnncomp2021/resnet2b.pth",
)


@pytest.mark.parametrize("file", REAL)
def test_real_checkpoints_compute_what_torch_computes(shared_data: Path, file: str) -> None:
    path = shared_data / file
    network, images, labels = open_network(shared_data, file)
    x = images[:50]
    found = evaluate(network, x.astype(np.float64))
    module = factory_of(path.name)()
    state = torch.load(path, weights_only=True, map_location="cpu")
    state = state.get("state_dict", state)
    module.load_state_dict(state[0] if isinstance(state, list) else state)
    for step in (n.op for n in network.nodes[1:2]):
        if isinstance(step, Scale):
            x = (x * step.factor.mid + step.shift.mid).astype(np.float32)
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-5 * np.abs(expected).max())
    assert (found.argmax(1) == labels[:50]).mean() >= 0.5


def test_checkpoints_with_numpy_arrays_are_read(shared_data: Path) -> None:
    """`torch.load(weights_only=True)` refuses this file; the weights in it equal those of the re-saved one."""
    folder = shared_data / "models" / "glipsdp"
    build = factory_of("mlp_L3_W16.pt")
    whole = load((build, folder / "mlp_L3_W16.pt"), input_shape=(1, 28, 28))
    plain = load((build, folder / "mlp_L3_W16.state_dict.pt"), input_shape=(1, 28, 28))
    assert whole.weights_digest == plain.weights_digest and whole.graph_digest == plain.graph_digest
    assert whole.notes == ("the weights were found at ['model_state_dict'] in 'mlp_L3_W16.pt'",)
    assert whole.source.parameters == 13274 and whole.hidden_neurons == 48
