"""The cascade on real networks: what each stage decides and costs, and a strong attack on all that is certified.

    python -m benchmarks.cascade [--data DIR] [--only PART] [--limit N] [--level verified|numerical] [--out FILE]
                                 [--eps E,..] [--time-limit S] [--peer N]

Each network is certified at the radii at which others were measured (`peers.md` of the design, in its preprocessing),
in one run for all radii. Then every certified sample is attacked with 100 steps and 5 tries at its radius: not one may
fall. Memory is the highest resident set of the process so far, so that networks run one by one tell most.

With `--peer`, auto_LiRPA (see `benchmarks.lirpa`) is given the first N samples at the same radii, with CROWN and with
alpha-CROWN on what that leaves; ours are the counts of the run on the same samples. Its margins are floating-point
numbers without a bound of their rounding, ours are of the level of the run.
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
from benchmarks.lirpa import METHODS, OPTIMISED, Peer, require_peer
from benchmarks.networks.manifest import open_network
from lipcert.bounds.local.margins import differences
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.view import View
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
AT_ONCE = 4  # samples that auto_LiRPA gets at a time
STRONG = Attack(steps=100, restarts=5, seed=12345)


def fallen(network: Network, images: np.ndarray, labels: np.ndarray, status: np.ndarray, eps: Sequence[float]) -> int:
    """Return how many certified samples a strong attack breaks, over all radii."""
    box = (float(min(images.min(), 0.0)), float(max(images.max(), 1.0)))
    attacker, count = Attacker(network, STRONG, "l2", box, beyond=True), 0
    for column, radius in enumerate(eps):
        rows = np.flatnonzero(status[:, column] == Status.CERTIFIED)
        for start in range(0, len(rows), 100):
            part = rows[start : start + 100]
            count += int(attacker.run(images[part], labels[part], radius, index=part)[0].sum())
    return count


def beside(network: Network, images: np.ndarray, labels: np.ndarray, status: np.ndarray, eps: float) -> str:
    """Return a row with the counts and CPU seconds per sample of auto_LiRPA, and our count, on l2 balls."""
    peer, view = Peer(network, torch.float32), View(network, dtype=torch.float32)
    centre, target = view.place(torch.from_numpy(images)), torch.from_numpy(labels)
    with torch.no_grad():
        open_ = (view(centre).argmax(dim=1) == target).nonzero()[:, 0]
    counts, costs = [], []
    for method in (METHODS["crown"], OPTIMISED):
        left, start, tried = [], time.process_time(), len(open_)
        for part in open_.split(AT_ONCE) if len(open_) else ():
            ball = Ball.around(centre[part], eps, "l2", None)
            margins = peer.margins(ball, differences(view, target[part]).flatten(2), method)
            left.append(part[~(margins.amin(dim=1) > 0)])
        costs.append((time.process_time() - start) / max(tried, 1))
        counts.append((counts[-1] if counts else 0) + tried - sum(map(len, left)))
        open_ = torch.cat([*left, open_[:0]])
    ours = int((status == Status.CERTIFIED).sum())
    return f"| {len(images)} | {eps:.4g} | {counts[0]} ({costs[0]:.3f}) | {counts[1]} ({costs[1]:.3f}) | {ours} |"


PEER_HEAD = (
    "| samples | eps | auto_LiRPA CROWN (CPU s per sample) | then alpha-CROWN (CPU s per sample tried) | lipcert |",
    "|--:|--:|--:|--:|--:|",
)


def by_sample(folder: Path, count: int) -> np.ndarray:
    """Return what the records of a run say of samples 0 to count - 1; those without a record are unknown."""
    verdicts = read_folder(folder)[0].verdicts
    found = np.full((count, verdicts.status.shape[1]), Status.UNKNOWN, dtype=verdicts.status.dtype)
    found[verdicts.index] = verdicts.status
    return found


def section(name: str, options: argparse.Namespace, folder: Path) -> Iterator[str]:
    """Yield the table of one network."""
    network, images, labels = open_network(options.data, f"models/{name}")
    images, labels = images[: options.limit], labels[: options.limit]
    eps = tuple(map(float, options.eps.split(","))) if options.eps else NETWORKS[name]
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
    status = by_sample(where, len(images))
    if options.peer:
        first = slice(0, min(options.peer, len(images)))
        yield from PEER_HEAD
        for column, radius in enumerate(eps):
            yield beside(network, images[first], labels[first], status[first, column], radius)
        yield ""
    if options.attack:
        yield f"Of the certified, {STRONG.steps} steps and {STRONG.restarts} tries break: "
        yield f"{fallen(network, images, labels, status, eps)}"
        yield ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables, to the standard output where no file is named; they appear network by network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--only", default="", help="a part of the names of the networks to run")
    parser.add_argument("--limit", type=int, default=100, help="samples of each network")
    parser.add_argument("--eps", help="radii, joined by commas, in place of the networks' own")
    parser.add_argument("--level", choices=["verified", "numerical"], default="verified")
    parser.add_argument("--time-limit", type=float, help="seconds for each network")
    parser.add_argument("--no-attack", dest="attack", action="store_false", help="leave the strong attack out")
    parser.add_argument("--peer", type=int, default=0, help="samples on which auto_LiRPA runs beside")
    parser.add_argument("--folder", type=Path, default=Path("cascade-records"), help="where the records go")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    if options.peer:
        require_peer(parser)
    with options.out.open("w") if options.out else sys.stdout as file:
        print(f"# The cascade, level {options.level}, {torch.get_num_threads()} threads\n", file=file, flush=True)
        for name in NETWORKS:
            if options.only in name:
                for line in section(name, options, options.folder):
                    print(line, file=file, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
