"""From multipliers to a witness of the multiplier rule: the largest F that can be proved with them.

In exact arithmetic, with Z0 the matrix of the rule without its last term, Z0 - F C'C >= 0 if and only if
F <= 1 / lambda_max(C Z0^-1 C') (Schur complement). That number is computed in floating point and lowered by a
little room until the rule proves it, then once more by as much: another machine, whose sums differ in the last bits,
has to prove it too. The rule alone decides.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from lipcert.bounds.method import Proposal, Solver
from lipcert.errors import InconclusiveError
from lipcert.network.enclosure import Float
from lipcert.proof.inequality import Blocks, assemble, group, output_groups
from lipcert.proof.lifted import Lifted
from lipcert.proof.rules.multipliers import Multipliers, holds

LARGEST = 2.0**1000  # inverse squares beyond it are of no use
ROOM = (1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # relative room on F, tried in turn


def propose_target(
    lifted: Lifted, multipliers: list[Float], solver: Solver | None = None, notes: tuple[str, ...] = ()
) -> Proposal:
    """Propose the best F for given multipliers; each attempt costs one block factorisation.

    multipliers: one non-negative vector per block of the lifted form.

    Raises:
        InconclusiveError: nothing can be proved with these multipliers.
    """
    blocks = assemble(lifted, multipliers)
    best = largest_target(lifted, blocks)
    for room in ROOM:
        target = best * (1.0 - room)
        if holds(blocks, lifted, target):
            witness = {"multipliers": np.concatenate(multipliers), "inverse_square": np.array([target * (1.0 - room)])}
            return Proposal(Multipliers.id, witness, solver, notes)
    raise InconclusiveError("no bound can be proved with the multipliers that were found")


def largest_target(lifted: Lifted, blocks: Blocks) -> float:
    """Return 1 / lambda_max(C Z0^-1 C') in floating point (no bound), by block-tridiagonal elimination.

    Raises:
        InconclusiveError: Z0 is not positive definite, or not finite.
    """
    top = float(np.linalg.eigvalsh(output_gram(lifted, blocks))[-1])
    return min(1.0 / max(top, 1.0 / LARGEST), LARGEST)


def output_gram(lifted: Lifted, blocks: Blocks) -> Float:
    """Return C Z0^-1 C' in floating point; it is finite.

    Raises:
        InconclusiveError: Z0 is not positive definite, or not finite.
    """
    diagonal, below, _ = group(blocks, lifted)
    try:
        gram = _eliminated(diagonal, below, output_groups(blocks, lifted))
    except (np.linalg.LinAlgError, ValueError):  # ValueError: scipy met NaN or infinity
        gram = np.full((1, 1), np.nan)
    if not np.isfinite(gram).all():
        raise InconclusiveError("the multipliers found do not satisfy the matrix inequality")
    return gram


def _eliminated(diagonal: list[Float], below: list[Float], outputs: list[Float]) -> Float:
    """Return C Z0^-1 C' = (C L'^-1)(C L'^-1)' for Z0 = L L', one group of L after the other."""
    total = np.zeros((outputs[0].shape[0],) * 2)
    factor, carried = np.zeros((0, 0)), np.zeros((len(total), 0))
    for k, (block, rows) in enumerate(zip(diagonal, outputs, strict=True)):
        if k > 0:
            link = scipy.linalg.solve_triangular(factor, below[k - 1].T, lower=True)
            block, rows = block - link.T @ link, rows - carried @ link
        factor = scipy.linalg.cholesky(block, lower=True)
        carried = scipy.linalg.solve_triangular(factor, rows.T, lower=True).T
        total += carried @ carried.T
    return total
