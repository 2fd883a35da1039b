"""Convolutions for tests: random geometries, and their matrices written down entry by entry."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product

import numpy as np
from hypothesis import strategies as st

from lipcert.network.enclosure import Enclosure
from lipcert.network.operators import Conv, ConvTranspose

ZERO = Enclosure.exact(0.0)


def conv_matrix(op, in_shape, out_shape):
    """The matrix of a Conv, from its definition: one loop turn per output, input channel and tap."""
    weight = op.weight.mid
    outputs, per_group, *taps = weight.shape
    matrix = np.zeros((*out_shape, *in_shape))
    for o, k in product(range(outputs), range(per_group)):
        channel = o // (outputs // op.groups) * per_group + k
        for place in product(*(range(n) for n in out_shape[1:])):
            for tap in product(*(range(n) for n in taps)):
                source = [
                    s * i + d * t - before
                    for s, i, d, t, (before, _) in zip(op.stride, place, op.dilation, tap, op.padding, strict=True)
                ]
                if op.circular:
                    source = [i % n for i, n in zip(source, in_shape[1:], strict=True)]
                if all(0 <= i < n for i, n in zip(source, in_shape[1:], strict=True)):
                    matrix[(o, *place, channel, *source)] += weight[(o, k, *tap)]
    return matrix.reshape(math.prod(out_shape), math.prod(in_shape))


def transposed_matrix(op, in_shape, out_shape):
    """The matrix of a ConvTranspose: the transpose of the Conv with the same numbers, the other way round."""
    conv = Conv(op.weight, ZERO, op.stride, op.padding, op.dilation, op.groups)
    return conv_matrix(conv, out_shape, in_shape).T


def exact_square_bound(matrix):
    """A rational number that ||A||_2^2 is certainly not below: the exact Rayleigh quotient of a computed vector.

    The entries are multiples of 2^-10, so everything can be done in Python's integers.
    """
    vector = np.linalg.svd(matrix)[2][0]
    x = np.array([round(float(v) * 2**40) for v in vector], dtype=object)
    a = np.array([[int(e) for e in row] for row in (matrix * 1024).round()], dtype=object)
    assert all(Fraction(int(e), 1024) == Fraction(float(f)) for e, f in zip(a.ravel(), matrix.ravel(), strict=True))
    image = a @ x
    return Fraction(int((image * image).sum()), int((x * x).sum()) * 1024**2)


def weights(rng, *shape):
    """Multiples of 2^-10 in [-2, 2]."""
    return Enclosure.exact(rng.integers(-2048, 2049, shape) / 1024)


@st.composite
def geometries(draw, transposed=False):
    """A Conv (or ConvTranspose) with its shapes; small enough for dense matrices."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rank = draw(st.sampled_from([1, 1, 2, 2, 2, 3]))
    largest = {1: 7, 2: 3, 3: 2}[rank] if transposed else {1: 9, 2: 6, 3: 4}[rank]

    def axes(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    groups = draw(st.sampled_from([1, 1, 2, 3]))
    rows, columns = groups * draw(st.integers(1, 2)), draw(st.integers(1, 2))
    taps, stride, dilation, size = axes(1, 4), axes(1, 3), axes(1, 3), axes(1, largest)
    padding = tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in range(rank))
    if transposed:
        extra = tuple(draw(st.integers(0, s - 1)) for s in stride)
        out = tuple(
            (n - 1) * s - a - b + d * (k - 1) + e + 1
            for n, s, (a, b), d, k, e in zip(size, stride, padding, dilation, taps, extra, strict=True)
        )
        op = ConvTranspose(weights(rng, rows, columns, *taps), ZERO, stride, padding, extra, dilation, groups)
        return op, (rows, *size), (columns * groups, *out)
    out = tuple(
        (n + a + b - d * (k - 1) - 1) // s + 1
        for n, (a, b), d, k, s in zip(size, padding, dilation, taps, stride, strict=True)
    )
    circular = draw(st.booleans())
    op = Conv(weights(rng, rows, columns, *taps), ZERO, stride, padding, dilation, groups, circular)
    return op, (columns * groups, *size), (rows, *out)
