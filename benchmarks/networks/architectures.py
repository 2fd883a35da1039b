"""Modules for checkpoints that hold weights only, after the descriptions in the manifest.

Attribute names follow the keys in the checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


def mlp(*widths: int) -> nn.Sequential:
    """Flatten, then linear layers with ReLU between them."""
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def conv_net(
    convolutions: Sequence[tuple[int, int, int, int, int]],
    widths: Sequence[int],
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Convolutions (in, out, kernel, stride, padding), flatten, linear layers; an activation after all but the last."""
    layers: list[nn.Module] = []
    for before, after, kernel, stride, padding in convolutions:
        layers += [nn.Conv2d(before, after, kernel, stride, padding), activation()]
    layers.append(nn.Flatten())
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers[:-1])


class NamedMLP(nn.Module):
    """Linear layers fc1, fc2, ... with ReLU between them."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.names = [f"fc{i}" for i in range(1, len(widths))]
        for name, (before, after) in zip(self.names, pairwise(widths), strict=True):
            self.add_module(name, nn.Linear(before, after))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for name in self.names[:-1]:
            x = F.relu(self.get_submodule(name)(x))
        return self.get_submodule(self.names[-1])(x)


class NamedConvNet(nn.Module):
    """conv1, conv2 (4x4, stride 2, padding 1), fc1, fc2 with ReLU between them."""

    def __init__(self, first: int, second: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, first, 4, stride=2, padding=1)
        self.conv2 = nn.Conv2d(first, second, 4, stride=2, padding=1)
        self.fc1 = nn.Linear(second * 49, hidden)
        self.fc2 = nn.Linear(hidden, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class ScaledLinear(nn.Module):
    """scale * (W / sigma x + b)."""

    def __init__(self, before: int, after: int, scale: float) -> None:
        super().__init__()
        self.linear = spectral_norm(nn.Linear(before, after))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.linear(x)


class ScaledConv(nn.Module):
    """scale * (conv(x, W / sigma) + b), 3x3, padding 1."""

    def __init__(self, before: int, after: int, scale: float) -> None:
        super().__init__()
        self.conv = spectral_norm(nn.Conv2d(before, after, 3, padding=1))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.conv(x)


class SpectralMLP(nn.Module):
    """A deep MLP of spectrally normalised layers with a scale of 2, and of 1.1 at the end."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        for before in [784] + [width] * (depth - 1):
            layers += [ScaledLinear(before, width, 2.0), nn.LeakyReLU(0.01)]
        self.net = nn.Sequential(*layers, ScaledLinear(width, 10, 1.1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class SpectralConvNet(nn.Module):
    """Spectrally normalised convolutions, global average pooling, a spectrally normalised linear layer."""

    def __init__(self, depth: int, channels: int, scale: float, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before in [1] + [channels] * (depth - 1):
            layers += [ScaledConv(before, channels, scale), activation()]
        self.features = nn.Sequential(*layers)
        self.fc = ScaledLinear(channels, 10, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))


class LeNet5(nn.Module):
    """LeNet-5 with ReLU and average pooling on images padded to 32x32."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 6, 5), nn.ReLU(), nn.AvgPool2d(2, 2),
            nn.Conv2d(6, 16, 5), nn.ReLU(), nn.AvgPool2d(2, 2),
            nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.net(F.pad(x, (2, 2, 2, 2)))


class ResidualBlock(nn.Module):
    """ReLU(fc2(ReLU(fc1 x)) + x)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.fc2(F.relu(self.fc1(x))) + x)


class ResidualMLP(nn.Module):
    """FC-R18: 784-64, eight residual blocks, 64-10."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layer = nn.Linear(784, 64)
        self.blocks = nn.ModuleList(ResidualBlock(64) for _ in range(8))
        self.output_layer = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.input_layer(torch.flatten(x, 1)))
        for block in self.blocks:
            x = block(x)
        return self.output_layer(x)


class BasicBlock(nn.Module):
    """ReLU(conv2(ReLU(conv1 x)) + shortcut x); the shortcut is a 1x1 convolution where the shape changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        changes = stride != 1 or before != after
        self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride)) if changes else nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))


