"""How certifiers have been wrong: each known case is a test, held against an oracle that is not the reader's network.

Oracles: Jacobians by torch's autograd in float64, difference quotients of onnxruntime, singular values by LAPACK
(lowered by 1e-12 for their own rounding), and matrices whose norm is known exactly. Cases 5 (ties) and 9 (all rivals)
are in robustness/test_margins.py, further cases of 11 in bounds/test_multiplier_methods.py, of 14 in proof/test_psd.py.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn

import lipcert
from lipcert.bounds.engine import bound
from lipcert.bounds.local.registry import LOCAL_METHODS
from lipcert.bounds.registry import METHODS
from lipcert.errors import UsageError
from lipcert.network import Builder, Enclosure, Network
from lipcert.network.operators import Conv, Dense, Elementwise, Reshape, Softmax, Sum
from lipcert.proof.psd import is_psd
from lipcert.proof.subject import subject
from lipcert.testing.build import RELU, chain, dense, exact, matrices, mlp
from lipcert.testing.jacobian import exact_jacobian

LAPACK = 1.0 - 1e-12  # relative room for the rounding errors of an oracle in float64


def product(network: Network, norm: str = "l2") -> float:
    return bound(network, "product", norm).value


def all_bounds(network: Network, norm: str = "l2") -> dict[str, float]:
    """Return the bounds of all methods that serve a network."""
    normal = subject(network, "output")
    serving = [m.name for m in METHODS if norm in m.norms and m.refuses(normal, norm) is None]
    assert "product" in serving
    return {name: bound(network, name, norm).value for name in serving}


def jacobian(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return autograd's Jacobian (out_size, in_size) of a float64 model at one point."""
    found = torch.autograd.functional.jacobian(model, x[None].double())
    return found.reshape(-1, x.numel())


def jacobian_norm(module: nn.Module, points: torch.Tensor) -> float:
    """Return the largest l2 norm of autograd's Jacobians in float64, lowered by their rounding errors."""
    model = copy.deepcopy(module).double()
    return max(float(torch.linalg.matrix_norm(jacobian(model, x), 2)) for x in points) * LAPACK


