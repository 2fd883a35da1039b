"""What CROWN costs at level numerical, at level verified, and in auto_LiRPA, on the same samples in one run.

    python -m benchmarks.crown_costs [--data FOLDER] [--only PART]

l2 balls inside [0, 1], which auto_LiRPA does not cut its balls by. CPU seconds of the process per sample on one thread,
after a first sample that warms up. *verified*: numerical bounds first, as they are proposed; then what is derived again
from the proposal, of all samples. *proved*: how many samples, of those that are classified correctly. *memory*: the
most that the process held so far, auto_LiRPA included. See `benchmarks.lirpa` for how to get auto_LiRPA.
"""

from __future__ import annotations

import argparse
import resource
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.lirpa import Case, Pair, require_peer, timed
from benchmarks.networks import open_network
from lipcert.bounds.local.method import Crown
from lipcert.bounds.local.region import Ball
from lipcert.proof.local import Evaluator, Region

CASES = (
    Case("autolirpa/mnist_fc_3layer.pth", (("l2", 0.3),), 40, 20),
    Case("autolirpa/mnist_cnn_small.pth", (("l2", 0.3),), 12, 4),
    Case("sdpcrown/mnist_convsmall.pth", (("l2", 0.1), ("l2", 0.3)), 8, 4),
    Case("vnncomp2021/resnet_2b.onnx", (("l2", 8 / 255),), 8, 4),
    Case("vnncomp2021/cifar_base_kw.onnx", (("l2", 8 / 255),), 8, 4),
    Case("abcrown/cifar_conv_small_sigmoid.pth", (("l2", 0.05),), 8, 4),
    Case("vnncomp2021/Convnet_maxpool.onnx", (("l2", 0.05),), 8, 4),
    Case("glipsdp/cnn_C9_CH8.onnx", (("l2", 0.01), ("l2", 0.03)), 3, 1),
)
HEAD = (
    "| network | eps | correct | auto_LiRPA, s | numerical, s | verified, s | verified / numerical | "
    "proved: theirs, numerical, verified | memory, MB |",
    "|---|---|---|---|---|---|---|---|---|",
)


def lines(pair: Pair, evaluator: Evaluator) -> Iterator[str]:
    """Yield lines of the table."""
    crown = Crown()

    def verified(ball: Ball, labels: Tensor) -> Tensor:
        proposal = crown.bound(pair.view, ball, labels).proposal(torch.arange(len(labels)))
        region = Region.around(ball.centre.numpy(), float(ball.eps[0]), ball.norm, ball.box)
        return torch.from_numpy(crown.verified_margins(evaluator, region, labels.numpy(), proposal))

    for norm, eps in pair.case.radii:
        batches = list(pair.batches(norm, eps, (0.0, 1.0)))
        sides = (lambda *b: pair.theirs("crown", *b), lambda *b: crown.margins(pair.view, *b), verified)
        seconds, counts = np.zeros(3), np.zeros(3, dtype=np.int64)
        for side in sides:
            side(batches[0][0].take(torch.tensor([0])), batches[0][1][:1])
        for batch in batches:
            for k, side in enumerate(sides):
                margins, took = timed(side, *batch)
                seconds[k] += took / len(pair.labels)
                counts[k] += int((margins.amin(dim=1) > 0).sum())
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        proved, costs = ", ".join(map(str, counts)), " | ".join(f"{s:.4f}" for s in seconds)
        yield (
            f"| {pair.case.file} | {eps:.4g} | {len(pair.labels)} | {costs} | {seconds[2] / seconds[1]:.1f} | "
            f"{proved} | {memory} |"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; lines appear as they are found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--only", default="", help="a part of the names of the networks to run")
    options = parser.parse_args(arguments)
    require_peer(parser)
    print("\n".join(HEAD))
    for case in (case for case in CASES if options.only in case.file):
        network, _, _ = open_network(options.data, f"models/{case.file}")
        for line in lines(Pair(options.data, case, torch.float32), Evaluator(network)):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sys.exit(main())
