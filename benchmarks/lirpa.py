"""Intervals and CROWN beside auto_LiRPA's, on the same networks and samples, in one run: margins, counts, seconds.

    python -m benchmarks.lirpa [--data FOLDER] [--table margins|counts] [--only PART] [--dtype NAME] [--seconds S]

auto_LiRPA (Verified-Intelligence/auto_LiRPA, BSD-3-Clause) is no dependency: put a checkout of it, with its own
requirements, on PYTHONPATH. It gets a torch module with the layers of our graph; the logits of both are compared
first.

* *margins*: worst relative shortfall of our margins, (theirs - ours) / |theirs| over all samples and rivals: negative
  where ours are tighter everywhere; and the mean of ours - theirs. No input box.
* *counts*: certified samples on linf balls inside [0, 1]. Our methods run one after the other, each on what the ones
  before left. *settled*: seconds for a sample that their CROWN settles, theirs and ours.

Seconds are CPU seconds of the process per sample, on one thread, after a first batch that warms up; both take the same
batches in turn. Ratios are ours / theirs, the median over batches.
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
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from benchmarks.networks import open_network
from benchmarks.networks.modules import Module
from lipcert.bounds.local.branching import Branching, Budget
from lipcert.bounds.local.margins import differences, rivals
from lipcert.bounds.local.method import Crown, LocalMethod
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.registry import find_local
from lipcert.bounds.local.view import View
from lipcert.network import Network
from lipcert.network.normal import strip_softmax
from lipcert.proof.claims import Norm

_Result = TypeVar("_Result")
Box = tuple[float, float] | None
METHODS = {"intervals": "IBP", "crown": "CROWN"}  # ours, and what auto_LiRPA calls it
OPTIMISED = "CROWN-Optimized"  # its alpha-CROWN
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
    Case("vnncomp2021/Convnet_maxpool.onnx", (("l2", 0.1), ("linf", 0.005)), 16, 4),
    Case("glipsdp/cnn_C9_CH8.onnx", (("l2", 0.1),), 1, 1),
)
COUNTS = (
    Case("vnncomp2021/mnist-net_256x2.onnx", (("linf", 0.03), ("linf", 0.05)), 100, 50),
    Case("vnncomp2021/mnist-net_256x6.onnx", (("linf", 0.03), ("linf", 0.05)), 20, 20),
    Case("vnncomp2021/resnet2b.pth", (("linf", 1 / 255), ("linf", 2 / 255)), 50, 5),
)


def require_peer(parser: argparse.ArgumentParser) -> None:
    """End a benchmark with one line where auto_LiRPA is not at hand, before any work."""
    try:
        importlib.import_module("auto_LiRPA")
    except ModuleNotFoundError:
        parser.exit(2, f"{HOW_TO_GET_IT}\n")


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
        with torch.set_grad_enabled(method == OPTIMISED):
            found = self._bounded.compute_bounds(x=(x,), C=rows, method=method, bound_upper=False)
        low: Tensor = found[0].detach()
        return low


def timed(work: Callable[..., _Result], *arguments: object) -> tuple[_Result, float]:
    """Return the result of a function and the CPU seconds of this process that it took."""
    start = time.process_time()
    return work(*arguments), time.process_time() - start


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
        return self.by(Crown() if name == "crown" else find_local(name), ball, labels)

    def by(self, method: LocalMethod, ball: Ball, labels: Tensor) -> Tensor:
        """Return (B, classes - 1) margins of a method."""
        found = method.margins(self.view, ball, labels)
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
                (mine, one), (other, two) = (timed(side, name, *batch) for side in (pair.ours, pair.theirs))
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


COUNT_HEAD = (
    "| network | eps | correct | their CROWN | intervals | + crown | + alpha-crown | + branching | "
    "settled: theirs, s | ours, s | ratio | all of ours, s |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|",
)


def count_lines(pair: Pair, seconds: float) -> Iterator[str]:
    """Yield lines of the table of counts. seconds: of branching, for each sample."""
    stages = (*map(find_local, ("intervals", "crown", "alpha-crown")), Branching(Budget(seconds=seconds)))
    for norm, eps in pair.case.radii:
        batches = list(pair.batches(norm, eps, (0.0, 1.0)))
        pair.ours("crown", *batches[0]), pair.theirs("crown", *batches[0])
        theirs, total, ratios, costs = 0, 0.0, [], []
        counts = [0] * len(stages)
        for ball, labels in batches:
            margins, other = timed(pair.theirs, "crown", ball, labels)
            settled = margins.amin(dim=1) > 0
            theirs += int(settled.sum())
            left, spent, seen = torch.arange(len(labels)), 0.0, np.zeros(len(labels))
            for k, method in enumerate(stages):
                if len(left):
                    mine, took = timed(pair.by, method, ball.take(left), labels[left])
                    spent += took
                    seen[left.numpy()] += took / len(left)
                    left = left[~(mine.amin(dim=1) > 0)]
                counts[k] += len(labels) - len(left)
            total += spent
            if settled.any():
                costs.append((float(seen[settled.numpy()].mean()), other / len(labels)))
                ratios.append(costs[-1][0] / costs[-1][1])
        ours, other = (statistics.mean(column) for column in zip(*costs, strict=True)) if costs else (np.nan, np.nan)
        yield (
            f"| {pair.case.file} | {eps:.4g} | {len(pair.labels)} | {theirs} | {' | '.join(map(str, counts))} | "
            f"{other:.4f} | {ours:.4f} | {statistics.median(ratios or [np.nan]):.2f} | {total / len(pair.labels):.3f} |"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; lines appear as they are found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--table", choices=("margins", "counts"), default="margins")
    parser.add_argument("--only", default="", help="a part of the names of the networks to run")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--seconds", type=float, default=1.0, help="of branching, for each sample")
    options = parser.parse_args(arguments)
    require_peer(parser)
    cases, head = (MARGINS, MARGIN_HEAD) if options.table == "margins" else (COUNTS, COUNT_HEAD)
    print("\n".join(head))
    for case in (case for case in cases if options.only in case.file):
        pair = Pair(options.data, case, getattr(torch, options.dtype))
        for line in margin_lines(pair) if options.table == "margins" else count_lines(pair, options.seconds):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sys.exit(main())