def seeded(module: nn.Module, seed: int = 0, spread: float = 1.0) -> nn.Module:
    """Return the module in evaluation mode with normally distributed parameters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, spread, generator=generator)
    return module.eval()


def points(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- 1. skipped layers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "factory", "truth"), [("LeNet5ReLU.pt", "LeNet5", 7.99), ("FC-R18.pt", "ResidualMLP", 14.99)]
)
def test_real_networks_with_layers_that_others_skip(shared_data: Path, file: str, factory: str, truth: float) -> None:
    """Case 1. A tool that reads nn.Linear only said 3.77 for LeNet5ReLU and 0.0034 for FC-R18."""
    from benchmarks.networks import architectures

    path = shared_data / "models" / "glipsdp" / file
    build = getattr(architectures, factory)
    found = product(lipcert.load((build, path), input_shape=(1, 28, 28)))
    assert found >= truth
    module = build().eval()
    module.load_state_dict(torch.load(path, weights_only=True))
    with np.load(shared_data / "datasets" / "mnist_test.npz") as data:
        images = torch.from_numpy(data["images"][:6].reshape(-1, 1, 28, 28) / np.float32(255))
    assert found >= jacobian_norm(module, images)


def test_batch_norm_is_not_skipped() -> None:
    """Case 1. A batch norm of small running variance multiplies the constant (0.84 was claimed, 6.55 is true)."""
    module = seeded(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)), spread=0.4)
    module[1].running_var.fill_(0.01)
    module[1].weight.data.fill_(1.5)
    truth = jacobian_norm(module, points(20, 4))
    plain = product(lipcert.load(nn.Sequential(module[0], module[2], module[3]).eval(), input_shape=(4,)))
    assert truth > plain
    assert min(all_bounds(lipcert.load(module, input_shape=(4,))).values()) >= truth


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(x)


def test_skip_paths_are_not_skipped() -> None:
    """Case 1. x + g(x) was given the bound of g (0.52, where 1.43 is true)."""
    module = seeded(Residual(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 3))), spread=0.3)
    truth = jacobian_norm(module, points(40, 3))
    assert truth > product(lipcert.load(module.inner, input_shape=(3,)))
    assert min(all_bounds(lipcert.load(module, input_shape=(3,))).values()) >= truth


def test_unknown_layers_are_errors_not_ones() -> None:
    """Case 1. Unknown layers were given the constant 1: x^3 has none."""

    class Cube(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * x * x

    with pytest.raises(lipcert.LipcertError) as caught:
        lipcert.load(nn.Sequential(nn.Linear(3, 3), Cube()).eval(), input_shape=(3,))
    assert caught.value.exit_code == 4


# --- 2. wrong slopes -----------------------------------------------------------------------------------------

SLOPES = {
    "GELU": (nn.GELU(), math.sqrt(2.0), 1.128904),
    "GELU by tanh": (nn.GELU(approximate="tanh"), 1.4185, 1.12899),
    "ELU of 4": (nn.ELU(4.0), -1e-6, 3.99999),
    "SiLU": (nn.SiLU(), 2.4, 1.09983),
    "SELU": (nn.SELU(), -1e-6, 1.7580),
    "Mish": (nn.Mish(), 1.4906, 1.08849),
    "LeakyReLU of 2.5": (nn.LeakyReLU(2.5), -1.0, 2.5),
    "LeakyReLU of -3": (nn.LeakyReLU(-3.0), -1.0, 3.0),
    "hardswish": (nn.Hardswish(), 2.999, 1.4996),
}


@pytest.mark.parametrize("name", SLOPES)
def test_slopes_above_one(name: str) -> None:
    """Case 2. GELU (1.129) and ELU(4) (4) were taken as slopes in [0, 1]."""
    activation, place, at_least = SLOPES[name]
    module = nn.Sequential(nn.Linear(1, 1), activation, nn.Linear(1, 1)).eval()
    for layer in (module[0], module[2]):
        nn.init.ones_(layer.weight)
        nn.init.zeros_(layer.bias)
    truth = jacobian_norm(module, torch.tensor([[place]]))
    assert truth >= at_least * LAPACK
    assert min(all_bounds(lipcert.load(module, input_shape=(1,))).values()) >= truth


def test_slopes_of_both_signs() -> None:
    """Case 2. Without the term alpha beta, slopes [-0.5, 1] on unit weights gave 0.5 where 1 is true."""
    half = Elementwise("leaky_relu", (np.array(-0.5),))
    assert min(all_bounds(mlp([np.eye(1), np.eye(1)], half)).values()) >= 1.0
    assert min(all_bounds(mlp([np.eye(2), np.eye(2), np.eye(2)], Elementwise("abs"))).values()) >= 1.0


# --- 3. power iteration --------------------------------------------------------------------------------------


def hadamard(order: int) -> np.ndarray:
    matrix = np.ones((1, 1))
    while len(matrix) < order:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


@pytest.mark.parametrize("hidden", [0, 1, 37, 63])
def test_norms_that_power_iteration_misses(hidden: int) -> None:
    """Case 3. H diag(d) has norm 8 max d exactly; the rest lies close below it, the start may be orthogonal to it."""
    values = 1.0 - np.arange(1, 65) * 2.0**-12
    values[hidden] = 1.0
    weight = hadamard(64) * values
    start = np.ones(64)
    for _ in range(10):
        start = weight.T @ (weight @ (start / np.linalg.norm(start)))
    assert math.sqrt(np.linalg.norm(start)) < 8.0 * (1 - 1e-5)
    for matrix in (weight, weight.T):
        found = product(chain((64,), Dense(exact(matrix), exact(np.zeros(64)))))
        assert 8.0 <= found <= 8.0 * (1 + 1e-6)


@pytest.mark.parametrize("circular", [True, False])
def test_antisymmetric_kernels(circular: bool) -> None:
    """Case 3. An all-ones start sees nothing of a kernel [-1, 0, 1], whose norm on a circle of 8 is 2."""
    kernel = exact(np.array([[[-1.0, 0.0, 1.0]]]))
    op = Conv(kernel, exact(np.zeros((1, 1))), (1,), ((1, 1),), (1,), circular=circular)
    truth = 2.0 if circular else 2.0 * math.cos(math.pi / 9)  # of a path of 8
    assert truth * LAPACK <= product(chain((1, 8), op)) <= truth * (1 + 1e-3)


# --- 4. absolute epsilons ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [-200, -60, -17, 0, 17, 60, 200])
def test_moving_powers_of_two_between_layers(shift: int) -> None:
    """Case 4. Scaling one layer by 2^k and the next by 2^-k changes nothing."""
    first, second, third = matrices(3, 5, 7, 6, 2)
    plain = all_bounds(mlp([first, second, third]))
    moved = all_bounds(mlp([np.ldexp(first, shift), np.ldexp(second, -shift), third]))
    assert moved == pytest.approx(plain, rel=1e-6)
    assert moved["product"] == plain["product"]


@pytest.mark.parametrize("size", [1e-30, 1e-5, 1e20, 1e40])
def test_bounds_of_very_small_and_very_large_weights(size: float) -> None:
    """Case 4. +eps in a norm, or + 1e-30 I in a matrix, made small weights harmless and saturated large ones."""
    weight = np.diag([1.0, 0.5, 0.25])
    found = all_bounds(mlp([size * weight, weight, weight]))
    for name, value in found.items():
        assert value >= size, name
        assert value <= size * (1 + 1e-5) or name == "gershgorin", name


def test_products_that_underflow_are_not_zero() -> None:
    """Case 4. Ten layers of 1e-50: the constant is 1e-500, below every float64, and still not 0."""
    network = mlp([1e-50 * np.eye(2)] * 10)
    assert 0.0 < product(network) < 1e-300
    for norm in ("l1", "linf"):
        assert min(all_bounds(network, norm).values()) > 0.0


# --- 6. grouped and circular convolutions --------------------------------------------------------------------


def test_groups_are_maximised_not_multiplied() -> None:
    """Case 6. Two groups of norms 1/4 and 1/2 have the norm 1/2; their product is 1/8."""
    kernel = exact(np.array([0.25, 0.5]).reshape(2, 1, 1, 1))
    op = Conv(kernel, exact(np.zeros((2, 1, 1))), (1, 1), ((0, 0),) * 2, (1, 1), groups=2)
    assert 0.5 <= product(chain((2, 3, 3), op)) <= 0.5 * (1 + 1e-6)


CONVOLUTIONS = {
    # name: (module, input shape)
    "groups": (nn.Conv2d(4, 4, 3, padding=1, groups=2), (4, 5, 5)),
    "depthwise with stride": (nn.Conv2d(3, 6, 2, stride=2, groups=3), (3, 6, 6)),
    "even kernel, circular": (nn.Conv2d(2, 3, 4, padding=2, padding_mode="circular"), (2, 6, 5)),
    "kernel as large as the circle": (nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), (2, 3, 3)),
    "kernel larger than the circle": (nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), (1, 2, 2)),
    "stride on a circle": (nn.Conv2d(2, 2, 3, stride=2, padding=1, padding_mode="circular"), (2, 6, 6)),
    "reflected borders": (nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), (1, 5, 5)),
    "replicated borders": (nn.Conv2d(1, 2, 5, padding=2, padding_mode="replicate"), (1, 4, 4)),
    "dilated": (nn.Conv2d(2, 2, 3, padding=2, dilation=2), (2, 6, 6)),
    "transposed": (nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1), (2, 4, 4)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_against_dense_singular_values(name: str) -> None:
    """Cases 6 and 12. Groups, even kernels, small circles, and borders that are not zero (reflection reached 1.12)."""
    layer, shape = CONVOLUTIONS[name]
    module = seeded(nn.Sequential(layer), seed=len(name))
    truth = jacobian_norm(module, torch.zeros(1, *shape))
    network = lipcert.load(module, input_shape=shape)
    assert truth <= product(network)
    matrix = jacobian(copy.deepcopy(module).double(), torch.zeros(shape)).abs()
    for norm, axis in (("l1", 0), ("linf", 1)):
        assert min(all_bounds(network, norm).values()) >= float(matrix.sum(axis).max()) * LAPACK


def test_reflected_borders_enlarge_a_kernel_of_norm_one() -> None:
    """Case 12. A mean over three pixels has norm 1 on a circle; reflected borders make it larger."""
    layer = nn.Conv1d(1, 1, 3, padding=1, padding_mode="reflect", bias=False)
    nn.init.constant_(layer.weight, 1 / 3)
    module = nn.Sequential(layer).eval()
    truth = jacobian_norm(module, torch.zeros(1, 1, 6))
    assert truth > 1.01
    assert product(lipcert.load(module, input_shape=(1, 6))) >= truth


# --- 7. stored sigma of spectral_norm ------------------------------------------------------------------------


def spectral_layers(path: Path) -> list[tuple[np.ndarray, float]]:
    """Return every spectrally normalised weight of a checkpoint with the sigma that u and v give, in float64."""
    state = {key: value.double().numpy() for key, value in torch.load(path, weights_only=True).items()}
    layers = []
    for key, weight in state.items():
        if key.endswith("parametrizations.weight.original"):
            stem = key.removesuffix("original")
            u, v = state[f"{stem}0._u"], state[f"{stem}0._v"]
            layers.append((weight, float(u @ weight.reshape(len(weight), -1) @ v)))
    return layers


def operator_norm(weight: np.ndarray) -> float:
    """Return the norm of a dense layer; of a 3x3 convolution of 28x28 images, padding 1, a lower one by ARPACK."""
    if weight.ndim == 2:
        return float(np.linalg.norm(weight, 2))
    kernel, shape = torch.from_numpy(weight), (1, weight.shape[1], 28, 28)

    def forward(x: np.ndarray) -> torch.Tensor:
        return nn.functional.conv2d(torch.from_numpy(x).reshape(shape), kernel, padding=1)

    def gram(x: np.ndarray) -> np.ndarray:
        return nn.functional.conv_transpose2d(forward(x.ravel()), kernel, padding=1).numpy().ravel()

    start = np.random.default_rng(0).normal(size=math.prod(shape))
    operator = LinearOperator((start.size, start.size), gram, dtype=np.float64)
    vector = eigsh(operator, k=1, v0=start, tol=1e-7)[1][:, 0].copy()
    return float(forward(vector).norm()) / float(np.linalg.norm(vector))


def onnx_norms(path: Path) -> tuple[list[float], list[float]]:
    """Return the norms of all deployed weights of an ONNX chain, quotients in float64, and its scale factors."""
    graph = onnx.load(path).graph
    stored = {array.name: numpy_helper.to_array(array).astype(np.float64) for array in graph.initializer}
    norms, scales = [], []
    for node in graph.node:
        known = [stored[name] for name in node.input if name in stored]
        if node.op_type in ("MatMul", "Div") and len(known) == 2:
            stored[node.output[0]] = known[0] @ known[1] if node.op_type == "MatMul" else known[0] / known[1]
        elif node.op_type == "Reshape" and len(known) == 2:
            stored[node.output[0]] = known[0].reshape(known[1].astype(int))
        elif node.op_type in ("Gemm", "Conv"):
            norms.append(operator_norm(known[0]))
        elif node.op_type == "Mul":
            scales.append(float(known[0]))
    return norms, scales


MLPS = ("L3_W16", "L3_W32", "L3_W64", "L5_W16", "L5_W64", "L9_W32")
DEEP_MLPS = ("L17_W16", "L17_W64", "L33_W32", "L33_W64", "L65_W32")


@pytest.mark.parametrize("name", MLPS + DEEP_MLPS)
def test_deployed_weights_of_spectral_norm_networks(shared_data: Path, name: str) -> None:
    """Cases 7 and 12. W / sigma is not of norm 1, and the factors 2 and 1.1 stand in the ONNX graph only."""
    path = shared_data / "models" / "glipsdp" / f"mlp_{name}.onnx"
    norms, scales = onnx_norms(path)
    assert len(norms) == len(scales) == int(name[1:].partition("_")[0]) + 1
    assert max(norms) > 1.0 + 1e-4  # what a stored sigma hides
    truth = math.prod(norms) * math.prod(scales) * LAPACK
    found = product(lipcert.load(path))
    assert truth <= found <= truth * (1 + 1e-6)
    assert found > math.prod(scales)  # what those claimed whom sigma deceived


DEEPEST = ("L33_W32", "L33_W64", "L65_W32")  # torch.export takes its time
STATE_DICTS = [pytest.param(name, marks=[pytest.mark.slow] * (name in DEEPEST)) for name in MLPS + DEEP_MLPS]


@pytest.mark.parametrize("name", STATE_DICTS)
def test_deployed_weights_of_spectral_norm_state_dicts(shared_data: Path, name: str) -> None:
    """Case 7 for modules: sigma is u'Wv with the stored u and v, whatever the norm of W is."""
    from benchmarks.networks.architectures import factory_of

    path = shared_data / "models" / "glipsdp" / f"mlp_{name}.state_dict.pt"
    norms = [np.linalg.norm(weight, 2) / sigma for weight, sigma in spectral_layers(path)]
    truth = math.prod(norms) * 2.0 ** (len(norms) - 1) * 1.1 * LAPACK
    found = product(lipcert.load((factory_of(path.name), path), input_shape=(1, 28, 28)))
    assert truth <= found <= truth * (1 + 1e-6)


