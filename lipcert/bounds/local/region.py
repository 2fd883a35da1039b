r"""The region around each sample, and the least value of a linear function on it.

For a linear function c on the ball ||d|| <= eps around x0, min c.(x0 + d) = c.x0 - eps ||c||_*, with the dual norm.

l2 ball and input box together: split c = p + q. On the intersection, p.d >= -eps ||p||_2 (ball) and
q.d >= sum_i min(q_i a_i, q_i b_i) (box a <= d <= b), so

    min c.d >= -eps ||p||_2 + sum_i min(q_i a_i, q_i b_i)        for every split.

The best split comes from the minimiser d = clip(-t c, a, b) with t > 0 such that ||d|| = eps: p = -d / t, which is
c where nothing is clipped. Then q has the sign that holds d_i at its end, or is zero: the bound is

    q.d - eps ||p||  =  c.d + (||d|| - eps) ||d|| / t.

||d(t)|| is concave in t and 0 at 0, so the step t -> t eps / ||d(t)||, from t = eps / ||c|| on, never passes the best
t; nor does the step to where ||d|| = eps if nothing more were clipped, which costs more and leads farther where much is
clipped. Whatever t it stops at, the bound holds. Held fixed, d and ||d|| / t are its derivatives in c and -eps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lipcert.bounds.local.products import products
from lipcert.errors import UsageError
from lipcert.proof.claims import NORMS, Norm

_SPLITS = 6  # steps of t
_SCALED = 2  # steps by scaling; longer ones follow
_CLOSE = 0.995  # of eps, from which a step of t is not worth it: what it gains is of second order


@dataclass(frozen=True, eq=False)
class Ball:
    """The balls ||x - centre|| <= eps, one per sample, intersected with an input box where there is one.

    Attributes:
        centre: (B, *input_shape), finite; samples that were not are zero here and not `valid`.
        eps: (B,) radii in raw input units, positive.
        norm: of the ball.
        box: least and largest value that an input may have, or None for no box.
        valid: (B,) whether the sample is finite and inside the box. Nothing may be certified of others.
    """

    centre: Tensor
    eps: Tensor
    norm: Norm
    box: tuple[float, float] | None
    valid: Tensor

    @staticmethod
    def around(images: Tensor, eps: float | Tensor, norm: Norm = "l2", box: tuple[float, float] | None = None) -> Ball:
        """Return the balls around some images.

        Args:
            images: (B, *input_shape), float32 or float64.
            eps: one radius, or (B,) one for each sample.
            norm: of the ball.
            box: least and largest value of an input.

        Raises:
            UsageError: a radius is not a positive number, the box is empty, or the norm unknown.
        """
        if norm not in NORMS:
            raise UsageError(f"there is no norm '{norm}': one of {', '.join(NORMS)}")
        if box is not None and not box[0] < box[1]:
            raise UsageError(f"the input box [{box[0]}, {box[1]}] is empty")
        radii = torch.as_tensor(eps, dtype=images.dtype, device=images.device).expand(len(images))
        if not bool((torch.isfinite(radii) & (radii > 0)).all()):
            raise UsageError("a radius is a positive finite number")
        flat = images.flatten(1)
        valid = torch.isfinite(flat).all(dim=1)
        if box is not None:
            valid = valid & (flat >= box[0]).all(dim=1) & (flat <= box[1]).all(dim=1)
        keep = valid.reshape(-1, *(1,) * (images.ndim - 1))
        return Ball(torch.where(keep, images, torch.zeros_like(images)), radii, norm, box, valid)

    def __len__(self) -> int:
        return len(self.centre)

    def take(self, rows: Tensor) -> Ball:
        """Return the balls of some samples, given by index or mask."""
        return Ball(self.centre[rows], self.eps[rows], self.norm, self.box, self.valid[rows])

    @cached_property
    def lower(self) -> Tensor:
        """(B, *input_shape) least value of each input."""
        low = self.centre - self._eps_like(self.centre)
        return low if self.box is None else torch.maximum(low, low.new_tensor(self.box[0]))

    @cached_property
    def upper(self) -> Tensor:
        """(B, *input_shape) largest value of each input."""
        high = self.centre + self._eps_like(self.centre)
        return high if self.box is None else torch.minimum(high, high.new_tensor(self.box[1]))

    def _eps_like(self, x: Tensor) -> Tensor:
        return self.eps.reshape(-1, *(1,) * (x.ndim - 1))

    @property
    def is_box(self) -> bool:
        """Whether the region is exactly the box [lower, upper]."""
        return self.norm == "linf"

    def minimiser(self, coefficients: Tensor) -> Tensor:
        """Return (B, S, *input_shape) points of the region where linear functions are small.

        They are the least values' places; for l2 and l1 with a box, places near them.

        Args:
            coefficients: (B, S, *input_shape).
        """
        low, high, x0 = (end[:, None] for end in (self.lower, self.upper, self.centre))
        if self.is_box:
            return torch.where(coefficients > 0, low, high)
        c = coefficients.flatten(2)
        if self.norm == "l1":
            step: Tensor = torch.zeros_like(c).scatter(2, c.abs().argmax(dim=2, keepdim=True), 1.0) * c.sign()
        else:
            step = c / _length(c).clamp(min=torch.finfo(c.dtype).tiny)[..., None]
        step = (self.eps[:, None, None] * step).reshape(coefficients.shape)
        return torch.minimum(torch.maximum(x0 - step, low), high)

    def minimum(self, coefficients: Tensor, seen: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Return (B, S) lower bounds of the least values of linear functions on the region.

        Without a box, and for linf, they are the least values; for l2 with a box, too once the split has converged.

        Args:
            coefficients: (B, S, *input_shape); or (B, S, *window) of functions that only see windows of the input.
            seen: for windows, (B, *input_shape) -> (B, S, *window), what they see; coefficients are 0 outside.
        """

        def product(c: Tensor, x: Tensor) -> Tensor:
            if seen is None:
                return products(c, x)
            within: Tensor = (c * seen(x)).flatten(2).sum(dim=2)
            return within

        if self.is_box and self.box is None:
            return product(coefficients, self.centre) - self.eps[:, None] * _length(coefficients, 1)
        if self.is_box:
            middle, radius = (self.lower + self.upper) / 2, (self.upper - self.lower) / 2
            return product(coefficients, middle) - product(coefficients.abs(), radius)
        at_centre = product(coefficients, self.centre)
        if self.norm == "l1":
            largest: Tensor = coefficients.flatten(2).abs().amax(dim=2)
            return at_centre - self.eps[:, None] * largest
        if self.box is None:
            return at_centre - self.eps[:, None] * _length(coefficients)
        c = coefficients.flatten(2)
        steps = self.lower - self.centre, self.upper - self.centre
        low, high = (step[:, None] if seen is None else seen(step) for step in steps)
        return at_centre + split_minimum(c, low.flatten(2), high.flatten(2), self.eps[:, None])


