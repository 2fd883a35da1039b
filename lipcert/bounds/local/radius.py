"""The largest certified radius of each sample, by bisection of all samples at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lipcert.bounds.local.method import LocalMethod
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.view import View
from lipcert.errors import UsageError
from lipcert.proof.claims import Norm


@dataclass(frozen=True)
class Search:
    """Where radii are searched.

    Attributes:
        low, high: no radius below low is found, and none above high; raw input units.
        rounds: of bisection, at least 0.
        norm, box: of the balls, as in `Ball.around`.
    """

    low: float
    high: float
    rounds: int = 10
    norm: Norm = "l2"
    box: tuple[float, float] | None = None


def certified_radius(method: LocalMethod, view: View, images: Tensor, labels: Tensor, search: Search) -> Tensor:
    """Return (B,) radii at which every margin is proved positive. Level: that of the method.

    Both ends are tried first; then each sample's interval is halved in every round, in the geometric mean while its
    lower end is positive. Whatever the search does, a radius is returned only where the method proved it. A smaller
    ball lies inside a larger one, so the proof covers every smaller radius too, whether or not the method would find
    one there.

    Args:
        method: what certifies; it serves the network.
        view: the network.
        images: (B, *input_shape), of the view's device and dtype.
        labels: (B,) int64.
        search: see there.

    Returns:
        Radii in raw input units; 0 where nothing is proved at low, for samples that are not valid too.

    Raises:
        UsageError: the range is empty or not positive, or the method does not serve the network.
    """
    if not 0.0 < search.low < search.high:
        raise UsageError(f"the radii from {search.low:g} to {search.high:g} are no range to search: 0 < low < high")
    obstacle = method.refuses(view, search.norm)
    if obstacle is not None:
        raise UsageError(f"the method '{method.name}' cannot be used here: {obstacle}")
    proved = images.new_zeros(len(images))
    failed = torch.full_like(proved, torch.inf)
    for step in range(search.rounds + 2):
        ends = (search.low, search.high)
        radii = torch.full_like(proved, ends[step]) if step < len(ends) else (proved * failed).sqrt()
        rows = ((radii > proved) & (radii < failed)).nonzero()[:, 0]
        if not len(rows):
            continue
        ball = Ball.around(images[rows], radii[rows], search.norm, search.box)
        positive = (method.margins(view, ball, labels[rows]) > 0).all(dim=1)
        proved[rows[positive]] = radii[rows[positive]]
        failed[rows[~positive]] = radii[rows[~positive]]
    return proved
