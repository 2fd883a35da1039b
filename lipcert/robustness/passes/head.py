"""The last linear layer, which every rival class sees from another side."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lipcert.network.enclosure import Enclosure, Float, gamma, round_up
from lipcert.network.operators import Dense
from lipcert.proof.claims import Norm
from lipcert.proof.rounding import norms_up, sqrt_up
from lipcert.robustness.passes.precision import Precision, gamma_up


@dataclass(frozen=True)
class Head:
    """The last linear layer, or the identity.

    Attributes:
        weight, bias: (C, n) and (C,), or both None for the identity on C logits.
        classes: C.
    """

    weight: Enclosure | None
    bias: Enclosure | None
    classes: int

    @staticmethod
    def of(dense: Dense) -> Head:
        """Return a dense layer as a head."""
        classes = dense.weight.shape[0]
        return Head(dense.weight, dense.bias.broadcast_to((classes,)), classes)

    @staticmethod
    def identity(classes: int) -> Head:
        """Return the head of a network whose outputs are taken as they are."""
        return Head(None, None, classes)

    def differences(self, norm: Norm) -> Float:
        """Return (C, C) upper bounds of ||w_y - w_j||_q, q conjugate to the norm; zero on the diagonal."""
        apart = 1.0 - np.eye(self.classes)
        if self.weight is None:
            return apart * {"l1": 1.0, "l2": sqrt_up(2.0), "linf": 2.0}[norm]
        mid, rad = self.weight.mid, self.weight.radius
        rows = [_row_norms(np.abs(mid - mid[y]), rad + rad[y], norm) for y in range(self.classes)]
        return np.stack(rows) * apart

    def logits(self, features: Tensor, sizes: Float, precision: Precision) -> tuple[Float, Float]:
        """Return (N, C) float64 logits and upper bounds of the rounding error of each.

        |fl(w f + b) - (w f + b)| <= gamma_{n+2} (|w| |f| + |b|) + the casts and radii of w and b, with Cauchy-Schwarz
        on the products, and room for underflow (see `rounding_model`). Infinite where it may overflow.

        Args:
            features: (N, ...), computed in this precision. sizes: (N,) upper bounds of their l2 norms.
            precision: of the product too.
        """
        flat = features.flatten(1)
        if self.weight is None or self.bias is None:
            return flat.to(torch.float64).numpy(), np.zeros((1, self.classes))
        count, mid = self.weight.shape[1], self.bias.mid
        weight, bias = (torch.from_numpy(np.array(a)).to(flat.dtype) for a in (self.weight.mid, mid))
        logits = functional.linear(flat, weight, bias).to(torch.float64).numpy()
        lengths, radii = self._lengths
        relative, flushed = gamma_up(count + 2, precision.unit) + 2.0 * precision.unit, (count + 2) * precision.tiny
        factor = round_up(relative * lengths + radii + flushed, 8)
        constant = round_up(relative * np.abs(mid) + self.bias.radius + flushed * (1.0 + lengths), 8)
        sizes = sizes[:, None]
        safe = sizes * lengths.max(initial=0.0) + self.bias.magnitude().max(initial=0.0) < 0.5 * precision.limit
        return logits, np.where(safe, round_up(sizes * factor + constant, 4), np.inf)

    @cached_property
    def _lengths(self) -> tuple[Float, Float]:
        """Upper bounds of the l2 norms of the weight's rows, centres and radii."""
        assert self.weight is not None
        return row_lengths(self.weight.mid), row_lengths(self.weight.radius)


def _row_norms(distance: Float, radius: Float, norm: Norm) -> Float:
    """Return upper bounds of the conjugate norms of rows known up to a radius; entries had one rounding each."""
    entries = round_up(distance + radius, 4) * (distance + radius > 0)
    if norm == "l1":
        largest: Float = entries.max(axis=1, initial=0.0)
        return largest
    if norm == "linf":
        return round_up(entries.sum(axis=1) * (1.0 + 2.0 * gamma(entries.shape[1])), 2) * entries.any(axis=1)
    return row_lengths(entries)


def row_lengths(rows: Float) -> Float:
    """Return upper bounds of the l2 norms of rows; zero for zero rows, infinite for what is not finite."""
    largest = np.abs(rows).max(axis=1, initial=0.0)
    scale = np.where((largest > 0) & np.isfinite(largest), largest, 1.0)
    finite = np.where(np.isfinite(rows), rows, 0.0)
    lengths = round_up(norms_up(finite / scale[:, None]) * scale, 4)
    lengths = np.where(largest == 0, 0.0, lengths)
    return np.where(np.isfinite(rows).all(axis=1), lengths, math.inf)
