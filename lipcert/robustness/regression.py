r"""Networks whose outputs are numbers: how far each output can move when the input does.

Around each sample x and for each output j, an interval [lo, hi] holds f_j(x') for every x' of the ball, and
|f_j(x') - f_j(x)| <= max(hi - f_j(x), f_j(x) - lo). Intervals come from one Lipschitz bound per output and, where the
network has verified local rules, from linear bounds with optimised slopes (`alpha-crown`, which holds those of CROWN
and of boxes); the better end counts. With the network of `tasks.both_signs` both are margins of its last logit.

Units: with a radius of its own for each input (`per_input`, h) the ball is ||(x' - x) / h|| <= eps: in linf a box, in
l2 an ellipsoid. The network then starts with x = h u. Its sample is u = x / h, rounded to float64; eps is enlarged by
the distance to the exact quotient, so that the ball around the sample as given lies inside.
"""

from __future__ import annotations

import math
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lipcert.bounds.documents import model_info
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.registry import find_local
from lipcert.bounds.local.view import View
from lipcert.bounds.torch_precision import full_precision
from lipcert.errors import InconclusiveError, UnsupportedError, UsageError
from lipcert.files import write_whole
from lipcert.network.enclosure import TINY, Float, round_up
from lipcert.network.graph import Network
from lipcert.proof.claims import Level, Norm
from lipcert.proof.local import Evaluator, Ints, Region
from lipcert.proof.refusal import Refused
from lipcert.results import OutputChange, RegressionReport
from lipcert.robustness.attack import distances
from lipcert.robustness.basis import Basis, make_basis
from lipcert.robustness.settings import Settings
from lipcert.robustness.tasks import both_signs, in_units

LOCAL = "alpha-crown"
AT_ONCE = 16  # samples
FILE = "intervals.npz"


@dataclass(frozen=True)
class Units:
    """Units of inputs and outputs.

    Attributes:
        per_input: (n,) radius of each input for eps = 1; one number, for all.
        scale, offset: (m,) or one number: outputs count as scale * output + offset.
    """

    per_input: tuple[float, ...] = (1.0,)
    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)


@dataclass(frozen=True)
class Intervals:
    """Bounds of outputs, in original units.

    Attributes:
        lower, upper: (N, m) on the ball. least, most: (N, m) at the sample.
        reach: (m,) of the change, from the global bounds.
    """

    lower: Float
    upper: Float
    least: Float
    most: Float
    reach: Float

    @property
    def change(self) -> Float:
        """(N, m) upper bounds of |f_j(x') - f_j(x)|."""
        moves = np.maximum(self.upper - self.least, self.most - self.lower)
        return np.minimum(np.where(moves > 0, round_up(moves), 0.0), self.reach)


def bound_changes(
    network: Network,
    inputs: Float,
    *,
    eps: Sequence[float],
    norm: Norm = "linf",
    units: Units | None = None,
    folder: Path | None = None,
) -> RegressionReport:
    """Bound how far each output moves around each sample. Level: verified.

    Args:
        network: as read, m outputs.
        inputs: (N, ...) in the units of the network's input.
        eps: radii, in units of `units.per_input`.
        norm: of the ball; linf gives boxes.
        units: of inputs and outputs.
        folder: where the intervals are written (``intervals.npz``), or None.

    Raises:
        UsageError: shapes, numbers or settings are wrong.
        InconclusiveError: nothing could be derived.
    """
    start, units = time.perf_counter(), units or Units()
    settings = Settings(eps=tuple(eps), norm=norm, method="global", quantity="features")
    radii = _numbers(units.per_input, int(np.prod(network.input_shape)), "inputs")
    if not (radii > 0).all():
        raise UsageError("a radius of an input is not positive: for one that stays, give a small one, such as 1e-6")
    outputs = network.nodes[-1].size
    scale, offset = (_numbers(given, outputs, "outputs") for given in (units.scale, units.offset))
    spoken = both_signs(in_units(network, radii), scale, offset)
    samples = _samples(np.asarray(inputs, dtype=np.float64), network, radii, norm)
    work = _Work(make_basis(spoken, settings), norm, *_local(spoken))
    found = [work.intervals(samples, e) for e in settings.eps]
    return RegressionReport(
        model=model_info(network),
        samples=len(samples.images),
        norm=norm,
        eps=settings.eps,
        level=Level.VERIFIED.label,
        methods=("global",) if work.evaluator is None else ("global", LOCAL),
        changes=dict(zip(settings.keys, map(_changes, found), strict=True)),
        bound=work.basis.bound,
        per_input=tuple(radii.tolist()),
        scale=tuple(scale.tolist()),
        seconds=time.perf_counter() - start,
        intervals=None if folder is None else _save(folder, settings.eps, found),
        notes=network.notes + ((f"no local bounds: {work.refusal}",) if work.refusal else ()),
    )


@dataclass(frozen=True)
class _Samples:
    """Samples in the units of the ball: float64 centres, and how far the given ones may be from them."""

    images: Float
    moved: float


