"""The torch readers against torch itself: every layer and convention, in float64, on random inputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from lipcert.errors import LipcertError, UnsupportedError, UsageError
from lipcert.network import Network, evaluate
from lipcert.network.operators import Conv, Dense, Elementwise, Extremum, Scale, Softmax, Sort
from lipcert.network.readers import load

Part = nn.Module | Callable[[Tensor], Tensor]
TIGHT = 1e-13  # relative; float64 against float64


class Many(nn.Module):
    """Several parts beside each other, on one input: one export serves all of them."""

    def __init__(self, parts: dict[str, Part]) -> None:
        super().__init__()
        self.parts = parts
        for i, part in enumerate(parts.values()):
            if isinstance(part, nn.Module):
                self.add_module(f"part{i}", part)
        self.unit = nn.Parameter(torch.ones(()))  # says that the module is float64

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(x).flatten(1) for part in self.parts.values()], 1)


def randomised(module: nn.Module) -> nn.Module:
    """Return a float64 module in evaluation mode, its batch norms with random statistics."""
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            with torch.no_grad():
                for tensor in (part.running_mean, part.weight, part.bias):
                    _ = None if tensor is None else tensor.normal_()
                _ = None if part.running_var is None else part.running_var.uniform_(0.5, 2.0)
    return module.double().eval()


def agree(parts: dict[str, Part], shape: tuple[int, ...]) -> Network:
    """Assert that the network of `Many(parts)` computes what the parts compute."""
    torch.manual_seed(0)
    module = randomised(Many(parts))
    network = load(module, input_shape=shape)
    x = 2 * torch.randn(5, *shape, dtype=torch.float64)
    found = evaluate(network, x.numpy())
    start = 0
    with torch.no_grad():
        for name, part in parts.items():
            expected = part(x).flatten(1).numpy()
            part_found = found[:, start : start + expected.shape[1]]
            np.testing.assert_allclose(
                part_found, expected, rtol=TIGHT, atol=TIGHT * np.abs(expected).max(), err_msg=name
            )
            start += expected.shape[1]
    assert start == found.shape[1]
    assert network.dtype == "float64" and network.input_shape == shape
    return network


def max_min(x: Tensor) -> Tensor:
    a, b = x.chunk(2, 1)
    return torch.cat([torch.maximum(a, b), torch.minimum(a, b)], 1)


def alternating_max_min(x: Tensor) -> Tensor:
    a, b = x[:, ::2], x[:, 1::2]
    return torch.stack([torch.minimum(a, b), torch.maximum(a, b)], 2).flatten(1, 2)


def paired_max_min(x: Tensor) -> Tensor:
    y = x.view(x.shape[0], x.shape[1] // 2, 2, *x.shape[2:])
    return torch.cat([y.max(2)[0], y.min(2)[0]], 1)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


ACTIVATIONS = (
    nn.ReLU(), nn.LeakyReLU(0.3), nn.ELU(2.0), nn.SELU(), nn.CELU(1.5), nn.GELU(), nn.GELU("tanh"), nn.SiLU(),
    nn.Mish(), nn.Sigmoid(), nn.Tanh(), nn.Softplus(2.0), nn.Softsign(), nn.Hardtanh(-1, 2), nn.ReLU6(),
    nn.Hardsigmoid(), nn.Hardswish(), nn.LogSigmoid(), nn.Tanhshrink(), nn.Softshrink(0.3), nn.PReLU(), nn.RReLU(),
    nn.Threshold(0.1, 0.1), nn.Identity(), nn.Dropout(), nn.AlphaDropout(),
)  # fmt: skip

GROUPS: dict[str, tuple[tuple[int, ...], dict[str, Part]]] = {
    "conv2d": (
        (4, 7, 8),
        {
            **{
                mode: nn.Conv2d(4, 6, 3, padding=(2, 1), stride=(2, 1), groups=2, padding_mode=mode)
                for mode in ("zeros", "reflect", "replicate", "circular")
            },
            "dilated": nn.Conv2d(4, 2, 3, padding=1, dilation=(1, 3), bias=False),
            "depthwise": nn.Conv2d(4, 8, 2, groups=4),
            "same": nn.Conv2d(4, 2, (5, 3), padding="same", dilation=(1, 2)),
            "same reflected": nn.Conv2d(4, 2, (4, 3), padding="same", padding_mode="reflect"),
            "valid": nn.Conv2d(4, 2, 2, padding="valid"),
            "batch norm": nn.BatchNorm2d(4),
            "plain batch norm": nn.BatchNorm2d(4, affine=False),
            "transposed": nn.ConvTranspose2d(4, 6, 3, stride=(2, 3), padding=1, output_padding=(1, 2), groups=2),
            "transposed dilated": nn.ConvTranspose2d(4, 3, 3, dilation=2, padding=2, bias=False),
        },
    ),
    "conv1d": (
        (4, 11),
        {
            "conv": nn.Conv1d(4, 3, 4, stride=2, padding=3, dilation=2),
            "transposed": nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
            "average": nn.AvgPool1d(3, 2, 1),
            "maximum": nn.MaxPool1d(2, 1),
            "adaptive": nn.AdaptiveAvgPool1d(4),
            "batch norm": nn.BatchNorm1d(4),
            "replicated": nn.ReplicationPad1d(2),
        },
    ),
    "conv3d": (
        (2, 4, 5, 3),
        {
            "conv": nn.Conv3d(2, 3, 2, padding=1),
            "transposed": nn.ConvTranspose3d(2, 2, 2, stride=2),
            "average": nn.AvgPool3d(2),
            "maximum": nn.MaxPool3d(2, 1),
            "batch norm": nn.BatchNorm3d(2),
        },
    ),
    "pooling": (
        (2, 8, 9),
        {
            "average": nn.AvgPool2d(3, 2, 1),
            "average ceil": nn.AvgPool2d(3, 2, 1, ceil_mode=True),
            "average inside": nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
            "average divisor": nn.AvgPool2d((2, 3), divisor_override=5),
            "maximum": nn.MaxPool2d(3, 2, 1),
            "maximum dilated": nn.MaxPool2d(3, 2, 1, dilation=2, ceil_mode=True),
            "maximum with positions": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
            "global": nn.AdaptiveAvgPool2d(1),
            "adaptive even": nn.AdaptiveAvgPool2d((4, 3)),
            "adaptive odd": nn.AdaptiveAvgPool2d((3, 4)),
            "adaptive partial": nn.AdaptiveAvgPool2d((None, 2)),
            "adaptive maximum": nn.AdaptiveMaxPool2d((4, 3)),
            "mean": lambda x: x.mean((2, 3)),
            "mean kept": lambda x: x.mean(-1, keepdim=True),
            "sum": lambda x: x.sum(1),
            "amax": lambda x: x.amax((2, 3)),
            "amin": lambda x: x.amin(2),
            "max of pairs": lambda x: x.max(1)[0],
            "min": lambda x: x.min(2).values,
        },
    ),
    "activations": (
        (3, 4),
        {
            **{type(part).__name__ + part.extra_repr(): part for part in ACTIVATIONS},
            "prelu per channel": nn.PReLU(3),
            "erf": torch.erf,
            "sin": torch.sin,
            "cos": torch.cos,
            "abs": torch.abs,
            "clamp": lambda x: x.clamp(-0.5, 0.25),
            "clamp below": lambda x: x.clamp(min=0.3),
            "clamp above": lambda x: x.clamp_max(0.3),
            "clamp by tensors": lambda x: torch.clamp(x, double(0, 0.1, 0.2, 0.3), double(1.0)),
            "maximum": lambda x: torch.maximum(x, double(0.5)),
            "minimum": lambda x: torch.minimum(double(0.5), x),
            "silu by hand": lambda x: x * torch.sigmoid(x),
            "mish by hand": lambda x: torch.tanh(F.softplus(x)) * x,
            "softmax": nn.Softmax(1),
            "log softmax": nn.LogSoftmax(-1),
        },
    ),
    "moves": (
        (6, 4),
        {
            "flatten": nn.Flatten(),
            "unflatten": nn.Unflatten(1, (2, 3)),
            "view": lambda x: x.view(x.shape[0], -1),
            "view from behind": lambda x: x.view(-1, 24),
            "permute": lambda x: x.permute(0, 2, 1).contiguous().view(x.size(0), -1),
            "squeeze": lambda x: x[:, :1].squeeze(1).unsqueeze(-1),
            "transpose": lambda x: x.mT + x.transpose(1, 2),
            "slice": lambda x: x[:, 1:, ::2],
            "list": lambda x: x[:, [2, 0]],
            "select": lambda x: x[:, 0],
            "index_select": lambda x: x.index_select(1, torch.tensor([2, 1, 1])),
            "chunk": lambda x: torch.cat(x.chunk(4, 1)[::-1], 1),
            "split": lambda x: sum(x.split(2, 1)),
            "split by sizes": lambda x: torch.cat([x.split([1, 5], 1)[1], x], 1),
            "unbind": lambda x: torch.stack(x.unbind(1)[::-1], 2),
            "hstack": lambda x: torch.hstack([x, x]),
            "flip": lambda x: x.flip(1),
            "roll": lambda x: x.roll(1, 1),
            "repeat": lambda x: x.repeat(1, 2, 1),
            "interleave": lambda x: x.repeat_interleave(2, 1),
            "expand": lambda x: x.unsqueeze(1).expand(-1, 3, -1, -1),
            "pad": lambda x: F.pad(x, (1, 2, 0, 1)),
            "pad value": lambda x: F.pad(x, (1, 2), value=0.7),
            "crop": lambda x: F.pad(x, (-1, 2)),
            "tril": lambda x: x.tril(),
            "narrow": lambda x: x.narrow(1, 1, 2),
            "shuffle": lambda x: x.reshape(x.shape[0], 2, 3, 4).transpose(1, 2).reshape(x.shape[0], -1),
        },
    ),
    "images": (
        (4, 4, 6),
        {
            "zero": nn.ZeroPad2d(2),
            "reflect": nn.ReflectionPad2d((1, 2, 3, 0)),
            "replicate": nn.ReplicationPad2d(2),
            "circular": nn.CircularPad2d(1),
            "shuffle": nn.PixelShuffle(2),
            "unshuffle": nn.PixelUnshuffle(2),
            "channels": nn.ChannelShuffle(2),
            "upsample": nn.Upsample(scale_factor=2),
            "unfold": nn.Unfold(2),
        },
    ),
    "arithmetic": (
        (3, 2),
        {
            "add": lambda x: x + 2 * x,
            "add broadcast": lambda x: x + x[:, :1],
            "add alpha": lambda x: torch.add(x, x.flip(1), alpha=0.3),
            "rsub": lambda x: 1 - x,
            "rsub alpha": lambda x: torch.rsub(x, x.flip(1), alpha=2.0),
            "rsub number": lambda x: torch.rsub(x, 3.0, alpha=2.0),
            "sub": lambda x: x - 0.1 - x.flip(1) * 0.2,
            "constant first": lambda x: double(1, 2) - x,
            "mul": lambda x: x * double(1, 2),
            "mul with batch axis": lambda x: torch.ones(1, 3, 1, dtype=torch.float64) * 1.5 * x,
            "enlarged by a constant": lambda x: x[:, :1] + torch.arange(6.0, dtype=torch.float64).reshape(3, 2),
            "div": lambda x: (x - 0.1307) / 0.3081,
            "neg": lambda x: -x,
        },
    ),
    "sorting": (
        (4, 3),
        {
            "max-min": max_min,
            "alternating": alternating_max_min,
            "paired": paired_max_min,
            "max only": lambda x: torch.maximum(x[:, :2], x[:, 2:]),
            "groups": lambda x: x.view(x.shape[0], 2, 2, 3).sort(2)[0].flatten(1, 2),
            "descending": lambda x: x.sort(1, descending=True).values,
            "top": lambda x: x.topk(2, 1)[0],
            "bottom": lambda x: x.topk(2, 2, largest=False)[0],
            "all": lambda x: torch.sort(x.flatten(1))[0],
        },
    ),
}


@pytest.mark.parametrize("group", GROUPS)
def test_layers_compute_what_torch_computes(group: str) -> None:
    torch.manual_seed(1)
    shape, parts = GROUPS[group]
    agree(parts, shape)


class Weighted(nn.Module):
    """Matrix products with parameters, in every order."""

    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(4, 3))
        self.v = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        row = x[:, 0]
        scaled = self.W / (self.W.abs().sum() + (self.v * self.v).sum().sqrt())
        orthogonal = self.W * torch.rsqrt((self.W.T @ self.W).abs().sum(1))
        mean = self.W - self.W.mean(0, keepdim=True).clamp(min=0.1)
        parts = [
            x @ self.W.T + 1,
            self.W @ x,
            x @ self.v,
            torch.addmm(self.v, row, self.W.T @ self.W[:, :3], beta=0.5, alpha=2.0),
            F.linear(x, scaled, bias=0.3 * self.W[:, 0]),
            F.linear(x, orthogonal),
            F.linear(row, mean.reshape(3, 4).t().contiguous().pow(2)),
        ]
        return torch.cat([part.flatten(1) for part in parts], 1)


def test_products_with_computed_weights() -> None:
    agree({"weighted": Weighted()}, (3, 3))


def with_parametrisations() -> dict[str, Part]:
    new, old = parametrizations, torch.nn.utils
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the old functions say that they are old
        return {
            "spectral": new.spectral_norm(nn.Conv2d(2, 3, 3)),
            "spectral transposed": new.spectral_norm(nn.ConvTranspose2d(2, 3, 3)),
            "old spectral": old.spectral_norm(nn.Conv2d(2, 3, 3)),
            "old spectral transposed": old.spectral_norm(nn.ConvTranspose2d(2, 3, 3)),
            "weight": new.weight_norm(nn.Conv2d(2, 3, 3), dim=1),
            "weight over all": new.weight_norm(nn.Conv2d(2, 3, 3), dim=None),
            "old weight": old.weight_norm(nn.Conv2d(2, 3, 3)),
        }


def test_parametrised_weights_are_folded() -> None:
    network = agree(with_parametrisations(), (2, 5, 5))
    assert not network.is_exact


@pytest.mark.parametrize("style", ["old", "new"])
def test_spectral_norm_encloses_the_exact_quotient(style: str) -> None:
    """W / (u' W v) in rational numbers, float32 data, and no power iteration beyond the stored u and v."""
    torch.manual_seed(2)
    layer = nn.Linear(5, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = torch.nn.utils.spectral_norm(layer) if style == "old" else parametrizations.spectral_norm(layer)
    with torch.no_grad():
        layer(torch.randn(3, 5))  # one training step changes u and v
    layer.eval()
    names = ("weight_orig", "weight_u", "weight_v")
    if style == "new":
        names = ("parametrizations.weight.original", "parametrizations.weight.0._u", "parametrizations.weight.0._v")
    state = layer.state_dict()
    w, u, v = ([[Fraction(float(n)) for n in row] for row in torch.atleast_2d(state[name])] for name in names)
    sigma = sum(u[0][i] * w[i][j] * v[0][j] for i in range(4) for j in range(5))
    network = load(layer, input_shape=(5,))
    (dense,) = (node.op for node in network.nodes if isinstance(node.op, Dense))
    assert dense.weight.rad is not None and dense.weight.rad.max() < 1e-14
    for i in range(4):
        for j in range(5):
            error = abs(w[i][j] / sigma - Fraction(float(dense.weight.mid[i, j])))
            assert error <= Fraction(float(dense.weight.rad[i, j]))


def test_weight_norm_encloses_the_exact_quotient() -> None:
    """(g v)^2 / |v|^2 is rational; the enclosure's square must hold it."""
    torch.manual_seed(3)
    layer = parametrizations.weight_norm(nn.Linear(5, 4)).eval()
    g, v = (layer.state_dict()[f"parametrizations.weight.original{k}"] for k in (0, 1))
    (dense,) = (n.op for n in load(layer, input_shape=(5,)).nodes if isinstance(n.op, Dense))
    for i in range(4):
        row = [Fraction(float(n)) for n in v[i]]
        for j in range(5):
            square = (Fraction(float(g[i, 0])) * row[j]) ** 2 / sum(n * n for n in row)
            mid, rad = (Fraction(float(a[i, j])) for a in (dense.weight.mid, dense.weight.radius))
            low, high = max(abs(mid) - rad, Fraction(0)), abs(mid) + rad
            assert low * low <= square <= high * high
            assert mid * Fraction(float(g[i, 0])) * row[j] >= 0


def test_numbers_of_a_float32_network_are_float32() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.LeakyReLU(0.01))
    module.forward = lambda x: 0.1 * nn.Sequential.forward(module, x)  # type: ignore[method-assign]
    network = load(module.eval(), input_shape=(3,))
    assert network.dtype == "float32" and network.is_exact
    (leaky,) = (n.op for n in network.nodes if isinstance(n.op, Elementwise))
    (scale,) = (n.op for n in network.nodes if isinstance(n.op, Scale))
    assert float(leaky.params[0]) == float(np.float32(0.01)) != 0.01
    assert float(scale.factor.mid) == float(np.float32(0.1))
    x = torch.randn(4, 3)
    with torch.no_grad():
        np.testing.assert_allclose(evaluate(network, x.numpy()), module(x).numpy(), rtol=1e-5, atol=1e-7)


def test_max_min_is_one_sorting() -> None:
    for part in (max_min, alternating_max_min, paired_max_min):
        torch.manual_seed(0)
        network = load(randomised(nn.Sequential(nn.Linear(4, 4), Many({"m": part}))), input_shape=(4,))
        kinds = [type(node.op) for node in network.nodes]
        assert kinds.count(Sort) == 1 and Extremum not in kinds


def test_activations_written_by_hand_are_recognised() -> None:
    parts: dict[str, Part] = {"silu": lambda x: x * torch.sigmoid(x), "softsign": F.softsign, "shrink": F.tanhshrink}
    network = load(randomised(Many(parts)), input_shape=(3,))
    assert {n.op.name for n in network.nodes if isinstance(n.op, Elementwise)} == {"silu", "softsign", "tanhshrink"}


class InPlace(nn.Module):
    """Uses a value after it was overwritten."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        z = self.act(y)
        z.mul_(2.0)
        with torch.no_grad():
            factor = torch.tensor(3.0, dtype=torch.float64)
        return y + F.dropout(z, training=self.training) * factor + x


def test_values_overwritten_in_place() -> None:
    agree({"in place": InPlace()}, (3,))


def test_softplus_is_read_with_a_note() -> None:
    assert any("softplus" in note for note in load(randomised(Many({"s": nn.Softplus()})), input_shape=(2,)).notes)
    with pytest.raises(UnsupportedError, match="threshold"):
        load(nn.Softplus(threshold=5).eval(), input_shape=(2,))


# --- refusals -----------------------------------------------------------------------------------------------

MIXING: dict[str, Part] = {
    "flatten all": lambda x: x.flatten().reshape(-1, 3, 4).flip(0),
    "flip": lambda x: x.flip(0),
    "roll": lambda x: x.roll(6, 0),
    "roll all": lambda x: x.roll(24),
    "sum": lambda x: x + x.sum(0, keepdim=True),
    "mean": lambda x: x - x.mean(),
    "transpose": lambda x: x.transpose(0, 1),
    "softmax": lambda x: x.softmax(0),
    "sort": lambda x: x.sort(0)[0],
    "cat": lambda x: torch.cat([x, x], 0)[: x.shape[0]],
    "size as a number": lambda x: x / x.shape[0],
    "mixing reshape": lambda x: x.reshape(4, -1, 3).transpose(0, 1),
    "broadcast over the batch": lambda x: x[:, 0, 0] + x[:, 0, :1],
    "unbatched conv": lambda x: F.conv1d(x.permute(1, 0, 2), torch.ones(3, 3, 1)).permute(1, 0, 2),
}


@pytest.mark.parametrize("name", MIXING)
def test_mixing_samples_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedError):
        load(Many({name: MIXING[name]}).eval(), input_shape=(3, 4))


class Modern(nn.Module):
    """Several unsupported parts between supported ones."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(F.relu(self.embed(x)))
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x = torch.exp(x) * x
        return self.head(torch.where(x > 0, x, 2 * x))


def test_everything_unsupported_is_listed_at_once() -> None:
    with pytest.raises(UnsupportedError) as caught:
        load(Modern().eval(), input_shape=(5, 6))
    found = [(item.where, item.what) for item in caught.value.items]
    for where, what in (("norm", "layer_norm"), ("attention", "scaled_dot_product_attention"), ("exp", "exp")):
        assert any(where in w and what in h for w, h in found), (where, what, found)
    assert sum("mul" in what for _, what in found) == 1
    assert any(what.startswith("where") for _, what in found)
    assert not any("linear" in what or "relu" in what for _, what in found)
    assert caught.value.exit_code == 4 and "\n" not in str(caught.value)


UNSUPPORTED: dict[str, tuple[Part, str]] = {
    "square": (lambda x: x * x, "global bound"),
    "power": (lambda x: x**2, "global bound"),
    "reciprocal": (lambda x: 1 / (1 + x.abs()), "global bound"),
    "quotient": (lambda x: x.sin() / (1 + x.abs()), "divides"),
    "normalised": (lambda x: F.normalize(x, dim=1), "statistic|divides"),
    "group norm": (nn.GroupNorm(1, 3), "statistic"),
    "instance norm": (nn.InstanceNorm1d(3), "statistic"),
    "no statistics": (nn.BatchNorm1d(3, track_running_stats=False), "training mode|statistic"),
    "functional dropout": (lambda x: F.dropout(x), "training mode|random"),
    "glu": (nn.GLU(1), "multiplies two values"),
    "hard shrink": (nn.Hardshrink(), "jumps"),
    "positions": (lambda x: x.max(1, keepdim=True)[1] + x, "positions|number format"),
    "to float32": (lambda x: x.float().double(), "float32"),
    "integers": (lambda x: torch.div(x, 2.0, rounding_mode="floor"), "jumps|integers"),
    "adaptive": (nn.AdaptiveMaxPool1d(3), "divide"),
    "orthogonal": (parametrizations.orthogonal(nn.Linear(4, 4)), "remove_parametrizations"),
    "control flow": (lambda x: x if x.sum() > 0 else -x, "torch.export"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported_parts_are_refused_in_one_line(name: str) -> None:
    part, why = UNSUPPORTED[name]
    with pytest.raises(UnsupportedError, match=why) as caught:
        load(randomised(Many({name: part})), input_shape=(4, 4) if name == "glu" else (3, 4))
    assert "\n" not in str(caught.value)


def test_training_mode_is_an_error_that_names_the_module() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.BatchNorm1d(3)))
    with pytest.raises(UsageError, match=r"model\.eval\(\)"):
        load(module, input_shape=(3,))
    module.eval()
    module[1][0].train()
    with pytest.raises(UsageError, match=r"'1\.0' is in training mode"):
        load(module, input_shape=(3,))


NUMBERS_THAT_ARE_NONE = [
    (bad, where)
    for bad in (float("nan"), float("inf"))
    for where in ("weight", "bias", "slope", "variance")
    if (bad, where) != (float("inf"), "slope")  # refused later, where slopes have to be bounded
]


@pytest.mark.parametrize(("bad", "where"), NUMBERS_THAT_ARE_NONE)
def test_numbers_that_are_none_are_refused(bad: float, where: str) -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.PReLU(3), nn.BatchNorm1d(3)).eval()
    tensor = {"weight": module[0].weight, "bias": module[0].bias, "slope": module[1].weight}
    with torch.no_grad():
        {**tensor, "variance": module[2].running_var}[where].view(-1)[1] = bad
    with pytest.raises(UsageError, match="NaN or infinite"):
        load(module, input_shape=(3,))


