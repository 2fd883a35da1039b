"""All methods on the networks for which global l2 bounds are published, beside those published values.

    python -m benchmarks.global_bounds --data FOLDER [--limit SECONDS] [--only PART] [--slopes own|unit] [--out FILE]
    python -m benchmarks.global_bounds --seeded seeded/63x64 seeded/10x2000 --methods lipsdp

Each network is the function that its file computes: its input is what the file takes, with no normalisation before
it. Every bound is verified; seconds are wall clock, proposal and derivation together. The limit is for each method;
methods look at it between their steps. With ``--slopes unit`` LeakyReLU is read as ReLU: the published values
are for slopes [0, 1]. The lower bound is a search (level estimate) on the same network. Networks that a seed gives (see
`benchmarks.networks.seeded`) need no files: ``seeded/LxW`` has L hidden layers of width W.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.networks import open_bare
from benchmarks.networks.seeded import SEEDED, seeded
from lipcert.bounds import engine
from lipcert.bounds.lower import lower_bound
from lipcert.bounds.registry import METHODS
from lipcert.errors import LipcertError
from lipcert.network import Network
from lipcert.network.operators import Elementwise

NETWORKS = (
    "lipsdp/mnist_weights.mat",
    "glipsdp/mlp_L3_W16.onnx",
    "glipsdp/mlp_L3_W32.onnx",
    "glipsdp/mlp_L3_W64.onnx",
    "glipsdp/mlp_L5_W16.onnx",
    "glipsdp/mlp_L5_W64.onnx",
    "glipsdp/mlp_L9_W32.onnx",
    "glipsdp/mlp_L17_W16.onnx",
    "glipsdp/mlp_L17_W64.onnx",
    "glipsdp/mlp_L33_W64.onnx",
    "autolirpa/mnist_fc_3layer.pth",
    "autolirpa/spectral_NOR_MLP_B.pth",
    "abcrown/mnist_6_100_nat.pth",
    "vnncomp2021/mnist-net_256x2.onnx",
    "marabou/mnist2x10.onnx",
    "acasxu/ACASXU_run2a_1_1_batch_2000.onnx",
)
NOT_GLOBAL = "local"  # published rows with this in their method are no global bounds


@dataclass(frozen=True)
class Published:
    """A bound that somebody else reports; it was not derived here.

    Attributes:
        method, source: in words. value: as published, not rounded here. seconds: where stated, on their machine.
    """

    method: str
    value: float
    seconds: float | None
    source: str


ECLIPSE_NN = "eclipse_nn 0.1.5 (a596348), 2-core machine, November 2026"
REPAIRED = "ECLipsE with a working solver, 2-core machine, November 2026"
BANDED = "banded LipSDP through CVXPY, re-derived, 2-core machine, November 2026"
PEERS: dict[str, tuple[Published, ...]] = {
    "lipsdp/mnist_weights.mat": (
        Published("ECLipsE-Fast", 26.81, 0.41, ECLIPSE_NN),
        Published("LipSDP", 24.366, 83.0, BANDED),
    ),
    "glipsdp/mlp_L3_W16.onnx": (
        Published("ECLipsE-Fast", 6.561, 0.30, ECLIPSE_NN),
        Published("ECLipsE", 6.277, 3.5, REPAIRED),
        Published("LipSDP", 5.6343, 0.5, BANDED),
    ),
    "glipsdp/mlp_L5_W16.onnx": (
        Published("ECLipsE-Fast", 21.64, None, ECLIPSE_NN),
        Published("ECLipsE", 18.16, 5.5, REPAIRED),
        Published("LipSDP", 15.515, 0.8, BANDED),
    ),
    "glipsdp/mlp_L17_W16.onnx": (
        Published("ECLipsE-Fast", 18637.0, 0.43, ECLIPSE_NN),
        Published("LipSDP, Clarabel", 5200.7, 24.0, BANDED),
        Published("LipSDP, SCS", 5206.6, 6.0, BANDED),
    ),
    "glipsdp/mlp_L17_W64.onnx": (
        Published("ECLipsE-Fast", 16867.0, 0.59, ECLIPSE_NN),
        Published("LipSDP, SCS", 6270.3, 132.0, BANDED),
    ),
    "glipsdp/mlp_L33_W64.onnx": (Published("ECLipsE-Fast", 1.288e8, 0.70, ECLIPSE_NN),),
}


def published(data: Path, name: str) -> list[Published]:
    """Return all published bounds of a network: the peers above, and the rows of ``reference_bounds.csv``."""
    if name.startswith("seeded/"):
        return []
    with (data / "reference_bounds.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["network"] == name and NOT_GLOBAL not in row["method"]]
    listed = [
        Published(row["method"], float(row["bound"]), float(row["seconds"]) if row["seconds"] else None, row["source"])
        for row in rows
        if "lower" not in row["method"]
    ]
    return [*PEERS.get(name, ()), *listed]


def with_unit_slopes(network: Network) -> Network:
    """Return the network with ReLU in the place of LeakyReLU."""
    relu = Elementwise("relu")
    nodes = (
        replace(node, op=relu) if isinstance(node.op, Elementwise) and node.op.name == "leaky_relu" else node
        for node in network.nodes
    )
    return replace(network, nodes=tuple(nodes))


def opened(data: Path, name: str) -> Network:
    """Return a network of the manifest, or of a seed."""
    return seeded(name) if name.startswith("seeded/") else open_bare(data, f"models/{name}")


def section(data: Path, name: str, options: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of one network."""
    network = opened(data, name)
    if options.slopes == "unit":
        network = with_unit_slopes(network)
    lower = lower_bound(network, "l2", seconds=options.lower_seconds).value
    yield from (f"## {name}", "", f"{network.hidden_neurons} hidden neurons, lower bound {lower:.6g}.", "")
    yield from ("| method | bound | seconds | ratio to the lower bound | remark |", "|---|---|---|---|---|")
    rows = engine.compare(
        network, options.methods, time_limit=options.limit, progress=lambda m: print(f"{name}: {m}", file=sys.stderr)
    )
    for row in rows:
        if row.bound is None:
            yield f"| {row.method} | – | {row.seconds:.2f} | – | {row.error} |"
            continue
        remark = "; ".join(row.bound.notes)
        ratio = row.bound.value / lower if lower > 0 else float("inf")
        yield f"| {row.method} | {row.bound.value:.9g} | {row.seconds:.2f} | {ratio:.4g} | {remark} |"
    for other in published(data, name):
        seconds = "–" if other.seconds is None else f"{other.seconds:g}"
        ratio = other.value / lower if lower > 0 else float("inf")
        yield f"| *{other.method}* | *{other.value:.9g}* | *{seconds}* | {ratio:.4g} | published: {other.source} |"
    yield ""


