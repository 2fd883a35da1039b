"""`lower`: the best lower bound found of a global Lipschitz constant.

A search (`lower_search`) looks for points where the Jacobian is large. The number that is reported is a secant,
||f(x + tv) - f(x - tv)|| / ||2 t v||, in float64, with v the direction that the Jacobian at x stretches most: a
secant never exceeds the Lipschitz constant, whether or not f has a kink nearby, and inside a linear region it equals
||J v||. What float64 may have added to it is taken off.

Level: estimate. It is what every upper bound is printed next to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lipcert.bounds.lower_search import Search, ascend
from lipcert.bounds.torch_network import TorchNetwork, compile_network
from lipcert.bounds.torch_precision import full_precision
from lipcert.errors import UsageError
from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.network.normal import normal_form
from lipcert.proof.claims import NORMS, Norm

FINALISTS = 8  # points of the search that are looked at in float64
EXPLICIT = 2**24  # entries up to which Jacobians are formed
POWER_STEPS = 50
NOISE = 1e-13  # what float64 may do to a value, relative to the largest values of the network
STEPS = tuple(10.0**-k for k in range(2, 9))  # lengths of secants, relative to the point

_ORDER: dict[Norm, float] = {"l1": 1.0, "l2": 2.0, "linf": torch.inf}


@dataclass(frozen=True)
class LowerBound:
    """A lower bound of a Lipschitz constant (level estimate).

    Attributes:
        value: length of a secant of the network, reduced by what rounding may have added.
        point: float64, of the network's input shape: the middle of that secant.
    """

    value: float
    point: Float


def lower_bound(
    network: Network,
    norm: Norm = "l2",
    *,
    seconds: float = 5.0,
    points: npt.NDArray[np.floating] | None = None,
    seed: int = 0,
) -> LowerBound:
    """Search for a point where the network stretches differences most.

    Args:
        network: any network that torch can compute.
        norm: ``l1``, ``l2`` or ``linf``, on input and output.
        seconds: time for the search; the float64 part at the end comes on top.
        points: (N, *input_shape) inputs to start from, besides random ones; data helps.
        seed: for the random numbers; results still depend on how fast the machine is.

    Level of the result: estimate.

    Raises:
        UsageError: there is no such norm, or the points do not fit the network.
        UnsupportedError: torch cannot compute an operator.
    """
    if norm not in NORMS:
        raise UsageError(f"there is no norm '{norm}': one of {', '.join(NORMS)}")
    if points is not None and points.shape[1:] != network.input_shape:
        raise UsageError(f"points of shape {points.shape[1:]} do not fit the network's input {network.input_shape}")
    normal = normal_form(network)
    known = None if points is None else torch.from_numpy(np.array(points, dtype=np.float32))
    with full_precision():
        champions = Search(normal, norm, known, seconds, seed).run()
        x, u = (part[:FINALISTS].to(torch.float64) for part in (champions.x, champions.u))
        exact = compile_network(normal, dtype=torch.float64)
        values = _secants(exact, x, _stretched_most(exact, x, u, norm), norm)
    best = int(values.argmax())
    return LowerBound(float(values[best]), x[best].numpy())


def _secants(f: TorchNetwork, x: Tensor, v: Tensor, norm: Norm) -> Tensor:
    """Return the largest secant through each point x (N, *input) in direction v, reduced; at least 0."""
    size = torch.linalg.vector_norm(x.flatten(1), dim=1).clamp(min=1e-3)
    found = torch.zeros(len(x), dtype=torch.float64)
    for step in STEPS:
        way = (step * size).reshape(-1, *(1,) * (x.ndim - 1)) * v
        ahead, behind = f.trace(x + way), f.trace(x - way)
        rise = torch.linalg.vector_norm((ahead[-1] - behind[-1]).flatten(1), _ORDER[norm], dim=1)
        run = torch.linalg.vector_norm(((x + way) - (x - way)).flatten(1), _ORDER[norm], dim=1)
        largest = torch.stack([torch.linalg.vector_norm(h.flatten(1), dim=1) for h in ahead]).amax(dim=0)
        secant = (rise - NOISE * largest) / run
        found = torch.maximum(found, torch.where(torch.isfinite(secant), secant, 0.0))
    return found


def _stretched_most(f: TorchNetwork, x: Tensor, u: Tensor, norm: Norm) -> Tensor:
    """Return v (N, *input) of norm 1 with ||J(x) v|| largest; by the power method from u where J has many rows."""
    outputs = f.network.output_shape
    size = int(np.prod(outputs))
    if size * x.numel() > EXPLICIT:
        for _ in range(POWER_STEPS):
            _, _, u = ascend(f, x, u, norm)
        return _maximiser(_pull(f, x, u), norm)
    rows = torch.eye(size, dtype=torch.float64).reshape(size, *outputs)
    jacobian = torch.stack([_pull(f, x, row.expand(len(x), *outputs)).flatten(1) for row in rows], dim=1)
    right: Tensor
    match norm:
        case "l2":
            right = torch.linalg.svd(jacobian, full_matrices=False).Vh[:, 0]
        case "linf":  # the row with the largest sum of magnitudes
            top = jacobian.abs().sum(dim=2).argmax(dim=1)
            right = _maximiser(jacobian[torch.arange(len(x)), top], norm)
        case "l1":  # the column with the largest one
            right = _maximiser(jacobian.abs().sum(dim=1), norm)
    return right.reshape(x.shape)


def _pull(f: TorchNetwork, x: Tensor, u: Tensor) -> Tensor:
    """Return J(x)' u."""
    x = x.detach().requires_grad_(True)
    y = f(x)
    if not y.requires_grad:  # nowhere does the output depend on x
        return torch.zeros_like(x)
    pulled: Tensor = torch.autograd.grad((y * u).sum(), x)[0]
    return pulled


def _maximiser(w: Tensor, norm: Norm) -> Tensor:
    """Return the v of norm 1 that maximises <w, v>, for each sample."""
    flat = w.flatten(1)
    if norm == "l2":
        flat = torch.nn.functional.normalize(flat, dim=1)
    elif norm == "linf":
        flat = torch.where(flat < 0, -1.0, 1.0).to(flat.dtype)
    else:
        top = flat.abs().argmax(dim=1, keepdim=True)
        flat = torch.zeros_like(flat).scatter(1, top, 1.0)
    return flat.reshape(w.shape)
