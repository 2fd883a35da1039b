"""What certifying with a global bound costs beyond plain inference, measured in one run.

    python -m benchmarks.throughput [--data DIR] [--repeats N] [--out FILE]

For each network, 10,000 MNIST images go through torch's own module in float32 and through `certify` with the product
bound (the images once each way per repeat, in turn). The stage's seconds hold everything that is done per sample:
forward pass with its rounding errors, margins over all rivals, radii, verdicts. Start-up (reading, bounding) is
reported by itself. Quoted are medians and the median of the ratios.

With `--stages` the first `--limit` images go through each stage alone, at `--eps`: samples per second of every method
named, beside plain inference on the same images. Seconds are those of the stage over the correctly classified samples;
the product bound leaves nearly all of them open at the default radius. Where auto_LiRPA is installed, its CROWN runs
beside them on the same network and images.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import time
from collections.abc import Iterator, Sequence
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


def stage_rows(shared: Path, file: str, options: argparse.Namespace) -> Iterator[str]:
    """Yield a line for each stage on one network."""
    network, images, labels = open_network(shared, file)
    images, labels = images[: options.limit], labels[: options.limit]
    module = factory_of(Path(file).name)().eval()
    module.load_state_dict(read_weights(shared / file, allow_pickle=False)[0])
    plain = min(plain_seconds(module, images) for _ in range(3)) / len(images)
    yield f"| {file.removeprefix('models/')} | plain inference | {1 / plain:.0f} | 1 |"
    for name in options.stages:
        given = {"method": name, "level": options.level, "device": options.device}
        report = lipcert.certify(network, (images, labels), eps=[options.eps], lower_seconds=0.0, **given)
        each = report.per_method[-1].seconds / max(1, report.clean_count)
        yield f"| | {name}, {options.level} | {1 / each:.0f} | {each / plain:.0f} |"
    yield from auto_lirpa_row(module, images, labels, options, plain)


def auto_lirpa_row(
    module: torch.nn.Module, images: np.ndarray, labels: np.ndarray, options: argparse.Namespace, plain: float
) -> Iterator[str]:
    """Yield a line for the CROWN of auto_LiRPA (batches of 50), or what is missing."""
    try:
        lirpa = importlib.import_module("auto_LiRPA")
    except ImportError:
        yield "| | auto_LiRPA's CROWN: not installed | – | – |"
        return
    bounded = lirpa.BoundedModule(module, torch.from_numpy(images[:1]))
    start = time.perf_counter()
    for first in range(0, len(images), 50):
        x, y = torch.from_numpy(images[first : first + 50]), torch.from_numpy(labels[first : first + 50])
        rows = torch.eye(10)[y][:, None] - torch.eye(10)[None]
        ball = lirpa.PerturbationLpNorm(norm=2, eps=options.eps)
        bounded.compute_bounds(x=(lirpa.BoundedTensor(x, ball),), C=rows, method="CROWN", bound_upper=False)
    each = (time.perf_counter() - start) / len(images)
    yield f"| | auto_LiRPA's CROWN | {1 / each:.0f} | {each / plain:.0f} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--stages", nargs="*", default=[], help="local methods to time one by one")
    parser.add_argument("--limit", type=int, default=200, help="images for --stages")
    parser.add_argument("--eps", type=float, default=0.3, help="radius for --stages")
    parser.add_argument("--level", choices=["verified", "numerical"], default="verified", help="for --stages")
    parser.add_argument("--device", default="cpu", help="for --stages")
    parser.add_argument("--only", default="", help="a part of the names of the networks to run")
    options = parser.parse_args(arguments)
    files = [file for file in FILES if options.only in file]
    if options.stages:
        print("| network | stage | samples per second | plain inference is faster by |\n|---|---|--:|--:|")
        for file in files:
            for line in stage_rows(options.data, file, options):
                print(line, flush=True)
        return
    lines = [
        f"{torch.get_num_threads()} threads, {options.repeats} repeats, batches of {BATCH}, 10,000 MNIST images",
        "",
        "| network | plain inference, s | global stage, s | ratio | start-up, s |",
        "|---|---|---|---|---|",
    ]
    for file in files:
        plain, ours, ratio, start_up = measure(options.data, file, options.repeats)
        lines.append(f"| {file.removeprefix('models/')} | {plain:.3f} | {ours:.3f} | {ratio:.2f} | {start_up:.2f} |")
        print(lines[-1], flush=True)
    if options.out is not None:
        options.out.write_text("# Throughput\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
