r"""Linear functions of an image node that see only a window of it.

A row of a convolution touches a window of its input, not all of it, and stays a window on its way back through
further convolutions and elementwise activations. Kept as windows with places, coefficients take a fraction of the
memory and time of full images. With W the coefficients of output positions p..p + k - 1, a convolution of stride s and
padding a has the adjoint conv_transpose(W, weight) on input positions s p - a .. s p - a + (k - 1) s + kernel - 1.

Entries outside the image are zero at all times. What has no rule here goes on in full (`full`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from lipcert.bounds.local.relaxations import Linear, Relaxation
from lipcert.bounds.local.view import View
from lipcert.bounds.torch_linear import LinearMap, is_plain
from lipcert.bounds.torch_spread import spread
from lipcert.network.graph import Shape
from lipcert.network.operators import Conv, Sum

IN_PARTS = 4  # of this many parts of the image, windows may cover one and still be worth it


@dataclass(frozen=True, eq=False)
class Patches:
    """Linear functions of an image, each zero outside a window.

    Attributes:
        values: (B, k S, C, h, w) coefficients, zero outside the image: k sets of functions with the same S windows.
        top, left: (B, S) where each window starts; may be negative.
        shape: (C, H, W) of the image.
    """

    values: Tensor
    top: Tensor
    left: Tensor
    shape: Shape

    def __neg__(self) -> Patches:
        return Patches(-self.values, self.top, self.left, self.shape)

    def both_signs(self) -> Patches:
        """Return twice as many functions: these, then their negatives."""
        return self._like(torch.cat([self.values, -self.values], dim=1))

    @property
    def _sets(self) -> Tensor:
        """(B, k, S, C, h, w) coefficients."""
        samples, windows = self.top.shape
        return self.values.reshape(samples, -1, windows, *self.values.shape[2:])

    @cached_property
    def _places(self) -> tuple[Tensor, Tensor]:
        """(B, S, h w) positions in a flattened channel, 0 where outside, and whether they are inside."""
        (height, width), (h, w) = self.shape[1:], self.values.shape[3:]
        rows = self.top[..., None] + torch.arange(h, device=self.top.device)
        columns = self.left[..., None] + torch.arange(w, device=self.left.device)
        inside_rows, inside_columns = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
        inside = (inside_rows[..., :, None] & inside_columns[..., None, :]).flatten(2)
        places = (rows[..., :, None] * width + columns[..., None, :]).flatten(2)
        return torch.where(inside, places, 0), inside

    def split(self, size: int) -> list[Patches]:
        """Return parts with at most so many windows per sample, all functions of each together."""
        sets, tops, lefts = (
            torch.split(self._sets, size, dim=2),
            *(torch.split(e, size, 1) for e in (self.top, self.left)),
        )
        return [Patches(v.flatten(1, 2), t, x, self.shape) for v, t, x in zip(sets, tops, lefts, strict=True)]

    def masked(self) -> Patches:
        """Return the same with zeros outside the image."""
        inside = self._places[1].reshape(*self.top.shape, 1, *self.values.shape[3:])
        return self._like((self._sets * inside[:, None]).flatten(1, 2))

    def _like(self, values: Tensor) -> Patches:
        """Return functions with other coefficients in the same windows."""
        return Patches(values, self.top, self.left, self.shape)

    def full(self) -> Tensor:
        """Return (B, k S, C, H, W) coefficients on the whole image."""
        channels, height, width = self.shape
        sets = self._sets.flatten(4)
        index = self._places[0][:, None, :, None].expand_as(sets)
        out = sets.new_zeros((*sets.shape[:3], channels, height * width)).scatter_add(4, index, sets)
        return out.reshape(*self.values.shape[:2], *self.shape)

    def seen(self, image: Tensor) -> Tensor:
        """Return (B, S, C, h, w) what the windows show of images (B, C, H, W); anything where outside."""
        samples = torch.arange(len(image), device=image.device)
        columns = image.flatten(2).transpose(1, 2).contiguous()  # (B, H W, C)
        found = columns[samples[:, None, None], self._places[0]]
        return found.reshape(*self.top.shape, *self.values.shape[3:], self.shape[0]).movedim(4, 2)

    def seen_by_each(self, image: Tensor) -> Tensor:
        """Return (B, k S, C, h, w) what the windows of all functions show; see `seen`."""
        found, sets = self.seen(image).movedim(2, 4), self._sets.shape[1]
        return torch.cat([found] * sets, dim=1).movedim(4, 2)

    def product(self, image: Tensor) -> Tensor:
        """Return (B, k S) the values of the functions at images (B, C, H, W)."""
        return self._sum(self._sets, image)

    def _sum(self, sets: Tensor, image: Tensor) -> Tensor:
        total: Tensor = (sets * self.seen(image)[:, None]).sum(dim=(3, 4, 5))
        return total.flatten(1)

    def plus(self, other: Patches) -> Patches | None:
        """Return the sum of functions of the same image, or None where windows no longer pay."""
        top, left = (torch.minimum(a, b) for a, b in ((self.top, other.top), (self.left, other.left)))
        grown = [_grown(part, top, left) for part in (self, other)]
        if grown[0] is None or grown[1] is None:
            return None
        h, w = (max(g.shape[axis] for g in grown if g is not None) for axis in (3, 4))
        if not _pays((h, w), self.shape):
            return None
        one, two = (functional.pad(g, (0, w - g.shape[4], 0, h - g.shape[3])) for g in grown if g is not None)
        return Patches(one + two, top, left, self.shape)

    def pull_lines(self, relaxation: Linear) -> tuple[Patches, Tensor] | None:
        """Return functions of the inputs below these of the outputs of an activation, and constants (B, k S).

        None where the lines differ between functions: then they are no image of the batch.
        """
        lines, constant, sets = relaxation.lines, self.values.new_zeros(self.values.shape[:2]), self._sets
        if lines.low_slope.shape[1] != 1:
            return None
        under = sets.clamp(max=0.0)
        no_low, no_high = relaxation.without_intercepts
        if not no_low:
            constant = constant + self._sum(sets - under, lines.low_intercept[:, 0])
        if not no_high:
            constant = constant + self._sum(under, lines.high_intercept[:, 0])
        low, rest = (self.seen(s[:, 0])[:, None] for s in (lines.low_slope, lines.high_slope - lines.low_slope))
        return self._like(torch.addcmul(sets * low, under, rest).flatten(1, 2)), constant

    def pull_conv(self, linear: LinearMap) -> tuple[Patches, Tensor] | None:
        """Return functions of the input of a convolution and constants; None where windows no longer pay."""
        op = linear.op
        if not isinstance(op, Conv) or not is_plain(op):
            return None
        sizes = [(n - 1) * s + k for n, s, k in zip(self.values.shape[3:], op.stride, op.weight.shape[2:], strict=True)]
        if not _pays(sizes, linear.source):
            return None
        found = spread(self.values.flatten(0, 1), linear.weight, op.stride, (0, 0), tuple(sizes))
        values = found.reshape(*self.values.shape[:2], *found.shape[1:])
        top, left = (
            start * s - before
            for start, s, (before, _) in zip((self.top, self.left), op.stride, op.padding, strict=True)
        )
        return Patches(values, top, left, linear.source).masked(), self._shift(linear)

    def _shift(self, linear: LinearMap) -> Tensor:
        """Return (B, S) the products with the constant part of an affine node."""
        offset = linear.offset
        if bool((offset == offset[:, :1, :1]).all()):  # one number per channel
            return self.values.sum(dim=(3, 4)) @ offset[:, 0, 0]
        return self.product(offset[None].expand(len(self.values), *offset.shape))


def send_windows(
    view: View, relaxations: Mapping[int, Relaxation], start: int, windows: Patches
) -> tuple[dict[int, Patches], Tensor]:
    """Send functions of a node back as long as all of them stay windows that pay.

    They stop together: what reaches a node on several ways has to be added up before an activation is passed, because
    the line that is taken depends on the sign of the sum.

    Returns:
        By node, functions whose sum, with the constants (B, S), is below.
    """
    pending = {start: windows}
    constant = windows.values.new_zeros(windows.values.shape[:2])
    while pending:
        index = max(pending)
        found = _pull(view, relaxations, index, pending[index])
        if found is None:
            break
        parts = dict[int, Patches]()
        for source, part in zip(view.nodes[index].inputs, found[0], strict=True):
            before = parts.get(source, pending.get(source))
            total = part if before is None else before.plus(part)
            if total is None:
                return pending, constant
            parts[source] = total
        del pending[index]
        pending |= parts
        constant = constant + found[1]
    return pending, constant


def _pull(
    view: View, relaxations: Mapping[int, Relaxation], index: int, a: Patches
) -> tuple[list[Patches], Tensor] | None:
    """Return windows of the inputs of a node and constants, or None where they no longer are windows that pay."""
    op = view.nodes[index].op
    if index == 0:
        return None
    if isinstance(op, Sum):
        return [a if sign > 0 else -a for sign in op.signs], a.values.new_zeros(a.values.shape[:2])
    relaxation = relaxations.get(index)
    if isinstance(relaxation, Linear):
        found = a.pull_lines(relaxation)
    else:
        found = a.pull_conv(view.maps[index]) if index in view.maps else None
    return None if found is None else ([found[0]], found[1])


def rows_of(linear: LinearMap, rows: Tensor) -> Patches | None:
    """Return rows of a convolution as windows of its input, or None where that does not pay.

    rows: (B, S) positions in the flattened output.
    """
    op = linear.op
    if not isinstance(op, Conv) or not is_plain(op) or not _pays(op.weight.shape[2:], linear.source):
        return None
    _, height, width = linear.target
    channel, place = rows // (height * width), rows % (height * width)
    (up, _), (before, _) = op.padding
    top, left = place // width * op.stride[0] - up, place % width * op.stride[1] - before
    weight = linear.weight.movedim(1, 3)[channel].movedim(4, 2)  # channels last in memory
    return Patches(weight, top, left, linear.source).masked()


def _pays(window: tuple[int, ...] | list[int], image: Shape) -> bool:
    return IN_PARTS * window[0] * window[1] <= image[1] * image[2]


def _grown(patches: Patches, top: Tensor, left: Tensor) -> Tensor | None:
    """Return the values in windows that start at (top, left), or None where rows would grow by different widths."""
    down, right = patches.top - top, patches.left - left
    above, before = int(down.amax()), int(right.amax())
    if bool((down != above).any()) or bool((right != before).any()):
        return None
    return functional.pad(patches.values, (before, 0, above, 0))