LARGER_CNNS = ("C16_CH8", "C17_CH16", "C3_CH32", "C5_CH16", "C5_CH8", "C9_CH32", "C9_CH8")
CNNS = ["C3_CH8", *(pytest.param(name, marks=pytest.mark.slow) for name in LARGER_CNNS)]


@pytest.mark.parametrize("name", CNNS)
def test_deployed_kernels_of_spectral_norm_networks(shared_data: Path, name: str) -> None:
    """Case 7 for convolutions in ONNX files; mean pooling has norm 1/28."""
    path = shared_data / "models" / "glipsdp" / f"cnn_{name}.onnx"
    norms, scales = onnx_norms(path)
    assert len(norms) == len(scales) + 1 == int(name[1:].partition("_")[0]) + 1
    assert max(norms) > 1.0 + 1e-4  # what a stored sigma hides
    truth = math.prod(norms) * math.prod(scales) / 28 * LAPACK
    assert truth <= product(lipcert.load(path)) <= truth * 1.1


@pytest.mark.parametrize("name", CNNS)
def test_deployed_kernels_of_spectral_norm_state_dicts(shared_data: Path, name: str) -> None:
    """Case 7 for convolutions in modules."""
    from benchmarks.networks.architectures import factory_of

    path = shared_data / "models" / "glipsdp" / f"cnn_{name}.state_dict.pt"
    layers = spectral_layers(path)
    norms = [operator_norm(weight) / sigma for weight, sigma in layers]
    scale = 1.2 if name.startswith("C16") else 2.0
    truth = math.prod(norms) * scale ** (len(layers) - 1) / 28 * LAPACK
    found = product(lipcert.load((factory_of(path.name), path), input_shape=(1, 28, 28)))
    assert truth <= found <= truth * 1.1


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning", "ignore:.*spectral_norm:FutureWarning")
@pytest.mark.parametrize("wrap", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm])
def test_stale_buffers_of_spectral_norm(wrap: Callable[[nn.Module], nn.Module]) -> None:
    """Case 7. The weight was changed after u and v were stored, so W / u'Wv is far from norm 1; `weight` is stale."""
    torch.manual_seed(3)
    module = nn.Sequential(wrap(nn.Linear(4, 5)), nn.ReLU(), nn.Linear(5, 2))
    with torch.no_grad():
        module(torch.zeros(1, 4))  # fills the buffers
    module.eval()
    names = [name for name, _ in module[0].named_parameters() if name != "bias"]
    module[0].get_parameter(names[0]).data.copy_(torch.randn(5, 4))
    truth = jacobian_norm(module, points(40, 4))
    assert truth > np.linalg.norm(module[2].weight.detach().numpy(), 2)  # what those claim who trust the name
    found = all_bounds(lipcert.load(module, input_shape=(4,)))
    assert min(found.values()) >= truth


