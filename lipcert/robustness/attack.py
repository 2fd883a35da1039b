"""Projected gradient attacks: the empirical side.

Steps of bounded length in the dual direction of the gradient of the worst margin, projected onto the ball around the
sample and clipped to the input box (Madry et al. 2018, with the margin loss of Carlini & Wagner 2017). Claims without
an input box are about the whole ball: then tries that may leave the box come after all others. An attack counts only
when a plain forward pass of the network on that input alone, on the CPU, misclassifies (or ties), and the distance,
computed in float64 and rounded up, is at most eps. What it finds says nothing about what it does not find: level
estimate.

A random start depends on the seed, the sample's position in the data and the try, so that neither the order of the
samples nor what shares a batch with them matters. Where the worst margin came so close to zero that the rounding of
another batch size could turn it, the try is made again on the sample alone.
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
CLOSE = 1e-3  # of the margin at the sample: tries that end this near to zero are made again, alone

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
    restarts: int = 3
    stride: float = 0.5
    seed: int = 0


class Attacker:
    """Runs attacks on one network.

    Args of the constructor:
        network: as deployed. settings: of the attack. norm: of the ball. box: least and largest input value.
        beyond: whether `restarts` more tries may leave the box.
        device: where torch computes.
        rank: of the rival that the label has to stay above, see `Margins`.
    """

    def __init__(
        self,
        network: Network,
        settings: Attack,
        norm: Norm,
        box: tuple[float, float],
        device: str = "cpu",
        rank: int = 1,
        beyond: bool = False,
    ) -> None:
        self.settings, self.norm, self.box, self.rank, self.beyond = settings, norm, box, rank, beyond
        self._network: TorchNetwork = compile_network(network, device, torch.float32)
        self._plain = self._network if device == "cpu" else compile_network(network, "cpu", torch.float32)

    @property
    def device(self) -> torch.device:
        """Where torch computes."""
        return self._network.device

    def run(
        self,
        images: Images,
        labels: Labels,
        eps: float,
        *,
        index: Labels | None = None,
        attempts: range | None = None,
    ) -> tuple[Flags, Images]:
        """Attack samples (N, ...) with their labels.

        Args:
            images, labels: the samples.
            eps: radius of the balls.
            index: (N,) positions in the data, for the random starts; those in the batch where None.
            attempts: which of the tries are made; all where None. The first `restarts` keep to the box.

        Returns:
            Which were broken, and the adversarial inputs (N, ...); rows of samples that held are the samples.
        """
        index = np.arange(len(images)) if index is None else index
        broken, found = np.zeros(len(images), dtype=np.bool_), images.copy()
        with full_precision():
            for attempt in range(self.settings.restarts * (1 + self.beyond)) if attempts is None else attempts:
                rows = np.flatnonzero(~broken)
                if not len(rows):
                    break
                won, points = self._settled(images[rows], labels[rows], eps, index[rows], attempt)
                broken[rows[won]] = True
                found[rows[won]] = points[won]
        return broken, found

    def misclassified(self, points: Images, labels: Labels) -> Flags:
        """Return which inputs (N, ...) a plain forward pass on the CPU, one at a time, gets wrong; a tie is wrong."""
        wrong = np.zeros(len(points), dtype=np.bool_)
        with torch.no_grad(), full_precision():
            for row in range(len(points)):
                logits = self._plain(torch.from_numpy(points[row : row + 1])).flatten(1)
                wrong[row] = bool(self._worst(logits, torch.from_numpy(labels[row : row + 1]))[0] >= 0)
        return wrong

    def _settled(self, images: Images, labels: Labels, eps: float, index: Labels, attempt: int) -> tuple[Flags, Images]:
        """Try once on all samples, and once more, alone, on those that were close."""
        won, points, near = self._attempt(images, labels, eps, index, attempt)
        for row in np.flatnonzero(near).tolist() if len(images) > 1 else ():
            one = slice(row, row + 1)
            won[one], points[one], _ = self._attempt(images[one], labels[one], eps, index[one], attempt)
        return won, points

    def _attempt(
        self, images: Images, labels: Labels, eps: float, index: Labels, attempt: int
    ) -> tuple[Flags, Images, Flags]:
        """Try once; keep for each sample the first point that counts, and whether the best was close to zero."""
        centre = torch.from_numpy(images).to(self._network.device)
        own = torch.from_numpy(labels).to(self._network.device)
        outside, again = divmod(attempt, self.settings.restarts)
        box = (-torch.inf, torch.inf) if outside else self.box
        aim = self._rivals(centre, own, again) if again and self.rank == 1 else None
        x = self._scatter(centre, eps, index, attempt, box) if again else centre.clone()
        won, points = np.zeros(len(images), dtype=np.bool_), images.copy()
        best = torch.full((len(images),), -torch.inf, device=centre.device)
        start = torch.zeros_like(best)
        active = torch.arange(len(images), device=centre.device)
        for step in range(self.settings.steps + 1):
            values, uphill = self._gradient(x, own[active], None if aim is None else aim[active])
            start = start if step else values.abs()
            best[active] = torch.fmax(best[active], values)
            hit = self._counts(values, x, images, labels, active, eps)
            rows = active[hit].cpu().numpy()
            won[rows], points[rows] = True, x[hit].cpu().numpy()
            active, x, uphill = active[~hit], x[~hit], uphill[~hit]
            if step == self.settings.steps or not len(active):
                break
            length = eps * self.settings.stride * (1.0 - 0.9 * step / self.settings.steps)
            x = self._project(x + length * steepest(uphill, self.norm), centre[active], eps, box)
        return won, points, (best.abs() <= CLOSE * start).cpu().numpy()

    def _counts(self, values: Tensor, x: Tensor, images: Images, labels: Labels, active: Tensor, eps: float) -> Tensor:
        """Return which points are misclassified (or tie), alone too, and certainly inside the ball."""
        hit = values >= 0
        rows = torch.nonzero(hit)[:, 0]
        if len(rows):
            points, own = x[rows].cpu().numpy(), active[rows].cpu().numpy()
            sure = within(points, images[own], self.norm, eps) & self.misclassified(points, labels[own])
            hit[rows] = torch.from_numpy(sure).to(hit.device)
        return hit

    def _worst(self, logits: Tensor, own: Tensor) -> Tensor:
        """Return (N,) the worst margin z_j - z_y: that of the rank-th best rival."""
        others = logits.scatter(1, own[:, None], -torch.inf)
        top = others.amax(dim=1) if self.rank == 1 else others.topk(self.rank, dim=1).values[:, -1]
        return top - logits.gather(1, own[:, None])[:, 0]

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
        worst = self._worst(logits, own)
        climbed = worst if aim is None else (logits.gather(1, aim[:, None]) - logits.gather(1, own[:, None]))[:, 0]
        if not climbed.requires_grad:
            return worst, torch.zeros_like(x)
        (slope,) = torch.autograd.grad(climbed.sum(), x)
        return worst.detach(), torch.nan_to_num(slope)

    def _scatter(self, centre: Tensor, eps: float, index: Labels, attempt: int, box: tuple[float, float]) -> Tensor:
        """Return a random point of each ball."""
        shape = tuple(centre.shape[1:])
        draws = [np.random.default_rng((self.settings.seed, int(i), attempt)) for i in index]
        noise = torch.from_numpy(np.stack([draw.standard_normal(shape, dtype=np.float32) for draw in draws]))
        share = torch.tensor([draw.random() for draw in draws], dtype=torch.float32)
        noise, share = noise.to(centre.device), share.to(centre.device)
        away = steepest(noise, self.norm) if self.norm != "linf" else noise.clamp(-1.0, 1.0)
        return self._project(centre + eps * share.reshape(-1, *(1,) * (centre.ndim - 1)) * away, centre, eps, box)

    def _project(self, x: Tensor, centre: Tensor, eps: float, box: tuple[float, float]) -> Tensor:
        """Return the nearest points of the ball, then of the box; the second step moves towards the centre."""
        return (centre + project(x - centre, self.norm, eps * _SHRINK)).clamp(*box)


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
