"""Projected gradient attacks: the empirical side.

Steps of bounded length in the dual direction of the gradient of the worst margin, projected onto the ball around the
sample and clipped to the input box (Madry et al. 2018, with the margin loss of Carlini & Wagner 2017). An attack
counts only when a plain forward pass of the network misclassifies (or ties) and the distance, computed in float64 and
rounded up, is at most eps. What it finds says nothing about what it does not find: level estimate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from lipcert.bounds.torch_network import TorchNetwork, compile_network
from lipcert.bounds.torch_precision import full_precision
from lipcert.network.enclosure import Float, gamma, round_up
from lipcert.network.graph import Network
from lipcert.proof.claims import Norm

_SHRINK = 1.0 - 1e-6  # keeps float32 points inside the ball after rounding

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Attack:
    """Settings of the attack.

    Attributes:
        steps: gradient steps of each try.
        restarts: tries; the first starts at the sample and follows the worst margin, each later one starts anywhere
            in the ball and aims at one rival: the second best, the third best, ...
        stride: length of the first step, in eps; steps shrink linearly to a tenth of it.
        seed: for the random starts.
    """

    steps: int = 20
    restarts: int = 1
    stride: float = 0.5
    seed: int = 0


class Attacker:
    """Runs attacks on one network.

    Args of the constructor:
        network: as deployed. settings: of the attack. norm: of the ball. box: least and largest input value.
        device: where torch computes.
    """

    def __init__(
        self, network: Network, settings: Attack, norm: Norm, box: tuple[float, float], device: str = "cpu"
    ) -> None:
        self.settings, self.norm, self.box = settings, norm, box
        self._network: TorchNetwork = compile_network(network, device, torch.float32)
        self._random = torch.Generator().manual_seed(settings.seed)

    def run(self, images: Images, labels: Labels, eps: float) -> tuple[Flags, Images]:
        """Attack samples (N, ...) with their labels.

        Returns:
            Which were broken, and the adversarial inputs (N, ...); rows of samples that held are the samples.
        """
        broken, found = np.zeros(len(images), dtype=np.bool_), images.copy()
        with full_precision():
            for attempt in range(self.settings.restarts):
                rows = np.flatnonzero(~broken)
                if not len(rows):
                    break
                won, points = self._attempt(images[rows], labels[rows], eps, attempt)
                broken[rows[won]] = True
                found[rows[won]] = points[won]
        return broken, found

    def _attempt(self, images: Images, labels: Labels, eps: float, attempt: int) -> tuple[Flags, Images]:
        """Try once; keep for each sample the first point that counts."""
        centre = torch.from_numpy(images).to(self._network.device)
        own = torch.from_numpy(labels).to(self._network.device)
        aim = self._rivals(centre, own, attempt) if attempt else None
        x = self._scatter(centre, eps) if attempt else centre.clone()
        won, points = np.zeros(len(images), dtype=np.bool_), images.copy()
        active = torch.arange(len(images), device=centre.device)
        for step in range(self.settings.steps + 1):
            values, uphill = self._gradient(x, own[active], None if aim is None else aim[active])
            hit = self._counts(values, x, images, active, eps)
            rows = active[hit].cpu().numpy()
            won[rows], points[rows] = True, x[hit].cpu().numpy()
            active, x, uphill = active[~hit], x[~hit], uphill[~hit]
            if step == self.settings.steps or not len(active):
                break
            length = eps * self.settings.stride * (1.0 - 0.9 * step / self.settings.steps)
            x = self._project(x + length * steepest(uphill, self.norm), centre[active], eps)
        return won, points

    def _counts(self, values: Tensor, x: Tensor, images: Images, active: Tensor, eps: float) -> Tensor:
        """Return which points are misclassified (or tie) and certainly inside the ball."""
        hit = values >= 0
        for row in torch.nonzero(hit)[:, 0].tolist():
            centre = images[int(active[row])]
            hit[row] = bool(within(x[row : row + 1].cpu().numpy(), centre[None], self.norm, eps)[0])
        return hit

    def _rivals(self, centre: Tensor, own: Tensor, rank: int) -> Tensor:
        """Return for each sample the rival whose logit has a rank among the rivals, 0 being the largest."""
        with torch.no_grad():
            logits = self._network(centre).flatten(1).scatter(1, own[:, None], -torch.inf)
        return logits.argsort(dim=1, descending=True)[:, rank % (logits.shape[1] - 1)]

    def _gradient(self, x: Tensor, own: Tensor, aim: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the worst margin, max over j of z_j - z_y, and a gradient: its own, or that of one rival's margin.

        NaN never counts as a success.
        """
        x = x.detach().requires_grad_(True)
        logits = self._network(x).flatten(1)
        mine = logits.gather(1, own[:, None])[:, 0]
        worst = logits.scatter(1, own[:, None], -torch.inf).amax(dim=1) - mine
        climbed = worst if aim is None else logits.gather(1, aim[:, None])[:, 0] - mine
        if not climbed.requires_grad:
            return worst, torch.zeros_like(x)
        (slope,) = torch.autograd.grad(climbed.sum(), x)
        return worst.detach(), torch.nan_to_num(slope)

    def _scatter(self, centre: Tensor, eps: float) -> Tensor:
        noise = torch.randn(centre.shape, generator=self._random).to(centre.device)
        share = torch.rand(len(centre), generator=self._random).to(centre.device)
        away = steepest(noise, self.norm) if self.norm != "linf" else noise.clamp(-1.0, 1.0)
        return self._project(centre + eps * share.reshape(-1, *(1,) * (centre.ndim - 1)) * away, centre, eps)

    def _project(self, x: Tensor, centre: Tensor, eps: float) -> Tensor:
        """Return the nearest points of the ball, then of the box; the second step moves towards the centre."""
        return (centre + project(x - centre, self.norm, eps * _SHRINK)).clamp(*self.box)


