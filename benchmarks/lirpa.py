"""Intervals and CROWN beside auto_LiRPA's, on the same networks and samples, in one run: margins, counts, seconds.

    python -m benchmarks.lirpa [--data FOLDER] [--part margins|counts] [--only PART] [--dtype NAME] [--out FILE]

auto_LiRPA (Verified-Intelligence/auto_LiRPA, BSD-3-Clause) is no dependency: put a checkout of it, with its own
requirements, on PYTHONPATH. It gets the module that our graph describes, so that both bound one function; the logits
of both are compared first.

* *margins*: worst relative shortfall of our margins, (theirs - ours) / |theirs| over all samples and rivals: negative
  where ours are tighter everywhere. No input box.
* *counts*: certified samples on linf balls inside [0, 1]; *best* runs our cheap methods first, the others on what is
  left. For the samples that their CROWN settles, our seconds per sample are set beside theirs.

Seconds are CPU seconds of the process per sample, on one thread, after a first batch that warms up; both take the same
batches in turn.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.networks import open_network
from lipcert.bounds.local.margins import differences, rivals
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.registry import find_local
from lipcert.bounds.local.view import View
from lipcert.network import Network
from lipcert.network.graph import Node
from lipcert.network.normal import strip_softmax
from lipcert.network.operators import AvgPool, Conv, Dense, Elementwise, MaxPool, Reshape, Scale, Sum
from lipcert.proof.claims import Norm

_Result = TypeVar("_Result")
Box = tuple[float, float] | None
METHODS = {"intervals": "IBP", "crown": "CROWN"}  # ours, and what auto_LiRPA calls it
STAGES = ("intervals", "crown", "pruned", "anchored", "alpha-crown", "branching")
HOW_TO_GET_IT = (
    "auto_LiRPA cannot be imported: clone https://github.com/Verified-Intelligence/auto_LiRPA, install what it needs "
    "(appdirs, tqdm, packaging, graphviz beside torch) and put both on PYTHONPATH"
)


@dataclass(frozen=True)
class Case:
    """A network with balls.

    Attributes:
        file: below the models' folder. radii: norm and eps in raw input units. samples: how many, the first ones.
        batch: samples at once, for both.
    """

    file: str
    radii: tuple[tuple[Norm, float], ...]
    samples: int = 16
    batch: int = 8


MARGINS = (
    Case("autolirpa/mnist_fc_3layer.pth", (("l2", 0.1), ("l2", 0.3), ("linf", 0.01), ("linf", 0.03)), 100, 50),
    Case("autolirpa/mnist_cnn_small.pth", (("l2", 0.3), ("linf", 0.03))),
    Case("sdpcrown/mnist_convsmall.pth", (("l2", 0.1), ("linf", 0.01))),
    Case("vnncomp2021/resnet2b.pth", (("l2", 0.05), ("linf", 1 / 255)), 8, 4),
    Case("abcrown/cifar_conv_small_sigmoid.pth", (("l2", 0.05), ("linf", 1 / 255)), 8, 4),
    Case("vnncomp2021/Convnet_maxpool.onnx", (("l2", 0.1), ("linf", 0.005)), 4, 2),
)
COUNTS = (
    Case("vnncomp2021/mnist-net_256x2.onnx", (("linf", 0.03), ("linf", 0.05)), 100, 50),
    Case("vnncomp2021/mnist-net_256x6.onnx", (("linf", 0.03), ("linf", 0.05)), 100, 50),
    Case("vnncomp2021/resnet2b.pth", (("linf", 1 / 255), ("linf", 2 / 255)), 50, 5),
)


class Module(nn.Module):
    """A network as a torch module made of the layers that auto_LiRPA knows.

    A normalisation at the start becomes part of the convolution behind it, and of the input, which is shifted: what
    is padded with zeros stays so, and balls stay balls.

    Args of the constructor:
        network: without softmax at its end.

    Attributes:
        shift: what the input has to be shifted by, broadcastable to it.

    Raises:
        TypeError: this benchmark has no layer for a node.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._sources = [node.inputs for node in network.nodes]
        shapes = [node.shape for node in network.nodes]
        self.layers = nn.ModuleList(
            _layer(node, [shapes[i] for i in node.inputs]) if k else nn.Identity()
            for k, node in enumerate(network.nodes)
        )
        self.shift = torch.zeros(1)
        first = network.nodes[1].op
        if isinstance(first, Scale):
            (user,) = network.consumers[1]
            factor, conv = torch.from_numpy(np.array(first.factor.mid)), self.layers[user]
            if not isinstance(conv, nn.Conv2d) or conv.groups != 1:
                raise TypeError("a normalisation is expected before a convolution")
            conv.weight.mul_(factor.reshape(1, -1, 1, 1))
            self.shift = torch.from_numpy(np.array(first.shift.mid)) / factor

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes) at shifted inputs."""
        values = [x]
        for layer, sources in zip(list(self.layers)[1:], self._sources[1:], strict=True):
            values.append(layer(*(values[i] for i in sources)))
        return values[-1].flatten(1)


class _Call(nn.Module):
    """A function of tensors as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, *xs: Tensor) -> Tensor:
        return self._function(*xs)


