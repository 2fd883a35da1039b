"""The manifest of real networks, and opening each of them with the preprocessing that it states."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.networks.arrays import read_arrays
from lipcert.network import Network
from lipcert.network.preprocess import with_normalisation
from lipcert.network.readers import load

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Preprocessing:
    """What becomes of a stored pixel: it is multiplied by `scale` (data), then normalised (network)."""

    scale: float = 1.0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


_PIXEL = 1 / 255
_MEAN_8BIT = (125.3 / 255, 123.0 / 255, 113.9 / 255)
PREPROCESSING = {
    "pixel/255, no normalisation": Preprocessing(_PIXEL),
    "(pixel/255-0.1307)/0.3081": Preprocessing(_PIXEL, (0.1307,), (0.3081,)),
    "(pixel/255-[.485,.456,.406])/[.225,.225,.225]": Preprocessing(_PIXEL, (0.485, 0.456, 0.406), (0.225,) * 3),
    "(pixel/255-[.4914,.4822,.4465])/[.2471,.2435,.2616]": Preprocessing(
        _PIXEL, (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
    ),
    "(pixel/255-[.4914,.4822,.4465])/[.2023,.1994,.2010]": Preprocessing(
        _PIXEL, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    ),
    "(pixel/255-[125.3,123.0,113.9]/255)/([63.0,62.1,66.7]/255)": Preprocessing(
        _PIXEL, _MEAN_8BIT, (63.0 / 255, 62.1 / 255, 66.7 / 255)
    ),
    "(pixel/255-[125.3,123.0,113.9]/255)/0.225 (one std for all channels)": Preprocessing(_PIXEL, _MEAN_8BIT, (0.225,)),
    "raw pixel 0..255 (mean image subtracted inside the graph)": Preprocessing(),
    "(pixel 0..16 - input_mean)/input_scale, both stored in the file": Preprocessing(),  # read with the weights
    "scaled inputs as in VNNLIB ACAS Xu": Preprocessing(),
    "-": Preprocessing(),
}
_DATASETS = {"MNIST": "mnist_test.npz", "CIFAR-10": "cifar10_test.npz", "UCI/sklearn digits 8x8": "digits_all.npz"}
_SHAPES = {"MNIST": (1, 28, 28), "CIFAR-10": (3, 32, 32)}


@dataclass(frozen=True)
class Entry:
    """One network of the manifest.

    Attributes:
        file: path below the shared folder. form: kind of file. task: data set it was trained on.
        group: files of one group hold the same weights.
        accuracy: stated clean accuracy, None where there are no data. samples: number of samples it was measured on.
    """

    file: str
    form: str
    task: str
    group: str
    input_shape: str
    preprocessing: str
    accuracy: float | None
    samples: int


def read_manifest(shared: Path) -> list[Entry]:
    """Return all networks of the manifest in a folder; data sets are left out."""
    with (shared / "MANIFEST.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] != "dataset"]
    return [
        Entry(
            row["file"],
            row["form"],
            row["task"],
            row["weight_group"],
            row["input_shape"],
            row["preprocessing"],
            None if row["clean_accuracy"] == "n/a" else float(row["clean_accuracy"]),
            int(row["n_samples"]),
        )
        for row in rows
    ]


def open_network(shared: Path, file: str) -> tuple[Network, Array, Array]:
    """Open a network with its preprocessing, and the data that its stated accuracy was measured on.

    Args:
        shared: the folder with the manifest.
        file: path of the network as the manifest writes it.

    Returns:
        The network, images (N, *input_shape) float32 in the units of its input, labels (N,) int64; no images where
        there are no data.

    Raises:
        KeyError: the manifest has no such network.
        UnsupportedError: parts of the network have no sound rule.
    """
    entry = {e.file: e for e in read_manifest(shared)}[file]
    steps = PREPROCESSING[entry.preprocessing]
    network = _read(shared / file, entry)
    if steps.mean is not None and steps.std is not None:
        network = with_normalisation(network, steps.mean, steps.std)
    images, labels = load_data(shared, entry)
    return network, (images * steps.scale).astype(np.float32).reshape(-1, *network.input_shape), labels


def open_bare(shared: Path, file: str) -> Network:
    """Open a network as the file computes it: its input is what the file takes, normalised or not.

    Raises:
        KeyError: the manifest has no such network.
        UnsupportedError: parts of the network have no sound rule.
    """
    entry = {e.file: e for e in read_manifest(shared)}[file]
    return _read(shared / file, entry)


def load_data(shared: Path, entry: Entry) -> tuple[Array, Array]:
    """Return the stored images, float64 in the layout that the network takes, and the labels."""
    if entry.task not in _DATASETS:
        return np.zeros(0), np.zeros(0, dtype=np.int64)
    with np.load(shared / "datasets" / _DATASETS[entry.task]) as data:
        images, labels = data["images"].astype(np.float64), data["labels"].astype(np.int64)
    return (images.transpose(0, 2, 3, 1) if entry.input_shape.startswith("N,H,W,C") else images), labels


def _read(path: Path, entry: Entry) -> Network:
    if entry.form.startswith("torch"):
        from benchmarks.networks.architectures import factory_of

        return load((factory_of(path.name), path), input_shape=_SHAPES[entry.task])
    return read_arrays(path) if entry.form in ("mat", "npz") else load(path)
