r"""Networks of circular convolutions on a torus, frequency by frequency.

    v_0 = x,  v_k = phi_k(K_k * v_{k-1})  on Z_N1 x Z_N2 x ...,  K_k * a circular convolution, phi_k entry by entry

ends with v_l, with a convolution of it, or with a network (the *tail*) behind a multiple of the sum of v_l over the
torus. In an orthonormal Fourier basis, u_k(w) the coefficients of v_k, a convolution multiplies by its symbol K_k(w).
For differences of two evaluations and one multiplier per channel the sum over all positions of the multiplier
rule's terms is, by Parseval's identity, the sum over all w of the same terms with u_k(w) and K_k(w) in place of v_k
and K_k. So everything decouples into one small chain per frequency, and these share the multipliers.

The coefficients of real functions are conjugate at w and -w, so one of the two says it all; at w = 0 all is real.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lipcert.network.enclosure import TINY, Enclosure, Float, gamma
from lipcert.proof.lifted import Block, Lifted, Row
from lipcert.proof.norms.geometry import Indices
from lipcert.proof.norms.grid import half, roots, turns
from lipcert.proof.rounding import inflate, total_up

CHUNK = 2**21  # entries of one block of a stack of matrices


@dataclass(frozen=True, eq=False)
class Stencil:
    """A circular convolution of stride 1.

    Attributes:
        weight: (out, in, taps). shifts: for each axis the shift of each tap along it; the taps are all combinations.
    """

    weight: Enclosure
    shifts: tuple[tuple[int, ...], ...]

    @property
    def channels(self) -> tuple[int, int]:
        """Output and input channels."""
        return self.weight.shape[0], self.weight.shape[1]


@dataclass(frozen=True, eq=False)
class Layer:
    """A stencil followed by an activation, entry by entry.

    Attributes:
        node: index of the activation (or of the convolution that a mask follows) in the normal form.
        stencil: the convolution. alpha, beta: (out,) slope intervals of each channel, masks included.
    """

    node: int
    stencil: Stencil
    alpha: Float
    beta: Float


@dataclass(frozen=True, eq=False)
class Torus:
    """A network on a torus; `embedding` makes it.

    Attributes:
        grid: N of each axis.
        layers: at least one.
        closing: the convolution behind the last activation, or None.
        tail: what follows the pooling, block 0 being the pooled channels; None where there is no pooling.
        pooling: what the coefficient of frequency 0 is multiplied with to give the pooled value.
    """

    grid: tuple[int, ...]
    layers: tuple[Layer, ...]
    closing: Stencil | None
    tail: Lifted | None
    pooling: Enclosure

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the input and of each layer."""
        return (self.layers[0].stencil.channels[1], *(layer.stencil.channels[0] for layer in self.layers))

    @property
    def slopes(self) -> list[tuple[Float, Float]]:
        """Slope intervals of each layer, then of each block of the tail."""
        tail = () if self.tail is None else self.tail.blocks
        return [*((layer.alpha, layer.beta) for layer in self.layers), *((block.alpha, block.beta) for block in tail)]

    @cached_property
    def frequencies(self) -> Indices:
        """One frequency of each pair w, -w, (axes, count); w = 0 first."""
        return half(self.grid)

    @cached_property
    def _roots(self) -> tuple[Float, Float]:
        return roots(self.grid)

    def symbol(self, stencil: Stencil, chosen: slice) -> tuple[Float, Float, Float]:
        """Return real and imaginary parts of the symbols at some frequencies, and the radius of each part.

        K(w) = sum over taps of W_tap exp(2 pi i w.shift), (count, out, in); the radius (out, in) is that of all w.
        A part is a dot product over the taps. cos and sin are off by at most u, so it is off by at most
        gamma_{taps + 1} times the sum of |W_tap|, and the radii of W.
        """
        out, inner, taps = stencil.weight.shape
        angles = turns(self.grid, stencil.shifts, self.frequencies[:, chosen])
        flat = stencil.weight.mid.reshape(-1, taps).T
        real, imaginary = ((table[angles] @ flat).reshape(-1, out, inner) for table in self._roots)
        size, spread = total_up(np.abs(stencil.weight.mid)), total_up(stencil.weight.radius)
        return real, imaginary, inflate(gamma(taps + 1) * size + spread + 2 * taps * TINY, 4)


def zero_piece(torus: Torus) -> Lifted:
    """Return the lifted form of what the network does at w = 0, in real numbers: layers, and behind them the tail."""

    def symbol(stencil: Stencil) -> Enclosure:
        real, _, radius = torus.symbol(stencil, slice(0, 1))
        return Enclosure(real[0], radius)

    last = len(torus.layers)
    blocks = [
        Block(layer.node, layer.alpha, layer.beta, {k: symbol(layer.stencil)}) for k, layer in enumerate(torus.layers)
    ]
    output: Row = {last: Enclosure.exact(np.eye(torus.channels[-1]))}
    if torus.closing is not None:
        output = {last: symbol(torus.closing)}
    if torus.tail is not None:

        def behind(row: Row) -> Row:
            return {last + j: matrix if j else matrix * torus.pooling for j, matrix in row.items()}

        blocks += [Block(block.node, block.alpha, block.beta, behind(block.row)) for block in torus.tail.blocks]
        output = behind(torus.tail.output)
    return Lifted(torus.channels[0], tuple(blocks), output)


def other_pieces(torus: Torus) -> Iterator[Lifted]:
    """Yield lifted forms of what the network does at all other frequencies: stacks of matrices.

    They hold the real form [[A, -B], [B, A]] of K(w) = A + iB, (count, 2 out, 2 in): each channel stands in them
    twice, all real parts first. They have no output where there is a tail.
    """
    widest = max(4 * math.prod(layer.stencil.channels) for layer in torus.layers)
    step = max(1, CHUNK // widest)
    for start in range(1, torus.frequencies.shape[1], step):
        yield _stack(torus, slice(start, start + step))


def _stack(torus: Torus, chosen: slice) -> Lifted:
    def symbol(stencil: Stencil) -> Enclosure:
        real, imaginary, radius = torus.symbol(stencil, chosen)
        mid = np.concatenate(
            [np.concatenate([real, -imaginary], axis=-1), np.concatenate([imaginary, real], axis=-1)], axis=-2
        )
        return Enclosure(mid, np.broadcast_to(np.tile(radius, (2, 2)), mid.shape).copy())

    last = len(torus.layers)
    blocks = tuple(
        Block(layer.node, np.tile(layer.alpha, 2), np.tile(layer.beta, 2), {k: symbol(layer.stencil)})
        for k, layer in enumerate(torus.layers)
    )
    output: Row = {}
    if torus.tail is None:
        closing = torus.closing
        output = {last: Enclosure.exact(np.eye(2 * torus.channels[-1])) if closing is None else symbol(closing)}
    return Lifted(2 * torus.channels[0], blocks, output)
