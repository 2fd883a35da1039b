"""The samples that a reader should look at: the least robust ones, and adversarial examples beside their originals.

Adversarial inputs are not kept during a run. The attack runs again on the few samples that are shown, and what it
finds counts only when a plain forward pass of that input alone misclassifies and the distance, rounded up, is at most
eps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lipcert.network.enclosure import Float
from lipcert.network.evaluate import evaluate
from lipcert.network.graph import Network
from lipcert.results import AdversarialExample, Exhibit
from lipcert.robustness.attack import Attacker, distances
from lipcert.robustness.data.dataset import Dataset
from lipcert.robustness.pictures import change_picture, features, picture, planes
from lipcert.robustness.settings import Settings
from lipcert.robustness.verdicts import Ints, Status, Verdicts

COUNT = 8  # of each kind


@dataclass(frozen=True)
class Broken:
    """An adversarial input that was found again: eps of the attack, distance rounded up, the class it is given."""

    point: Float
    eps: float
    distance: float
    predicted: int


def make_exhibits(
    network: Network, dataset: Dataset, settings: Settings, verdicts: Verdicts, device: str
) -> tuple[Exhibit, ...]:
    """Choose up to `COUNT` least robust samples and up to `COUNT` further broken ones, and attack these again.

    Args:
        network: as deployed. dataset, settings, verdicts: of the run. device: where the attack computes.
    """
    weakest = _weakest(verdicts)
    attacked = _attacked(verdicts, weakest)
    broken = _attack(network, dataset, settings, verdicts, [*weakest, *attacked], device) if settings.attacks else {}
    return (
        *(_exhibit("least robust", row, dataset, verdicts, broken.get(row)) for row in weakest),
        *(_exhibit("attacked", row, dataset, verdicts, broken[row]) for row in attacked if row in broken),
    )


def _weakest(verdicts: Verdicts) -> list[int]:
    """Return rows of correctly classified samples, smallest certified radius first; equal ones as the attack says."""
    clean = np.flatnonzero(verdicts.clean)
    held: Ints = (verdicts.status[clean] != Status.ATTACKED).sum(axis=1)
    order = np.lexsort((held, verdicts.radius[clean]))
    return [int(row) for row in clean[order][:COUNT]]


def _attacked(verdicts: Verdicts, shown: Sequence[int]) -> list[int]:
    """Return rows that an attack broke, smallest eps first, without those that are shown already."""
    hit = verdicts.status == Status.ATTACKED
    hit[list(shown)] = False
    rows = np.flatnonzero(hit.any(axis=1))
    order = np.lexsort((verdicts.radius[rows], hit[rows].argmax(axis=1)))
    return [int(row) for row in rows[order][:COUNT]]


def _attack(
    network: Network, dataset: Dataset, settings: Settings, verdicts: Verdicts, chosen: Iterable[int], device: str
) -> dict[int, Broken]:
    """Attack rows again at each eps at which the run broke them, until one attack is confirmed."""
    beyond = settings.box is None
    attacker = Attacker(network, settings.attack, settings.norm, dataset.box, device, settings.top_k, beyond)
    found: dict[int, Broken] = {}
    for column, eps in enumerate(settings.eps):
        rows = [row for row in chosen if row not in found and verdicts.status[row, column] == Status.ATTACKED]
        if not rows:
            continue
        index, labels = verdicts.index[rows], verdicts.labels[rows]
        images = dataset.images[index]
        points = attacker.run(images, labels, eps, index=index)[1]
        wrong = attacker.misclassified(points, labels)
        exact = points.astype(np.float64)
        reach = distances(np.abs(exact - images.astype(np.float64)).reshape(len(rows), -1), settings.norm).tolist()
        rivals = _rivals(evaluate(network, exact).reshape(len(rows), -1), labels)
        for row, point, distance, rival, hit in zip(rows, exact, reach, rivals, wrong.tolist(), strict=True):
            if hit and distance <= eps:
                found[row] = Broken(point, eps, distance, rival)
    return found


def _rivals(logits: Float, labels: Ints) -> list[int]:
    """Return for each row the class with the largest output beside the label."""
    others = logits.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    return [int(best) for best in others.argmax(axis=1)]


def _exhibit(
    kind: Literal["least robust", "attacked"], row: int, dataset: Dataset, verdicts: Verdicts, broken: Broken | None
) -> Exhibit:
    index = int(verdicts.index[row])
    sample = dataset.images[np.array([index])][0].astype(np.float64)
    drawn = None if dataset.features else planes(sample)
    point = None if broken is None else broken.point
    return Exhibit(
        kind=kind,
        index=index,
        label=int(verdicts.labels[row]),
        predicted=int(verdicts.predicted[row]),
        radius=float(verdicts.radius[row]),
        picture=None if drawn is None else picture(drawn, dataset.box),
        features=features(sample, point, dataset.features) if drawn is None else (),
        adversarial=None if broken is None else _adversarial(broken, drawn, dataset.box),
    )


def _adversarial(broken: Broken, drawn: Float | None, box: tuple[float, float]) -> AdversarialExample:
    other = None if drawn is None else planes(broken.point)
    return AdversarialExample(
        eps=broken.eps,
        distance=broken.distance,
        predicted=broken.predicted,
        picture=None if other is None else picture(other, box),
        change=None if other is None or drawn is None else change_picture(other - drawn),
    )
