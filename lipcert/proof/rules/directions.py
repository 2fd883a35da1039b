r"""The multiplier rule for all output directions at once: bounds of every difference of two outputs.

Theorem. Let Z0 be the matrix Z of `rules.multipliers` without its last term, and Q symmetric. If

    [[ Z0, C' ],
     [ C , Q  ]]   >=   0

then (c'(y - y'))^2 <= (c'Q c) |x - x'|^2 for every c.

Proof. For two inputs let d be the difference of xi = (x, v_1, ..., v_K). The quadratic form at (d, t c) gives
d'Z0 d + 2 t c'C d + t^2 c'Q c >= 0 for every real t, so (c'C d)^2 <= (d'Z0 d)(c'Q c). In `rules.multipliers` it is
shown that d'Z0 d <= |x - x'|^2, and C d = y - y'.

One factorisation thus serves all directions: |f_i - f_j| moves at most sqrt(Q_ii + Q_jj - 2 Q_ij) times as far as
the input. The best Q for given multipliers is C Z0^-1 C'. No single choice of multipliers is best for all directions,
so a witness may hold further ones, each for one pair: they prove F for the network (e_i - e_j)'f, as the multiplier
rule does. The least of all bounds of a pair is taken.

[C, Q] is one more block of the block-tridiagonal matrix; the radii of C are counted as all others are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from lipcert.network.enclosure import TINY, UNIT, Enclosure, Float
from lipcert.network.graph import Network
from lipcert.proof.certificate import Witness
from lipcert.proof.claims import Norm
from lipcert.proof.inequality import assemble, tridiagonal
from lipcert.proof.lifted import Lifted, lift
from lipcert.proof.linear_neurons import without_linear
from lipcert.proof.narrow import narrowed
from lipcert.proof.psd import is_psd
from lipcert.proof.refusal import Refused
from lipcert.proof.rounding import product_up, quotient_up, sqrt_up
from lipcert.proof.rules.base import Derivation, Rule
from lipcert.proof.rules.multipliers import proves, read_witness
from lipcert.proof.subject import direction

ARRAYS = frozenset({"multipliers", "inverse_squares", "gram", "pairs"})


class Directions(Rule):
    """Multipliers for the whole output with a matrix Q, and further ones for single pairs of outputs.

    Witness arrays, with N neurons and n outputs: ``multipliers`` (1 + k, N) float64; ``inverse_squares`` (1 + k,)
    float64, the F > 0 that each set proves: the first of the whole output, the others of their pair; ``gram`` (n, n)
    float64, Q for the first set; ``pairs`` (k, 2) int64.
    """

    id: ClassVar[str] = "directions/v1"
    norms: ClassVar[frozenset[Norm]] = frozenset({"l2"})

    def prove(self, network: Network, norm: Norm, witness: Witness) -> Derivation:
        """Derive a bound of the whole output and of all margins; cost: 2 + k block-tridiagonal factorisations."""
        lifted = narrowed(without_linear(lift(network)))
        sets, gram, pairs = read_sets(lifted, witness)
        multipliers, bound = _proved(lifted, sets[0])
        if not proves_gram(lifted, multipliers, gram):
            raise Refused("the matrix of the directions cannot be proved with these multipliers")
        margins = np.minimum(gram_margins(gram), product_up(sqrt_up(2.0), bound))
        np.fill_diagonal(margins, 0.0)
        for (i, j), part in zip(pairs, sets[1:], strict=True):
            _, own = _proved(towards(lifted, (i, j)), part)
            margins[i, j] = margins[j, i] = min(margins[i, j], own)
        return Derivation(bound, margins=margins)


def towards(lifted: Lifted, classes: tuple[int, ...]) -> Lifted:
    """Return a lifted form whose only output is one output, or the difference of two."""
    return replace(lifted, output={k: direction(rows, classes) for k, rows in lifted.output.items()})


def proves_gram(lifted: Lifted, multipliers: list[Float], gram: Float) -> bool:
    """Whether [[Z0, C'], [C, Q]] >= 0 can be proved, every rounding error counted."""
    with np.errstate(all="ignore"):  # what is not finite is refused
        blocks = assemble(lifted, multipliers)
        last = len(lifted.sizes)
        blocks |= {(last, k): rows for k, rows in lifted.output.items()}
        blocks[last, last] = Enclosure.exact(gram)
        try:
            return is_psd(*tridiagonal(blocks, (*lifted.sizes, len(gram))))
        except Refused:
            return False


def gram_margins(gram: Float) -> Float:
    """Return sqrt(Q_ii + Q_jj - 2 Q_ij) for all i and j, rounded up.

    The three roundings of the sum are within 3 u (1 + u)^2 times the sum of the magnitudes, doubling is exact. The
    root of a float64 is rounded once.
    """
    own = np.diagonal(gram)
    with np.errstate(all="ignore"):  # what is not finite covers no claim
        squares = (own[:, None] + own) - 2.0 * gram
        error = 4.0 * UNIT * ((own[:, None] + own) + 2.0 * np.abs(gram)) + TINY
        return np.asarray(np.nextafter(np.sqrt(np.nextafter(np.maximum(squares, 0.0) + error, np.inf)), np.inf))


def _proved(lifted: Lifted, part: Witness) -> tuple[list[Float], float]:
    """Return the multipliers of a witness of the multiplier rule, and the bound that they prove."""
    multipliers, target = read_witness(lifted, part)
    if not proves(lifted, multipliers, target):
        raise Refused("the matrix inequality cannot be proved with these multipliers")
    return multipliers, sqrt_up(quotient_up(1.0, target))


def read_sets(lifted: Lifted, witness: Witness) -> tuple[list[Witness], Float, list[tuple[int, int]]]:
    """Return one witness of the multiplier rule per set, Q, and the pairs."""
    if set(witness) != ARRAYS:
        raise Refused(f"the witness of directions has the arrays {', '.join(sorted(ARRAYS))}")
    multipliers, targets, gram, pairs = (
        np.asarray(witness[name]) for name in ("multipliers", "inverse_squares", "gram", "pairs")
    )
    count, sets = next(iter(lifted.output.values())).shape[0], len(pairs) + 1 if pairs.ndim == 2 else 0
    if gram.dtype.kind != "f" or gram.shape != (count, count) or not np.isfinite(gram).all():
        raise Refused(f"'gram' is a real matrix of order {count}, one row per output")
    if (gram != gram.T).any():
        raise Refused("'gram' is not symmetric")
    if pairs.dtype.kind != "i" or pairs.shape != (sets - 1, 2) or not ((pairs >= 0) & (pairs < count)).all():
        raise Refused(f"'pairs' are two integers each, from 0 to {count - 1}")
    if multipliers.ndim != 2 or len(multipliers) != sets or targets.shape != (sets,):
        raise Refused("there is one set of multipliers with its inverse square for the output and for each pair")
    parts: list[Witness] = [{"multipliers": multipliers[k], "inverse_square": targets[k : k + 1]} for k in range(sets)]
    return parts, gram, [(int(i), int(j)) for i, j in pairs]
