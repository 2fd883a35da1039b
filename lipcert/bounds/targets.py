"""From multipliers to a witness of the multiplier rule: the largest F that can be proved with them.

In exact arithmetic, with Z0 the matrix of the rule without its last term, Z0 - F C'C >= 0 if and only if
F <= 1 / lambda_max(C Z0^-1 C') (Schur complement). That number is computed in floating point and lowered by a
little room until the rule proves it; the rule alone decides.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from lipcert.bounds.method import Proposal, Solver
from lipcert.errors import InconclusiveError
from lipcert.network.enclosure import Float
from lipcert.proof.lifted import Lifted
from lipcert.proof.rules.multipliers import Blocks, Multipliers, assemble, group, output_groups, proves

ROOM = (1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # relative room on F, tried in turn


def propose_target(
    lifted: Lifted, multipliers: list[Float], solver: Solver | None = None, notes: tuple[str, ...] = ()
) -> Proposal:
    """Propose the best F for given multipliers; each attempt costs one block factorisation.

    multipliers: one non-negative vector per block of the lifted form.

    Raises:
        InconclusiveError: nothing can be proved with these multipliers.
    """
    best = largest_target(lifted, assemble(lifted, multipliers))
    for room in ROOM:
        target = best * (1.0 - room)
        if proves(lifted, multipliers, target):
            witness = {"multipliers": np.concatenate(multipliers), "inverse_square": np.array([target])}
            return Proposal(Multipliers.id, witness, solver, notes)
    raise InconclusiveError("no bound can be proved with the multipliers that were found")


def largest_target(lifted: Lifted, blocks: Blocks) -> float:
    """Return 1 / lambda_max(C Z0^-1 C') in floating point (no bound), by block-tridiagonal elimination.

    Raises:
        InconclusiveError: Z0 is not positive definite.
    """
    diagonal, below, _ = group(blocks, lifted)
    outputs = output_groups(blocks, lifted)
    total = np.zeros((outputs[0].shape[0],) * 2)
    carried: Float | None = None  # C_k Z^-1 ... gathered so far: rows of C after elimination
    factor: Float | None = None
    for k, block in enumerate(diagonal):
        rows = outputs[k]
        if factor is not None and carried is not None:
            link = scipy.linalg.solve_triangular(factor, below[k - 1].T, lower=True)
            block = block - link.T @ link
            rows = rows - carried @ link
        try:
            factor = scipy.linalg.cholesky(block, lower=True)
        except np.linalg.LinAlgError:
            raise InconclusiveError("the multipliers found do not satisfy the matrix inequality") from None
        carried = scipy.linalg.solve_triangular(factor, rows.T, lower=True).T
        total += carried @ carried.T
    top = float(np.linalg.eigvalsh(total)[-1])
    if not (np.isfinite(top) and top > 0):
        raise InconclusiveError("the matrix inequality has no finite solution with these multipliers")
    return 1.0 / top
