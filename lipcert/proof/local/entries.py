"""Some rows and columns of the matrix of a dense or convolution node, exactly."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lipcert.network.enclosure import Float
from lipcert.network.graph import Shape
from lipcert.network.linear import row_terms, unfold
from lipcert.network.operators import Affine, Conv, Dense

Places = npt.NDArray[np.int64]
_AT_ONCE = 2**23  # numbers of rows made at a time


def merges(op: Affine, source: Shape) -> bool:
    """Whether a kernel wraps onto itself, so that coefficients of one row add up."""
    if not (isinstance(op, Conv) and op.circular):
        return False
    return any(d * (k - 1) >= n for k, d, n in zip(op.weight.shape[2:], op.dilation, source[1:], strict=True))


class Entries:
    """The centres of the matrix of an affine node.

    Args of the constructor:
        op: the operator. source, target: the shapes of its input and output.
    """

    def __init__(self, op: Affine, source: Shape, target: Shape) -> None:
        self._op, self._source, self._target = op, source, target

    def at(self, rows: Places, columns: Places) -> Float | None:
        """Return those at some places (r,) of the output and (c,) of the input; None where they are not at hand."""
        op = self._op
        if isinstance(op, Dense) and len(self._source) == 1:
            found: Float = op.weight.mid[np.ix_(rows, columns)]
            return found
        if not isinstance(op, Conv) or merges(op, self._source):
            return None
        chunks = np.array_split(rows, 1 + len(rows) * math.prod(self._source) // _AT_ONCE)
        return np.concatenate([self._windows(op, chunk)[:, columns] for chunk in chunks])

    def _windows(self, op: Conv, rows: Places) -> Float:
        """Return rows (r, n) of a convolution: its coefficients, at the places that the windows see."""
        outputs, positions = np.divmod(rows, math.prod(self._target[1:]))
        places = self._seen[outputs // (self._target[0] // op.groups), :, positions]
        found = np.zeros((len(rows), 1 + math.prod(self._source)))  # the first column is the padding
        np.put_along_axis(found, places, op.weight.mid.reshape(self._target[0], -1)[outputs], axis=1)
        return found[:, 1:]

    @cached_property
    def _seen(self) -> Places:
        """(groups, in / groups * kernel, positions) places that windows of a convolution see, from 1; 0 is padding."""
        op = self._op
        assert isinstance(op, Conv)
        places = np.arange(1.0, 1 + math.prod(self._source)).reshape(1, *self._source)
        kernel, out = op.weight.shape[2:], self._target[1:]
        windows = unfold(places, kernel, op.stride, op.padding, op.dilation, out, op.circular)
        return windows.astype(np.int64).reshape(op.groups, row_terms(op), -1)
