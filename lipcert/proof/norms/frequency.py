r"""Verified l2 norms of convolutions by frequency: one small matrix per point of a grid.

Polyphase form. Output o reads inputs stride o + shift; write shift = stride a + r with 0 <= r < stride.
With the inputs of phase r as channels of their own, this is a convolution of stride 1 with shifts a. Its
symbol is K(w) = sum over taps of W_tap exp(2 pi i w.a), a matrix (outputs, phases * inputs) per group.

Zero padding (after `Axis.residues` has removed the dilation). On a circle of N >= outputs + degree points,
degree the largest a, no pair of output and input meets in a wrong tap. So the operator is a part of the
circulant one: the l2 norm is at most max_w ||K(w)|| over w in {0, .., N-1}/N. (An upper bound, not the
norm.)

Fewer points. For unit u, v the real part of u*K(w)v, turned so that its largest value is real and seen from the
middle of the taps, is a real trigonometric polynomial of degree d = degree / 2 on the axis. By Szegő's inequality
it stays above cos(d t) times its maximum at distance t from the place of the maximum (d t <= pi/2), and a grid
point lies within t = pi/N: the maximum over all w is at most the maximum over the grid divided by
cos(pi degree / (2 N)), for each axis (Ehlich & Zeller 1964; half-integer degrees by substituting 2 w). This bounds
the cost for any image size; with N = 16 (degree + 1) the loss is at most 1 / cos(pi / 32) - 1 = 0.5 % per axis.
A kernel of a single tap needs one point, and loses nothing.

Circular padding. If stride * outputs = inputs, the operator is block circulant on N = outputs points:
shifts count modulo N, so even kernels and kernels larger than the image are exact too. If the outputs are
fewer, they are rows of the circulant operator of stride 1 on N = inputs points: an upper bound. If they are
more, there is no bound here.

Rounding. cos and sin have error at most u (`roots`), and each part of an entry of K is a dot product over
the taps, so it is off by at most (gamma_taps (1 + u) + u) S <= gamma_{taps+1} S with S the sum of |W_tap|; the
l2 norm is off by at most sqrt(2) gamma_{taps+1} ||S||_F. K = R + iI has the norm of [[R, -I], [I, R]], which
`dense_at_most` verifies for w and thereby for -w.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from lipcert.network.enclosure import TINY, Float, gamma
from lipcert.proof.norms.dense import dense_at_most, dense_flops
from lipcert.proof.norms.geometry import Axis, Kernel
from lipcert.proof.norms.grid import half, roots, turns
from lipcert.proof.norms.roots import ROOT_ERROR, cos_sin
from lipcert.proof.rounding import difference_down, norms_up, product_down, product_up, sum_up, total_up

_CHUNK = 2**21  # entries of one stack of matrices


@dataclass(frozen=True)
class Circle:
    """The grid of one axis.

    Attributes:
        points: number of grid points N.
        phases: number of input phases.
        shift, phase: for each tap, a modulo N and r.
        degree: largest a where the grid has fewer points than the circulant operator, else 0: nothing is lost.
    """

    points: int
    phases: int
    shift: tuple[int, ...]
    phase: tuple[int, ...]
    degree: int


def circles_of(kernel: Kernel, oversampling: int) -> tuple[Circle, ...] | None:
    """Return a grid for each axis, at most oversampling * (degree + 1) points long, or None where there is no bound."""
    circles = []
    for axis in kernel.axes:
        circulant = _circulant(axis)
        if circulant is None:
            return None
        points, stride, reads = circulant
        lowest = min(reads) // stride
        degree = max(reads) // stride - lowest
        limit = oversampling * (degree + 1) if degree else 1
        grid = min(points, limit)
        phases = sorted({t % stride for t in reads})
        shift = tuple((t // stride - lowest) % grid for t in reads)
        phase = tuple(phases.index(t % stride) for t in reads)
        circles.append(Circle(grid, len(phases), shift, phase, degree if points > limit else 0))
    return tuple(circles)


def _circulant(axis: Axis) -> tuple[int, int, list[int]] | None:
    """Return points, stride and the shift of each tap of a circulant operator that the axis is a part of."""
    if not axis.circular:
        shared = math.gcd(axis.stride, axis.dilation)
        period, stride = axis.dilation // shared, axis.stride // shared
        outputs = -(-axis.outputs // period)
        return outputs + (axis.taps - 1) // stride, stride, list(range(axis.taps))
    reads = [axis.dilation * k - axis.before for k in range(axis.taps)]
    if axis.stride * axis.outputs == axis.inputs:
        return axis.outputs, axis.stride, reads
    if axis.stride * (axis.outputs - 1) < axis.inputs:
        return axis.inputs, 1, reads
    return None


def frequency_flops(kernel: Kernel, circles: tuple[Circle, ...]) -> float:
    """Return the estimated cost of `frequency_at_most`; a function of shapes only."""
    rows, columns = kernel.channels
    width = columns * math.prod(circle.phases for circle in circles)
    count = math.prod(circle.points for circle in circles) / 2 + 1
    taps = math.prod(len(circle.shift) for circle in circles)
    return count * kernel.groups * (dense_flops(2 * rows, 2 * width) + 4.0 * taps * rows * columns)


def frequency_at_most(kernel: Kernel, circles: tuple[Circle, ...], claim: float) -> bool:
    """Whether a convolution is proved to have l2 norm at most `claim`; weights of order 1."""
    room = [grid_factor(circle) for circle in circles]
    limit = difference_down(product_down(claim, *room), _symbol_error(kernel, circles))
    return all(dense_at_most(stack, limit) for stack in symbols(kernel, circles))


def grid_factor(circle: Circle) -> float:
    """Return a lower bound of cos(pi degree / (2 N))."""
    if circle.degree == 0:
        return 1.0
    return difference_down(cos_sin(Fraction(circle.degree, 4 * circle.points))[0], ROOT_ERROR)


def _symbol_error(kernel: Kernel, circles: tuple[Circle, ...]) -> float:
    """Return an upper bound of the l2 norm of fl(K(w)) - K(w), for all w and groups."""
    flat = np.abs(kernel.weight).reshape(*kernel.weight.shape[:3], -1)
    taps = flat.shape[-1]
    sizes = norms_up(total_up(flat).reshape(kernel.groups, -1))
    entries = flat[0].size * math.prod(circle.phases for circle in circles)
    return sum_up([product_up(1.5, gamma(taps + 1), float(sizes.max())), 2.0 * taps * entries * TINY])


def symbols(kernel: Kernel, circles: tuple[Circle, ...]) -> Iterator[Float]:
    """Yield stacks (frequencies, groups, rows, columns) of real matrices with the norms of fl(K(w)).

    Of w and -w, whose symbols are conjugate, one is taken. A symbol with a single row (or column) becomes
    the vector of its real and imaginary parts, any other one [[R, -I], [I, R]].
    """
    grid = [circle.points for circle in circles]
    chosen = half(grid)
    rows, columns = kernel.channels
    width = columns * math.prod(circle.phases for circle in circles)
    chunk = max(1, _CHUNK // (4 * kernel.groups * rows * width))
    cosines, sines = roots(grid)
    for start in range(0, chosen.shape[1], chunk):
        angles = turns(grid, [circle.shift for circle in circles], chosen[:, start : start + chunk])
        real = _transform(kernel, circles, cosines[angles])
        imaginary = _transform(kernel, circles, sines[angles])
        yield _real_stack(real, imaginary)


def _transform(kernel: Kernel, circles: tuple[Circle, ...], roots: Float) -> Float:
    """Sum the taps times (frequencies, taps) `roots`, each into its phase: (frequencies, groups, out, phases * in)."""
    rows, columns = kernel.channels
    flat = kernel.weight.reshape(kernel.groups * rows * columns, -1)
    phase = np.zeros(1, dtype=np.int64)
    for circle in circles:
        phase = (phase[:, None] * circle.phases + np.array(circle.phase)).ravel()
    parts = []
    for p in range(math.prod(circle.phases for circle in circles)):
        taps = np.flatnonzero(phase == p)
        parts.append((roots[:, taps] @ flat[:, taps].T).reshape(len(roots), kernel.groups, rows, columns))
    return np.concatenate(parts, axis=-1)


def _real_stack(real: Float, imaginary: Float) -> Float:
    if 1 in real.shape[-2:]:
        return np.concatenate([real, imaginary], axis=-1 if real.shape[-2] == 1 else -2)
    return np.concatenate(
        [np.concatenate([real, -imaginary], axis=-1), np.concatenate([imaginary, real], axis=-1)], axis=-2
    )