def _layer(node: Node, sources: Sequence[tuple[int, ...]]) -> nn.Module:
    """Return the torch layer of a node.

    Raises:
        TypeError: this benchmark needs no such node.
    """
    op = node.op
    match op:
        case Dense():
            dense = nn.Linear(op.weight.shape[1], op.weight.shape[0])
            return _filled(dense, op.weight.mid, np.broadcast_to(op.bias.mid, node.shape))
        case Conv() if all(a == b for a, b in op.padding) and op.bias.mid[0].size == 1:
            (out, inner), kernel, padding = op.weight.shape[:2], op.weight.shape[2:], tuple(a for a, _ in op.padding)
            conv = nn.Conv2d(inner * op.groups, out, kernel, op.stride, padding, op.dilation, op.groups)
            return _filled(conv, op.weight.mid, op.bias.mid.reshape(-1))
        case Scale() if node.inputs == (0,):
            return nn.Identity()
        case Reshape():
            return nn.Flatten() if len(node.shape) == 1 else _Call(lambda x: x.reshape(len(x), *node.shape))
        case Sum() if op.signs == (1, 1):
            return _Call(torch.add)
        case AvgPool() if (op.counts == op.counts.flat[0]).all() and op.window == sources[0][1:]:
            return nn.AvgPool2d(op.window)
        case MaxPool() if all(a == b for a, b in op.padding):
            return nn.MaxPool2d(op.window, op.stride, tuple(a for a, _ in op.padding), op.dilation)
        case Elementwise(name="relu"):
            return nn.ReLU()
        case Elementwise(name="leaky_relu"):
            return nn.LeakyReLU(float(op.params[0]))
        case Elementwise(name="sigmoid"):
            return nn.Sigmoid()
        case Elementwise(name="tanh"):
            return nn.Tanh()
    raise TypeError(f"no torch layer for {op.kind} here")


def _buffer(array: np.ndarray[Any, Any]) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(np.array(array)), requires_grad=False)


def _filled(layer: nn.Linear | nn.Conv2d, weight: np.ndarray[Any, Any], bias: np.ndarray[Any, Any]) -> nn.Module:
    layer.weight, layer.bias = _buffer(weight), _buffer(bias)
    return layer


