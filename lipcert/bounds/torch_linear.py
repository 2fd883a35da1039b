"""The linear part of each affine operator in torch: applied, transposed, and with its numbers' magnitudes.

What `network.linear` is in numpy, batched on torch's kernels, for methods that send linear functions backwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from lipcert.bounds.torch_kernels import CONVOLUTIONS, TRANSPOSED, Compiler, Kernel, pad
from lipcert.bounds.torch_spread import spread
from lipcert.network.enclosure import Enclosure, Float
from lipcert.network.graph import Node, Shape
from lipcert.network.linear import offset
from lipcert.network.operators import Affine, AvgPool, Conv, ConvTranspose, Dense, Gather, Pads, Reshape, Scale


class LinearMap:
    """One affine operator x -> A x + b of a network, at the centres of its enclosures.

    Attributes:
        op, source, target: the operator, the shapes of its input and output.
        apply: (N, *source) -> (N, *target), A x.
        adjoint: (N, *target) -> (N, *source), A' y.
    """

    def __init__(self, node: Node, source: Shape, compiler: Compiler) -> None:
        assert isinstance(node.op, Affine)
        self.op, self.source, self.target = node.op, source, node.shape
        self._node, self._compiler = node, compiler
        self.apply = self._compile(lambda w: w)
        self.adjoint = adjoint_kernel(node, source, compiler)

    @cached_property
    def offset(self) -> Tensor:
        """The constant part b, of the shape `target`."""
        constant = offset(self.op)
        return self._compiler.place(np.broadcast_to(0.0 if constant is None else constant.mid, self.target))

    @cached_property
    def magnify(self) -> Kernel:
        """(N, *source) -> (N, *target), |A| x."""
        return self._compile(np.abs)

    @cached_property
    def magnify_adjoint(self) -> Kernel:
        """(N, *target) -> (N, *source), |A|' y."""
        node = replace(self._node, op=_changed(self.op, np.abs))
        return adjoint_kernel(node, self.source, self._compiler)

    def square(self, x: Tensor) -> Tensor:
        """Return sum_j A_ij^2 x_j for x >= 0, or an upper bound where coefficients add up; shapes as of `apply`."""
        return self.magnify(x.sqrt()).square() if _overlaps(self.op, self.source) else self._squares(x)

    @cached_property
    def row_sums(self) -> Tensor:
        """Of the shape `target`: the l1 norm of each row of A."""
        return self.magnify(self._ones)[0]

    @cached_property
    def row_lengths(self) -> Tensor:
        """Of the shape `target`: the l2 norm of each row of A, or an upper bound where coefficients add up."""
        return self.square(self._ones)[0].sqrt()

    @cached_property
    def _squares(self) -> Kernel:
        return self._compile(np.square)

    def rows(self, index: Tensor) -> Tensor:
        """Return some rows of A.

        Args:
            index: (B, S) positions in the flattened output.

        Returns:
            (B, S, *source).
        """
        if isinstance(self.op, Dense) and len(self.source) == 1:
            return self.weight[index]
        basis = index.new_zeros((*index.shape, math.prod(self.target)), dtype=self.offset.dtype)
        basis.scatter_(2, index[..., None], 1.0)
        return self.adjoint(basis.reshape(-1, *self.target)).reshape(*index.shape, *self.source)

    @cached_property
    def weight(self) -> Tensor:
        """The coefficients of a dense layer or convolution."""
        assert isinstance(self.op, (Dense, Conv, ConvTranspose))
        return self._compiler.place(self.op.weight.mid)

    @property
    def _ones(self) -> Tensor:
        return torch.ones((1, *self.source), dtype=self.offset.dtype, device=self.offset.device)

    def _compile(self, change: Callable[[Float], Float]) -> Kernel:
        """Return the kernel of the linear part with its coefficients changed one by one."""
        return self._compiler.kernel(replace(self._node, op=_changed(self.op, change)), [self.source])


def _changed(op: Affine, change: Callable[[Float], Float]) -> Affine:
    """Return an operator without constant part, its coefficients changed one by one."""
    zero = Enclosure.exact(0.0)
    match op:
        case Dense() | Conv() | ConvTranspose():
            return replace(op, weight=Enclosure.exact(change(op.weight.mid)), bias=zero)
        case Scale():
            return replace(op, factor=Enclosure.exact(change(op.factor.mid)), shift=zero)
        case AvgPool():
            return replace(op, counts=1.0 / change(1.0 / op.counts))
        case _:  # index maps: coefficients 0 and 1
            return op


