"""What certifying with a global bound costs beyond plain inference, measured in one run.

    python -m benchmarks.throughput [--data DIR] [--repeats N] [--out FILE]

For each network, 10,000 MNIST images go through torch's own module in float32 and through `certify` with the product
bound (the images once each way per repeat, in turn). The stage's seconds hold everything that is done per sample:
forward pass with its rounding errors, margins over all rivals, radii, verdicts. Start-up (reading, bounding) is
reported by itself. Quoted are medians and the median of the ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import lipcert
from benchmarks.networks.architectures import factory_of
from benchmarks.networks.manifest import open_network
from lipcert.network.readers.torch.weights import read_weights

FILES = (
    "models/autolirpa/mnist_fc_3layer.pth",
    "models/autolirpa/mnist_cnn_small.pth",
    "models/abcrown/mnist_cnn_a_adv.model",
    "models/abcrown/mnist_conv_small_nat.pth",
    "models/sdpcrown/mnist_convsmall.pth",
    "models/glipsdp/LeNet5ReLU.pt",
    "models/abcrown/mnist_6_100_nat.pth",
)
BATCH = 2000
EPS = 0.01


def plain_seconds(module: torch.nn.Module, images: np.ndarray) -> float:
    """Return the time of plain float32 inference in batches."""
    start = time.perf_counter()
    with torch.inference_mode():
        for first in range(0, len(images), BATCH):
            module(torch.from_numpy(images[first : first + BATCH])).argmax(dim=1)
    return time.perf_counter() - start


def measure(shared: Path, file: str, repeats: int) -> tuple[float, float, float, float]:
    """Return medians: plain seconds, seconds of the global stage, their ratio pair by pair, start-up seconds."""
    network, images, labels = open_network(shared, file)
    module = factory_of(Path(file).name)().eval()
    module.load_state_dict(read_weights(shared / file, allow_pickle=False)[0])
    plain, ours, start_up = [], [], []
    for turn in range(repeats + 1):
        seconds = plain_seconds(module, images)
        report = lipcert.certify(network, (images, labels), eps=[EPS], method="product", batch_size=BATCH)
        if turn:  # the first pair warms up
            plain.append(seconds)
            ours.append(report.per_method[0].seconds)
            start_up.append(report.seconds - report.per_method[0].seconds)
    ratios = [a / b for a, b in zip(ours, plain, strict=True)]
    return statistics.median(plain), statistics.median(ours), statistics.median(ratios), statistics.median(start_up)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    lines = [
        f"{torch.get_num_threads()} threads, {options.repeats} repeats, batches of {BATCH}, 10,000 MNIST images",
        "",
        "| network | plain inference, s | global stage, s | ratio | start-up, s |",
        "|---|---|---|---|---|",
    ]
    for file in FILES:
        plain, ours, ratio, start_up = measure(options.data, file, options.repeats)
        lines.append(f"| {file.removeprefix('models/')} | {plain:.3f} | {ours:.3f} | {ratio:.2f} | {start_up:.2f} |")
        print(lines[-1], flush=True)
    if options.out is not None:
        options.out.write_text("# Throughput\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