class Peer:
    """auto_LiRPA's bounds of a network.

    Args of the constructor:
        network: as read. dtype: of all its computations.
    """

    def __init__(self, network: Network, dtype: torch.dtype) -> None:
        self._library = importlib.import_module("auto_LiRPA")
        self._ball = importlib.import_module("auto_LiRPA.perturbations").PerturbationLpNorm
        self.module = Module(strip_softmax(network)).to(dtype).eval()
        self._shift = self.module.shift.to(dtype)
        example = torch.zeros((1, *network.input_shape), dtype=dtype)
        options = {"conv_mode": "patches"}
        self._bounded = self._library.BoundedModule(self.module, example, device="cpu", bound_opts=options)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes)."""
        found: Tensor = self.module(x + self._shift)
        return found

    def margins(self, ball: Ball, rows: Tensor, method: str) -> Tensor:
        """Return (B, classes - 1) lower bounds of margins, whose coefficients (B, S, classes) are `rows`."""
        eps = float(ball.eps[0])
        if ball.norm == "linf":
            region = self._ball(norm=np.inf, eps=eps, x_L=ball.lower + self._shift, x_U=ball.upper + self._shift)
        else:
            region = self._ball(norm=2, eps=eps)
        x = self._library.BoundedTensor(ball.centre + self._shift, region)
        with torch.no_grad():
            low, _ = self._bounded.compute_bounds(x=(x,), C=rows, method=method, bound_upper=False)
        return low


def timed(work: Callable[[], _Result]) -> tuple[_Result, float]:
    """Return a result and the CPU seconds of this process that it took."""
    start = time.process_time()
    return work(), time.process_time() - start


class Pair:
    """A network on both sides, and its samples that are classified correctly.

    Args of the constructor:
        data: the folder with the manifest. case: see there. dtype: of both.
    """

    def __init__(self, data: Path, case: Case, dtype: torch.dtype) -> None:
        network, images, labels = open_network(data, f"models/{case.file}")
        self.case, self.view, self.peer = case, View(network, dtype=dtype), Peer(network, dtype)
        inputs, target = self.view.place(torch.from_numpy(images[: case.samples])), torch.from_numpy(labels)
        with torch.no_grad():
            mine, other = self.view(inputs), self.peer(inputs)
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)
        right = mine.argmax(dim=1) == target[: case.samples]
        self.inputs, self.labels = inputs[right], target[: case.samples][right]

    def batches(self, norm: Norm, eps: float, box: Box) -> Iterator[tuple[Ball, Tensor]]:
        """Yield balls and labels."""
        for first in range(0, len(self.labels), self.case.batch):
            inputs = self.inputs[first : first + self.case.batch]
            yield Ball.around(inputs, eps, norm, box), self.labels[first : first + self.case.batch]

    def ours(self, name: str, ball: Ball, labels: Tensor) -> Tensor:
        """Return (B, classes - 1) margins of one of our methods."""
        found = find_local(name).margins(self.view, ball, labels)
        return found.gather(1, rivals(labels, self.view.classes))

    def theirs(self, name: str, ball: Ball, labels: Tensor) -> Tensor:
        """Return (B, classes - 1) margins of auto_LiRPA's method of the same kind."""
        return self.peer.margins(ball, differences(self.view, labels).flatten(2), METHODS[name])


def margin_lines(pair: Pair) -> Iterator[str]:
    """Yield lines of the table of margins."""
    for norm, eps in pair.case.radii:
        for name in METHODS:
            batches = list(pair.batches(norm, eps, None))
            for warm_up in (pair.ours, pair.theirs):
                warm_up(name, *batches[0])
            short, mean, seconds = [], [], []
            for batch in batches:
                (mine, one), (other, two) = (timed(lambda f=f: f(name, *batch)) for f in (pair.ours, pair.theirs))
                short.append(float(((other - mine) / other.abs()).amax()))
                mean.append(float((mine - other).mean()))
                seconds.append((one, two))
            one, two = (sum(column) / len(pair.labels) for column in zip(*seconds, strict=True))
            ratio = statistics.median(a / b for a, b in seconds)
            yield (
                f"| {pair.case.file} | {norm} | {eps:.4g} | {name} | {max(short):.1e} | {statistics.mean(mean):.2g} | "
                f"{one:.4f} | {two:.4f} | {ratio:.2f} |"
            )


MARGIN_HEAD = (
    "| network | norm | eps | method | worst shortfall | mean gain | ours, s | auto_LiRPA, s | ratio |",
    "|---|---|---|---|---|---|---|---|---|",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; lines appear as they are found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--only", default="", help="a part of the names of the networks to run")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    options = parser.parse_args(arguments)
    try:
        importlib.import_module("auto_LiRPA")
    except ModuleNotFoundError:
        parser.exit(2, f"{HOW_TO_GET_IT}\n")
    print("\n".join(MARGIN_HEAD))
    for case in (case for case in MARGINS if options.only in case.file):
        for line in margin_lines(Pair(options.data, case, getattr(torch, options.dtype))):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sys.exit(main())