# --- 8. and 10. layers that are not as 1-Lipschitz as their papers --------------------------------------------


def test_the_first_release_of_sll_layers() -> None:
    """Case 8. q / (q + eps) in T made x - 2 W T^-1 relu(W'x + b) expand; its name proves nothing."""
    weight = matrices(4, 5, 4)[0].T  # (5, 4)
    q, eps = np.full(4, 1e-8), 1e-6
    scale = (np.abs(weight.T @ weight) * (q / (q[:, None] + eps))).sum(axis=1)
    builder = Builder((5,))
    inner = builder.add(RELU, builder.add(dense(weight.T), 0))
    outer = builder.add(Dense(exact(2.0 * weight / scale), exact(np.zeros(5))), inner)
    builder.add(Sum((1, -1)), 0, outer)
    active = np.linalg.norm(np.eye(5) - 2.0 * (weight / scale) @ weight.T, 2)  # all neurons on
    assert active > 40
    assert product(builder.build()) >= active * LAPACK


def test_a_truncated_exponential_is_not_orthogonal() -> None:
    """Case 10. Six terms of the exponential of a skew matrix are not orthogonal: the norm is above 1."""
    rng = np.random.default_rng(5)
    skew = rng.normal(size=(8, 8))
    skew = 1.8 * (skew - skew.T) / np.linalg.norm(skew - skew.T, 2)
    series = sum(np.linalg.matrix_power(skew, k) / math.factorial(k) for k in range(6))
    truth = np.linalg.norm(series, 2) * LAPACK
    assert truth > 1.001
    assert min(all_bounds(mlp([series, np.eye(8)])).values()) >= truth


