r"""Better lines for each margin: those that support an activation where the first bound is attained.

CROWN takes lines that enclose little area, whatever is bounded. Its bound of a margin is attained at one point x of
the region; followed through the relaxed network, the activation's input is z there. By which line the bound gains
most is then known: the gradient of a (s z + b(s)) in the slope s is a (z - p), p the point where the line of slope s
touches the activation (see `contacts`), so the best line, others held fixed, is the one that supports the activation
at z. For ReLU that is slope 1 where z > 0 and 0 elsewhere. This is one exact step of alpha-CROWN for the price of one
more backward pass; any slope is valid, and the better of both bounds is kept.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lipcert.bounds.local.backward import lower_bounds, send_back
from lipcert.bounds.local.lines import supporting_lines
from lipcert.bounds.local.region import Ball
from lipcert.bounds.local.relaxations import Linear, Relaxation
from lipcert.bounds.local.view import View

_WORTH = 2**15  # points of the polylines of a node, up to which lines of their own for each function pay


def look_twice(
    view: View, ball: Ball, relaxations: Mapping[int, Relaxation], coefficients: Tensor
) -> tuple[Tensor, dict[int, Linear]]:
    """Return lower bounds (B, S) of functions of the outputs, and the lines of the second look. Level: numerical.

    Args:
        view, ball: the network and the region.
        relaxations: of all activation nodes, by index.
        coefficients: (B, S, *output_shape).
    """
    over = dict[int, Tensor]()

    def pull(index: int, a: Tensor) -> tuple[list[Tensor | None], Tensor]:
        over[index] = a >= 0
        return relaxations[index].pull(a)

    last = len(view.nodes) - 1
    found, constant = send_back(view, pull, last, coefficients)
    first = constant + ball.minimum(found)
    better = _lines_at(view, relaxations, over, ball.minimiser(found))
    if not better:
        return first, better
    second = lower_bounds(view, ball, {**relaxations, **better}, last, coefficients)
    return torch.fmax(first, second), better


def _lines_at(
    view: View, relaxations: Mapping[int, Relaxation], over: Mapping[int, Tensor], points: Tensor
) -> dict[int, Linear]:
    """Return the lines that support where points of the region (B, S, *input_shape) lead in the relaxed network.

    over: of the nodes that matter, (B, S, *shape) whether the line below was taken.
    """
    values, found = [points.flatten(0, 1)], dict[int, Linear]()
    for index, node in enumerate(view.nodes[1 : max(over, default=0) + 1], start=1):
        relaxation = relaxations.get(index)
        if index in over and isinstance(relaxation, Linear):
            z, lines = values[node.inputs[0]].reshape(over[index].shape), relaxation.lines
            low, high = lines.low_slope * z + lines.low_intercept, lines.high_slope * z + lines.high_intercept
            if len(relaxation.polyline.x) * node.size <= _WORTH:
                polyline = relaxation.polyline.of_functions()
                found[index] = Linear(supporting_lines(view.activation(index), polyline, z), polyline)
            values.append(torch.where(over[index], low, high).flatten(0, 1))
        else:
            values.append(view.kernels[index](*(values[i] for i in node.inputs)))
    return found
