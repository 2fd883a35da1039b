"""The cascade on real networks: what each stage decides and costs, and a strong attack on all that is certified.

    python -m benchmarks.cascade [--data DIR] [--only PART] [--limit N] [--level verified|numerical] [--out FILE]

Each network is certified at the radii at which others were measured (`peers.md` of the design, in its preprocessing),
in one run for all radii. Then every certified sample is attacked with 100 steps and 5 tries at its radius: not one may
fall. Memory is the highest resident set of the process so far, so that networks run one by one tell most.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

import lipcert
from benchmarks.networks.manifest import open_network
from lipcert.network import Network
from lipcert.robustness.attack import Attack, Attacker
from lipcert.robustness.records.merge import read_folder
from lipcert.robustness.verdicts import Status

NETWORKS: dict[str, tuple[float, ...]] = {
    "autolirpa/mnist_fc_3layer.pth": (0.1, 0.3, 0.5),
    "autolirpa/mnist_cnn_small.pth": (0.1, 0.3, 0.5),
    "vnncomp2021/mnist-net_256x2.onnx": (0.1, 0.3, 0.5),
    "sdpcrown/mnist_convsmall.pth": (0.1, 0.3),
    "glipsdp/cnn_C9_CH8.onnx": (0.1, 0.3),
    "vnncomp2021/resnet_2b.onnx": (8 / 255, 24 / 255),
    "vnncomp2021/cifar_base_kw.onnx": (8 / 255, 24 / 255),
}
STRONG = Attack(steps=100, restarts=5, seed=12345)


def fallen(network: Network, images: np.ndarray, labels: np.ndarray, status: np.ndarray, eps: Sequence[float]) -> int:
    """Return how many certified samples a strong attack breaks, over all radii."""
    box = (float(min(images.min(), 0.0)), float(max(images.max(), 1.0)))
    attacker, count = Attacker(network, STRONG, "l2", box), 0
    for column, radius in enumerate(eps):
        rows = np.flatnonzero(status[:, column] == Status.CERTIFIED)
        for start in range(0, len(rows), 100):
            part = rows[start : start + 100]
            count += int(attacker.run(images[part], labels[part], radius, index=part)[0].sum())
    return count


def section(name: str, options: argparse.Namespace, folder: Path) -> Iterator[str]:
    """Yield the table of one network."""
    network, images, labels = open_network(options.data, f"models/{name}")
    images, labels, eps = images[: options.limit], labels[: options.limit], NETWORKS[name]
    start, where = time.perf_counter(), folder / name.replace("/", "_")
    where.mkdir(parents=True, exist_ok=True)
    report = lipcert.certify(
        network, (images, labels), eps=eps, level=options.level, folder=where, time_limit=options.time_limit
    )
    seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    yield from (f"## {name}", "")
    yield f"{report.samples} samples, {report.clean_count} clean; {seconds:.0f} s, memory up to {memory:.2f} GB"
    yield from ("", "| eps | certified | attacked | unknown |", "|--:|--:|--:|--:|")
    for key in report.certified_count:
        counts = (report.certified_count[key], report.attacked_count[key], report.unknown_count[key])
        yield f"| {key} | " + " | ".join(map(str, counts)) + " |"
    yield from ("", "| stage | decided | seconds | seconds per sample |", "|---|--:|--:|--:|")
    for stage in report.per_method:
        yield f"| {stage.method} | {stage.decided} | {stage.seconds:.2f} | {stage.seconds / report.samples:.4f} |"
    yield from ("", *(f"* {note}" for note in report.notes), "")
    if options.attack:
        status = read_folder(where)[0].verdicts.status
        yield f"Of the certified, {STRONG.steps} steps and {STRONG.restarts} tries break: "
        yield f"{fallen(network, images, labels, status, eps)}"
        yield ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables, to the standard output where no file is named; they appear network by network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--only", default="", help="a part of the names of the networks to run")
    parser.add_argument("--limit", type=int, default=100, help="samples of each network")
    parser.add_argument("--level", choices=["verified", "numerical"], default="verified")
    parser.add_argument("--time-limit", type=float, help="seconds for each network")
    parser.add_argument("--no-attack", dest="attack", action="store_false", help="leave the strong attack out")
    parser.add_argument("--folder", type=Path, default=Path("cascade-records"), help="where the records go")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    with options.out.open("w") if options.out else sys.stdout as file:
        print(f"# The cascade, level {options.level}, {torch.get_num_threads()} threads\n", file=file, flush=True)
        for name in NETWORKS:
            if options.only in name:
                for line in section(name, options, options.folder):
                    print(line, file=file, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
