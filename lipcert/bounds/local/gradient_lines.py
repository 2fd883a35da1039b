r"""Linear bounds sent through the backward pass (Shi et al. 2022), and boxes of gradients narrowed by them.

The backward pass is itself a network, from the coefficients of a function to its gradient, with b = s a for a in a
known box and s in [alpha, beta]. A linear function of the gradient is sent towards the output: with lambda >= 0,
lambda s a <= lambda max(alpha a, beta a), which is convex in a and so below its chord; with lambda < 0, the chord of
min(alpha a, beta a). At the end only the coefficients are left, and they are known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lipcert.bounds.local.backward import rows_at_a_time
from lipcert.bounds.local.gradients import Gradients
from lipcert.bounds.local.relaxations import Box
from lipcert.bounds.local.sectors import Sector
from lipcert.bounds.local.view import View
from lipcert.network.operators import Affine, Concat, Conv, ConvTranspose, Dense, Elementwise, Input, Sum

WORK = 2**27  # products that the boxes of one function's gradient at one node may cost to narrow
_COPIES = 8  # tensors of the size of the coefficients that live at once


def gradient_boxes(view: View, boxes: Sequence[Box], sectors: Mapping[int, Sector], rows: Tensor) -> Gradients:
    """Return boxes of the gradients of functions of the output. Level: numerical.

    At the input and at activation nodes of small networks they are narrowed by lines, entry by entry.

    Args:
        view: the network, without a softmax inside.
        boxes: of all nodes, on the regions.
        sectors: of all elementwise nodes.
        rows: (B, S, *output_shape) coefficients.
    """
    last = len(view.nodes) - 1
    gradients = Gradients(view, boxes, sectors, {last: (rows, rows)})
    found, price = gradients.found, 0
    for index in range(last, -1, -1):
        node = view.nodes[index]
        if isinstance(node.op, (Input, Elementwise)) and price * node.size <= WORK:
            _narrow(gradients, index)
        if index == 0:
            break
        price += _products(view, index)
        for source, (low, high) in zip(node.inputs, gradients.send_back(index), strict=True):
            before = found.get(source)
            found[source] = (low, high) if before is None else (before[0] + low, before[1] + high)
    return gradients


def _products(view: View, index: int) -> int:
    """Return how many products applying a node costs."""
    op, size = view.nodes[index].op, view.nodes[index].size
    match op:
        case Dense() | Conv():
            return size * view.maps[index].weight[0].numel()
        case ConvTranspose():
            return view.nodes[view.nodes[index].inputs[0]].size * view.maps[index].weight[0].numel()
    return size


def _narrow(gradients: Gradients, index: int) -> None:
    """Narrow the boxes of the gradients at a node by lines."""
    low, high = gradients.found[index]
    if not bool((low < high).any()):
        return
    (samples, functions), size = low.shape[:2], low[0, 0].numel()
    least, most = [], []
    step = rows_at_a_time(gradients.view, len(gradients.view.nodes) - 1, samples * functions * _COPIES)
    for part in torch.split(torch.eye(size, dtype=low.dtype, device=low.device), step):
        count = len(part)
        repeated = gradients.repeat(count)
        a = part.repeat(functions, 1).expand(samples, -1, -1)
        most.append(largest(repeated, a, index).reshape(samples, functions, count))
        least.append(-largest(repeated, -a, index).reshape(samples, functions, count))
    low_, high_ = torch.cat(least, dim=2).reshape(low.shape), torch.cat(most, dim=2).reshape(low.shape)
    low, high = torch.maximum(low, low_), torch.minimum(high, high_)
    gradients.found[index] = torch.minimum(low, high), torch.maximum(low, high)  # rounding may make it empty


def largest(gradients: Gradients, coefficients: Tensor, start: int = 0) -> Tensor:
    """Return (B, S) upper bounds of linear functions of the gradients at a node.

    Args:
        gradients: their boxes at all nodes behind it.
        coefficients: (B, S, n).
        start: the node.
    """
    view, last = gradients.view, len(gradients.view.nodes) - 1
    sent = {start: coefficients.reshape(*coefficients.shape[:2], *view.nodes[start].shape)}
    constant = coefficients.new_zeros(coefficients.shape[:2])
    for index in range(start + 1, last + 1):
        node = view.nodes[index]
        if not any(i in sent for i in node.inputs):
            continue
        zeros = (coefficients.new_zeros((1, 1, *view.nodes[i].shape)) for i in node.inputs)
        parts = [
            sent.get(i, zero.expand(*constant.shape, *zero.shape[2:]))
            for i, zero in zip(node.inputs, zeros, strict=True)
        ]
        sent[index], shift = _send_on(gradients, index, parts)
        constant = constant + shift
    if last not in sent:
        return constant
    return constant + (sent[last] * gradients.found[last][0]).flatten(2).sum(dim=2)


def _send_on(gradients: Gradients, index: int, parts: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the coefficients on the gradients at a node from those on the ones at its inputs, and constants (B, S)."""
    node, shape = gradients.view.nodes[index], parts[0].shape[:2]
    constant = parts[0].new_zeros(shape)
    match node.op:
        case Affine():
            linear = gradients.view.maps[index]
            return linear.apply(parts[0].flatten(0, 1)).reshape(*shape, *linear.target), constant
        case Sum():
            signed = [part if sign > 0 else -part for sign, part in zip(node.op.signs, parts, strict=True)]
            return torch.stack(signed).sum(dim=0), constant
        case Concat():
            return torch.cat(parts, dim=node.op.axis + 2), constant
        case Elementwise():
            return _chords(gradients, index, parts[0])
    for part, (low, high) in zip(parts, gradients.send_back(index), strict=True):  # only boxes
        constant = constant + torch.maximum(part * low, part * high).flatten(2).sum(dim=2)
    return torch.zeros_like(gradients.found[index][0]), constant


def _chords(gradients: Gradients, index: int, coefficients: Tensor) -> tuple[Tensor, Tensor]:
    """Return the coefficients (B, S, *shape) at an activation's outputs, and the constants (B, S)."""
    (low, high), sector = gradients.found[index], gradients.sectors[index]
    alpha, beta = sector.alpha[:, None], sector.beta[:, None]
    over = coefficients >= 0
    left, right = (
        torch.where(over, torch.maximum(alpha * a, beta * a), torch.minimum(alpha * a, beta * a)) for a in (low, high)
    )
    width = high - low
    slope = torch.where(width > 0, (right - left) / torch.where(width > 0, width, 1.0), 0.0)
    intercept = torch.maximum(coefficients * (left - slope * low), coefficients * (right - slope * high))
    return coefficients * slope, intercept.flatten(2).sum(dim=2)
