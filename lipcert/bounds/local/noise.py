r"""A network on a region as a linear map with bounded noise: what multipliers of a region work on.

Every elementwise neuron has dv = m dz + w with |w| <= r |dz|, m and r from its sector (`sectors`). Neurons with r = 0
are linear and vanish; the others, the *unstable* ones, each add one noise w. So for every unstable neuron, and for
every output direction,

    dz_k = G_k dx + sum_{j < k} N_kj w_j,        |w_i| <= r_i |dz_i|,

where row i of G and N comes from one backward pass through the network with slopes m. Nothing of the size of a layer
squared is formed, so convolutions and residual networks are as good as dense chains. Samples have different unstable
neurons: rows are padded to the largest number of a batch with noises of r = 0.

Cost: as many backward passes as there are unstable neurons. Where the first of them read a convolution of the input,
products with their rows are applications of the convolution (`Front`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from lipcert.bounds.local.backward import entries, rows_at_a_time, send_back
from lipcert.bounds.local.sectors import Sector
from lipcert.bounds.local.view import View
from lipcert.bounds.torch_activations import FUNCTIONS
from lipcert.bounds.torch_kernels import Compiler
from lipcert.bounds.torch_linear import LinearMap
from lipcert.network.operators import Conv

_COPIES = 4  # tensors of the size of the coefficients that live at once in a backward pass
_AT_ONCE = 512  # rows that a convolution is applied to


@dataclass(frozen=True, eq=False)
class Front:
    """The rows G_1 of the first unstable neurons, where they are some of a convolution of the input.

    Attributes:
        map: the convolution, in float64.
        pick: (B, u) which rows.
    """

    map: LinearMap
    pick: Tensor

    def take(self, samples: Tensor) -> Front:
        """Return the same of some samples, given by index."""
        return Front(self.map, self.pick[samples])

    def products(self, rows: Tensor) -> Tensor:
        """Return (B, T, u) products of rows (B, T, n) with G_1'."""
        count = self.pick.shape[1]
        images = rows.reshape(-1, *self.map.source)
        parts = [self.map.apply(part).flatten(1) for part in torch.split(images, _AT_ONCE)]
        found = torch.cat(parts).reshape(*rows.shape[:2], -1)
        return found.gather(2, self.pick[:, None].expand(-1, rows.shape[1], count))

    def weighted(self, weight: Tensor) -> Tensor:
        """Return (B, n, n) G_1' diag(weight) G_1 for weights (B, u)."""
        full = weight.new_zeros((len(weight), self._columns[0].numel())).scatter(1, self.pick, weight)
        spread = (full.reshape(-1, 1, *self.map.target) * self._columns).flatten(0, 1)
        return self.map.adjoint(spread).reshape(len(weight), -1, len(self._columns))

    @cached_property
    def _columns(self) -> Tensor:
        """(n, *target) what the convolution makes of each unit vector."""
        basis = torch.eye(int(np.prod(self.map.source)), dtype=torch.float64, device=self.pick.device)
        return self.map.apply(basis.reshape(-1, *self.map.source))


@dataclass(frozen=True, eq=False)
class NoiseModel:
    """The linear maps above for a batch, in float64.

    Attributes:
        nodes: activation nodes with unstable neurons, in order. picks: (B, u_k) of each, which entries.
        radii: (B, u_k) of each, r; 0 for padding.
        inputs: (B, T, n) all rows of G: those of the nodes one after the other, then the S outputs.
        noise: of each node, (B, rows behind the node, u_k), the coefficients N on its noise.
        front: of the rows of the first node, or None.
    """

    nodes: tuple[int, ...]
    picks: tuple[Tensor, ...]
    radii: tuple[Tensor, ...]
    inputs: Tensor
    noise: tuple[Tensor, ...]
    front: Front | None = None

    @cached_property
    def gram(self) -> Tensor:
        """(B, T, T) products G G' of all rows."""
        if self.front is None:
            return self.inputs @ self.inputs.mT
        count = self.front.pick.shape[1]
        first, rest = self.front.products(self.inputs), self.inputs[:, count:]
        behind = torch.cat([first[:, count:].mT, rest @ rest.mT], dim=1)
        return torch.cat([first, behind], dim=2)

    def take(self, samples: Tensor) -> NoiseModel:
        """Return the same of some samples, given by index."""
        picks, radii, noise = (tuple(part[samples] for part in parts) for parts in (self.picks, self.radii, self.noise))
        front = None if self.front is None else self.front.take(samples)
        return NoiseModel(self.nodes, picks, radii, self.inputs[samples], noise, front)


