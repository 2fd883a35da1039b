"""From multipliers to a witness of the multiplier rule: the largest F that it should be able to prove with them.

In exact arithmetic, with Z0 the matrix of the rule without its last term, Z0 - F C'C >= 0 if and only if
F <= 1 / lambda_max(C Z0^-1 C') (Schur complement). A proof loses a diagonal shift (`proof.psd`). So twice that shift is
taken off Z0 first: what is left proves on machines too whose sums differ in the last bits. All of this is floating
point and no proof: the engine proves each bound once, by the rule, which alone decides. If it refuses, the same
multipliers with a smaller F come next (`Proposal.otherwise`).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.linalg.lapack import dtrtrs

from lipcert.bounds.method import Proposal, Solver
from lipcert.errors import InconclusiveError
from lipcert.network.enclosure import Float, gamma
from lipcert.network.graph import Network
from lipcert.proof.inequality import Blocks, assemble, group, output_groups
from lipcert.proof.lifted import Lifted, lift
from lipcert.proof.linear_neurons import without_linear
from lipcert.proof.narrow import narrowed
from lipcert.proof.rules.multipliers import Multipliers

LARGEST = 2.0**1000  # inverse squares beyond it are of no use
ROOM = (1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # relative room on F, tried in turn


def forms(network: Network) -> tuple[Lifted, Lifted]:
    """Return the lifted form of a normal form, and the one that the rule works on, which has no linear neurons."""
    lifted = lift(network)
    straight = without_linear(lifted)
    form = narrowed(straight)
    return form if straight is lifted else narrowed(lifted), form


def propose_target(
    multipliers: list[Float], target: float, solver: Solver | None = None, notes: tuple[str, ...] = ()
) -> Proposal:
    """Propose multipliers with an F near `target`, and smaller ones for where it is refused.

    multipliers: one non-negative vector per block of the lifted form. target: of `provable_target`.

    Raises:
        InconclusiveError: the target is 0.
    """
    if not target > 0.0:
        raise InconclusiveError("the multipliers found do not satisfy the matrix inequality")
    whole = np.concatenate(multipliers)
    first, *others = (
        Proposal(
            Multipliers.id,
            {"multipliers": whole, "inverse_square": np.array([target * (1.0 - room)])},
            solver,
            notes,
        )
        for room in ROOM
    )
    return first.or_else(others)


def provable_target(lifted: Lifted, multipliers: list[Float]) -> float:
    """Return the F that a proof with these multipliers should reach, 0 where there is none; floating point.

    lifted: the form that the rule works on (`forms`).

    Cost: one block factorisation.
    """
    with np.errstate(all="ignore"):  # what is not finite is no target
        blocks = assemble(lifted, multipliers)
        for shifts in (2.0, 0.0):
            try:
                return largest_target(lifted, blocks, shifts)
            except InconclusiveError:
                continue
    return 0.0


def largest_target(lifted: Lifted, blocks: Blocks, shifts: float = 0.0) -> float:
    """Return 1 / lambda_max(C Z^-1 C') in floating point (no bound), by block-tridiagonal elimination.

    blocks: Z0. shifts: Z is Z0 less so many times the shift that a proof takes.

    Raises:
        InconclusiveError: Z is not positive definite, or not finite.
    """
    top = float(np.linalg.eigvalsh(output_gram(lifted, blocks, shifts))[-1])
    return min(1.0 / max(top, 1.0 / LARGEST), LARGEST)


def output_gram(lifted: Lifted, blocks: Blocks, shifts: float = 0.0) -> Float:
    """Return C Z^-1 C' in floating point; it is finite. Arguments and error: see `largest_target`."""
    diagonal, below, spread = group(blocks, lifted)
    if shifts:
        diagonal = _shifted(diagonal, spread, shifts)
    try:
        gram = _eliminated(diagonal, below, output_groups(blocks, lifted))
    except np.linalg.LinAlgError:
        gram = np.full((1, 1), np.nan)
    if not np.isfinite(gram).all():
        raise InconclusiveError("the multipliers found do not satisfy the matrix inequality")
    return gram


def _shifted(diagonal: list[Float], spread: list[Float], shifts: float) -> list[Float]:
    """Return the diagonal groups less so many shifts of `proof.psd`, whose roots of entries are taken as equal here."""
    sizes = [0, *map(len, diagonal), 0]
    terms = max(before + own for before, own in pairwise(sizes))
    lowered = []
    for k, (block, t) in enumerate(zip(diagonal, spread, strict=True)):
        block = block.copy()
        share = 1.5 * gamma(terms + 8) * sum(sizes[k : k + 3])
        block[np.diag_indices_from(block)] -= shifts * (t + share * block.diagonal())
        lowered.append(block)
    return lowered


def _eliminated(diagonal: list[Float], below: list[Float], outputs: list[Float]) -> Float:
    """Return C Z^-1 C' = (C L'^-1)(C L'^-1)' for Z = L L', one group of L after the other."""
    total = np.zeros((outputs[0].shape[0],) * 2)
    rest, link, carried = outputs[0], np.zeros((0, 0)), np.zeros((0, 0))
    for k, block in enumerate(diagonal):
        if k > 0:
            block, rest = block - link @ link.T, outputs[k] - carried @ link.T
        factor = np.linalg.cholesky(block)
        later = [rest, *below[k : k + 1]]
        solved = dtrtrs(factor, np.vstack(later).T, lower=1)[0].T
        carried, link = solved[: len(rest)], solved[len(rest) :]
        total += carried @ carried.T
    return total
