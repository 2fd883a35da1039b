"""What the interior-point method hands back."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt


class LipSdpStatus(StrEnum):
    """Why the method stopped."""

    OPTIMAL = "optimal"
    TIME_LIMIT = "time_limit"
    NUMERICAL_LIMIT = "numerical_limit"
    ITERATION_LIMIT = "iteration_limit"
    LINEAR = "linear"
    CONSTANT = "constant"
    GRADIENTS = "gradients"

    @property
    def text(self) -> str:
        """Cause, and what can be done."""
        return _TEXTS[self]


_TEXTS = {
    LipSdpStatus.GRADIENTS: "a method of gradients alone, as another would need more time or memory than there is;"
    " the multipliers are valid, how far from the best ones is not known",
    LipSdpStatus.OPTIMAL: "the requested duality gap was reached",
    LipSdpStatus.TIME_LIMIT: "the time limit was reached; the multipliers are valid but can be improved with more time",
    LipSdpStatus.NUMERICAL_LIMIT: "float64 allows no further progress; the multipliers are valid, see the gap",
    LipSdpStatus.ITERATION_LIMIT: "too many iterations; the multipliers are valid, see the gap",
    LipSdpStatus.LINEAR: "no neuron that is not linear matters: the bound is the norm of one matrix",
    LipSdpStatus.CONSTANT: "no path leads from the input to the output: the network is constant",
}


@dataclass(frozen=True)
class LipSdpResult:
    """Multipliers proposed by the LipSDP interior-point method; nothing here is a proof.

    Attributes:
        lam: one positive vector per block of the lifted form.
        value: the bound F^(-1/2) of these multipliers in real arithmetic (an estimate until re-derived).
        primal: the best lower bound on the LipSDP optimum that a primal point gives (also an estimate); it is not
            a lower bound on the Lipschitz constant.
        gap: value / primal - 1, or infinity while no primal point is known.
        iterations: factorisations of the full Schur matrix, centring included.
        seconds: wall-clock time.
        status: why the method stopped.
    """

    lam: list[npt.NDArray[np.float64]]
    value: float
    primal: float
    gap: float
    iterations: int
    seconds: float
    status: LipSdpStatus