def noise_model(view: View, sectors: Mapping[int, Sector], start: int, coefficients: Tensor) -> NoiseModel:
    """Return the model of some linear functions of a node.

    Args:
        view: the network; all its activations before the node are elementwise.
        sectors: of each activation node before the start.
        start: the node.
        coefficients: (B, S, *shape of the node).
    """
    picks = {index: _unstable(sector) for index, sector in sectors.items()}
    picks = {index: pick for index, pick in picks.items() if pick.shape[1]}
    nodes = tuple(sorted(picks))
    inputs, noises = [], []
    for node in nodes:
        before = {index: pick for index, pick in picks.items() if index < node}
        source = view.nodes[node].inputs[0]
        parts = [
            _send(view, sectors, before, *entries(view, source, rows)[:2])
            for rows in torch.split(picks[node], rows_at_a_time(view, source, _COPIES * len(coefficients)), dim=1)
        ]
        inputs.append(torch.cat([part[0] for part in parts], dim=1))
        noises.append({j: torch.cat([part[1][j] for part in parts], dim=1) for j in before})
    last, last_noise = _send(view, sectors, picks, start, coefficients)
    rows = torch.cat([*inputs, last], dim=1).double()
    behind = [*noises, last_noise]
    noise = tuple(torch.cat([later[node] for later in behind[k + 1 :]], dim=1).double() for k, node in enumerate(nodes))
    radii = tuple(sectors[node].radius.flatten(1).gather(1, picks[node]).double() for node in nodes)
    front = _front(view, nodes[0], picks[nodes[0]]) if nodes else None
    return NoiseModel(nodes, tuple(picks[node] for node in nodes), radii, rows, noise, front)


def _front(view: View, node: int, pick: Tensor) -> Front | None:
    """Return the rows of the first node with unstable neurons, where it reads a convolution of the input."""
    source = view.nodes[node].inputs[0]
    target = view.nodes[source]
    if not isinstance(target.op, Conv) or target.inputs[0] != 0:
        return None
    compiler = Compiler(lambda x: torch.tensor(x, dtype=torch.float64, device=view.device), view.device, FUNCTIONS)
    return Front(LinearMap(target, view.nodes[0].shape, compiler), pick)


def _unstable(sector: Sector) -> Tensor:
    """Return (B, u) entries with r > 0, those of each sample first, u the largest number of them."""
    mask = sector.radius.flatten(1) > 0
    count = int(mask.sum(dim=1).amax()) if mask.numel() else 0
    return mask.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :count]


def _send(
    view: View, sectors: Mapping[int, Sector], picks: Mapping[int, Tensor], start: int, coefficients: Tensor
) -> tuple[Tensor, dict[int, Tensor]]:
    """Return coefficients (B, S, n) on the input, and (B, S, u_j) on the noise of each node of `picks`."""
    shape = coefficients.shape[:2]
    noise = {j: coefficients.new_zeros((*shape, pick.shape[1])) for j, pick in picks.items()}

    def pull(index: int, a: Tensor) -> tuple[list[Tensor | None], Tensor]:
        if index in picks:
            pick = picks[index][:, None].expand(-1, shape[1], -1)
            noise[index] = a.flatten(2).gather(2, pick)
        return [a * sectors[index].middle[:, None]], a.new_zeros(shape)

    found, _ = send_back(view, pull, start, coefficients)
    return found.flatten(2), noise
