"""What the methods share that propose multipliers layer by layer along a chain."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from lipcert.bounds.chain import Chain, chain_of, layer_gain, obstacle, propagate
from lipcert.bounds.method import Method, Proposal
from lipcert.bounds.targets import propose_target
from lipcert.errors import InconclusiveError
from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.proof.claims import Norm
from lipcert.proof.lifted import lift
from lipcert.proof.rules.multipliers import Multipliers


class LayerwiseMethod(Method):
    """Walks the chain once; a subclass chooses one layer's multipliers from S = W P W' alone."""

    norms: ClassVar[frozenset[Norm]] = Multipliers.norms

    def refuses(self, network: Network, norm: Norm) -> str | None:
        """Return why the network is not a chain of affordable size, or None."""
        return obstacle(network)

    def propose(self, network: Network, norm: Norm, time_limit: float | None) -> Proposal:
        """Propose all multipliers; the time limit is not needed."""
        lifted = lift(network)
        with np.errstate(all="ignore"):  # what is not finite is refused by the rule
            try:
                multipliers = self.multipliers(chain_of(lifted))
            except np.linalg.LinAlgError:
                raise InconclusiveError("the layers' gains over- or underflow float64") from None
            return propose_target(lifted, multipliers)

    def multipliers(self, chain: Chain) -> list[Float]:
        """Return one positive vector per layer.

        Raises:
            numpy.linalg.LinAlgError: the gains over- or underflow.
        """
        state = np.eye(chain.weights[0].shape[1])
        multipliers: list[Float] = []
        for weight, alpha, beta in zip(chain.weights, chain.alpha, chain.beta, strict=True):
            gain = layer_gain(state, weight)
            inverse = self.layer(gain, alpha, beta)
            state = propagate(gain, inverse, alpha, beta)
            multipliers.append(0.5 / inverse)
        return multipliers

    @abstractmethod
    def layer(self, gain: Float, alpha: Float, beta: Float) -> Float:
        """Return 1 / (2 lambda) > 0 for one layer, such that diag(it) - R S R > 0, R = diag((beta - alpha) / 2).

        gain: S, (n, n) positive semidefinite. alpha, beta: (n,) slope intervals.
        """
