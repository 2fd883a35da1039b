"""Batched forward passes with a rigorous bound of their distance to the real network.

The recursion of `rounding_model` runs beside the pass on one number per sample and node: it needs the l2 norm of
each node's input, which costs about as much as a ReLU, and nothing else.

The *deployed* pass. For `verified-exec` the error of another floating-point pass, the one of the deployed network
with unit roundoff u', is needed at every x' with ||x' - x||_2 <= r. Let E be its error at a node. The values it
computes there have norms of at most ||h(x')|| + E <= ||h^(x)|| + e + l r + E, where l is the node's Lipschitz bound.
Put into the recursion with the coefficients of u', E stays of the form base + growth * r, with a base for each sample
and one growth for all: products, sums and the triangle inequality keep the form. `reach` is the largest r at which no
deployed value can overflow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lipcert.bounds.norms import certified_norm
from lipcert.bounds.torch_network import TorchNetwork, compile_network
from lipcert.bounds.torch_precision import full_precision, has_full
from lipcert.errors import InconclusiveError
from lipcert.network.enclosure import TINY, Float, round_up
from lipcert.network.graph import Network, Node
from lipcert.network.operators import Affine, Concat, Extremum
from lipcert.proof.rounding import product_up
from lipcert.proof.rules import Step
from lipcert.proof.rules.composition import activation_factor, join
from lipcert.robustness.passes.head import Head
from lipcert.robustness.passes.precision import FLOAT32, FLOAT64, Precision, gamma_up, up
from lipcert.robustness.passes.rounding_model import NodeModel, model_nodes

MARGIN = 2.0**0.5 * (1.0 + 2.0**-50)  # above sqrt 2: of two outputs' errors together to the l2 norm of all
DOT_CHUNK = 256  # longest dot product of our passes: shorter ones round less, and cost nothing more down to here
_CHUNK = 2**14  # entries whose squares are added up in the precision of the pass


@dataclass(frozen=True)
class Deployed:
    """Error of the deployed pass within ||x' - x||_2 <= r <= reach: at most base + growth * r.

    base, reach: (N,) float64. growth: the same for all samples.
    """

    base: Float
    growth: float
    reach: Float

    def loss(self, radius: Float) -> Float:
        """Return (N,) upper bounds of the error of any margin within some l2 radii (N,); infinite beyond the reach.

        The margins z_y - z_j of the deployed pass and of the real network differ by d_y - d_j, where ||d||_2 is at
        most base + growth * radius: |d_y - d_j| <= sqrt 2 ||d||_2.
        """
        with np.errstate(all="ignore"):
            most = round_up(MARGIN * (self.base + self.growth * radius), 8)
        return np.where(radius <= self.reach, most, np.inf)


@dataclass(frozen=True)
class Forward:
    """What a batch gave.

    Attributes:
        logits: (N, C) float64, the computed outputs behind the head, flattened.
        rounding: (N, C) or (1, C), upper bounds of the head's rounding error of each.
        error: (N,) float64, upper bounds of the l2 distance of the features (of the logits, where there is no head)
            to the real network's; infinite where something overflowed or is NaN.
        deployed: the same for the deployed pass around each sample, where that was asked for.
    """

    logits: Float
    rounding: Float
    error: Float
    deployed: Deployed | None = None


def l2_steps(network: Network, bounded: Network | None = None, steps: Sequence[Step] = ()) -> tuple[Step, ...]:
    """Return verified l2 Lipschitz factors of all nodes of a network, as it stands: what the product rule derives.

    Args:
        network: whose nodes are wanted.
        bounded: a network that shares operators with it, such as its normal form.
        steps: of the product rule on `bounded`; operators that occur there are not bounded again.

    Raises:
        Refused: a node has no theorem or a number is not finite.
    """
    nodes = () if bounded is None else bounded.nodes
    known = {(nodes[s.node].op, nodes[nodes[s.node].inputs[0]].shape): s.factor for s in steps}
    bounds, found = [1.0], []
    for index, node in enumerate(network.nodes[1:], start=1):
        source = network.nodes[node.inputs[0]].shape
        factor = known.get((node.op, source))
        if factor is None and isinstance(node.op, Affine):
            factor = certified_norm(node.op, source, node.shape).value
        elif factor is None:
            factor = activation_factor(node, source, "l2")
        bounds.append(product_up(factor, join(node, "l2", [bounds[i] for i in node.inputs])))
        found.append(Step(index, factor, bounds[-1]))
    return tuple(found)


class ForwardPass:
    """Runs a network and bounds the error of what it computed. Level of the errors: verified, under the model
    of `rounding_model`.

    Args of the constructor:
        network: executed operator by operator, at the centres of its enclosures.
        steps: from `l2_steps` of the same network.
        precision: of the pass, FLOAT32 or FLOAT64.
        deployed: precision of the deployed pass of the same network (any of `precision.PRECISIONS`), or None.
        head: the linear layer behind the network; without one the outputs are the logits.
    """

    def __init__(
        self,
        network: Network,
        steps: Sequence[Step],
        precision: Precision,
        deployed: Precision | None = None,
        head: Head | None = None,
    ) -> None:
        self.network, self.precision, self.deployed = network, precision, deployed
        self._head = head or Head.identity(network.nodes[-1].size)
        self._steps = steps
        self._dtype = torch.float32 if precision is FLOAT32 else torch.float64

    @cached_property
    def _models(self) -> tuple[NodeModel, ...]:
        return model_nodes(self.network, {step.node: step.factor for step in self._steps}, self.precision, DOT_CHUNK)

    @cached_property
    def _deployed_models(self) -> tuple[NodeModel, ...]:
        if self.deployed is None:
            return ()
        return model_nodes(self.network, {step.node: step.factor for step in self._steps}, self.deployed)

    @cached_property
    def _measured(self) -> frozenset[int]:
        """The nodes whose norms are needed: inputs of nodes that round."""
        rounding = [i for i, model in enumerate(self._models) if not model.exact]
        first = {0} if self._deployed_models and not self._deployed_models[0].exact else set()
        return frozenset(source for i in rounding for source in self.network.nodes[i].inputs) | first

    @cached_property
    def _torch(self) -> TorchNetwork:
        return compile_network(self.network, "cpu", self._dtype, chunk=DOT_CHUNK)

    def __call__(self, images: npt.NDArray[np.float32] | Float) -> Forward:
        """Run a batch (N, *input_shape) of float32 images; of float64 ones, where the pass is in float64."""
        with torch.no_grad(), full_precision():
            x = torch.from_numpy(images).to(self._dtype)
            norms: dict[int, Float] = {}
            for index, value in self._torch.walk(x):
                if index in self._measured:
                    norms[index] = _norms(value)
            sizes = _norms(value)
            with np.errstate(all="ignore"):  # infinities and NaN end as infinite errors
                logits, rounding = self._head.logits(value, sizes, self.precision)
        with np.errstate(all="ignore"):
            errors = self._errors(len(images), norms)
            deployed = self._deployed_errors(len(images), norms, errors)
            finite = (sizes < np.inf) & (errors[-1] < np.inf)
        return Forward(logits, rounding, np.where(finite, errors[-1], np.inf), deployed)

    def _errors(self, count: int, norms: dict[int, Float]) -> list[Float]:
        """Return e of every node."""
        errors = [np.zeros(count)]
        for node, model in zip(self.network.nodes[1:], self._models[1:], strict=True):
            error = model.slope * join_errors(node, [errors[i] for i in node.inputs])
            if not model.exact:
                size = np.sum([norms[i] for i in node.inputs], axis=0)
                error = error + model.relative * size + model.absolute
                safe = model.magnitude * (size + 1.0) < self.precision.limit
                error = np.where(safe, error, np.inf)
            errors.append(round_up(error + TINY, 8))
        return errors

    def _deployed_errors(self, count: int, norms: dict[int, Float], errors: list[Float]) -> Deployed | None:
        """Return the error of the deployed pass, as base + growth * r."""
        if self.deployed is None:
            return None
        lipschitz = [1.0, *(step.cumulative for step in self._steps)]
        base, growth, reach = [np.zeros(count)], [0.0], np.full(count, np.inf)
        first = self._deployed_models[0]
        if not first.exact:  # the input is rounded: at most size + r of it
            base, growth = [round_up(first.relative * norms[0] + first.absolute, 4)], [first.relative]
            reach = np.nextafter((self.deployed.limit - norms[0]) * (1.0 - 2.0**-40) - 1.0, -np.inf)
        for node, model in zip(self.network.nodes[1:], self._deployed_models[1:], strict=True):
            start = model.slope * join_errors(node, [base[i] for i in node.inputs])
            rise = up(model.slope * float(join_errors(node, [np.array([growth[i]]) for i in node.inputs])[0]))
            if not model.exact:
                # norms of what the deployed pass computes here: at most size + steepness * r
                size = round_up(np.sum([norms[i] + errors[i] + base[i] for i in node.inputs], axis=0), 8)
                steepness = up(math.fsum(lipschitz[i] + growth[i] for i in node.inputs))
                start = start + model.relative * size + model.absolute
                rise = up(rise + model.relative * steepness)
                room = (self.deployed.limit / model.magnitude * (1.0 - 2.0**-40) - 1.0 - size) / steepness
                reach = np.minimum(reach, np.nextafter(room * (1.0 - 2.0**-40), -np.inf))
            base.append(round_up(start + TINY, 8))
            growth.append(rise)
        reach = np.where(reach > 0, reach, 0.0)  # NaN counts as no reach
        return Deployed(np.where(base[-1] < np.inf, base[-1], np.inf), growth[-1], reach)


def honest_precisions() -> tuple[Precision, ...]:
    """Return the precisions in which torch computes as the rounding model says, fastest first.

    Raises:
        InconclusiveError: not even float64 does.
    """
    if not has_full(torch.float64):
        raise InconclusiveError(
            "torch does not compute float64 products as dot products here: nothing can be verified; "
            "look for settings that trade precision for speed"
        )
    return (FLOAT32, FLOAT64) if has_full(torch.float32) else (FLOAT64,)


def join_errors(node: Node, errors: Sequence[Float]) -> Float:
    """Combine the errors of a node's inputs, rounded up: root of squares where entries stay apart, else the sum."""
    if len(errors) == 1:
        return errors[0]
    if isinstance(node.op, (Concat, Extremum)):
        largest = np.maximum.reduce(errors)
        scale = np.where(largest > 0, largest, 1.0)
        squares = np.sum([(error / scale) ** 2 for error in errors], axis=0)
        return round_up(np.sqrt(squares) * scale, 8 + len(errors))
    return round_up(np.sum(errors, axis=0), len(errors))


def _norms(value: Tensor) -> Float:
    """Return upper bounds of the l2 norm of each sample, whatever the order of summation."""
    precision = FLOAT32 if value.dtype == torch.float32 else FLOAT64
    chunks = torch.split(value.flatten(1), _CHUNK, dim=1)
    parts = [torch.linalg.vector_norm(chunk, dim=1).to(torch.float64).numpy() for chunk in chunks]
    # of each part, the squares lose at most tiny each to underflow; squares, sums and the root round
    count = min(_CHUNK, value[0].numel())
    slack, lost = 1.0 + 2.0 * gamma_up(count + 2, precision.unit), up(math.sqrt(count * precision.tiny))
    bounds = [round_up(part * slack + lost, 4) for part in parts]
    if len(bounds) == 1:
        return bounds[0]
    largest = np.maximum.reduce(bounds)
    return round_up(largest * np.sqrt(np.sum([(bound / largest) ** 2 for bound in bounds], axis=0)), 8 + len(bounds))