def steepest(slope: Tensor, norm: Norm) -> Tensor:
    """Return the step of norm 1 that rises most along a gradient, for each sample."""
    flat = slope.flatten(1)
    if norm == "linf":
        return slope.sign()
    if norm == "l2":
        return functional.normalize(flat, dim=1, eps=1e-30).reshape(slope.shape)
    # l1: the largest hundredth of the entries share the step, so that the box does not stop it at once
    count = max(1, flat.shape[1] // 100)
    top = flat.abs().topk(count, dim=1).indices
    step = torch.zeros_like(flat).scatter(1, top, flat.gather(1, top).sign() / count)
    return step.reshape(slope.shape)


def project(shift: Tensor, norm: Norm, radius: float) -> Tensor:
    """Return the point of the ball that is nearest (in l2) to each shift.

    l1: the soft threshold t for which the rest sums to the radius (Duchi et al. 2008).
    """
    if norm == "linf":
        return shift.clamp(-radius, radius)
    flat = shift.flatten(1)
    if norm == "l2":
        length: Tensor = torch.linalg.vector_norm(flat, dim=1, keepdim=True).clamp(min=1e-30)
        return (flat * (radius / length).clamp(max=1.0)).reshape(shift.shape)
    size = flat.abs()
    ordered = size.sort(dim=1, descending=True).values
    excess = (ordered.cumsum(dim=1) - radius) / torch.arange(1, flat.shape[1] + 1, device=flat.device)
    last = (ordered > excess).sum(dim=1, keepdim=True).clamp(min=1) - 1
    threshold = excess.gather(1, last).clamp(min=0.0)
    return (flat.sign() * (size - threshold).clamp(min=0.0)).reshape(shift.shape)


def within(points: Images, centres: Images, norm: Norm, eps: float) -> Flags:
    """Return whether ||point - centre|| <= eps for certain: in float64, rounded up."""
    shift = np.abs(points.astype(np.float64) - centres.astype(np.float64)).reshape(len(points), -1)
    return distances(shift, norm) <= eps


def distances(shift: Float, norm: Norm) -> Float:
    """Return upper bounds of the norms of rows of non-negative float64 numbers."""
    grown = 1.0 + 2.0 * gamma(shift.shape[1] + 2)
    match norm:
        case "linf":
            largest: Float = round_up(shift.max(axis=1, initial=0.0), 1)
            return largest
        case "l1":
            return round_up(shift.sum(axis=1) * grown, 2)
        case "l2":
            return round_up(np.sqrt(np.square(shift).sum(axis=1)) * grown + 1e-160 * shift.shape[1], 4)
