"""A population of inputs that climbs towards a large Jacobian norm.

The norm from p to p is max <u, J v> over ||v||_p <= 1, ||u||_q <= 1, with 1/p + 1/q = 1. Each individual keeps a
point x and an output direction u with ||u||_q <= 1; its score ||J(x)' u||_q never exceeds the norm at x. Three moves:

* power step (Higham 1992, for p = 2 the power iteration): v = the maximiser of <J'u, v>, u = the maximiser of <u, Jv>;
* climb: follow the gradient of the score of a smoothed network (`lower_smooth`), with random temperatures;
* flip: move x just across the kink of one neuron, along that neuron's gradient.

A move is kept where the score of the true network rises. Scores are float32, so proposals only.
Source of the power method: Higham, Estimating the matrix p-norm, Numer. Math. 62 (1992).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from lipcert.bounds.lower_smooth import Smoother
from lipcert.bounds.torch_network import TorchNetwork, compile_network
from lipcert.network.graph import Network
from lipcert.network.operators import Elementwise
from lipcert.proof.claims import Norm

CONJUGATE: dict[Norm, float] = {"l1": torch.inf, "l2": 2.0, "linf": 1.0}
CLIMB, FLIPS = 20, 8  # steps of each kind in one generation
SMALLEST, LARGEST = 4, 256  # individuals of a population
PATIENCE = 6  # generations without progress before a fresh start
CROWD = 16  # random points looked at for each individual of a fresh population


def ascend(f: TorchNetwork, x: Tensor, u: Tensor, norm: Norm) -> tuple[Tensor, Tensor, Tensor]:
    """Return (score, its gradient in x, the next u) of a batch.

    x: (N, *input). u: (N, *output) in the unit ball of the conjugate norm. The score is ||J(x)' u||_q.
    """
    x, u = x.detach().requires_grad_(True), u.detach().requires_grad_(True)
    (pulled,) = torch.autograd.grad((f(x) * u).sum(), x, create_graph=True)
    score = torch.linalg.vector_norm(pulled.flatten(1), CONJUGATE[norm], dim=1)
    if not score.requires_grad:  # nowhere does the output depend on x
        return score.detach(), torch.zeros_like(x), u.detach()
    uphill, pushed = torch.autograd.grad(score.sum(), (x, u), allow_unused=True)
    uphill = torch.zeros_like(x) if uphill is None else uphill
    pushed = u.detach() if pushed is None else pushed
    return score.detach(), uphill, _dual(pushed, norm)


def _dual(w: Tensor, norm: Norm) -> Tensor:
    """Return the u in the unit ball of the conjugate norm that maximises <u, w>, for each sample."""
    flat = w.flatten(1)
    if norm == "l2":
        flat = functional.normalize(flat, dim=1)
    elif norm == "l1":
        flat = torch.where(flat < 0, -1.0, 1.0).to(flat.dtype)
    else:
        top = flat.abs().argmax(dim=1, keepdim=True)
        flat = torch.zeros_like(flat).scatter(1, top, torch.where(flat.gather(1, top) < 0, -1.0, 1.0).to(flat.dtype))
    return flat.reshape(w.shape)


def _unit(x: Tensor) -> Tensor:
    return functional.normalize(x.flatten(1), dim=1).reshape(x.shape)


@dataclass
class Population:
    """Points x (N, *input), output directions u (N, *output) and scores (N,)."""

    x: Tensor
    u: Tensor
    score: Tensor

    def take(self, rows: Tensor) -> Population:
        """Return some individuals."""
        return Population(self.x[rows], self.u[rows], self.score[rows])

    def improve(self, other: Population) -> None:
        """Replace each individual by its counterpart where that scores higher."""
        better = other.score > self.score * (1.0 + 1e-6)
        for own, new in ((self.x, other.x), (self.u, other.u), (self.score, other.score)):
            own[better] = new[better]

    def crowd_out(self) -> None:
        """Let copies of the best eighth replace the worst eighth."""
        order, share = self.score.argsort(descending=True), len(self.score) // 8
        if share:
            best = self.take(order[:share])
            self.x[order[-share:]], self.u[order[-share:]], self.score[order[-share:]] = best.x, best.u, best.score


def _join(parts: list[Population]) -> Population:
    return Population(*(torch.cat([getattr(part, name) for part in parts]) for name in ("x", "u", "score")))


class Search:
    """The search on one network.

    Args of the constructor:
        network: a normal form. norm: on input and output. points: (M, *input) float32 known inputs, or None.
        seconds: time for the search. seed: for all random numbers.
    """

    def __init__(self, network: Network, norm: Norm, points: Tensor | None, seconds: float, seed: int) -> None:
        self.network, self.norm, self.points = network, norm, points
        self.deadline = time.perf_counter() + seconds
        self._random = torch.Generator().manual_seed(seed)
        self._smoother = Smoother()
        self._true = compile_network(network)
        self._smooth = compile_network(network, functions=self._smoother.functions())
        self._neurons = [node.inputs[0] for node in network.nodes if isinstance(node.op, Elementwise)]
        self._size = self._affordable(seconds)

    def run(self) -> Population:
        """Return the best individual of every fresh start, at least one, best first."""
        champions: list[Population] = []
        while not champions or not self._over():
            people = self._fresh()
            self._evolve(people)
            champions.append(people.take(people.score.topk(1).indices))
        everyone = _join(champions)
        return everyone.take(everyone.score.argsort(descending=True))

    def _over(self) -> bool:
        return time.perf_counter() >= self.deadline

    def _affordable(self, seconds: float) -> int:
        """Return how many individuals make a generation last at most a fifth of the time."""
        size = SMALLEST
        while size < LARGEST:
            start = time.perf_counter()
            self._scored(self._noise(2 * size, self.network.input_shape), self._directions(2 * size), 1)
            if (time.perf_counter() - start) * (2 * CLIMB + 3 * FLIPS) > seconds / 5:
                break
            size *= 2
        return size

    def _noise(self, count: int, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(count, *shape, generator=self._random)

    def _uniform(self, count: int, rank: int = 0) -> Tensor:
        return torch.rand(count, *(1,) * rank, generator=self._random)

    def _directions(self, count: int) -> Tensor:
        return _dual(self._noise(count, self.network.output_shape), self.norm)

    def _scored(self, x: Tensor, u: Tensor, steps: int) -> Population:
        """Return the points after some power steps; a score that is not a number counts as -1."""
        score, after = torch.zeros(len(x)), u
        for _ in range(steps):
            u = after
            score, _, after = ascend(self._true, x, u, self.norm)
        return Population(x, u, torch.where(torch.isfinite(score), score, -1.0))

    def _fresh(self) -> Population:
        """Return half the best and half any of many random points, of sizes from 0.01 to 100, and known ones."""
        shape = self.network.input_shape
        scale = 10.0 ** (4.0 * self._uniform(self._size * CROWD, len(shape)) - 2.0)
        parts = []
        crowd = self._noise(self._size * CROWD, shape) * scale
        if self.points is not None and len(self.points):
            rows = torch.randperm(len(self.points), generator=self._random)[: len(crowd) // 2]
            crowd[: len(rows)] = self.points[rows]
        for x in torch.split(crowd, self._size):
            parts.append(self._scored(x, self._directions(len(x)), 3))
            if self._over():
                break
        everyone, half = _join(parts), self._size // 2
        anyone = torch.randperm(len(everyone.x), generator=self._random)[: self._size - half]
        return everyone.take(torch.cat([everyone.score.topk(half).indices, anyone]))

    def _evolve(self, people: Population) -> None:
        """Improve a population until it stagnates or the time is over."""
        top, idle = -1.0, 0
        while idle < PATIENCE and not self._over():
            self._climb(people)
            self._flip(people)
            people.crowd_out()
            now = float(people.score.max())
            idle = 0 if now > top * (1.0 + 1e-3) else idle + 1
            top = max(top, now)

    def _climb(self, people: Population) -> None:
        rank = people.x.ndim - 1
        temperature = 10.0 ** (-2.5 * self._uniform(len(people.x)))
        pace = 0.3 * 10.0 ** (-2.0 * self._uniform(len(people.x), rank))
        x, u, momentum = people.x, people.u, torch.zeros_like(people.x)
        x = x + pace * _length(x) * _unit(self._noise(len(x), self.network.input_shape))
        for step in range(CLIMB):
            rest = 1.0 - step / CLIMB
            self._smoother.temperature = temperature * rest
            _, uphill, u = ascend(self._smooth, x, u, self.norm)
            momentum = 0.7 * momentum + 0.3 * _unit(uphill)
            x = x + pace * rest * _length(x) * _unit(momentum)
            if step % 5 == 4:
                people.improve(self._scored(x, u, 2))
                if self._over():
                    return

    def _flip(self, people: Population) -> None:
        rank = people.x.ndim - 1
        for _ in range(FLIPS if self._neurons else 0):
            x = people.x.detach().requires_grad_(True)
            pick = int(torch.randint(len(self._neurons), (), generator=self._random))
            z = next(value for index, value in self._true.walk(x) if index == self._neurons[pick]).flatten(1)
            if not z.requires_grad:
                continue
            chance = torch.rand(z.shape, generator=self._random)
            near = -2.0 * float(self._uniform(1)) * (z.detach().abs() + 1e-30).log()
            chosen = z.gather(1, (near - (-chance.log()).log()).argmax(dim=1, keepdim=True))[:, 0]
            (slope,) = torch.autograd.grad(chosen.sum(), x)
            overshoot = 1.0 + 10.0 ** (3.0 * self._uniform(len(x)) - 2.0)
            length = -chosen.detach() * overshoot / slope.flatten(1).square().sum(dim=1).clamp(min=1e-30)
            moved = (x + length.reshape(-1, *(1,) * rank) * slope).detach()
            people.improve(self._scored(moved, people.u, 2))
            if self._over():
                return


def _length(x: Tensor) -> Tensor:
    """Return the l2 norm of each sample, shaped to scale it."""
    size: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1) + math.sqrt(x[0].numel()) * 1e-6
    return size.reshape(-1, *(1,) * (x.ndim - 1))
