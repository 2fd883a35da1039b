"""Certificates of the samples that local methods certified, in files beside the report (``--proofs``).

A sample stands in one file: that of its largest eps, and of the method that certified it there; the ball holds all
smaller ones. What the global bound certified follows from its own certificates and is in none.

Proofs depend on the sample and the method alone, so they are made again after the run, resumed or not, instead of being
kept during it. Each file is checked before it is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from lipcert.bounds.local.certify import SampleCertifier
from lipcert.bounds.local.joining import join
from lipcert.bounds.local.method import LocalMethod
from lipcert.bounds.local.registry import LOCAL_METHODS
from lipcert.bounds.torch_precision import full_precision
from lipcert.errors import InconclusiveError, UsageError
from lipcert.network.graph import Network
from lipcert.proof.claims import Level
from lipcert.proof.local import LocalCertificate, Samples, check_local
from lipcert.proof.refusal import Refused
from lipcert.results import ProofInfo
from lipcert.robustness.data.dataset import Dataset
from lipcert.robustness.settings import Settings
from lipcert.robustness.stages.batches import ran_out
from lipcert.robustness.stages.local import RADIUS_BY
from lipcert.robustness.verdicts import Ints, Status, Verdicts

FOLDER, SUFFIX = "proofs", ".lipcert"
AT_ONCE = 16  # samples: as many as a run derives at once; a fixed number, so that every run makes the same files


class Proofs:
    """Makes the certificates of a run.

    Args of the constructor:
        network: as read. dataset: of the run, in its input shape. settings: of the run.
        device: where methods propose.
    """

    def __init__(self, network: Network, dataset: Dataset, settings: Settings, device: str) -> None:
        self._network, self._dataset, self._settings, self._device = network, dataset, settings, device

    def save(self, verdicts: Verdicts, stages: Sequence[str]) -> tuple[tuple[ProofInfo, ...], str]:
        """Write a certificate for each method and eps (``METHOD-EPS.lipcert``), in place of those that are there.

        Args:
            verdicts: of the run. stages: their names.

        Returns:
            The files, and a note for the report: on samples that were not proved again, too, which are in no file.
            Level of every claim: verified.

        Raises:
            UsageError: a file cannot be written.
            InconclusiveError: this process does not compute as proofs assume.
        """
        folder = _emptied(self._settings)
        files, lost = list[ProofInfo](), 0
        try:
            for method, column, rows in _wanted(verdicts, stages, len(self._settings.eps)):
                stem = f"{method.name}-{self._settings.keys[column]}"
                sound = self._certificates(method, self._settings.eps[column], verdicts.take(rows))
                made = [_write(whole, folder, stem, method.name, k) for k, whole in enumerate(sound)]
                lost += len(rows) - sum(file.samples for file in made)
                files += made
        except Refused as refusal:
            raise InconclusiveError(f"nothing can be verified: {refusal}") from None
        return tuple(files), _note(files, lost)

    @cached_property
    def _certifier(self) -> SampleCertifier:
        return SampleCertifier(self._network, self._device)

    def _certificates(self, method: LocalMethod, eps: float, certified: Verdicts) -> list[LocalCertificate]:
        """Return certificates of samples that the checker accepts, as few as can be."""
        parts: list[LocalCertificate] = []
        for start in range(0, len(certified), AT_ONCE):
            rows = np.arange(start, min(start + AT_ONCE, len(certified)))
            parts += self._proved(method, eps, certified.take(rows))
        return [whole for whole in join(parts) if check_local(whole, self._network).valid]

    def _proved(self, method: LocalMethod, eps: float, part: Verdicts) -> list[LocalCertificate]:
        """Return certificates of samples: of those that are proved together, and of others that are proved alone."""
        samples = Samples.of(np.asarray(self._dataset.images[part.index]), part.labels)
        try:
            with full_precision():
                found = self._certifier.prove(method, samples, eps, self._settings.norm, self._settings.box)
        except (MemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
            left, certificates = np.ones(len(part), dtype=np.bool_), []
        else:
            left = ~found.rows
            certificates = [] if found.certificate is None else [found.certificate]
        if len(part) > 1:
            for row in np.flatnonzero(left):
                certificates += self._proved(method, eps, part.take(np.array([row])))
        return certificates


def _wanted(verdicts: Verdicts, stages: Sequence[str], columns: int) -> list[tuple[LocalMethod, int, Ints]]:
    """Return the rows that each local method certified last, for each eps, in the order of both."""
    held = (verdicts.status == Status.CERTIFIED) & (verdicts.level >= Level.VERIFIED)
    last = np.where(held.any(axis=1), columns - 1 - held[:, ::-1].argmax(axis=1), -1)
    stage = verdicts.stage[np.arange(len(verdicts)), last]
    found = []
    for method in LOCAL_METHODS:
        own = [k for k, name in enumerate(stages) if name in (method.name, RADIUS_BY + method.name)]
        for column in range(columns):
            rows = np.flatnonzero((last == column) & np.isin(stage, own))
            if len(rows):
                found.append((method, column, rows))
    return found


def _emptied(settings: Settings) -> Path:
    """Return the folder for the files, without those of an earlier run."""
    assert settings.folder is not None
    folder = Path(settings.folder) / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"*{SUFFIX}"):
            old.unlink()
    except OSError as error:
        raise UsageError(f"the folder '{folder}' cannot be written to: {error.strerror}") from None
    return folder


def _write(certificate: LocalCertificate, folder: Path, stem: str, method: str, number: int) -> ProofInfo:
    """Write one certificate; further ones of the same method and eps are numbered."""
    assert certificate.samples is not None
    path = folder / f"{stem}{f'-{number + 1}' if number else ''}{SUFFIX}"
    certificate.save(path)
    return ProofInfo(path=str(path), method=method, eps=certificate.claim.eps, samples=len(certificate.samples.labels))


def _note(files: Sequence[ProofInfo], lost: int) -> str:
    """Say what stands where, and of how many samples nothing does."""
    count = sum(file.samples for file in files)
    if not count + lost:
        return f"{FOLDER}/ is empty: local methods certified no sample"
    said = f"{FOLDER}/ holds certificates of {count} of the {count + lost} samples that local methods certified"
    if files:
        names = ", ".join(f"{Path(file.path).name} ({file.samples})" for file in files)
        said += f", each at its largest eps: {names}; `lipcert check` checks them"
    return f"{said}; {lost} were not proved again" if lost else said
