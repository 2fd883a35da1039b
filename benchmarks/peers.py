"""Our methods beside those of others, on the same networks, on the same machine, in one run.

    python -m benchmarks.peers --data FOLDER [--limit SECONDS] [--only PART] [--methods A B ..] [--out FILE]

What is compared:

* methods of this package: each bound derived by a rule, every rounding error counted;
* LipSDP through CVXPY in banded form, by SCS, Clarabel and MOSEK: `lipsdp-cvxpy:scs` and so on. Their own values are
  no bounds; what their multipliers certify through our rule is shown, and their own value in the remark. MOSEK
  joins by itself where it is installed with a licence (``pip install 'lipcert[mosek]'``); else its row says what is
  missing;
* eclipse_nn (``pip install eclipse-nn``; ECLipsE and ECLipsE-Fast by their authors), where it is installed: its own
  numbers in floating point, not verified.

LeakyReLU is read as ReLU, slopes [0, 1], which all of them serve. Seconds are wall clock, preparation and proof
included; every method runs on a tiny network first, so that imports are left out. What counts are ratios: the last
table sets `lipsdp` against SCS, at the value that SCS's multipliers certify.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import platform
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.global_bounds import with_unit_slopes
from benchmarks.networks import open_bare
from lipcert.bounds import engine
from lipcert.bounds.chain import chain_of
from lipcert.bounds.lower import lower_bound
from lipcert.bounds.memory import PeakMemory
from lipcert.bounds.registry import METHODS, VARIANTS
from lipcert.errors import LipcertError
from lipcert.network import Network
from lipcert.proof.lifted import lift
from lipcert.proof.subject import subject
from lipcert.report import numbers
from lipcert.testing.zoo import zoo

NETWORKS = (
    "glipsdp/mlp_L3_W16.onnx",
    "glipsdp/mlp_L3_W32.onnx",
    "glipsdp/mlp_L3_W64.onnx",
    "glipsdp/mlp_L17_W16.onnx",
    "glipsdp/mlp_L17_W64.onnx",
    "abcrown/mnist_6_100_nat.pth",
    "vnncomp2021/mnist-net_256x2.onnx",
)
OURS = ("product", "lip-lt", "gershgorin", "eclipse-fast", "eclipse", "lipsdp")
SCS = "lipsdp-cvxpy:scs"
CVXPY = ("lipsdp-cvxpy:clarabel", SCS, "lipsdp-cvxpy:mosek")
PACKAGES = ("numpy", "scipy", "torch", "cvxpy", "scs", "clarabel", "mosek", "eclipse-nn")


@dataclass(frozen=True)
class Entry:
    """What one method achieved on one network: a value, or a remark that says why there is none."""

    method: str
    value: float | None
    level: str
    seconds: float
    memory: int | None
    remark: str


def entries(network: Network, options: argparse.Namespace) -> Iterator[Entry]:
    """Yield all methods, ours first."""
    for name in options.methods:
        (row,) = engine.compare(network, [name], time_limit=options.limit)
        found = row.bound
        if found is None:
            yield Entry(name, None, "–", row.seconds, row.memory, row.error or "")
        else:
            yield Entry(name, found.value, found.level.label, row.seconds, row.memory, "; ".join(found.notes))
    if options.eclipse_nn:
        yield from eclipse_nn_entries(network)


def eclipse_nn_entries(network: Network) -> Iterator[Entry]:
    """Yield ECLipsE-Fast and ECLipsE by eclipse_nn, or what is missing."""
    for name, module, function in (("ECLipsE-Fast", "eclipsE_fast", "ECLipsE_Fast"), ("ECLipsE", "eclipsE", "ECLipsE")):
        label = f"eclipse_nn {name}"
        try:
            call = getattr(importlib.import_module(f"eclipse_nn.{module}"), function)
        except ImportError as error:
            remark = f"eclipse_nn is not there ({error}): pip install eclipse-nn"
            yield Entry(label, None, "–", 0.0, None, remark)
            continue
        yield eclipse_nn_entry(label, call, network)


def eclipse_nn_entry(label: str, call: Callable[..., Any], network: Network) -> Entry:
    """Run one function of eclipse_nn; its failures are a remark."""
    import torch

    chain = chain_of(lift(subject(network, "output")))
    weights = [torch.tensor(matrix) for matrix in (*chain.weights, chain.last)]
    slopes = [0.0] * len(chain.weights), [1.0] * len(chain.weights)
    start, peak = time.perf_counter(), PeakMemory()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            found = call(weights, *slopes)
    except Exception as error:  # foreign code may raise anything
        text = " ".join(str(error).split()) or type(error).__name__
        return Entry(label, None, "–", time.perf_counter() - start, peak.read(), f"failed: {text}")
    seconds = time.perf_counter() - start
    value = found[0] if isinstance(found, tuple) else found
    if value is None:
        return Entry(label, None, "–", seconds, peak.read(), "failed: it rejects its solver's answer")
    return Entry(label, float(value), "not verified", seconds, peak.read(), "its own number, floating point")


def section(name: str, lower: float, hidden: int, rows: Sequence[Entry]) -> Iterator[str]:
    """Yield the table of one network."""
    yield from (f"## {name}", "", f"{hidden} hidden neurons, lower bound {numbers.down(lower)}.", "")
    yield "| method | value | level | ratio to the lower bound | seconds | memory | remark |"
    yield "|---|--:|---|--:|--:|--:|---|"
    for row in rows:
        spent = f"{row.seconds:.3g} | {numbers.memory(row.memory)}"
        if row.value is None:
            yield f"| {row.method} | – | – | – | {spent} | {row.remark} |"
            continue
        ratio = numbers.up(row.value / lower, 5) if lower > 0 else "–"
        yield f"| {row.method} | {numbers.up(row.value, 10)} | {row.level} | {ratio} | {spent} | {row.remark} |"
    yield ""


def verdict(name: str, rows: Sequence[Entry]) -> str:
    """Return one line of the last table: `lipsdp` against banded CVXPY with SCS."""
    known = {row.method: row for row in rows}
    ours, scs = known.get("lipsdp"), known.get(SCS)
    if ours is None or scs is None or ours.value is None:
        return f"| {name} | – | – | – | – | – | not run, or no bound |"
    numbers_ = f"{numbers.up(ours.value, 9)} | {ours.seconds:.3g}"
    ratio = scs.seconds / ours.seconds
    if scs.value is None:
        said = f"no certified value within {scs.seconds:.3g} s: {scs.remark}"
        return f"| {name} | {numbers_} | – | {scs.seconds:.3g} | {ratio:.3g} or more | {said} |"
    reached = "yes" if ours.value <= scs.value else f"no, above by {ours.value / scs.value - 1:.1g}"
    return f"| {name} | {numbers_} | {numbers.up(scs.value, 9)} | {scs.seconds:.3g} | {ratio:.3g} | {reached} |"


def table(data: Path, options: argparse.Namespace, command: str) -> Iterator[str]:
    """Yield the report as lines of Markdown, network by network."""
    yield from ("# Bounds and times beside those of other tools", "", *header(command), "")
    lines = []
    for name in NETWORKS:
        if options.only not in name:
            continue
        try:
            network = with_unit_slopes(open_bare(data, f"models/{name}"))
        except LipcertError as error:
            yield from (f"## {name}", "", f"not read: {error}", "")
            continue
        lower = lower_bound(network, "l2", seconds=options.lower_seconds).value
        rows = []
        for row in entries(network, options):
            print(f"{name}: {row.method} {row.value} {row.seconds:.2f} s", file=sys.stderr)
            rows.append(row)
        yield from section(name, lower, network.hidden_neurons, rows)
        lines.append(verdict(name, rows))
    yield from ("## `lipsdp` against banded CVXPY with SCS", "")
    yield from ("| network | lipsdp | s | SCS, certified | s | times faster | SCS's value reached |",)
    yield from ("|---|--:|--:|--:|--:|--:|---|", *lines)


def header(command: str) -> Iterator[str]:
    """Yield how the table was made: command, machine, software."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("OMP_NUM_THREADS", "as many as the libraries take")
    yield f"Made by `{command}`."
    yield f"Machine: {processor()}, {cores} cores for this process, OMP_NUM_THREADS {threads}; {platform.system()}."
    yield f"Software: Python {platform.python_version()}, {', '.join(installed())}."
    yield "LeakyReLU is read as ReLU, slopes [0, 1]. Seconds are wall clock, imports left out."


def processor() -> str:
    """Return the name of the processor, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def installed() -> Iterator[str]:
    """Yield the packages that matter, with their versions or that they are missing."""
    for name in PACKAGES:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            yield f"{name} not installed"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table, to the standard output where no file is named; lines appear as they are found."""
    names = [method.name for method in (*METHODS, *VARIANTS) if "l2" in method.norms]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", default="", help="a part of the names of the networks to run")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for each method")
    parser.add_argument("--lower-seconds", type=float, default=5.0, help="seconds for the lower bound")
    parser.add_argument("--methods", nargs="+", choices=names, default=[*OURS, *CVXPY])
    parser.add_argument("--no-eclipse-nn", dest="eclipse_nn", action="store_false", help="leave eclipse_nn out")
    options = parser.parse_args(arguments)
    for _ in entries(zoo()["small ReLU chain"], options):  # imports are no part of what is timed
        pass
    given = [f"--limit {options.limit:g}", f"--only {shlex.quote(options.only)}" if options.only else ""]
    command = " ".join(["python -m benchmarks.peers", *filter(None, given)])
    with options.out.open("w") if options.out else sys.stdout as file:
        for line in table(options.data, options, command):
            print(line, file=file, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
