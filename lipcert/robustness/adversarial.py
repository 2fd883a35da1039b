"""The adversarial inputs of a run, in a file.

Attacks depend on the sample and the seed alone, so the inputs are found again after the run, resumed or not, instead
of being kept during it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lipcert.files import write_whole
from lipcert.robustness.attack import Attacker, distances
from lipcert.robustness.data.dataset import Dataset
from lipcert.robustness.settings import Settings
from lipcert.robustness.verdicts import Status, Verdicts

FILE = "adversarial.npz"
AT_ONCE = 256  # samples


def save_adversarial(attacker: Attacker, dataset: Dataset, verdicts: Verdicts, settings: Settings) -> tuple[str, ...]:
    """Write an adversarial input for each attacked sample, at the smallest eps at which it was broken.

    The file holds `images` (M, ...) float32 in raw input units, `index`, `labels`, `eps` and `distance` (M,), the
    last rounded up. Each input is misclassified by a plain forward pass, alone, and certainly within eps.

    Returns:
        Notes for the report.

    Raises:
        UsageError: the file cannot be written.
    """
    assert settings.folder is not None
    hit = verdicts.status == Status.ATTACKED
    rows = np.flatnonzero(hit.any(axis=1))
    first = hit[rows].argmax(axis=1)
    images, kept = [np.zeros((0, *dataset.images.shape[1:]), np.float32)], [np.zeros(0, np.int64)]
    for column, eps in enumerate(settings.eps):
        there = rows[first == column]
        for start in range(0, len(there), AT_ONCE):
            part = there[start : start + AT_ONCE]
            index = verdicts.index[part]
            broken, points = attacker.run(dataset.images[index], verdicts.labels[part], eps, index=index)
            images.append(points[broken])
            kept.append(part[broken])
    points, found = np.concatenate(images), np.concatenate(kept)
    index = verdicts.index[found]
    shift = np.abs(points.astype(np.float64) - np.asarray(dataset.images[index]).astype(np.float64))
    path = Path(settings.folder) / FILE
    with write_whole(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            images=points,
            index=index,
            labels=verdicts.labels[found],
            eps=np.array(settings.eps)[hit[found].argmax(axis=1)],
            distance=distances(shift.reshape(len(found), -1), settings.norm),
        )
    lost = len(rows) - len(found)
    return (f"{lost} adversarial inputs were not found again and are not in {FILE}",) if lost else ()
