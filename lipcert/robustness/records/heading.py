"""The heading of a run's records, and the digest that tells runs apart."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

from lipcert.bounds.documents import model_info
from lipcert.network.graph import Network
from lipcert.results import Heading, Provenance
from lipcert.robustness.basis import Basis
from lipcert.robustness.data.dataset import Dataset
from lipcert.robustness.settings import Settings

FREE = ("shard", "time_limit", "certificate")  # settings that change no verdict; a certificate counts by its bound
ARITHMETIC = (
    "bounds and verdicts in float64 on the CPU, rounded outward; forward passes in float32 with rigorous error "
    "bounds, in float64 where those leave a verdict open or the run is small; TF32, reduced precision and "
    "transform convolutions off"
)


def make_heading(
    network: Network, dataset: Dataset, settings: Settings, basis: Basis, stages: tuple[str, ...], started: str
) -> Heading:
    """Return the heading of a run's records.

    Args:
        network: as read. dataset: in its input shape. settings: of the run.
        basis: the global bound. stages: names of the stages. started: UTC time, ISO 8601.
    """
    return Heading(
        digest=_digest(network, dataset, settings, basis),
        total=len(dataset),
        eps=settings.eps,
        stages=stages,
        model=model_info(network),
        norm=settings.norm,
        method=settings.method,
        level=basis.level.label,
        attacks=settings.attacks,
        bound=basis.bound,
        margins=basis.pairs,
        provenance=_provenance(dataset, settings, started),
        notes=(*dataset.notes, *network.notes, *basis.notes),
        outputs=None if settings.units is None else network.nodes[-1].size,
    )


def _digest(network: Network, dataset: Dataset, settings: Settings, basis: Basis) -> str:
    given = {name: value for name, value in settings.summary().items() if name not in FREE}
    content = {
        "lipcert": version("lipcert"),
        "graph": network.graph_digest,
        "weights": network.weights_digest,
        "box": dataset.box if settings.attacks else None,
        "bound": None if settings.certificate is None else basis.bound.bound_hex,
        "settings": given,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _provenance(dataset: Dataset, settings: Settings, started: str) -> Provenance:
    import torch

    return Provenance(
        lipcert=version("lipcert"),
        python=platform.python_version(),
        numpy=np.__version__,
        torch=torch.__version__,
        platform=platform.platform(),
        command=_command(),
        arithmetic=ARITHMETIC,
        started=started,
        data=dataset.name,
        data_sha256=dataset.sha256,
        samples_sha256=dataset.digest,
        settings=dict(settings.summary()),
    )


def _command() -> str | None:
    """Return the command line, where lipcert is the program that runs."""
    program = Path(sys.argv[0])
    is_ours = program.stem == "lipcert" or (program.name == "__main__.py" and program.parent.name == "lipcert")
    return shlex.join(["lipcert", *sys.argv[1:]]) if is_ours else None
