"""Proposals about all margins: multipliers for the whole output, and further ones for single pairs of outputs.

Any method that proposes multipliers serves, and in l1 and linf the absolute values, which need no witness. Multipliers
for the whole output bound every margin at once, with the matrix Q = C Z0^-1 C' of `rules.directions`. Those that are
best for a single pair lower its bound further (mnist_fc_3layer: by 19 % on average), at the cost of one run of the
method per pair. They are sought where that takes some seconds, or while a time limit leaves time, the pairs with the
largest bounds first.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import replace

import numpy as np

from lipcert.bounds.method import Method, Proposal
from lipcert.bounds.targets import LARGEST, ROOM, forms, output_gram
from lipcert.errors import InconclusiveError
from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.proof.claims import Norm, margin
from lipcert.proof.inequality import assemble
from lipcert.proof.lifted import Lifted
from lipcert.proof.rules.absolute import Absolute
from lipcert.proof.rules.absolute_margins import AbsoluteMargins
from lipcert.proof.rules.directions import Directions, gram_margins, proves_gram, towards
from lipcert.proof.rules.multipliers import Multipliers, proves, read_witness
from lipcert.proof.subject import subject

FEW_PAIRS, FEW_NEURONS = 66, 100  # up to which every pair gets its own multipliers where there is no time limit
FLOOR = 2.0**-40  # relative to the largest diagonal entry of Q: room for outputs that hardly move


SERVED = frozenset({Multipliers.id, Absolute.id})  # rules whose witnesses lead to bounds of all margins


def propose_margins(logits: Network, method: Method, norm: Norm, time_limit: float | None) -> Proposal:
    """Propose a witness of the directions rule, or of that for absolute values.

    Args:
        logits: normal form of all logits.
        method: proposes the multipliers.
        norm: on input and output.
        time_limit: seconds for everything, or None.

    Raises:
        InconclusiveError: the method proposes neither multipliers nor absolute values, or nothing can be proved with
            what it proposes.
    """
    start = time.monotonic()
    first = method.propose(logits, norm, time_limit)
    if first.rule == Absolute.id:
        return replace(first, rule=AbsoluteMargins.id)
    if first.rule != Multipliers.id:
        raise InconclusiveError(f"'{method.name}' proposes no multipliers here, as bounds of all margins need")
    return _directions(logits, method, first, time_limit, start)


def _directions(logits: Network, method: Method, first: Proposal, time_limit: float | None, start: float) -> Proposal:
    """Extend multipliers for the whole output to a witness of the directions rule."""
    lifted = forms(logits)[1]
    first = _proved(lifted, first)
    gram = propose_gram(lifted, read_witness(lifted, first.witness)[0])
    own: dict[tuple[int, int], Proposal] = {}
    for i, j in _pairs(gram, lifted, time_limit):
        left = None if time_limit is None else start + time_limit - time.monotonic()
        if left is not None and left <= 0:
            break
        found = _own(logits, (i, j), method, left)
        if found is None:
            continue
        if np.array_equal(found.witness["multipliers"], first.witness["multipliers"]):
            break  # the method does not look at the last layer
        with suppress(InconclusiveError):
            own[i, j] = _proved(towards(lifted, (i, j)), found)
    note = f"{len(own)} of {math.comb(len(gram), 2)} pairs of outputs have multipliers of their own"
    return replace(first, rule=Directions.id, witness=_witness(first, gram, own), notes=(*first.notes, note))


def _proved(lifted: Lifted, proposal: Proposal) -> Proposal:
    """Return the first choice of multipliers that can be proved.

    Raises:
        InconclusiveError: there is none.
    """
    for choice in proposal.choices():
        if proves(lifted, *read_witness(lifted, choice.witness)):
            return choice
    raise InconclusiveError("no bound can be proved with the multipliers that were found")


def propose_gram(lifted: Lifted, multipliers: list[Float]) -> Float:
    """Return Q = C Z0^-1 C' with as much room on its diagonal as its proof needs, once more for other machines.

    Raises:
        InconclusiveError: nothing can be proved with these multipliers.
    """
    best = output_gram(lifted, assemble(lifted, multipliers))
    best = 0.5 * (best + best.T)
    own = np.diagonal(best)
    scale = own + max(float(own.max()) * FLOOR, 1.0 / LARGEST)
    for room in ROOM:
        if proves_gram(lifted, multipliers, best + np.diag(room * scale)):
            return np.asarray(best + np.diag(2.0 * room * scale))
    raise InconclusiveError("no bound of the margins can be proved with the multipliers that were found")


def _pairs(gram: Float, lifted: Lifted, time_limit: float | None) -> list[tuple[int, int]]:
    """Return the pairs that may get their own multipliers, the largest bound first."""
    rows, columns = np.triu_indices(len(gram), 1)
    if time_limit is None and (len(rows) > FEW_PAIRS or sum(lifted.sizes[1:]) > FEW_NEURONS):
        return []
    order = np.argsort(-gram_margins(gram)[rows, columns], kind="stable")
    return [(int(rows[k]), int(columns[k])) for k in order]


def _own(logits: Network, pair: tuple[int, int], method: Method, time_limit: float | None) -> Proposal | None:
    """Return what the method proposes for one margin, or None where that is nothing of use."""
    try:
        found = method.propose(subject(logits, margin(*pair)), "l2", time_limit)
    except InconclusiveError:
        return None
    return found if found.rule == Multipliers.id else None


def _witness(first: Proposal, gram: Float, own: dict[tuple[int, int], Proposal]) -> dict[str, Float]:
    parts = [first, *own.values()]
    return {
        "multipliers": np.stack([part.witness["multipliers"] for part in parts]),
        "inverse_squares": np.concatenate([part.witness["inverse_square"] for part in parts]),
        "gram": gram,
        "pairs": np.array(list(own), dtype=np.int64).reshape(-1, 2),
    }