def table(data: Path, options: argparse.Namespace) -> Iterator[str]:
    """Yield the report as lines of Markdown, network by network."""
    yield from ("# Global l2 bounds", "", "Made by `python -m benchmarks.global_bounds`. Verified bounds of this")
    slopes = "their own slopes" if options.slopes == "own" else "LeakyReLU read as ReLU, slopes [0, 1]"
    yield f"package, and published values (in italics, from elsewhere). Networks with {slopes}; at most"
    yield from (f"{options.limit:g} s for each method.", "")
    for name in options.seeded or NETWORKS:
        if options.only not in name:
            continue
        try:
            yield from section(data, name, options)
        except LipcertError as error:
            yield from (f"## {name}", "", f"not read: {error}", "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table, to the standard output where no file is named; lines appear as they are found."""
    home = Path(__file__).resolve().parent
    names = [method.name for method in METHODS if "l2" in method.norms]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=home.parents[1] / "shared" / "data")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", default="", help="a part of the names of the networks to run")
    parser.add_argument("--seeded", nargs="+", default=(), help=f"these instead of files: {', '.join(SEEDED)}, ...")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for each method")
    parser.add_argument("--lower-seconds", type=float, default=5.0, help="seconds for the lower bound")
    parser.add_argument("--slopes", choices=("own", "unit"), default="own")
    parser.add_argument("--methods", nargs="+", choices=names, default=names)
    options = parser.parse_args(arguments)
    with options.out.open("w") if options.out else sys.stdout as file:
        for line in table(options.data, options):
            print(line, file=file, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
