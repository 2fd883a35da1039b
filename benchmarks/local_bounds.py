"""Local methods on the networks and radii of the literature: how many samples they certify, and at what price.

    python -m benchmarks.local_bounds --data FOLDER [--only PART] [--methods NAME ...] [--samples N] [--eps E ...]

l2 balls without an input box. *numerical*: margins proved in real arithmetic, their rounding not counted; *verified*:
those of them that `lipcert.proof.local` derives again, every rounding error counted, first without a proposal. Seconds
are CPU seconds per sample, over all samples of the row that are classified correctly; those of *verified* come on top.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.networks import open_bare, open_network
from lipcert.bounds.local.method import Bounds, LocalMethod
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.registry import LOCAL_METHODS, find_local
from lipcert.bounds.local.view import View
from lipcert.network import Network
from lipcert.proof.local import NOTHING, Evaluator, Region

_Result = TypeVar("_Result")
_Mask = npt.NDArray[np.bool_]
AT_ONCE = 2**19  # numbers in the largest layer of a batch


@dataclass(frozen=True)
class Row:
    """A network with radii.

    Attributes:
        file: below the models' folder. eps: radii in the units of the images. samples: how many, the first ones.
        images: file of the images, below the data sets' folder; None for those of the manifest.
    """

    file: str
    eps: tuple[float, ...]
    samples: int = 100
    images: str | None = None


ROWS = (
    Row("autolirpa/mnist_fc_3layer.pth", (0.1, 0.3, 0.5)),
    Row("autolirpa/mnist_cnn_small.pth", (0.1, 0.3)),
    Row("abcrown/mnist_cnn_a_adv.model", (0.1, 0.3, 0.4, 0.5)),
    Row("autolirpa/spectral_NOR_MLP_B.pth", (1.0,), 200, "mnist_sdp200.npz"),
    Row("sdpcrown/mnist_convsmall.pth", (0.3,), 200, "mnist_sdp200.npz"),
    Row("sdpcrown/cifar10_cnn_a.pth", (24 / 255,), 200, "cifar10_sdp200.npz"),
    Row("sdpcrown/cifar10_convsmall.pth", (24 / 255,), 200, "cifar10_sdp200.npz"),
)


def open_row(data: Path, row: Row) -> tuple[Network, npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the network, and images with labels in the units of its input.

    `spectral_NOR_MLP_B` takes pixel / 255 here, as in the literature on its row.
    """
    name = f"models/{row.file}"
    if row.images is None:
        return open_network(data, name)
    network = open_bare(data, name) if "spectral" in row.file else open_network(data, name)[0]
    with np.load(data / "datasets" / row.images) as stored:
        images, labels = (stored["images"] / 255.0).astype(np.float32), stored["labels"].astype(np.int64)
    return network, images.reshape(-1, *network.input_shape), labels


def timed(work: Callable[[], _Result]) -> tuple[_Result, float]:
    """Return a result and the CPU seconds that it took."""
    start = time.process_time()
    return work(), time.process_time() - start


class Case:
    """A network and its samples that are classified correctly.

    Args of the constructor:
        network: as read. images, labels: samples.
    """

    def __init__(self, network: Network, images: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> None:
        self.view, self.evaluator = View(network), Evaluator(network)
        with torch.no_grad():
            correct = self.view(self.view.place(torch.from_numpy(images))).argmax(dim=1).cpu().numpy() == labels
        self.images, self.labels = images[correct], labels[correct]
        self._batch = max(1, AT_ONCE // max(node.size for node in self.view.nodes))

    def numerical(self, method: LocalMethod, eps: float) -> list[Bounds]:
        """Return what a method finds of all samples, in batches."""
        return [method.bound(self.view, *self._placed(rows, eps)) for rows in self._batches(self._batch)]

    def verified(self, method: LocalMethod, eps: float, found: Sequence[Bounds]) -> int:
        """Return how many of the samples that a method proved are derived again."""
        return sum(self._derived(method, eps, *one) for one in zip(self._batches(self._batch), found, strict=True))

    def _derived(self, method: LocalMethod, eps: float, rows: npt.NDArray[np.int64], bounds: Bounds) -> int:
        proved = np.flatnonzero(positive(bounds))
        left = proved
        for suggest in (lambda _: NOTHING, bounds.proposal):
            for some in [left[start : start + 16] for start in range(0, len(left), 16)]:
                proposal = suggest(torch.from_numpy(some).to(self.view.device))
                region, labels = Region.around(self.images[rows[some]], eps, "l2"), self.labels[rows[some]]
                margins = method.verified_margins(self.evaluator, region, labels, proposal)
                left = np.setdiff1d(left, some[margins.min(axis=1) > 0])
        return len(proved) - len(left)

    def _placed(self, rows: npt.NDArray[np.int64], eps: float) -> tuple[Ball, torch.Tensor]:
        images = self.view.place(torch.from_numpy(self.images[rows]))
        return Ball.around(images, eps), torch.from_numpy(self.labels[rows]).to(self.view.device)

    def _batches(self, size: int) -> Iterator[npt.NDArray[np.int64]]:
        rows = np.arange(len(self.labels))
        return (rows[start : start + size] for start in range(0, len(rows), size))


def positive(bounds: Bounds) -> _Mask:
    """Return which samples a method proves."""
    return np.asarray((bounds.margins.amin(dim=1) > 0).cpu().numpy())


def lines(case: Case, method: LocalMethod, eps: float) -> str:
    """Return one line of the table."""
    found, seconds = timed(lambda: case.numerical(method, eps))
    count, proved = len(case.labels), sum(int(positive(bounds).sum()) for bounds in found)
    text = f"| {method.name} | {eps:.4g} | {count} | {proved} | {seconds / count:.4f} |"
    if not method.derived:
        return f"{text} - | - |"
    verified, further = timed(lambda: case.verified(method, eps, found))
    return f"{text} {verified} | {further / count:.4f} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; lines appear as they are found."""
    names = [method.name for method in LOCAL_METHODS if "l2" in method.norms]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--only", default="", help="a part of the names of the networks to run")
    parser.add_argument("--methods", nargs="+", choices=names, default=["crown", "anchored"])
    parser.add_argument("--samples", type=int, help="at most so many samples of each row")
    parser.add_argument("--eps", type=float, nargs="+", help="only these radii")
    options = parser.parse_args(arguments)
    for row in (row for row in ROWS if options.only in row.file):
        network, images, labels = open_row(options.data, row)
        count = min(row.samples, options.samples or row.samples)
        print(f"\n## {row.file}, the first {count} samples\n")
        print("| method | eps | correct | numerical | s | verified | further s |\n|---|---|---|---|---|---|---|")
        case = Case(network, images[:count], labels[:count])
        for eps in options.eps or row.eps:
            for name in options.methods:
                print(lines(case, find_local(name), eps), flush=True)
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