@dataclass(frozen=True)
class _Work:
    """What intervals come from; without an evaluator from the global bounds alone, `refusal` says why."""

    basis: Basis
    norm: Norm
    view: View | None
    evaluator: Evaluator | None
    refusal: str

    def intervals(self, samples: _Samples, eps: float) -> Intervals:
        """Return the intervals on the balls of one radius around the samples as given."""
        (run, *_), count = self.basis.passes(0), len(samples.images)  # so few that it is the pass in float64
        last = np.full(count, self.basis.head.classes - 1, dtype=np.int64)
        at_centre, _ = self.basis.margins.bounds(run(samples.images), last)
        reach = float(round_up(np.array(eps + samples.moved), 2))
        slopes = self.basis.margins.slopes[last]
        on_ball = _less(at_centre, slopes, reach)
        for start in range(0, count if self.evaluator is not None else 0, AT_ONCE):
            part = slice(start, start + AT_ONCE)
            on_ball[part] = np.maximum(on_ball[part], self._local(samples.images[part], last[part], reach))
        ends, at = _ends(on_ball), _ends(_less(at_centre, slopes, samples.moved))
        if not all(np.isfinite(end).all() for end in (*ends, *at)):
            raise InconclusiveError("an output has no finite bound: nothing can be said about its change")
        return Intervals(*ends, *at, np.where(slopes[0] > 0, round_up(slopes[0] * reach), 0.0)[: ends[0].shape[1]])

    def _local(self, images: Float, last: Ints, eps: float) -> Float:
        assert self.view is not None and self.evaluator is not None
        method = find_local(LOCAL)
        placed = self.view.place(torch.from_numpy(images))
        with full_precision():
            found = method.bound(self.view, Ball.around(placed, eps, self.norm), torch.from_numpy(last))
            proposal = found.proposal(torch.arange(len(images)))
        region = Region.around(images, eps, self.norm)
        return method.verified_margins(self.evaluator, region, last, proposal)


def load_inputs(path: Path, scale: float | None = None, limit: int | None = None) -> Float:
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
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise UsageError(f"cannot read the data '{path}': {error}") from None
    if found is None or found.dtype.kind not in "buif":
        raise UsageError(f"'{path}' has no array 'inputs' (N, ...) of numbers")
    if scale is None:
        scale = 1.0 / 255.0 if found.dtype == np.uint8 else 1.0
    inputs: Float = found[:limit].astype(np.float64) * scale
    return inputs


def _less(margins: Float, slopes: Float, eps: float) -> Float:
    """Return margins minus slopes times eps, rounded down; zero slopes take nothing."""
    moves = np.where(slopes > 0, round_up(slopes * eps), 0.0)
    lowered: Float = np.where(moves > 0, np.nextafter(margins - moves, -np.inf), margins)
    return lowered


def _ends(margins: Float) -> tuple[Float, Float]:
    """Return (N, m) least and largest outputs from margins (N, 2 m + 1) of -z, z and the last logit itself."""
    count = margins.shape[1] // 2
    return margins[:, count : 2 * count], -margins[:, :count]


def _local(network: Network) -> tuple[View | None, Evaluator | None, str]:
    """Return what local bounds need, or why there are none."""
    try:
        return View(network), Evaluator(network), ""
    except (Refused, UnsupportedError) as refusal:
        return None, None, str(refusal)


def _numbers(given: Sequence[float], count: int, what: str) -> Float:
    """Return one number for each of `count` inputs or outputs."""
    if len(given) not in (1, count):
        raise UsageError(f"{len(given)} numbers are given for {count} {what}: give one, or one for each")
    found: Float = np.broadcast_to(np.array(given, dtype=np.float64), (count,)).copy()
    if not np.isfinite(found).all():
        raise UsageError(f"a number for the {what} is not finite")
    return found


def _samples(inputs: Float, network: Network, radii: Float, norm: Norm) -> _Samples:
    """Return samples in the units of the ball."""
    size = radii.size
    if inputs.ndim < 2 or not len(inputs) or inputs[0].size != size or not np.isfinite(inputs).all():
        raise UsageError(f"inputs of shape {inputs.shape} do not serve: finite numbers (N, {size}) are needed")
    quotient = inputs.reshape(len(inputs), size) / radii
    moved = np.where(radii == 1, 0.0, 2.0**-52 * np.abs(quotient) + TINY)  # what the quotient may be off by
    distance = distances(moved, norm).max() if moved.any() else 0.0
    return _Samples(quotient.reshape(len(inputs), *network.input_shape), float(distance))


def _changes(found: Intervals) -> tuple[OutputChange, ...]:
    change = found.change
    return tuple(
        OutputChange(
            output=j,
            largest=float(change[:, j].max()),
            mean=float(change[:, j].mean()),
            lower=float(found.lower[:, j].min()),
            upper=float(found.upper[:, j].max()),
        )
        for j in range(change.shape[1])
    )


def _save(folder: Path, eps: Sequence[float], found: Sequence[Intervals]) -> str:
    """Write the intervals of all samples: lower, upper and change (E, N, m), and eps (E,)."""
    path = Path(folder) / FILE
    lower, upper, change = (np.stack([getattr(one, name) for one in found]) for name in ("lower", "upper", "change"))
    with write_whole(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, eps=np.array(eps), lower=lower, upper=upper, change=change)
    return str(path)
