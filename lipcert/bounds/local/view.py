"""A network as local methods see it."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from lipcert.bounds.local.curves import CURVES
from lipcert.bounds.local.lines import Shape
from lipcert.bounds.product import Product
from lipcert.bounds.torch_activations import FUNCTIONS
from lipcert.bounds.torch_kernels import Compiler, Kernel, missing_kernel
from lipcert.bounds.torch_linear import LinearMap
from lipcert.errors import Unsupported, UnsupportedError
from lipcert.network.activations import slope_interval
from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.network.normal import normal_form, strip_softmax
from lipcert.network.operators import Affine, Elementwise
from lipcert.proof.claims import Norm
from lipcert.proof.local.boxes import Steps
from lipcert.proof.refusal import Refused
from lipcert.proof.rules import RULES
from lipcert.proof.rules.base import Step
from lipcert.proof.rules.product import needs_witness


class View:
    """The normal form of a network without its last softmax, on a device, in a dtype.

    Args of the constructor:
        network: as read; its numbers are taken at the centres of their enclosures.
        device, dtype: where, and in which arithmetic (torch.float32 or torch.float64).

    Attributes:
        network: the normal form.
        nodes: its nodes; node 0 is the input, the last one the output.
        kernels: of each node but the first, its batched function.
        maps: of each affine node, its `LinearMap`.

    Raises:
        UnsupportedError: torch has no kernel for an operator; all are listed.
    """

    def __init__(
        self, network: Network, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        self.network = normal_form(strip_softmax(network))
        self.device, self.dtype = torch.device(device), dtype
        self.nodes = self.network.nodes
        lacking = ((node, missing_kernel(node)) for node in self.nodes)
        missing = [Unsupported(node.name, node.op.kind, reason) for node, reason in lacking if reason is not None]
        if missing:
            raise UnsupportedError(missing)
        compiler = Compiler(self._place, self.device, FUNCTIONS)
        shapes = [node.shape for node in self.nodes]
        self.kernels: dict[int, Kernel] = {}
        self.maps: dict[int, LinearMap] = {}
        self._shapes: dict[int, Shape] = {}
        for index, node in enumerate(self.nodes[1:], start=1):
            self.kernels[index] = compiler.kernel(node, [shapes[i] for i in node.inputs])
            if isinstance(node.op, Affine):
                self.maps[index] = LinearMap(node, shapes[node.inputs[0]], compiler)
            elif isinstance(node.op, Elementwise):
                self._shapes[index] = self._shape(node.op, node.name)
        self._steps: dict[Norm, dict[int, Step]] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """Return the outputs (N, classes) of a batch (N, *input_shape)."""
        return self.trace(x)[-1].flatten(1)

    def trace(self, x: Tensor) -> list[Tensor]:
        """Return the values of all nodes at a batch (N, *input_shape), in node order."""
        values = [x]
        for index, node in enumerate(self.nodes[1:], start=1):
            values.append(self.kernels[index](*(values[i] for i in node.inputs)))
        return values

    def place(self, images: Float | Tensor) -> Tensor:
        """Return numbers as a tensor of this view's device and dtype."""
        return self._place(images) if isinstance(images, np.ndarray) else images.to(self.device, self.dtype)

    @cached_property
    def steps(self) -> Steps | None:
        """The network as `proof.local` prepares it, None where it refuses."""
        try:
            return Steps(self.network)
        except Refused:
            return None

    @property
    def classes(self) -> int:
        """Number of outputs."""
        return self.nodes[-1].size

    def activation(self, index: int) -> Shape:
        """Return what is needed for lines of an elementwise node."""
        return self._shapes[index]

    @cached_property
    def nonlinear_inputs(self) -> tuple[int, ...]:
        """Nodes that an activation reads: those whose boxes decide how tight the relaxations are."""
        found = {i for _, node in self.network.activation_nodes() for i in node.inputs}
        return tuple(sorted(found))

    def lipschitz(self, norm: Norm) -> tuple[float, ...]:
        """Return, for every node, an upper bound of its Lipschitz constant from the input, both sides in this norm.

        From the product of certified operator norms; infinite where there is no theorem. Computed once.
        """
        steps = self._derived(norm)
        others = (steps[i].cumulative if i in steps else math.inf for i in range(1, len(self.nodes)))
        return (1.0, *others)

    def operator_norm(self, index: int) -> float:
        """Return a certified bound of the l2 norm of an affine node's linear part; infinite where none is known."""
        steps = self._derived("l2")
        return steps[index].factor if index in steps else math.inf

    @property
    def norms(self) -> dict[int, float]:
        """Certified bounds of the l2 norms of the dense and convolution nodes, as `proof.local` wants them proposed."""
        steps = self._derived("l2")
        return {i: step.factor for i, step in steps.items() if needs_witness(self.nodes[i].op)}

    def _derived(self, norm: Norm) -> dict[int, Step]:
        """Return the steps of the product rule by node; none where it refuses the network."""
        if norm not in self._steps:
            try:
                proposal = Product().propose(self.network, norm, None)
                steps = RULES[proposal.rule].derive(self.network, norm, proposal.witness).steps
            except Refused:
                steps = ()
            self._steps[norm] = {step.node: step for step in steps}
        return self._steps[norm]

    def _shape(self, op: Elementwise, name: str) -> Shape:
        parameters = tuple(self._place(np.asarray(p, dtype=np.float64)) for p in op.params)
        alpha, beta = slope_interval(op, name)
        return Shape(FUNCTIONS[op.name], CURVES[op.name], parameters, (self._place(alpha), self._place(beta)))

    def _place(self, array: Float) -> Tensor:
        return torch.from_numpy(np.array(array)).to(device=self.device, dtype=self.dtype)
