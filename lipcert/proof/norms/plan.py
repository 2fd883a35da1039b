"""Which technique serves which operator: decided from shapes alone, alike for the proposer and the checker.

| technique | bound of the l2 norm | cost |
|---|---|---|
| ``dense`` | the norm, up to rounding | a^2 b + (2/3) a^3 |
| ``blocks`` | the norm of the convolution on its image, up to rounding | 4 n^3 per group of image rows |
| ``frequency`` | the largest symbol: the norm for circular padding and single taps, else slightly more | per point |
| ``magnitude`` | norm of the absolute values: always there, often far above | a few applications |
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lipcert.network.enclosure import Float
from lipcert.network.operators import Affine, Conv, ConvTranspose, Dense
from lipcert.proof.norms.blocks import blocks_flops
from lipcert.proof.norms.dense import dense_flops
from lipcert.proof.norms.frequency import Circle, circles_of, frequency_flops
from lipcert.proof.norms.geometry import Axis, Kernel, kernel_of

Shape = tuple[int, ...]
Technique = Literal["simple", "magnitude", "dense", "blocks", "frequency"]

EXACT_FLOPS = 1.2e11  # for exact borders, where frequencies would do with a small loss: a few seconds
FINE_FLOPS = 2.0e11  # for many frequencies, where fewer would do with a small loss
MOST_FLOPS = 1.5e12  # where the only other bound is `magnitude`: about a minute
_MOST_ROOTS = 2**17  # table of cosines


@dataclass(frozen=True, eq=False)
class Plan:
    """How the l2 norm of an operator is verified.

    Attributes:
        technique: a row of the module's table, or ``simple`` where no witness is needed.
        kernel: the convolution, of the numbers given to `plan_for`.
        circles: the grid of ``frequency``.
    """

    technique: Technique
    kernel: Kernel | None = None
    circles: tuple[Circle, ...] = ()


def plan_for(op: Affine, in_shape: Shape, out_shape: Shape, weight: Float | None) -> Plan:
    """Return the plan for an operator with the given numbers (scaled centres, say)."""
    if isinstance(op, Dense):
        return Plan("dense" if dense_flops(*op.weight.shape) <= MOST_FLOPS else "magnitude")
    if not isinstance(op, (Conv, ConvTranspose)) or weight is None:
        return Plan("simple")
    kernel = kernel_of(op, weight, in_shape, out_shape)
    return Plan("magnitude") if kernel is None else _convolution(kernel)


def _convolution(kernel: Kernel) -> Plan:
    blocks = blocks_flops(kernel)
    grids = [(circles, frequency_flops(kernel, circles)) for circles in _grids(kernel)]
    if grids and _is_lossless(kernel, grids[0][0]) and grids[0][1] <= min(blocks, MOST_FLOPS):
        return Plan("frequency", kernel, grids[0][0])
    if blocks <= EXACT_FLOPS:
        return Plan("blocks", kernel)
    for circles, flops in grids:
        if flops <= (MOST_FLOPS if circles is grids[-1][0] else FINE_FLOPS):
            return Plan("frequency", kernel, circles)
    return Plan("blocks", kernel) if blocks <= MOST_FLOPS else Plan("magnitude", kernel)


def _grids(kernel: Kernel) -> list[tuple[Circle, ...]]:
    """Return grids for frequencies, the finest first."""
    grids = [circles_of(kernel, oversampling) for oversampling in (16, 8, 4, 2)]
    return [g for g in grids if g is not None and math.lcm(*(circle.points for circle in g)) <= _MOST_ROOTS]


def _is_lossless(kernel: Kernel, circles: tuple[Circle, ...]) -> bool:
    """Whether the largest symbol on the grid is the norm."""
    return all(_is_exact(axis) and circle.degree == 0 for axis, circle in zip(kernel.axes, circles, strict=True))


def _is_exact(axis: Axis) -> bool:
    """Whether the axis is block circulant, or has whole windows that do not overlap."""
    if axis.circular:
        return axis.stride * axis.outputs == axis.inputs
    if (axis.taps - 1) // (axis.stride // math.gcd(axis.stride, axis.dilation)):
        return False
    return bool(np.intersect1d(axis.pairs(0)[0], axis.pairs(axis.taps - 1)[0]).size)