def test_settings_of_tensor_libraries_do_not_move_a_bound() -> None:
    """Case 10. TF32 and float32 defaults during certification lost 1e-3 per layer."""
    network = mlp(matrices(6, 20, 30, 10))
    before = all_bounds(network)
    precision, dtype = torch.get_float32_matmul_precision(), torch.get_default_dtype()
    try:
        torch.set_float32_matmul_precision("medium")
        torch.set_default_dtype(torch.bfloat16)
        assert all_bounds(network) == before
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.set_default_dtype(dtype)


# --- 11. and 13. solvers that lie, slopes of one pixel ----------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 1e-3, 0.5, 2.0, math.nan, math.inf])
def test_an_interior_point_solver_that_lies(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 11. It reports a value far too good, with multipliers that do not prove it (more in bounds/)."""
    from lipcert.bounds.lipsdp import method

    network = mlp(matrices(9, 5, 7, 6, 3))
    plain, honest = bound(network, "lipsdp").value, method.solve_lipsdp

    def lie(*arguments: object, **settings: object) -> object:
        result = honest(*arguments, **settings)
        wrong = [np.where(np.arange(len(part)) % 2, part, part * share) for part in result.lam]
        return dataclasses.replace(result, lam=tuple(wrong), value=result.value * 1e-3, primal=result.value * 1e-3)

    monkeypatch.setattr(method, "solve_lipsdp", lie)
    rng = np.random.default_rng(2)
    truth = max(float(np.linalg.norm(exact_jacobian(network, x), 2)) for x in rng.normal(size=(200, 5))) * LAPACK
    try:
        found = bound(network, "lipsdp").value
    except lipcert.LipcertError:
        return
    assert found >= truth
    assert found >= plain * (1 - 1e-5)  # nothing is below the best bound of its rule


def test_slopes_of_a_convolution_differ_between_pixels() -> None:
    """Case 13. Slopes were read at one pixel of each channel; here the first pixel has the smallest slope."""
    slopes = np.array([0.125, 0.25, 0.5, 2.0]).reshape(1, 2, 2)
    kernel = Conv(exact(np.array(3.0).reshape(1, 1, 1, 1)), exact(np.zeros((1, 1, 1))), (1, 1), ((0, 0),) * 2, (1, 1))
    for one in range(4):
        network = chain((1, 2, 2), kernel, Elementwise("leaky_relu", (np.roll(slopes, one),)), kernel)
        for value in all_bounds(network).values():
            assert value >= 18.0


@pytest.mark.parametrize("name", [method.name for method in LOCAL_METHODS])
def test_local_slopes_of_a_convolution_differ_between_pixels(name: str) -> None:
    """Case 13, local mode: all pixels of a channel but one are off, each in turn; the margin falls with that one."""
    from lipcert.bounds.local.region import Ball
    from lipcert.bounds.local.registry import find_local
    from lipcert.bounds.local.view import View

    kernel = Conv(exact(np.ones((1, 1, 1, 1))), exact(np.zeros((1, 1, 1))), (1, 1), ((0, 0),) * 2, (1, 1))
    builder = Builder((1, 2, 2))
    active = builder.add(RELU, builder.add(kernel, 0))
    flat = builder.add(Reshape(), active, shape=(4,))
    builder.add(Dense(exact(np.array([[1.0] * 4, [-1.0] * 4])), exact(np.zeros(2))), flat)
    network = builder.build()
    view = View(network, dtype=torch.float64)
    for pixel in range(4):
        centre = torch.full((1, 1, 2, 2), -1.0, dtype=torch.float64)
        centre.view(-1)[pixel] = 1.0
        margin = find_local(name).margins(view, Ball.around(centre, 0.5, "l2"), torch.tensor([0]))[0, 1]
        assert float(margin) <= 1.0 + 1e-12  # of the margin 2 sum relu(x)


# --- 12. what is not a number, not at the end, or not in evaluation mode --------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_refused(value: float) -> None:
    """Case 12. NaN was taken for 'no perturbation'; collapsed runs leave NaN weights."""
    weights = matrices(7, 3, 4, 2)
    weights[1][0, 0] = value
    with pytest.raises(UsageError, match="NaN or infinite"):
        mlp(weights)
    module = seeded(nn.Sequential(nn.Linear(3, 2)))
    module[0].weight.data[0, 0] = value
    with pytest.raises(UsageError, match="NaN or infinite"):
        lipcert.load(module, input_shape=(3,))


@pytest.mark.parametrize("rad", [math.nan, math.inf])
def test_radii_that_are_no_numbers_are_refused(rad: float) -> None:
    """Case 12, for the uncertainty of a weight: division by an enclosed zero ends here."""
    with pytest.raises(UsageError, match="NaN or infinite"):
        chain((1,), Dense(Enclosure(np.ones((1, 1)), np.full((1, 1), rad)), exact(np.zeros(1))))
    with pytest.raises(UsageError, match="NaN or infinite"):
        chain((1,), Dense(exact(np.ones((1, 1))) / exact(0.0), exact(np.zeros(1))))


@pytest.mark.parametrize("end", [nn.GELU(), nn.LeakyReLU(-3.0), nn.Hardswish(), nn.ELU(4.0)])
def test_an_activation_at_the_end_counts(end: nn.Module) -> None:
    """Case 12. A trailing activation was ignored; here it multiplies the constant."""
    module = nn.Sequential(nn.Linear(2, 2), end).eval()
    module[0].weight.data.copy_(torch.eye(2))
    module[0].bias.data.zero_()
    grid = torch.linspace(-4, 4, 41)
    truth = jacobian_norm(module, torch.stack([grid, grid], 1))
    assert truth > 1.05
    assert product(lipcert.load(module, input_shape=(2,))) >= truth


def test_a_softmax_at_the_end_counts_where_it_stretches() -> None:
    """Case 12. log-softmax of ten logits has the constant sqrt 10 behind the identity; softmax has 1/2."""
    identity = Dense(exact(np.eye(10)), exact(np.zeros(10)))
    log = product(chain((10,), identity, Softmax(0, log=True)))
    assert math.sqrt(10) * LAPACK <= log <= math.sqrt(10) * (1 + 1e-6)
    assert 0.5 <= product(chain((10,), identity, Softmax(0))) <= 0.5 * (1 + 1e-6)


def test_training_mode_is_refused() -> None:
    """Case 12. In training mode batch norm and dropout are other functions."""
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    with pytest.raises(UsageError, match="training mode"):
        lipcert.load(module.train(), input_shape=(3,))
    module.eval()[1].train()
    with pytest.raises(UsageError, match="training mode"):
        lipcert.load(module, input_shape=(3,))


def test_scale_factors_of_the_onnx_graph(tmp_path: Path) -> None:
    """Case 12. Mul by 3 and Div by a stored sigma of 1/2 stand in the graph, not in the weights."""
    weight = matrices(8, 4, 3)[0].astype(np.float32)
    stored = {"w": weight, "sigma": np.float32(0.5), "three": np.float32(3.0)}
    nodes = [
        helper.make_node("Div", ["w", "sigma"], ["deployed"]),
        helper.make_node("Gemm", ["x", "deployed"], ["z"], transB=1),
        helper.make_node("Mul", ["z", "three"], ["scaled"]),
        helper.make_node("Relu", ["scaled"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, s]) for n, s in (("x", 4), ("y", 3)))
    initial = [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()]
    graph = helper.make_graph(nodes, "test", [x], [y], initial)
    path = tmp_path / "scaled.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    found = product(lipcert.load(path))
    truth = 6.0 * np.linalg.norm(weight.astype(np.float64), 2) * LAPACK
    assert truth <= found <= truth * (1 + 1e-6)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(9)
    for _ in range(50):
        one, two = (rng.normal(size=(1, 4)).astype(np.float32) for _ in range(2))
        moved = session.run(None, {"x": one})[0] - session.run(None, {"x": two})[0]
        assert np.linalg.norm(moved) <= found * np.linalg.norm(one.astype(float) - two) * (1 + 1e-5)


# --- 14. positive definite, or nearly so ----------------------------------------------------------------------


def test_small_rayleigh_quotients_prove_nothing() -> None:
    """Case 14. One negative eigenvalue in a direction that no start vector sees."""
    directions = hadamard(32) / math.sqrt(32.0)
    values = np.linspace(1.0, 2.0, 32)
    values[19] = -1e-9
    matrix = directions * values @ directions.T
    matrix = 0.5 * (matrix + matrix.T)
    rng = np.random.default_rng(0)
    starts = rng.normal(size=(200, 32))
    assert ((starts @ matrix) * starts).sum(axis=1).min() > 0
    assert not is_psd([matrix], [])
    assert is_psd([matrix + 2e-9 * np.eye(32)], [])
