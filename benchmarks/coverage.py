"""Reads every network of the manifest and compares its clean accuracy with the stated one.

    python -m benchmarks.coverage --data FOLDER [--out benchmarks/coverage.md]

A network counts as reproduced where the accuracy on all stated samples is the stated one, up to the rounding of its
four digits and one sample (deployed arithmetic differs in the last bits). Networks without data are compared with
onnxruntime, or with plain matrix products, on random inputs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.networks import Entry, open_network, read_manifest
from lipcert.bounds.torch_network import compile_network
from lipcert.errors import LipcertError
from lipcert.network import Network, evaluate

BATCH = 250
AGREES = 1e-5  # relative difference on random inputs that float32 arithmetic explains


@dataclass(frozen=True)
class Row:
    """What was found out about one file."""

    entry: Entry
    network: Network | None
    measured: float | None
    verdict: str

    @property
    def good(self) -> bool:
        """Whether the network computes what it should, or is refused with a reason."""
        return self.verdict.startswith(("reproduced", "refused"))


def accuracy(network: Network, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> float:
    """Return the fraction of images (N, *input_shape) that the network classifies as labelled."""
    dtype = torch.float32 if network.dtype == "float32" else torch.float64
    run, right = compile_network(network, dtype=dtype), 0
    with torch.no_grad():
        for start in range(0, len(images), BATCH):
            found = run(torch.from_numpy(images[start : start + BATCH]).to(dtype)).flatten(1).argmax(1)
            right += int((found.numpy() == labels[start : start + BATCH]).sum())
    return right / len(images)


def look_at(shared: Path, entry: Entry) -> Row:
    """Read one network and judge it."""
    try:
        network, images, labels = open_network(shared, entry.file)
    except LipcertError as error:
        return Row(entry, None, None, f"refused: {error}")
    if entry.accuracy is None:
        difference = against_reference(shared / entry.file, network)
        verdict = f"reproduced to {difference:.1e} on random inputs" if difference < AGREES else "DIFFERS"
        return Row(entry, network, None, verdict)
    if len(images) != entry.samples:
        return Row(entry, network, None, f"DIFFERS: {len(images)} samples, {entry.samples} stated")
    measured = accuracy(network, images, labels)
    close = abs(measured - entry.accuracy) <= 0.00005 + 1.0 / entry.samples
    return Row(entry, network, measured, "reproduced" if close else "DIFFERS")


def against_reference(path: Path, network: Network) -> float:
    """Return the largest relative difference from an independent evaluation on random inputs."""
    x = np.random.default_rng(0).normal(size=(20, *network.input_shape))
    ours = evaluate(network, x.astype(np.float32).astype(np.float64)).reshape(20, -1)
    theirs = np.stack([_reference(path, row) for row in x.astype(np.float32)])
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def _reference(path: Path, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (source,) = session.get_inputs()
        shape = [size if isinstance(size, int) else 1 for size in source.shape]
        return np.asarray(session.run(None, {source.name: x.reshape(shape)})[0]).ravel()
    from scipy.io import loadmat

    found = loadmat(path)["weights"].ravel() if path.suffix == ".mat" else list(np.load(path).values())
    *hidden, last = found
    for weight in hidden:
        x = np.maximum(weight @ x, 0)
    return np.asarray(last @ x)


def table(rows: Sequence[Row]) -> str:
    """Return the report as Markdown."""
    groups = {row.entry.group for row in rows}
    refused = {row.entry.group for row in rows if row.verdict.startswith("refused")}
    bad = {row.entry.group for row in rows if not row.good}
    lines = [
        "# Coverage: real networks",
        "",
        f"{len(rows)} files hold {len(groups)} networks (some in two forms). "
        f"Reproduced: {len(groups - refused - bad)}. Refused with a reason: {len(refused)}. Wrong: {len(bad)}.",
        "",
        "Made by `python -m benchmarks.coverage`; accuracy on all stated samples.",
        "",
        "| file | form | nodes | hidden neurons | stated accuracy | measured | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_line(row) for row in rows)]) + "\n"


def _line(row: Row) -> str:
    entry, network = row.entry, row.network
    nodes, hidden = (len(network.nodes), network.hidden_neurons) if network else ("–", "–")
    stated, measured = ("–" if v is None else f"{v:.4f}" for v in (entry.accuracy, row.measured))
    form = entry.form.partition(" (")[0]
    return f"| {entry.file} | {form} | {nodes} | {hidden} | {stated} | {measured} | {row.verdict} |"


def main() -> int:
    """Write the table; the exit code is 1 where a network is wrong."""
    home = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=home.parents[1] / "shared" / "data")
    parser.add_argument("--out", type=Path, default=home / "coverage.md")
    options = parser.parse_args()
    rows = []
    for entry in read_manifest(options.data):
        start = time.perf_counter()
        rows.append(look_at(options.data, entry))
        seconds = time.perf_counter() - start
        print(f"{seconds:6.1f} s  {entry.file}: {rows[-1].verdict}", file=sys.stderr, flush=True)
    options.out.write_text(table(rows))
    return 0 if all(row.good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
