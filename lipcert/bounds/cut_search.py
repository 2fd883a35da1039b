"""A few other places for the cuts of a plan, tried with a closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lipcert.bounds.allowance import Allowance
from lipcert.bounds.cutting import Planner, Section, Tool
from lipcert.bounds.method import derive
from lipcert.errors import InconclusiveError
from lipcert.network.cut import stretch
from lipcert.proof.refusal import Refused

PLACES = 8  # for one cut


def search_places(planner: Planner, sections: Sequence[Section], trial: Tool, allowance: Allowance) -> list[Section]:
    """Return the sections with each cut between two that gain at the best of a few places, planned place included.

    trial: the method that compares places; its proposals are derived, so they do not mislead.
    allowance: for all trials together, by the estimates of the tool and by the clock.
    """
    moved, seconds = list(sections), allowance.work
    for left in range(len(moved) - 1):
        pair = moved[left], moved[left + 1]
        if not (pair[0].gains and pair[1].gains):
            continue
        whole = stretch(planner.network, pair[0].start, pair[1].end)
        affordable = int(seconds / max(len(moved) * trial.estimate(whole).seconds, 1e-3))
        others = sum(s.effort.seconds for s in moved) - sum(s.effort.seconds for s in pair)
        choices = [
            two
            for two in _choices(planner, pair, min(PLACES, affordable))
            if others + sum(s.effort.seconds for s in two) <= planner.limits.seconds
        ]
        if choices and allowance.spares(0.0):
            values = [_value(planner, pair, trial)]
            values += [_value(planner, two, trial) for two in choices if allowance.spares(0.0)]
            moved[left : left + 2] = (pair, *choices)[int(np.argmin(values))]
    return moved


def _choices(planner: Planner, pair: tuple[Section, Section], most: int) -> list[tuple[Section, Section]]:
    """Return pairs cut elsewhere, at the places nearest to the planned one, that the same tools take."""
    first, second = pair
    inside = [c for c in planner.places if first.start < c < second.end and c != first.end]
    nearest = sorted(inside, key=lambda c: abs(planner.places.index(c) - planner.places.index(first.end)))
    found = []
    for place in nearest[:most]:
        two = (
            planner.section(first.start, place, planner.limits.seconds),
            planner.section(place, second.end, planner.limits.seconds),
        )
        if [s.tools[0] for s in two] == [s.tools[0] for s in pair]:
            found.append(two)
    return found


def _value(planner: Planner, pair: tuple[Section, Section], trial: Tool) -> float:
    """Return the product of the trial's bounds; infinite where it has none."""
    total = 1.0
    for section in pair:
        part = stretch(planner.network, section.start, section.end)
        try:
            total *= derive(part, planner.norm, trial.method.propose(part, planner.norm, None))[1].bound
        except (InconclusiveError, Refused):
            return math.inf
    return total