def _length(c: Tensor, order: int = 2) -> Tensor:
    """Return (B, S) norms of (B, S, *shape)."""
    length: Tensor = torch.linalg.vector_norm(c, ord=order, dim=tuple(range(2, c.ndim)))
    return length


def split_minimum(c: Tensor, low: Tensor, high: Tensor, eps: Tensor) -> Tensor:
    """Return (B, S) lower bounds of min c.d over ||d||_2 <= eps, low <= d <= high.

    Args:
        c: (B, S, n).
        low, high: (B, 1 or S, n), low <= 0 <= high.
        eps: (B, 1), not negative.
    """
    info = torch.finfo(c.dtype)
    with torch.no_grad():
        t = (eps / _length(c).clamp(min=info.tiny)).clamp(info.tiny, info.tiny**-0.5)  # eps may be zero
        for step in range(_SPLITS + 1):
            wanted = c * -t[..., None]
            d = torch.clamp(wanted, low, high)
            size = _length(d)
            short = (size > 0) & (size < _CLOSE * eps)
            if step == _SPLITS or not bool(short.any()):
                break
            farther = t * (eps / torch.where(short, size, 1.0))
            if step >= _SCALED:
                left = torch.where(d == wanted, c, 0.0).square().sum(dim=2)
                room = eps.square() - size.square() + t.square() * left
                farther = torch.maximum(farther, (room / left.clamp(min=info.tiny)).clamp(min=0.0).sqrt())
            t = torch.where(short, farther.clamp(max=info.tiny**-0.5), t)
        near = _length(torch.minimum(-low, high)) <= eps  # a corner of the box may be in reach
    found: Tensor = (c * d).sum(dim=2) + size / t * (size - eps)
    if not bool(near.any()):
        return found
    return torch.where(near, torch.maximum(found, torch.minimum(c * low, c * high).sum(dim=2)), found)
