r"""The multiplier rule: LipSDP in neuron form, over any graph of affine operators and elementwise activations.

Theorem. Let xi = (x, v_1, ..., v_K) be the lifted form (`proof.lifted`), Lambda_k >= 0 diagonal and F > 0. If

    Z = E_x' E_x + sum_k 2 [ E_k' Lambda_k E_k  -  sym( E_k' Lambda_k (alpha_k + beta_k) R_k )
                             + R_k' Lambda_k alpha_k beta_k R_k ] - F C'C   >=   0

then ||y - y'|| <= F^(-1/2) ||x - x'||. E_k selects v_k, R_k and C are the rows of z_k and y over all of xi, sym(M) is
(M + M') / 2; alpha_k, beta_k are diagonal.

Proof. For two inputs, write d for differences. Every neuron has a slope s in [alpha, beta] with dv = s dz, so
(dv - alpha dz)(dv - beta dz) <= 0, that is 2 lambda (dv^2 - (alpha + beta) dv dz + alpha beta dz^2) <= 0. The
quadratic form of Z at d xi is |dx|^2 plus these terms minus F |dy|^2. It is >= 0, and the terms are <= 0, so
|dx|^2 >= F |dy|^2.

With B_k = p q' + q p', p = e - alpha r, q = e - beta r, this is Z of `LipSDP` (Fazlyab et al. 2019, Theorem 2;
with the single-neuron multipliers that Pauli et al. 2021 showed to be the sound ones). Products of norms,
Gershgorin and AOL scalings, ECLipsE and LipSDP are all choices of Lambda.

Linear neurons are put into the rows that read them (`proof.linear_neurons`), and inputs wider than the rows that read
them are narrowed (`proof.narrow`). The matrix is assembled by `proof.inequality`, and proved by `proof.psd`.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.proof.certificate import Witness
from lipcert.proof.claims import Norm
from lipcert.proof.inequality import add_output, assemble, group
from lipcert.proof.lifted import Lifted, lift
from lipcert.proof.linear_neurons import without_linear
from lipcert.proof.narrow import narrowed
from lipcert.proof.psd import is_psd
from lipcert.proof.refusal import Refused
from lipcert.proof.rounding import quotient_up, sqrt_up
from lipcert.proof.rules.base import Derivation, Rule


class Multipliers(Rule):
    """One non-negative multiplier per neuron.

    Witness arrays: ``multipliers`` (N,) float64, all neurons of the lifted form in node order; ``inverse_square``
    (1,) float64, the F > 0 for which the inequality is to be proved.
    """

    id: ClassVar[str] = "multipliers/v1"
    norms: ClassVar[frozenset[Norm]] = frozenset({"l2"})

    def prove(self, network: Network, norm: Norm, witness: Witness) -> Derivation:
        """Derive F^(-1/2), rounded up, if the matrix inequality can be proved at F."""
        lifted = narrowed(without_linear(lift(network)))
        multipliers, target = read_witness(lifted, witness)
        if not proves(lifted, multipliers, target):
            raise Refused("the matrix inequality cannot be proved with these multipliers")
        return Derivation(sqrt_up(quotient_up(1.0, target)))


def read_witness(lifted: Lifted, witness: Witness) -> tuple[list[Float], float]:
    """Return the multipliers of each block, and F.

    Raises:
        Refused: the witness is not of the form that the rule reads.
    """
    if set(witness) != {"multipliers", "inverse_square"}:
        raise Refused("the witness has the arrays 'multipliers' and 'inverse_square'")
    values, target = np.asarray(witness["multipliers"]), np.asarray(witness["inverse_square"])
    sizes = lifted.sizes[1:]
    if values.dtype.kind != "f" or values.shape != (sum(sizes),) or target.dtype.kind != "f" or target.shape != (1,):
        raise Refused(f"the network needs {sum(sizes)} multipliers and one inverse square")
    if not (np.isfinite(values).all() and (values >= 0).all() and np.isfinite(target[0]) and target[0] > 0):
        raise Refused("multipliers are finite and not negative, the inverse square is positive")
    ends = np.cumsum(sizes, dtype=np.int64)
    return [values[end - size : end] for end, size in zip(ends, sizes, strict=True)], float(target[0])


def proves(lifted: Lifted, multipliers: list[Float], target: float) -> bool:
    """Whether Z(multipliers, target) >= 0 can be proved, every rounding error counted."""
    with np.errstate(all="ignore"):  # what is not finite is refused
        blocks = assemble(lifted, multipliers)
        add_output(blocks, lifted, target)
        try:
            return is_psd(*group(blocks, lifted))
        except Refused:
            return False