def test_other_number_formats_are_refused() -> None:
    with pytest.raises(UsageError, match="float16"):
        load(nn.Linear(3, 2).half().eval(), input_shape=(3,))
    with pytest.raises(UsageError, match="bfloat16"):
        load(nn.Linear(3, 2).bfloat16().eval(), input_shape=(3,))


class TwoOutputs(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x + 1, 2 * x


class NoInput(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(2, 3)


def test_one_input_and_one_output() -> None:
    with pytest.raises(UsageError, match="1 inputs and 2 outputs"):
        load(TwoOutputs().eval(), input_shape=(3,))
    with pytest.raises(LipcertError):
        load(NoInput().eval(), input_shape=(3,))
    with pytest.raises(UsageError, match="input_shape"):
        load(nn.Linear(3, 2).eval())


def test_a_module_may_fix_its_batch_size_to_one() -> None:
    part = nn.Linear(6, 2).double()
    network = load(Many({"fixed": lambda x: part(x.view(1, 6))}).double().eval(), input_shape=(2, 3))
    x = torch.randn(1, 2, 3, dtype=torch.float64)
    with torch.no_grad():
        np.testing.assert_allclose(evaluate(network, x.numpy()), part(x.view(1, 6)).numpy(), rtol=TIGHT)


def test_reading_changes_nothing_in_the_module() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(*with_parametrisations().values())[2:3].eval()
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    x = torch.randn(2, 2, 5, 5)
    with torch.no_grad():
        y = module(x)
        first, second = (load(module, input_shape=(2, 5, 5)) for _ in range(2))
        assert torch.equal(module(x), y)
    assert all(torch.equal(tensor, before[key]) for key, tensor in module.state_dict().items())
    assert first.weights_digest == second.weights_digest and first.graph_digest == second.graph_digest


def test_sources_and_names() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3)).eval()
    network = load(module, input_shape=(1, 4, 4))
    assert network.source.form == "module" and network.source.sha256 is None
    assert network.source.parameters == sum(p.numel() for p in module.parameters())
    names = {type(node.op): node.name for node in network.nodes}
    assert names[Conv] == "0" and names[Dense] == "3" and Softmax not in names
