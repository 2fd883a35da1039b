"""What methods need on a network, estimated from shapes alone: for planning, never for a proof.

The constants were measured on one core (2.5 GHz, float64) and are good to a factor of two or three.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

from lipcert.network.graph import Network
from lipcert.network.operators import Elementwise

GIB = 2**30
MOST_BYTES = 8 * GIB  # nothing above it is started
CUBE = 5e-10  # seconds per n^3 of a group: eigenvalues, products, and the proof
FLOPS = 2.5e10  # per second, in products and factorisations of matrices of some hundred rows and more
GPU_FLOPS = 1e13  # the same on a GPU with float64 units, a sixth of what one of 67 teraflops promises
HESSIANS, GRADIENTS = 20, 250  # until the gap is small, start included; the latter also for some 600 factorisations
ENTRY = 80  # bytes per entry of the inequality: rows, blocks, scaled and shifted copies, factors
SOLVER_ENTRY = 24  # of them held by the solver: rows, in its units and in those of the network
CHANNEL_START = 5.0  # seconds: the embedding, and the proof at all frequencies
CHANNEL_CUBE = 2e-5  # seconds per N^2 w for N channels in layers of at most w, over all frequencies and iterations
CHANNEL_ENTRY = 400  # bytes per entry of N x N: a stack of some two dozen complex inverses
GPU_NEURONS = 2000  # hidden neurons from which on a GPU is worth the transfers


@dataclass(frozen=True)
class Effort:
    """Seconds on one core and bytes at the peak."""

    seconds: float
    bytes: float


Estimate = Callable[[Network], Effort]


def nothing(network: Network) -> Effort:
    """Return no effort: for methods whose cost is that of the product, which is always run."""
    return Effort(0.0, 0.0)


def layerwise(network: Network) -> Effort:
    """Return the effort of a closed form layer by layer and of its proof by the multiplier rule."""
    widths = narrowed_widths(network)
    entries = sum(n * n for n in widths) + sum(n * m for n, m in pairwise(widths))
    bytes_ = ENTRY * entries * (1.0 if network.is_exact else 1.5)
    return Effort(CUBE * sum(float(n) ** 3 for n in widths), bytes_)


def joint(network: Network) -> Effort:
    """Return the effort of the interior-point method for all multipliers at once, its start and the proof included.

    Its matrices are block tridiagonal over the groups, of n_0, n_1, ... rows, N of them neurons, n all. With the sum s
    of n_k n_{k-1}, a Hessian with its factor takes 4 n s + N^3 / 3 flops; a gradient (factorisation, and the band of
    the inverse) the sum of n_k^3 + 3.5 n_k n_{k-1} (n_k + n_{k-1}).
    """
    start, begun, widths = layerwise(network), joint_begun(network), narrowed_widths(network)
    neurons, links = float(sum(widths[1:])), [float(a) * b for a, b in pairwise(widths)]
    hessian = 4.0 * (neurons + widths[0]) * sum(links) + neurons**3 / 3.0
    gradient = sum(float(n) ** 3 for n in widths)
    gradient += 3.5 * sum(link * (a + b) for link, (a, b) in zip(links, pairwise(widths), strict=True))
    device = solver_device(network)
    held = joint_bytes(network) if device == "cpu" else 0.0
    rows = SOLVER_ENTRY / ENTRY * start.bytes  # start and proof come before and after it
    seconds = (HESSIANS * hessian + GRADIENTS * gradient) / (FLOPS if device == "cpu" else GPU_FLOPS)
    return Effort(begun.seconds + seconds, max(start.bytes, rows + held))


def joint_begun(network: Network) -> Effort:
    """Return the effort of `lipsdp` until multipliers found layer by layer are there and proved.

    Its bound is useful from then on: where the method above does not end in time, or needs too much memory, gradients
    alone improve these, with no matrix larger than those of the rule.
    """
    start = layerwise(network)
    return Effort(2.0 * start.seconds, start.bytes)


def joint_bytes(network: Network) -> float:
    """Return what a solver for all multipliers holds on its device.

    With N neurons and n_0 inputs, of which at most those of the rows that read them are left: V of order n = N + n_0,
    V R' of n x N, the Schur matrix with its factor and blocks of its forms, 3 N^2.
    """
    neurons = float(network.hidden_neurons)
    order = neurons + min(float(network.nodes[0].size), neurons)
    return 8.0 * (order**2 + order * neurons + 3.0 * neurons**2)


def solver_device(network: Network) -> str:
    """Return the torch device for a solver of all multipliers: a GPU where one is there, worth it and large enough."""
    import torch

    if network.hidden_neurons < GPU_NEURONS or not torch.cuda.is_available():
        return "cpu"
    free, _ = torch.cuda.mem_get_info()
    return "cuda" if joint_bytes(network) < 0.8 * free else "cpu"


def per_channel(network: Network) -> Effort:
    """Return the effort of a solver for one multiplier per channel, over some dozen frequencies."""
    sizes = [node.shape[0] for node in network.nodes if isinstance(node.op, Elementwise)]
    channels, widest = float(sum(sizes)), max(sizes, default=0)
    return Effort(CHANNEL_START + CHANNEL_CUBE * channels**2 * widest, CHANNEL_ENTRY * channels**2)


BEGUN: Mapping[str, Estimate] = MappingProxyType({"lipsdp": joint_begun})
"""What an anytime method needs at least."""
ESTIMATES: Mapping[str, Estimate] = MappingProxyType(
    {
        "product": nothing,
        "gershgorin": layerwise,
        "eclipse-fast": layerwise,
        "eclipse": layerwise,
        "lipsdp": joint,
        "lipsdp-conv": per_channel,
    }
)
"""By method."""


def beyond_memory(method: str, network: Network) -> str | None:
    """Return why a method that serves a normal form is not started on it: it would not fit into `MOST_BYTES`."""
    if method not in ESTIMATES:
        return None
    need = BEGUN.get(method, ESTIMATES[method])(network).bytes
    if need <= MOST_BYTES:
        return None
    return f"it would need about {need / GIB:.0f} GiB ({MOST_BYTES / GIB:.0f} at most); 'compositional' cuts first"


def group_widths(network: Network) -> tuple[int, ...]:
    """Return the sizes of the groups in which `proof.inequality` arranges the rule's matrix.

    network: a normal form whose activations are elementwise; those with fixed slopes are not set apart.
    """
    reads: list[frozenset[int]] = [frozenset({0})]  # the blocks that each node's row reads
    sizes = [network.nodes[0].size]
    beside: list[set[int]] = [set()]  # the blocks that share a non-zero part of the matrix with each block
    for node in network.nodes[1:]:
        blocks = frozenset[int]().union(*(reads[i] for i in node.inputs))
        if isinstance(node.op, Elementwise):
            blocks |= {len(sizes)}
            beside.append(set())
            _connect(beside, blocks)
            blocks = frozenset({len(sizes)})
            sizes.append(node.size)
        reads.append(blocks)
    _connect(beside, reads[-1])
    return tuple(sum(sizes[b] for b in level) for level in _levels(beside))


def narrowed_widths(network: Network) -> tuple[int, ...]:
    """Return the same with no more inputs than rows that read them (`proof.narrow`), where the next group has them all.

    The output counts as a row: a network without activations is its output alone.
    """
    inputs, *others = group_widths(network)
    return (min(inputs, others[0] if others else network.nodes[-1].size), *others)


def _connect(beside: list[set[int]], blocks: frozenset[int]) -> None:
    for block in blocks:
        beside[block] |= blocks


def _levels(beside: list[set[int]]) -> Iterator[set[int]]:
    """Yield the blocks of equal distance from the input."""
    level, seen = {0}, {0}
    while level:
        yield level
        level = set[int]().union(*(beside[b] for b in level)) - seen
        seen |= level
