r"""The multiplier rule for convolutions, frequency by frequency: one multiplier per channel.

Theorem. Let a network be embedded in a torus (`proof.embedding`), with multipliers lambda_k >= 0 for each channel of
each layer and for each neuron of the tail, and F > 0. For each frequency w let Z(w) be the Hermitian matrix of the
multiplier rule with the symbols K_k(w) in place of the layers' matrices: at w = 0 for the layers with the tail behind
them, its input multiplied by `Torus.pooling`; at other w for the layers alone, with the output term -F C'C only where
there is no tail. If Z(w) >= 0 for one w of each pair w, -w, then ||y - y'|| <= F^(-1/2) ||x - x'||.

Proof. Z(-w) is the conjugate of Z(w), so all of them are >= 0. Take the sum over all w of u(w)* Z(w) u(w) >= 0 for
the Fourier coefficients u(w) of the difference of two evaluations, and at w = 0 the tail's differences beside them.
By Parseval's identity it is |dx|^2 (the input is zero outside its map) plus the terms of all neurons at all positions
(`rules.multipliers`), which are <= 0, minus F times |dy|^2 or, where the torus knows more values than the map, times
something larger. So |dx|^2 >= F |dy|^2.

A Hermitian matrix A + iB is >= 0 if and only if the real [[A, -B], [B, A]] is, which is the multiplier rule's matrix
for the real forms of the symbols. Those are enclosed (`Torus.symbol`), and stacks of them are assembled and proved
positive semidefinite like any other (`proof.inequality`, `proof.psd`).

Against the multiplier rule on the unrolled matrices this ties the multipliers of all positions of a channel, and
pays for zero padding with a torus and slopes that contain 0. Its cost is that of some hundred matrices of the size
of the channels, whatever the image. LipSDP with multipliers per channel in state-space form: Pauli et al. 2024.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.proof.certificate import Witness
from lipcert.proof.claims import Norm
from lipcert.proof.embedding import embed
from lipcert.proof.refusal import Refused
from lipcert.proof.rounding import quotient_up, sqrt_up
from lipcert.proof.rules.base import Derivation, Rule
from lipcert.proof.rules.multipliers import proves, read_witness
from lipcert.proof.torus import Torus, other_pieces, zero_piece


class ShiftInvariant(Rule):
    """One non-negative multiplier per channel.

    Witness arrays: ``multipliers`` (N,) float64, all channels of the layers of the torus in order, then all neurons of
    the tail; ``inverse_square`` (1,) float64, the F > 0 for which the inequalities are to be proved.
    """

    id: ClassVar[str] = "shift-invariant/v1"
    norms: ClassVar[frozenset[Norm]] = frozenset({"l2"})

    def prove(self, network: Network, norm: Norm, witness: Witness) -> Derivation:
        """Derive F^(-1/2), rounded up, if the inequalities of all frequencies can be proved at F."""
        torus = embed(network)
        multipliers, target = read_witness(zero_piece(torus), witness)
        if not proves_all(torus, multipliers, target):
            raise Refused("the matrix inequalities cannot be proved with these multipliers")
        return Derivation(sqrt_up(quotient_up(1.0, target)))


def proves_all(torus: Torus, multipliers: list[Float], target: float) -> bool:
    """Whether Z(w) >= 0 can be proved at all frequencies, every rounding error counted.

    multipliers: one vector per layer, then one per block of the tail.
    """
    if not proves(zero_piece(torus), multipliers, target):
        return False
    doubled = [np.tile(values, 2) for values in multipliers[: len(torus.layers)]]
    return all(proves(piece, doubled, target) for piece in other_pieces(torus))
