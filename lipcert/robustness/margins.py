r"""From a Lipschitz bound to certified radii (`math.md` section 7).

Let the features phi be L-Lipschitz from (inputs, p) to (features, p), and the logits z = W phi + b. For the rival j
of class y, |(z_y - z_j)(x') - (z_y - z_j)(x)| <= ||w_y - w_j||_q L ||x' - x||_p with 1/p + 1/q = 1 (Hoelder), so no
x' within r of x is classified as j if r < margin_j / (L ||w_y - w_j||_q). The certified radius takes the least over
*all* rivals. Where the last layer is not linear, phi is the output itself and ||e_y - e_j||_q is sqrt 2 (p = 2),
2 (p = inf) or 1 (p = 1).

Margins are lowered by their errors: ||w_y - w_j||_2 times the l2 error of the features, and the rounding of the head.
A margin of zero, a tie, is a loss; radii are rounded to strictly below the quotient, because at the quotient itself
there may be a tie. Everything is float64, and everything is rounded against the claim.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lipcert.network.enclosure import TINY, Float, round_up
from lipcert.proof.claims import Norm
from lipcert.proof.rounding import sqrt_up
from lipcert.robustness.passes.forward import MARGIN, Deployed, Forward

_ROOM = 1.0 + 2.0**-48  # relative room for up to ten roundings
RADIUS_CAP = 1e300  # a radius without limit, as a number that JSON can hold

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Margins:
    """What margins can do: how fast they change, and how errors of the features reach them.

    Attributes:
        slopes: (C, C) upper bounds of the Lipschitz constant of z_y - z_j, inputs in the norm of the claim.
        spread: (C, C) upper bounds of the change of z_y - z_j per unit of l2 error of the features.
        dilation: ||d||_2 <= dilation * ||d|| for every input difference d.
        rank: of the rival that the label must stay above: 1, every rival; k, all but k - 1 of them (top k).
    """

    slopes: Float
    spread: Float
    dilation: float = 1.0
    rank: int = 1

    def bounds(self, forward: Forward, labels: Labels) -> tuple[Float, Float]:
        """Return (N, C) lower and upper bounds of the real margins z_y - z_j; infinite for j = y.

        Where the pass overflowed, the bounds are minus and plus infinity.
        """
        rows = np.arange(len(labels))
        with np.errstate(all="ignore"):
            logits, rounding = forward.logits, np.broadcast_to(forward.rounding, forward.logits.shape)
            margins = logits[rows, labels][:, None] - logits
            errors = rounding[rows, labels][:, None] + rounding + self.spread[labels] * forward.error[:, None]
            # _ROOM covers the roundings of this line and of the differences here, below and above
            error = (errors + np.abs(margins) * 2.0**-50) * _ROOM + TINY
            lower, upper = margins - error, margins + error
        lower = np.where(np.isnan(lower), -np.inf, lower)
        upper = np.where(np.isnan(upper), np.inf, upper)
        lower[rows, labels] = upper[rows, labels] = np.inf
        return lower, upper

    def ceiling(self, upper: Float, labels: Labels, deployed: Deployed | None = None) -> Float:
        """Return (N,) about the radii that a pass without rounding could give, from upper bounds of the margins.

        It decides which samples are worth a more precise pass, nothing else.
        """
        margins, slopes = self._taken(upper, labels, deployed)
        with np.errstate(all="ignore"):
            quotient = np.where(slopes > 0, margins / slopes, np.inf)
        return least(np.where(margins > 0, quotient, 0.0), self.rank)

    def radii(self, lower: Float, labels: Labels, deployed: Deployed | None = None) -> Float:
        """Return (N,) radii below which no rival can win, given lower bounds (N, C) of the real margins.

        deployed: its error is taken off the margins, within its reach. Rounded down, 0 where a margin is not
        positive; at most `RADIUS_CAP`.
        """
        margins, slopes = self._taken(lower, labels, deployed)
        with np.errstate(all="ignore"):
            quotient = margins / slopes / _ROOM  # strictly below, unless it is subnormal; infinite where slopes are 0
            radii = least(np.where((margins > 0) & (quotient > TINY), quotient, 0.0), self.rank)
            if deployed is not None:
                radii = np.minimum(radii, deployed.reach / self.dilation * (1.0 - 2.0**-50))
        capped: Float = np.clip(np.where(np.isnan(radii), 0.0, radii), 0.0, RADIUS_CAP)
        return capped

    def _taken(self, margins: Float, labels: Labels, deployed: Deployed | None) -> tuple[Float, Float]:
        """Return margins and slopes (N, C) with the error of the deployed pass taken off: base + growth * r."""
        slopes = self.slopes[labels]
        if deployed is None:
            return margins, slopes
        with np.errstate(all="ignore"):  # see `Deployed.loss`
            lowered = np.nextafter(margins - round_up(MARGIN * deployed.base, 4)[:, None], -np.inf)
            return lowered, round_up(slopes + MARGIN * deployed.growth * self.dilation, 8)


def correct(logits: Float, labels: Labels, rank: int = 1) -> npt.NDArray[np.bool_]:
    """Return whether the label's logit is above all others, or all but rank - 1; a tie and NaN are not correct."""
    rows = np.arange(len(labels))
    with np.errstate(invalid="ignore"):
        margins = logits[rows, labels][:, None] - logits
        margins[rows, labels] = np.inf
        right: npt.NDArray[np.bool_] = least(np.where(np.isnan(margins), -np.inf, margins), rank) > 0
    return right


def least(values: Float, rank: int) -> Float:
    """Return (N,) the rank-th smallest number of each row of (N, C): the smallest for rank 1."""
    found: Float = values.min(axis=1) if rank == 1 else np.partition(values, rank - 1, axis=1)[:, rank - 1]
    return found


def margin_slopes(lipschitz: float, differences: Float) -> Float:
    """Return L ||w_y - w_j||_q, rounded up; zero only where a factor is zero."""
    slopes: Float = np.where((differences == 0) | (lipschitz == 0), 0.0, round_up(lipschitz * differences, 2))
    return slopes


def l2_dilation(size: int, norm: Norm) -> float:
    """Return the least c with ||d||_2 <= c ||d|| for d with `size` entries, rounded up."""
    return sqrt_up(float(size)) if norm == "linf" else 1.0
