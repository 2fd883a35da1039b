"""The network in torch: batched, differentiable, on torch's fast kernels.

The numbers are the centres of the enclosures, rounded to the dtype asked for. Values computed here are proposals;
what may be concluded from them is up to the rounding model of `robustness.rounding_model`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from lipcert.bounds.torch_activations import FUNCTIONS, Function
from lipcert.bounds.torch_kernels import Compiler, missing_kernel
from lipcert.errors import Unsupported, UnsupportedError
from lipcert.network.enclosure import Float
from lipcert.network.graph import Network


class TorchNetwork:
    """A callable (N, *input_shape) -> (N, *output_shape), differentiable by autograd.

    Attributes:
        network: the network that is computed.
        device, dtype: where and in which arithmetic; dtype is torch.float32 or torch.float64.
    """

    def __init__(
        self,
        network: Network,
        device: torch.device,
        dtype: torch.dtype,
        functions: Mapping[str, Function],
        chunk: int | None,
    ) -> None:
        self.network, self.device, self.dtype = network, device, dtype
        shapes = [node.shape for node in network.nodes]

        def place(array: Float) -> Tensor:
            return torch.from_numpy(np.array(array)).to(device=device, dtype=dtype)

        inputs = [[shapes[i] for i in node.inputs] for node in network.nodes[1:]]
        kernels = zip(network.nodes[1:], inputs, strict=True)
        compiler = Compiler(place, device, functions, chunk)
        self._kernels = [compiler.kernel(node, sources) for node, sources in kernels]
        self._dead_after = _last_uses(network)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the outputs of a batch (N, *input_shape) of the network's dtype and device."""
        value = x
        for _, value in self.walk(x):  # noqa: B007
            pass
        return value

    def walk(self, x: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield (index, value) of every node in order; values are dropped after their last use.

        Run it inside `torch_precision.full_precision` where reduced precision may be switched on.
        """
        values: dict[int, Tensor] = {0: x}
        yield 0, x
        for index, (node, kernel) in enumerate(zip(self.network.nodes[1:], self._kernels, strict=True), start=1):
            values[index] = kernel(*(values[i] for i in node.inputs))
            for dead in self._dead_after[index]:
                del values[dead]
            yield index, values[index]

    def trace(self, x: Tensor) -> list[Tensor]:
        """Return the values of all nodes, in node order."""
        return [value for _, value in self.walk(x)]


def compile_network(
    network: Network,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    functions: Mapping[str, Function] = FUNCTIONS,
    chunk: int | None = None,
) -> TorchNetwork:
    """Return the network as a torch function.

    Args:
        network: any network; numbers are the centres of its enclosures.
        device: a torch device.
        dtype: torch.float32 or torch.float64.
        functions: the elementwise activations; a search may put smoothed ones in their place.
        chunk: dot products of dense layers longer than this are computed in parts of this length and added up,
            which bounds their rounding error by that of the parts.

    Raises:
        UnsupportedError: torch has no kernel for an operator (more than three spatial axes); all are listed.
    """
    lacking = ((node, missing_kernel(node)) for node in network.nodes)
    missing = [Unsupported(node.name, node.op.kind, reason) for node, reason in lacking if reason is not None]
    if missing:
        raise UnsupportedError(missing)
    return TorchNetwork(network, torch.device(device), dtype, functions, chunk)


def _last_uses(network: Network) -> list[list[int]]:
    """Return, for each node, the nodes that no later node needs; the output is always kept."""
    dead: list[list[int]] = [[] for _ in network.nodes]
    for index, users in enumerate(network.consumers[:-1]):
        dead[max(users, default=len(network.nodes) - 1)].append(index)
    return dead