class ResNet2b(nn.Module):
    """A strided convolution, two basic blocks, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.layer1 = nn.Sequential(BasicBlock(8, 16, 2), BasicBlock(16, 16, 1))
        self.linear1 = nn.Linear(1024, 100)
        self.linear2 = nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer1(F.relu(self.conv1(x)))
        return self.linear2(F.relu(self.linear1(x.flatten(1))))


def _spectral(stem: str) -> Callable[[], nn.Module]:
    """Return the factory of ``mlp_L<depth>_W<width>`` or ``cnn_C<depth>_CH<channels>``."""
    kind, depth, width = stem.split("_")
    layers, units = int(depth[1:]), int(width.lstrip("WCH"))
    if kind == "mlp":
        return lambda: SpectralMLP(layers, units)
    if layers == 16:  # the older training run
        return lambda: SpectralConvNet(layers, units, 1.2, nn.ReLU)
    return lambda: SpectralConvNet(layers, units, 2.0, lambda: nn.LeakyReLU(0.01))


def _small(channels: int, flat: int, padding: int, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Module:
    convolutions = [(channels, 16, 4, 2, padding), (16, 32, 4, 2, padding)]
    return conv_net(convolutions, (flat, 100, 10), activation)


FACTORIES: dict[str, Callable[[], nn.Module]] = {
    "LeNet5ReLU.pt": LeNet5,
    "FC-R18.pt": ResidualMLP,
    "mnist_2_20.pth": lambda: mlp(784, 20, 10),
    "mnist_6_100_nat.pth": lambda: mlp(784, *[100] * 5, 10),
    "mnist_9_200_nat.pth": lambda: mlp(784, *[200] * 8, 10),
    "spectral_NOR_MLP_B.pth": lambda: mlp(784, 100, 100, 10),
    "mnist_fc_3layer.pth": lambda: NamedMLP(784, 128, 64, 10),
    "mnist_cnn_small.pth": lambda: NamedConvNet(8, 16, 256),
    "mnist_convsmall.pth": lambda: NamedConvNet(16, 32, 100),
    "mnist_conv_small_nat.pth": lambda: _small(1, 800, 0),
    "cifar_conv_small_pgd.pth": lambda: _small(3, 1152, 0),
    "cifar_conv_small_sigmoid.pth": lambda: _small(3, 1152, 0, nn.Sigmoid),
    "cifar10_convsmall.pth": lambda: _small(3, 1152, 0),
    "mnist_cnn_a_adv.model": lambda: _small(1, 1568, 1),
    "cifar_cnn_a_adv.model": lambda: _small(3, 2048, 1),
    "cifar_cnn_a_mix.model": lambda: _small(3, 2048, 1),
    "cifar10_cnn_a.pth": lambda: _small(3, 2048, 1),
    "cifar_base_kw.pth": lambda: conv_net([(3, 8, 4, 2, 1), (8, 16, 4, 2, 1)], (1024, 100, 10)),
    "cifar_wide_kw.pth": lambda: _small(3, 2048, 1),
    "resnet2b.pth": ResNet2b,
    "MadryCNN_no_maxpool_tiny.pt": lambda: conv_net([(1, 4, 5, 2, 2), (4, 8, 5, 2, 2)], (392, 128, 10)),
    "cifar_marabou_small.pth": lambda: conv_net([(3, 8, 4, 2, 0), (8, 16, 4, 2, 0)], (576, 128, 64, 10)),
    "cifar_marabou_large.pth": lambda: conv_net([(3, 32, 4, 2, 0), (32, 64, 4, 2, 0)], (2304, 128, 64, 10)),
}


def factory_of(file_name: str) -> Callable[[], nn.Module]:
    """Return the factory of the module whose weights a checkpoint holds."""
    stem = file_name.removesuffix(".pt").removesuffix(".state_dict")
    return FACTORIES[file_name] if file_name in FACTORIES else _spectral(stem)