def _overlaps(op: Affine, source: Shape) -> bool:
    """Whether an entry of the matrix may be the sum of several coefficients."""
    if not isinstance(op, Conv) or not op.circular:
        return False
    reach = [d * (k - 1) + 1 for d, k in zip(op.dilation, op.weight.shape[2:], strict=True)]
    return any(r > n for r, n in zip(reach, source[1:], strict=True))


def is_plain(op: Conv) -> bool:
    """Whether a convolution has two spatial axes and neither groups, dilation nor wrapped padding."""
    return len(op.stride) == 2 and op.groups == 1 and not op.circular and all(d == 1 for d in op.dilation)


def adjoint_kernel(node: Node, source: Shape, compiler: Compiler) -> Kernel:
    """Return the function (N, *node.shape) -> (N, *source) of the transposed linear part.

    Raises:
        TypeError: the operator is not affine.
    """
    op, place = node.op, compiler.place
    match op:
        case Dense():
            weight = place(op.weight.mid)
            return lambda y: y @ weight
        case Conv():
            return _conv_adjoint(op, source, place(op.weight.mid), compiler.device)
        case ConvTranspose():
            return _transposed_adjoint(op, source, place(op.weight.mid))
        case AvgPool():
            counts, ones = place(op.counts), place(np.ones((source[0], 1, *op.window)))
            undo, even = TRANSPOSED[len(op.window)], (0,) * len(op.window)
            return lambda y: _crop(undo(y / counts, ones, None, op.stride, even, even, source[0]), op.padding, source)
        case Scale():
            factor = place(op.factor.mid)
            return lambda y: y * factor
        case Gather():
            return _scatter(op, source, compiler.device)
        case Reshape():
            return lambda y: y.reshape(len(y), *source)
    raise TypeError(f"{op.kind} has no linear part")


def _crop(full: Tensor, padding: Pads, source: Shape) -> Tensor:
    """Take entry i + before of a canvas for entry i of the source, zero where no window reached."""
    sizes = zip(padding, source[1:], full.shape[2:], strict=True)
    return pad(full, [(-before, before + size - reach) for (before, _), size, reach in sizes])


def _conv_adjoint(op: Conv, source: Shape, weight: Tensor, device: torch.device) -> Kernel:
    transposed, none = TRANSPOSED[len(op.stride)], (0,) * len(op.stride)
    if is_plain(op):
        before = tuple(a for a, _ in op.padding)
        return lambda y: spread(y, weight, op.stride, before, source[1:])
    if not op.circular:
        return lambda y: _crop(
            transposed(y, weight, None, op.stride, none, none, op.groups, op.dilation), op.padding, source
        )
    full = tuple(a + size + b for (a, b), size in zip(op.padding, source[1:], strict=True))
    places = [
        (torch.arange(size, device=device) - before) % inner
        for size, (before, _), inner in zip(full, op.padding, source[1:], strict=True)
    ]

    def run(y: Tensor) -> Tensor:
        canvas = transposed(y, weight, None, op.stride, none, none, op.groups, op.dilation)
        canvas = _crop(canvas, tuple((0, 0) for _ in full), (source[0], *full))
        for axis, place in enumerate(places, start=2):  # what was wrapped around comes back
            shape = (*canvas.shape[:axis], source[axis - 1], *canvas.shape[axis + 1 :])
            canvas = canvas.new_zeros(shape).index_add(axis, place, canvas)
        return canvas

    return run


def _transposed_adjoint(op: ConvTranspose, source: Shape, weight: Tensor) -> Kernel:
    kernel, convolve = weight.shape[2:], CONVOLUTIONS[len(op.stride)]
    steps = zip(source[1:], op.stride, op.dilation, kernel, strict=True)
    reach = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in steps]

    def run(y: Tensor) -> Tensor:
        sizes = zip(op.padding, y.shape[2:], reach, strict=True)
        full = pad(y, [(before, whole - before - size) for (before, _), size, whole in sizes])
        return convolve(full, weight, None, op.stride, 0, op.dilation, op.groups)

    return run


def _scatter(op: Gather, source: Shape, device: torch.device) -> Kernel:
    size = math.prod(source)
    index = torch.from_numpy(np.where(op.index < 0, size, op.index).ravel()).to(device)

    def run(y: Tensor) -> Tensor:
        flat = y.new_zeros((len(y), size + 1)).index_add(1, index, y.flatten(1))
        return flat[:, :size].reshape(len(y), *source)

    return run
