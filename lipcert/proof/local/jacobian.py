r"""Margins from bounds of the gradients around a sample, every rounding counted.

With the numbers g of `gradients`, c.f(x') - c.f(x) = g.d for a point x' = x + d of the region, g in a box [l, u]. So

* on the ball, |g.d| <= eps ||g||_*, ||g||_* at most that of the largest magnitudes;
* l2: g_i^2 <= (l_i + u_i) g_i - l_i u_i, so ||g||_2^2 is below one linear function of g (`gradient_lines`); likewise
  for l1 norms, as |g_i| is below its chord;
* where there is an input box: d_i in [a_i, b_i], a_i <= 0 <= b_i, gives g.d >= sum_i min(u_i a_i, l_i b_i); and with
  g = m + e, |e| <= r: g.d >= m.d - eps ||r||_*.

Boxes are narrowed by lines, entry by entry, where that costs little.

Sources: RecurJac (Zhang et al. 2019) for boxes; Shi et al. 2022 for linear bounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lipcert.network.enclosure import TINY, Float, gamma, round_up
from lipcert.network.linear import row_terms
from lipcert.network.operators import Elementwise
from lipcert.proof.local.affine import Box
from lipcert.proof.local.arithmetic import above, below, dual_norms, middle, over, product_error, sum_error
from lipcert.proof.local.gradient_lines import Forward
from lipcert.proof.local.gradients import Gradients, interval_sum
from lipcert.proof.local.margins import differences, margins_on_boxes
from lipcert.proof.local.proposal import Ints
from lipcert.proof.local.region import Region, least_on_ellipsoid, linear_on_box
from lipcert.proof.local.secants import anchored_sector
from lipcert.proof.local.surroundings import Surroundings

WORK = 2**27  # products that the boxes of one function's gradient at one node may cost to narrow
AT_ONCE = 2**26  # bytes for the coefficients of functions sent at a time
_COPIES = 8  # arrays of the size of the coefficients that live at once


def margins_by_gradients(around: Surroundings, boxes: Sequence[Box], labels: Ints) -> Float:
    """Return (1, classes - 1) lower bounds of the margins of one sample; boxes are narrowed where they do not suffice.

    Args:
        around: of one sample.
        boxes: of all nodes on the region, (1, *shape) each.
        labels: (1,).
    """
    steps, centre = around.steps, around.centre
    sources = {i: (node.op, node.inputs[0]) for i, node in enumerate(steps.nodes) if isinstance(node.op, Elementwise)}
    sectors = {i: anchored_sector(op, centre[source], boxes[source]) for i, (op, source) in sources.items()}
    graph, last = Gradients(steps, boxes, sectors), steps.nodes[-1]
    start = margins_on_boxes(steps, list(centre), labels)
    rows = differences(labels, last.size)[0].reshape(-1, *last.shape)
    best = np.full(start.shape, -np.inf)
    for work in (0, WORK):
        for k in _chunks(np.flatnonzero(~(best[0] > 0)), max(node.size for node in steps.nodes)):
            total = start[:, k] + least_changes(graph, gradient_boxes(graph, rows[k], work), around.region)
            best[:, k] = np.maximum(best[:, k], _finite(below(total, sum_error(total))))
    return best


def _chunks(places: Ints, each: int) -> list[Ints]:
    """Cut places, of functions with so many coefficients each, into parts that fit the memory budget."""
    width = max(1, AT_ONCE // (8 * _COPIES * each))
    return [places[start : start + width] for start in range(0, len(places), width)]


def _finite(bounds: Float) -> Float:
    """Return lower bounds, minus infinity where they prove nothing."""
    return np.where(np.isfinite(bounds), bounds, -np.inf)


def gradient_boxes(graph: Gradients, rows: Float, work: int) -> dict[int, Box]:
    """Return boxes (S, *shape) of the gradients at all nodes.

    Args:
        graph: what nodes do to gradients.
        rows: (S, *output_shape) the functions.
        work: boxes at the input and at activations are narrowed by lines where that costs so many products or less.
    """
    nodes = graph.steps.nodes
    last = len(nodes) - 1
    found, price = {last: (rows, rows)}, 0
    for index in range(last, 0, -1):
        if index not in found:
            continue
        node = nodes[index]
        if isinstance(node.op, Elementwise) and price * node.size <= work:
            found[index] = _narrowed(graph, found, index)
        price += node.size * row_terms(node.op)
        for source, part in zip(node.inputs, graph.send_back(index, found[index]), strict=True):
            found[source] = interval_sum(found[source], part) if source in found else part
    zeros = np.zeros((len(rows), *nodes[0].shape))
    found.setdefault(0, (zeros, zeros))
    if price * nodes[0].size <= work:
        found[0] = _narrowed(graph, found, 0)
    return found


def _narrowed(graph: Gradients, found: Mapping[int, Box], index: int) -> Box:
    """Return the boxes of the gradients at a node, narrowed by lines."""
    low, high = (end.reshape(len(end), -1).copy() for end in found[index])
    places = np.flatnonzero((low < high).any(axis=0))
    forward, size = Forward(graph, found), low.shape[1]
    for some in _chunks(places, 2 * len(low) * max(node.size for node in graph.steps.nodes[index:])):
        basis = np.zeros((1, 2 * len(some), size))
        basis[0, np.arange(len(some)), some], basis[0, len(some) + np.arange(len(some)), some] = 1.0, -1.0
        least, most = np.split(forward.least(index, basis), 2, axis=1)
        low[:, some], high[:, some] = np.maximum(low[:, some], least), np.minimum(high[:, some], -most)
    shape = found[index][0].shape
    return low.reshape(shape), high.reshape(shape)


def least_changes(graph: Gradients, found: Mapping[int, Box], region: Region) -> Float:
    """Return (1, S) lower bounds of g.d on one region, from boxes of the gradients at all nodes."""
    low, high = (end.reshape(len(end), -1) for end in found[0])
    size, forward = np.maximum(-low, high), Forward(graph, found)
    length = dual_norms(size, region.norm)
    if region.norm == "l2":
        length = np.minimum(length, -_finite(-_length_by_squares(forward, low, high, size)))
    elif region.norm == "linf":
        length = np.minimum(length, -_finite(-_length_by_chords(forward, low, high)))
    best = -round_up(region.eps * length)[None]
    if region.box is None:
        return best
    down, up = region.steps
    mid, radius = middle(low, high)
    terms = np.minimum(high * down, low * up)
    by_box = below(terms.sum(axis=1), _sum_error(terms))[None]
    if region.norm == "l2":
        along = least_on_ellipsoid(mid[None], down, up, np.full((1, 1), region.eps), np.ones_like(down))
    else:
        along = np.maximum(linear_on_box(mid[None], down, up), -round_up(region.eps * dual_norms(mid, region.norm)))
    by_parts = below(along, round_up(region.eps * dual_norms(radius, region.norm)) + sum_error(along))
    return np.maximum(best, np.maximum(_finite(by_box), _finite(by_parts)))


def _length_by_squares(forward: Forward, low: Float, high: Float, size: Float) -> Float:
    """Return (S,) upper bounds of ||g||_2 from that of the sum of the squares."""
    slope = low + high
    terms = -low * high
    lost = over((sum_error(slope) * size).sum(axis=1), low.shape[1] + 2)
    square = -forward.least(0, -slope[:, None])[:, 0] + terms.sum(axis=1)
    square = above(square, round_up(lost + _sum_error(terms) + sum_error(square), 4))
    return round_up(np.sqrt(np.maximum(square, 0.0)), 1)


def _length_by_chords(forward: Forward, low: Float, high: Float) -> Float:
    """Return (S,) upper bounds of ||g||_1 from chords of |g|."""
    width = high - low
    slope = np.where(width > 0, (np.abs(high) - np.abs(low)) / np.where(width > 0, width, 1.0), np.sign(low))
    ends = []
    for end in (low, high):
        product = slope * end
        rest = np.abs(end) - product
        ends.append(above(rest, round_up(product_error(slope, end, product) + sum_error(rest), 2)))
    terms = np.maximum(*ends)
    total = -forward.least(0, -slope[:, None])[:, 0] + terms.sum(axis=1)
    return above(total, round_up(_sum_error(terms) + sum_error(total), 2))


def _sum_error(terms: Float) -> Float:
    """Return how far sums (S,) of terms (S, n) with a rounding each may be off."""
    count = terms.shape[1] + 2
    found: Float = over(gamma(count) * over(np.abs(terms).sum(axis=1), count), 2) + count * TINY
    return found
