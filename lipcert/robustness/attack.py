r"""Projected gradient descent: inputs inside the ball that are classified otherwise.

An attack proves nothing when it fails; when it succeeds, it shows that a sample is not robust. Success is claimed
only for an input that a plain forward pass of the deployed arithmetic classifies otherwise (a tie counts), and whose
distance from the original, computed in float64 and rounded up, is at most eps.

Steps: gradient of the margin loss (largest rival logit minus the true one), normalised in the ball's norm (l2: unit
length, linf: sign, l1: the largest coordinates), step size 2.5 eps / steps, projection onto ball and box, random
restarts. Source: Madry et al. 2018; l1 projection: Duchi et al. 2008.

Cost: steps * restarts forward and backward passes of the samples that are still unbroken.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lipcert.bounds.torch_network import TorchNetwork
from lipcert.proof.claims import Norm

SHRINK = 1.0 - 2.0**-20  # the ball that is searched is a little smaller, so that rounding stays inside the true one


@dataclass(frozen=True)
class AttackPlan:
    """How hard to try.

    Attributes:
        steps: gradient steps per restart. restarts: random starts (the first starts at the sample itself).
        low, high: box of valid inputs, in raw input units.
        seed: of the random starts.
    """

    steps: int = 40
    restarts: int = 2
    low: float = 0.0
    high: float = 1.0
    seed: int = 0


def attack(
    network: TorchNetwork, x: Tensor, labels: Tensor, eps: float, norm: Norm, plan: AttackPlan
) -> tuple[Tensor, Tensor]:
    """Attack a batch.

    Args:
        network: the deployed arithmetic.
        x: (N, *input_shape), dtype and device of the network. labels: (N,) int64.
        eps: radius, raw input units, positive. norm: of the ball.
        plan: effort, box and seed.

    Returns:
        (broken, inputs): (N,) bool, and (N, *input_shape) with the adversarial input where broken, else x.
    """
    broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    found = x.clone()
    generator = torch.Generator(device=x.device).manual_seed(plan.seed)
    for restart in range(plan.restarts):
        left = (~broken).nonzero().squeeze(1)
        if not len(left):
            break
        start = x[left]
        if restart:
            noise = torch.randn(start.shape, generator=generator, device=x.device, dtype=x.dtype)
            start = start + _direction(noise, norm) * eps
        hit, inputs = _descend(network, x[left], start, labels[left], eps, norm, plan)
        broken[left[hit]] = True
        found[left[hit]] = inputs[hit]
    return broken, found


def _descend(
    network: TorchNetwork, x: Tensor, start: Tensor, labels: Tensor, eps: float, norm: Norm, plan: AttackPlan
) -> tuple[Tensor, Tensor]:
    step = 2.5 * eps / plan.steps
    current = _project(start, x, eps, norm, plan)
    hit = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    best = x.clone()
    for turn in range(plan.steps + 1):
        variable = current.detach().requires_grad_(True)
        margins = margin(network(variable).reshape(len(x), -1), labels)
        fresh = (margins.detach() <= 0) & ~hit
        fresh &= distance(variable.detach(), x, norm) <= eps
        best[fresh] = variable.detach()[fresh]
        hit |= fresh
        if bool(hit.all()) or turn == plan.steps:
            break
        (gradient,) = torch.autograd.grad(margins.sum(), variable)
        gradient = torch.nan_to_num(gradient)  # a lost gradient can only lose the attack
        current = _project(variable.detach() - step * _direction(gradient, norm), x, eps, norm, plan)
    return hit, best


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the true logit minus the largest rival, (N,); not positive means misclassified or tied."""
    rivals = logits.scatter(1, labels[:, None], -torch.inf)
    return logits.gather(1, labels[:, None]).squeeze(1) - rivals.max(dim=1).values


def distance(a: Tensor, b: Tensor, norm: Norm) -> Tensor:
    """Return upper bounds of the distances between the float inputs, (N,) float64.

    The differences of float32 numbers are exact in float64 (or rounded by u), sums of n terms by gamma_n: a factor
    1 + (n + 4) 2^-52 covers all of it.
    """
    difference = (a.double() - b.double()).reshape(len(a), -1)
    room = 1.0 + (difference.shape[1] + 4) * 2.0**-52
    return torch.linalg.vector_norm(difference, ord={"l1": 1, "l2": 2, "linf": torch.inf}[norm], dim=1) * room


def _direction(vector: Tensor, norm: Norm) -> Tensor:
    """Return the steepest unit step of the ball's norm along a batch of vectors."""
    flat = vector.reshape(len(vector), -1)
    if norm == "linf":
        unit = flat.sign()
    elif norm == "l2":
        length = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
        unit = torch.where(length > 0, flat / length, flat)
    else:
        count = max(1, flat.shape[1] // 20)
        size = flat.abs()
        kept = size >= size.topk(count, dim=1).values[:, -1:]
        unit = flat.sign() * kept / kept.sum(dim=1, keepdim=True)
    return unit.reshape(vector.shape)


def _project(point: Tensor, centre: Tensor, eps: float, norm: Norm, plan: AttackPlan) -> Tensor:
    """Project onto the box and the (slightly smaller) ball; the box is widened to hold the sample itself."""
    low = torch.minimum(centre, torch.full_like(centre, plan.low))
    high = torch.maximum(centre, torch.full_like(centre, plan.high))
    boxed = torch.maximum(torch.minimum(point, high), low)
    moved = _into_ball((boxed - centre).reshape(len(point), -1), eps * SHRINK, norm).reshape(point.shape)
    return torch.maximum(torch.minimum(centre + moved, high), low)


def _into_ball(flat: Tensor, eps: float, norm: Norm) -> Tensor:
    if norm == "linf":
        return flat.clamp(-eps, eps)
    if norm == "l2":
        length = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
        return torch.where(length > eps, flat * (eps / length), flat)
    size, _ = flat.abs().sort(dim=1, descending=True)
    totals = size.cumsum(dim=1) - eps
    counts = torch.arange(1, flat.shape[1] + 1, device=flat.device, dtype=flat.dtype)
    active = (size - totals / counts > 0).sum(dim=1, keepdim=True).clamp(min=1)
    threshold = (totals.gather(1, active - 1) / active).clamp(min=0)
    shrunk = flat.sign() * (flat.abs() - threshold).clamp(min=0)
    return torch.where(flat.abs().sum(dim=1, keepdim=True) > eps, shrunk, flat)
