r"""The samples of a regression network, and the units of its inputs and outputs.

With a radius of its own for each input (`per_input`, h) the ball is ||(x' - x) / h|| <= eps: in linf a box, in l2 an
ellipsoid. The network then starts with x = h u. Its sample is u = x / h, rounded to float64; eps is enlarged by the
distance to the exact quotient, so that the ball around the sample as given lies inside.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lipcert.errors import UsageError
from lipcert.network.enclosure import TINY, Float
from lipcert.network.graph import Network
from lipcert.proof.claims import Norm
from lipcert.robustness.attack import distances
from lipcert.robustness.data.dataset import Dataset
from lipcert.robustness.settings import Units
from lipcert.robustness.tasks import both_signs, in_units


@dataclass(frozen=True)
class Samples:
    """Samples in the units of the ball.

    Attributes:
        dataset: float64 centres, without labels (all zero).
        moved: how far, in the norm of the ball, the samples as given may be from them.
    """

    dataset: Dataset
    moved: float


def load_inputs(path: Path, scale: float | None = None, limit: int | None = None) -> Dataset:
    """Read the array ``inputs`` (or ``images``) of an ``.npz`` file, float64 (N, ...), times a scale; no labels needed.

    The scale is 1/255 for uint8 and 1 for everything else where none is given, as with labelled data.

    Raises:
        UsageError: the file is missing or damaged, or has no such array of numbers; the scale is not positive.
    """
    if scale is not None and not (math.isfinite(scale) and scale > 0):
        raise UsageError(f"the scale is {scale}: a positive number is needed")
    try:
        with np.load(path, allow_pickle=False) as archive:
            name = next((name for name in ("inputs", "images") if name in archive.files), None)
            found = None if name is None else archive[name]
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise UsageError(f"cannot read the data '{path}': {error}") from None
    if found is None or found.dtype.kind not in "buif":
        raise UsageError(f"'{path}' has no array 'inputs' (N, ...) of numbers")
    if scale is None:
        scale = 1.0 / 255.0 if found.dtype == np.uint8 else 1.0
    return replace(unlabelled(found[:limit].astype(np.float64) * scale), name=str(path), sha256=digest)


def unlabelled(inputs: Float) -> Dataset:
    """Return samples (N, ...) as a data set."""
    return Dataset(inputs, np.zeros(len(inputs), dtype=np.int64))  # type: ignore[arg-type]  # float64, unlike images


def place(given: Dataset, network: Network, units: Units, norm: Norm) -> Samples:
    """Return samples in the units of the ball.

    Args:
        given: (N, ...) in the units of the network's input. network: as read. units: of its inputs.
        norm: of the ball.

    Raises:
        UsageError: shapes or numbers are wrong.
    """
    inputs, radii = np.asarray(given.images[:], dtype=np.float64), radii_of(network, units)
    size = radii.size
    if inputs.ndim < 2 or not len(inputs) or inputs[0].size != size or not np.isfinite(inputs).all():
        raise UsageError(f"inputs of shape {inputs.shape} do not serve: finite numbers (N, {size}) are needed")
    quotient = inputs.reshape(len(inputs), size) / radii
    moved = np.where(radii == 1, 0.0, 2.0**-52 * np.abs(quotient) + TINY)  # what the quotient may be off by
    distance = float(distances(moved, norm).max()) if moved.any() else 0.0
    centres = unlabelled(quotient.reshape(len(inputs), *network.input_shape))
    return Samples(replace(centres, name=given.name, sha256=given.sha256), distance)


def spoken_of(network: Network, units: Units) -> Network:
    """Return the network from the units of the ball to those of the outputs, in both signs (see `tasks`).

    Raises:
        UsageError: units do not fit the network.
    """
    outputs = network.nodes[-1].size
    scale, offset = (_numbers(given, outputs, "outputs") for given in (units.scale, units.offset))
    return both_signs(in_units(network, radii_of(network, units)), scale, offset)


def radii_of(network: Network, units: Units) -> Float:
    """Return (n,) the radius of each input for eps 1; raises UsageError where they do not fit."""
    radii = _numbers(units.per_input, math.prod(network.input_shape), "inputs")
    if not (radii > 0).all():
        raise UsageError("a radius of an input is not positive: for one that stays, give a small one, such as 1e-6")
    return radii


def _numbers(given: Sequence[float], count: int, what: str) -> Float:
    """Return one number for each of `count` inputs or outputs."""
    if len(given) not in (1, count):
        raise UsageError(f"{len(given)} numbers are given for {count} {what}: give one, or one for each")
    found: Float = np.broadcast_to(np.array(given, dtype=np.float64), (count,)).copy()
    if not np.isfinite(found).all():
        raise UsageError(f"a number for the {what} is not finite")
    return found
