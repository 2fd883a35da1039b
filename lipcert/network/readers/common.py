"""Steps that every reader needs: library layers written with the few operators of `network.operators`.

Each function appends nodes to a `Builder` and returns the index of the last one. Shapes are per sample, so
axis 0 is the first axis after the batch. Everything here is exact or enclosed: index maps move entries, batch
norm is folded in `Enclosure` arithmetic. Pooling and reductions stand beside, in `pooling.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from lipcert.errors import UsageError
from lipcert.network.builder import Builder
from lipcert.network.enclosure import Enclosure
from lipcert.network.operators import Gather, Ints, Reshape, Scale, Sort

PadMode = Literal["constant", "reflect", "edge", "wrap"]

NORMALISATION_REASON = (
    "divides by a statistic of its own input, for which there is no rule (its slope can reach 1 / sqrt(eps)); "
    "use batch norm in evaluation mode, or no normalisation"
)
PRODUCT_REASON = (
    "multiplies two values that both depend on the input (attention, gating): its slope has no global bound; "
    "only products with constants and known activations (SiLU, GELU, Mish, hard-swish) are supported"
)


# --- index maps ---------------------------------------------------------------------------------------------


def rearrange(builder: Builder, x: int, move: Callable[[Ints], Any], name: str = "") -> int:
    """Append the index map that moves the entries of node `x` as `move` moves an array of their numbers.

    Args:
        builder: where the nodes go.
        x: index of a node.
        move: maps an int64 array of x's shape, holding 0, 1, 2, ..., to the array of the entries wanted; -1
            stands for the constant 0. Transposing, slicing, padding, repeating, np.take: all are written so.
        name: name of the new node.

    Returns:
        The new node; a `Reshape` where all entries stay in order, `x` itself where nothing changes.
    """
    shape = builder.nodes[x].shape
    flat = np.arange(np.prod(shape, dtype=np.int64))
    index = np.array(move(flat.reshape(shape)), dtype=np.int64)
    if index.size == flat.size and np.array_equal(index.ravel(), flat):
        return reshape(builder, x, index.shape, name)
    return builder.add(Gather(index), x, name=name)


def reshape(builder: Builder, x: int, shape: Sequence[int], name: str = "") -> int:
    """Append a reshape to the per-sample `shape`, or return `x` where it has that shape already."""
    shape = tuple(int(size) for size in shape)
    return x if builder.nodes[x].shape == shape else builder.add(Reshape(), x, name=name, shape=shape)


def transpose(builder: Builder, x: int, order: Sequence[int], name: str = "") -> int:
    """Append a permutation of the per-sample axes."""
    return rearrange(builder, x, lambda i: i.transpose(order), name)


def select(builder: Builder, x: int, axis: int, positions: Any, name: str = "") -> int:
    """Append the entries at `positions` of one per-sample axis: a slice, a strided slice, a repetition.

    positions: integer array of any rank (its shape replaces the axis); negative numbers count from the end.
    """
    return rearrange(builder, x, lambda i: np.take(i, positions, axis=axis), name)


def expand(builder: Builder, x: int, shape: Sequence[int], name: str = "") -> int:
    """Append the repetition of entries that broadcasting against per-sample `shape` asks for, if any."""
    target = np.broadcast_shapes(builder.nodes[x].shape, tuple(shape))
    return rearrange(builder, x, lambda i: np.broadcast_to(i, target), name)


def pad(
    builder: Builder,
    x: int,
    widths: Sequence[tuple[int, int]],
    mode: PadMode = "constant",
    value: float = 0.0,
    name: str = "",
) -> int:
    """Append padding of the per-sample axes.

    Args:
        builder: where the nodes go.
        x: index of a node.
        widths: (before, after) for each per-sample axis; negative numbers crop, in mode "constant" only.
        mode: numpy's names: "constant", "reflect", "edge" (replicate), "wrap" (circular).
        value: the constant.
        name: name of the new node.

    Raises:
        UsageError: the mode cannot pad this much.
    """
    shape = builder.nodes[x].shape
    most = {"constant": None, "edge": None, "reflect": -1, "wrap": 0}[mode]
    for size, (before, after) in zip(shape, widths, strict=True):
        cropped = min(before, after) < 0 and mode != "constant"
        if cropped or (most is not None and max(before, after) > size + most):
            raise UsageError(
                f"'{name}': padding ({before}, {after}) in mode '{mode}' does not fit an axis of size {size}"
            )

    def move(index: Ints) -> Ints:
        added = [(max(a, 0), max(b, 0)) for a, b in widths]
        padded = np.pad(index, added, constant_values=-1) if mode == "constant" else np.pad(index, added, mode=mode)
        crop = zip(widths, padded.shape, strict=True)
        return padded[tuple(slice(max(-a, 0), size - max(-b, 0)) for (a, b), size in crop)]

    y = rearrange(builder, x, move, name)
    op = builder.nodes[y].op
    if value == 0 or y == x or not isinstance(op, Gather):
        return y
    constant = Enclosure.exact(np.where(op.index < 0, value, 0.0))
    return builder.add(Scale(Enclosure.exact(1.0), constant), y, name=f"{name}.value")


# --- affine steps with numbers ------------------------------------------------------------------------------


def scale(builder: Builder, x: int, factor: Enclosure, shift: Enclosure, name: str = "") -> int:
    """Append factor * x + shift; where the constants have more entries than x, x is repeated first."""
    try:
        found = np.broadcast_shapes(builder.nodes[x].shape, factor.shape, shift.shape)
    except ValueError as error:
        raise UsageError(f"'{name}': {error}") from None
    x = expand(builder, x, found, f"{name}.expand")
    return builder.add(Scale(factor, shift), x, name=name)


def batch_norm(
    builder: Builder,
    x: int,
    affine: tuple[Enclosure, Enclosure],
    statistics: tuple[Enclosure, Enclosure],
    eps: float,
    name: str = "",
) -> int:
    """Append batch norm in evaluation mode: (x - mean) / sqrt(var + eps) * gamma + beta, per entry of axis 0.

    Args:
        builder: where the nodes go.
        x: index of a node of shape (C, ...).
        affine: gamma and beta, (C,) each.
        statistics: mean and variance, (C,) each.
        eps: added to the variance, taken as the real number that this float is.
        name: name of the new node.
    """
    (gamma, beta), (mean, variance) = affine, statistics
    factor = gamma / (variance + Enclosure.exact(eps)).sqrt()
    shift = beta - mean * factor
    trailing = (1,) * (len(builder.nodes[x].shape) - 1)
    return builder.add(Scale(factor.reshape(-1, *trailing), shift.reshape(-1, *trailing)), x, name=name)


# --- sorting ------------------------------------------------------------------------------------------------


def sort_groups(builder: Builder, x: int, groups: Ints, back: Ints, name: str = "") -> int:
    """Append GroupSort: gather groups of entries, sort each ascending, put the results where they belong.

    Args:
        builder: where the nodes go.
        x: index of a node.
        groups: (m, k) flat positions in x, one row per group.
        back: array of the output shape: flat positions in the sorted (m, k) array, each row from its
            smallest entry on. For MaxMin (k = 2) position 2 g is the minimum of group g and 2 g + 1 its maximum.
        name: name of the sorting node.
    """
    gathered = rearrange(builder, x, lambda i: i.ravel()[groups], f"{name}.groups")
    ordered = builder.add(Sort(), gathered, name=name)
    return rearrange(builder, ordered, lambda i: i.ravel()[back], f"{name}.back")


def sort_axis(builder: Builder, x: int, axis: int, group: int, name: str = "", descending: bool = False) -> int:
    """Append GroupSort of neighbouring entries of one per-sample axis, in groups of `group`, in place."""
    shape = builder.nodes[x].shape
    if shape[axis] % group:
        raise UsageError(f"'{name}': groups of {group} do not divide an axis of size {shape[axis]}")
    places = np.arange(np.prod(shape, dtype=np.int64)).reshape(shape)
    rows = np.moveaxis(places, axis, -1)
    groups = rows.reshape(-1, group)
    back = np.empty(groups.size, dtype=np.int64)
    ranks = np.arange(groups.size).reshape(groups.shape)
    back[groups.ravel()] = (ranks[:, ::-1] if descending else ranks).ravel()
    return sort_groups(builder, x, groups, back.reshape(shape), name)
