"""What the methods share that propose multipliers layer by layer along a chain."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from lipcert.bounds.chain import chain_of, layer_gain, obstacle, propagate
from lipcert.bounds.method import Method, Proposal
from lipcert.bounds.targets import propose_target
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
        chain = chain_of(lifted)
        state = np.eye(lifted.inputs)
        multipliers: list[Float] = []
        for weight, alpha, beta in zip(chain.weights, chain.alpha, chain.beta, strict=True):
            gain = layer_gain(state, weight)
            inverse = self.layer(gain, alpha, beta)
            state = propagate(gain, inverse, alpha, beta)
            multipliers.append(0.5 / inverse)
        return propose_target(lifted, multipliers)

    @abstractmethod
    def layer(self, gain: Float, alpha: Float, beta: Float) -> Float:
        """Return 1 / (2 lambda) > 0 for one layer, such that diag(it) - R S R > 0, R = diag((beta - alpha) / 2).

        gain: S, (n, n) positive semidefinite. alpha, beta: (n,) slope intervals.
        """
