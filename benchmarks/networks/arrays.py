"""Networks whose weights are stored as bare arrays: MATLAB and numpy files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from lipcert.network import Builder, Enclosure, Network, Source
from lipcert.network.operators import Conv, Dense, Elementwise, Reshape, Scale

Array = np.ndarray[Any, Any]


def read_arrays(path: Path) -> Network:
    """Read a ``.mat`` or ``.npz`` file of this collection; ReLU stands between the layers."""
    found = loadmat(path) if path.suffix == ".mat" else dict(np.load(path, allow_pickle=False))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if "input_mean" in found:
        return _digits(found, path, digest)
    if "weights" in found:
        weights = [np.asarray(w) for w in found["weights"].ravel()]
    else:
        weights = [found[key] for key in sorted(found)]
    layers = [(w, np.zeros(len(w))) for w in weights]
    count = sum(w.size for w in weights)
    builder = Builder((weights[0].shape[1],))
    _dense_layers(builder, 0, layers)
    return builder.build("float64", Source(str(path), "built", digest, count))


def _dense_layers(builder: Builder, x: int, layers: Sequence[tuple[Array, Array]]) -> int:
    for weight, bias in layers[:-1]:
        x = builder.add(Dense(Enclosure.exact(weight), Enclosure.exact(bias.ravel())), x)
        x = builder.add(Elementwise("relu"), x)
    weight, bias = layers[-1]
    return builder.add(Dense(Enclosure.exact(weight), Enclosure.exact(bias.ravel())), x)


def _digits(found: dict[str, Any], path: Path, digest: str) -> Network:
    """Build a digits network: convolutions stored [kh, kw, in, out], dense layers [in, out], normalised pixels."""
    arrays = {key: value for key, value in found.items() if key.endswith(("_weight", "_bias"))}
    names = sorted({key.rpartition("_")[0] for key in arrays})
    convolutions, dense = ([n for n in names if n.startswith(kind)] for kind in ("conv", "fc"))
    builder = Builder((1, 8, 8) if convolutions else (64,))
    factor = Enclosure.exact(found["input_scale"].reshape(builder.input_shape)).reciprocal()
    mean = Enclosure.exact(found["input_mean"].reshape(builder.input_shape))
    x = builder.add(Scale(factor, -(mean * factor)), 0, name="normalisation")
    for name in convolutions:
        weight = Enclosure.exact(np.ascontiguousarray(arrays[f"{name}_weight"].transpose(3, 2, 0, 1)))
        bias = Enclosure.exact(arrays[f"{name}_bias"].reshape(-1, 1, 1))
        x = builder.add(Conv(weight, bias, (1, 1), ((1, 1), (1, 1)), (1, 1)), x, name=name)
        x = builder.add(Elementwise("relu"), x)
    if convolutions:
        x = builder.add(Reshape(), x, shape=(builder.nodes[x].size,))
    layers = [(np.ascontiguousarray(arrays[f"{n}_weight"].T), arrays[f"{n}_bias"]) for n in dense]
    _dense_layers(builder, x, layers)
    count = sum(array.size for array in arrays.values())
    return builder.build("float32", Source(str(path), "built", digest, count))
