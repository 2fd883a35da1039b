"""Linear functions of a node's outputs, sent back to the input under given relaxations (CROWN, Zhang et al. 2018).

A function a.h_k of node k is bounded below by a linear function of the nodes before it, node by node, until only the
input is left; there the least value on the ball is taken. Coefficients are never stored as matrices of layers: affine
nodes apply their adjoint to (B S) functions at a time, and rows of convolutions travel as windows (`patches`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lipcert.bounds.local.patches import IN_PARTS, Patches, rows_of, send_windows
from lipcert.bounds.local.products import products
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.relaxations import Relaxation
from lipcert.bounds.local.view import View
from lipcert.network.operators import Affine, Concat, Sum

Functions = Tensor | Patches  # (B, S, *shape) coefficients, or windows of them
Pull = Callable[[int, Tensor], tuple[list[Tensor | None], Tensor]]

# Bytes for the coefficients of functions sent back at a time. On a CPU, what the allocator keeps and caches hold.
BUDGET = {"cpu": 2**25}
_BUDGET_ELSEWHERE = 2**30


def lower_bounds(
    view: View, ball: Ball, relaxations: Mapping[int, Relaxation], start: int, coefficients: Functions
) -> Tensor:
    """Return (B, S) lower bounds, on the ball, of linear functions of a node.

    Args:
        view, ball: the network and the region.
        relaxations: of every activation node before the start, by index.
        start: the node.
        coefficients: (B, S, *shape of the node), or windows of them.
    """

    def pull(index: int, a: Tensor) -> tuple[list[Tensor | None], Tensor]:
        return relaxations[index].pull(a)

    if isinstance(coefficients, Patches):
        pending, begun = send_windows(view, relaxations, start, coefficients)
        if pending.keys() == {0}:
            return begun + ball.minimum(pending[0].values, pending[0].seen_by_each)
        windows = coefficients.top.shape[1]
        found = []
        for part in zip(*(w.split(-(-windows // IN_PARTS)) for w in pending.values()), strict=True):
            ends, constant = _send_on(view, pull, {k: w.full() for k, w in zip(pending, part, strict=True)})
            found.append((constant + ball.minimum(ends)).reshape(len(ends), -1, part[0].top.shape[1]))
        return begun + torch.cat(found, dim=2).flatten(1)
    ends, constant = send_back(view, pull, start, coefficients)
    return constant + ball.minimum(ends)


def send_back(view: View, pull: Pull, start: int, coefficients: Tensor) -> tuple[Tensor, Tensor]:
    """Return coefficients (B, S, *input_shape) on the input, and constants (B, S).

    Args:
        view: the network.
        pull: what an activation node makes of the coefficients (B, S, *shape) on its outputs: those on its inputs
            (None for none), and constants.
        start, coefficients: as in `lower_bounds`.
    """
    return _send_on(view, pull, {start: coefficients})


def _send_on(view: View, pull: Pull, pending: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
    """Send the sum of functions of several nodes back; arguments and result as in `send_back`."""
    start = max(pending)
    coefficients = pending[start]
    constant = coefficients.new_zeros(coefficients.shape[:2])
    for index in range(start, 0, -1):
        a = pending.pop(index, None)
        if a is None:
            continue
        parts, shift = _pull(view, pull, index, a)
        constant = constant + shift
        for source, part in zip(view.nodes[index].inputs, parts, strict=True):
            if part is not None:
                pending[source] = pending[source] + part if source in pending else part
    if 0 not in pending:
        return coefficients.new_zeros((*coefficients.shape[:2], *view.nodes[0].shape)), constant
    return pending[0], constant


def _pull(view: View, pull: Pull, index: int, a: Tensor) -> tuple[list[Tensor | None], Tensor]:
    """Return coefficients on the inputs of a node, and constants."""
    op = view.nodes[index].op
    match op:
        case Affine():
            linear = view.maps[index]
            shift = products(a, linear.offset[None])
            return [linear.adjoint(a.flatten(0, 1)).reshape(*a.shape[:2], *linear.source)], shift
        case Sum():
            return [a if sign > 0 else -a for sign in op.signs], a.new_zeros(a.shape[:2])
        case Concat():
            sizes = [view.nodes[i].shape[op.axis] for i in view.nodes[index].inputs]
            return list(torch.split(a, sizes, dim=op.axis + 2)), a.new_zeros(a.shape[:2])
        case _:
            return pull(index, a)


Lower = Callable[[View, Ball, Mapping[int, Relaxation], int, Functions], Tensor]  # the signature of `lower_bounds`


@dataclass(frozen=True)
class Pass:
    """A way to send functions back.

    Attributes:
        lower: what does it.
        copies: how many tensors of the size of the coefficients live at once in it.
        more: how many times as many functions fit if they are windows.
    """

    lower: Lower
    copies: int
    more: int = 1


PLAIN = Pass(lower_bounds, 6, IN_PARTS)


def bounds_of(
    view: View, ball: Ball, relaxations: Mapping[int, Relaxation], start: int, rows: Tensor, way: Pass = PLAIN
) -> tuple[Tensor, Tensor]:
    """Return lower and upper bounds (B, S) of some entries of a node, in chunks that fit the memory budget.

    Args:
        view, ball, relaxations, start: as in `lower_bounds`.
        rows: (B, S) positions in the flattened node.
        way: how functions are sent back.
    """
    found, size = [], rows_at_a_time(view, start, 2 * len(rows) * way.copies)
    if start in view.maps and rows_of(view.maps[start], rows[:, :1]) is not None:
        size *= way.more
    for part in torch.split(rows, size, dim=1):
        windows = rows_of(view.maps[start], part) if start in view.maps else None
        if windows is None:
            at, a, shift = entries(view, start, part)
            both: Functions = torch.cat([a, -a], dim=1)
        else:
            at, both, shift = view.nodes[start].inputs[0], windows.both_signs(), view.maps[start].offset.flatten()[part]
        low, high = way.lower(view, ball, relaxations, at, both).chunk(2, dim=1)
        found.append((low + shift, shift - high))
    return torch.cat([low for low, _ in found], dim=1), torch.cat([high for _, high in found], dim=1)


def rows_at_a_time(view: View, start: int, copies: int) -> int:
    """Return how many functions of a node fit the memory budget, if that many tensors live at once for each."""
    largest = max(node.size for node in view.nodes[: start + 1])
    budget = BUDGET.get(view.device.type, _BUDGET_ELSEWHERE)
    return max(1, budget // (copies * largest * view.dtype.itemsize))


def entries(view: View, node: int, rows: Tensor) -> tuple[int, Tensor, Tensor]:
    """Return some entries of a node as functions of a node at or before it.

    Args:
        view, node: the network and the node.
        rows: (B, S) positions in the flattened node.

    Returns:
        The node that the functions are of (the input of an affine node), (B, S, *its shape) coefficients, and
        (B, S) constants.
    """
    target = view.nodes[node]
    if isinstance(target.op, Affine):
        linear = view.maps[node]
        return target.inputs[0], linear.rows(rows), linear.offset.flatten()[rows]
    basis = torch.zeros((*rows.shape, target.size), dtype=view.dtype, device=view.device)
    basis = basis.scatter(2, rows[..., None], 1.0).reshape(*rows.shape, *target.shape)
    return node, basis, basis.new_zeros(rows.shape)
