r"""Nodes as affine functions of the input and of the errors of activations: zonotopes, sent forwards (DeepZ).

On the region of a sample x0, every entry of a node is

    h_i = m_i + sum_s A_is xi_s,      m_i in [c_i, c'_i].

Symbols xi are the inputs' differences d = x - x0, of which the ball says |d| <= eps, and others, of which |xi_s| <= 1
is known. So h_i is in [c_i - reach_i, c'_i + reach_i] with reach_i = eps ||A_i, inputs||_* + sum over the others of
|A_is|. A l1 ball is taken for the l2 ball around it.

*Affine nodes* W: A' = fl(W A) misses W A by gamma_t |W| |A| entry by entry, t the terms of a row, which is at most
gamma_t |W| reach of h. So it is what the interval rule (`AffineStep.box`) makes of c and c' moved gamma_t reach apart,
roundings of the centre and radii R of W counted, and R reach besides.
*Sums*: two roundings of A or fewer for each input, likewise.
*Activations*: a slope s and bounds t <= f(z) - s z <= t' on the box of z (`band`) give f(z) = s m + s A xi + tau with
tau in [t, t']. Where t' - t is next to nothing, tau goes to the centre; else it is a symbol, times (t' - t) / 2.
Products that underflow lose 2^-1075 each, for each symbol.

Backwards (`columns`), a function takes the line that is best for it at every activation; here one serves all. But one
pass serves all entries of all nodes too, which costs far less where most neurons are stable. So entries are looked at
here first, where that is cheap (`costs`); functions of those that stay undecided are sent back.

Sources: zonotopes in networks (Gehr et al. 2018, AI2), and slopes of activations for them (Singh et al. 2018, DeepZ).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lipcert.network.enclosure import TINY, UNIT, Float, gamma, round_up
from lipcert.network.graph import Shape
from lipcert.network.linear import row_terms
from lipcert.network.operators import Affine, Concat, Elementwise, Sum
from lipcert.proof.local.affine import Box
from lipcert.proof.local.arithmetic import above, below, middle, over, product_error, sum_error
from lipcert.proof.local.boxes import Steps, propagate
from lipcert.proof.local.costs import MOST
from lipcert.proof.local.curved import is_bent, lines
from lipcert.proof.local.entries import Places
from lipcert.proof.local.images import by_neighbourhood, image_shape, laid_out
from lipcert.proof.local.least import FLOAT64
from lipcert.proof.local.region import Mask, Region
from lipcert.proof.local.sliding import push_affine
from lipcert.proof.local.windows import DType, Windows

AT_ONCE = 64  # symbols of one product: what caches hold
WORTH = 0.5  # of what sending functions back would cost: what looking may cost
_NOTHING = 2.0**-40  # of the width of a box: errors of this size are no symbols

Parts = Mapping[int, Windows]  # coefficients of groups of symbols, by the group's number


@dataclass(frozen=True, eq=False)
class Form:
    """One node.

    Attributes:
        centre: [c, c'], (1, *shape) each.
        parts: A.
        reach: (1, *shape).
    """

    centre: Box
    parts: Parts
    reach: Float

    def widened(self, share: float) -> Box:
        """Return the centre, wider by a share of the reach."""
        lost = round_up(share * self.reach, 4)
        return below(self.centre[0], lost), above(self.centre[1], lost)


class Zonotope:
    """The region of one sample as all nodes see it. Grows node by node, as far as it is asked for.

    Args of the constructor:
        steps: the network.
        region: one ball.
        sample: which one it is of the B samples of the boxes.
        boxes: of all nodes before the one that is asked for, (B, *shape). Grows.
        dtype: of coefficients: float64; where nothing is proved, float32 too.
    """

    def __init__(self, steps: Steps, region: Region, sample: int, boxes: Sequence[Box], dtype: DType = FLOAT64) -> None:
        self._steps, self._region, self._sample, self._boxes, self._dtype = steps, region, sample, boxes, dtype
        self._forms: list[Form | None] = []
        self._sources: list[int] = []  # the node of each group of symbols

    def pays(self, index: int, count: int) -> bool:
        """Whether looking at a node here is cheap beside sending some of its entries back, and fits the memory."""
        costs, known = self._steps.costs, max(0, len(self._forms) - 1)
        spent = numbers = 0.0
        for source, symbols in self._symbols(index):
            spent += symbols * (costs.forwards(source)[index] - costs.forwards(source)[max(known, source)])
            numbers += symbols * costs.numbers(source)[index]
        return numbers <= MOST and spent <= WORTH * count * costs.backwards[index]

    def box(self, index: int) -> Box | None:
        """Return the box (1, *shape) of a node, or None where nothing is known of it."""
        while len(self._forms) <= index:
            self._forms.append(self._next(len(self._forms)))
            self._forget(self._steps.nodes[len(self._forms) - 1].inputs)
        form = self._forms[index]
        return None if form is None else (below(form.centre[0], form.reach), above(form.centre[1], form.reach))

    def _forget(self, nodes: Sequence[int]) -> None:
        """Drop the coefficients of nodes that no later one reads."""
        for index in nodes:
            form = self._forms[index]
            if form is not None and max(self._steps.network.consumers[index]) < len(self._forms):
                self._forms[index] = Form(form.centre, {}, form.reach)

    def _symbols(self, index: int) -> list[tuple[int, int]]:
        """Return nodes before one, and how many symbols each has or would have."""
        found = [(0, self._steps.nodes[0].size)]
        for at, node in self._steps.network.activation_nodes():
            if at < index and isinstance(node.op, Elementwise):
                found.append((at, int(is_bent(node.op, *self._box(node.inputs[0])).sum())))
        return found

    def _box(self, index: int) -> Box:
        low, high = self._boxes[index]
        one = slice(self._sample, self._sample + 1)
        return low[one].astype(np.float64, copy=False), high[one].astype(np.float64, copy=False)

    def _next(self, index: int) -> Form | None:
        node = self._steps.nodes[index]
        if index == 0:
            point = self._region.centre.astype(np.float64)
            return self._form(0, (point, point), self._new(0, np.arange(node.size), np.ones(node.size)))
        known = [self._forms[i] for i in node.inputs]
        forms = [form for form in known if form is not None]
        if len(forms) < len(known):
            return None
        match node.op:
            case Affine():
                return self._affine(index, forms[0])
            case Sum() | Concat():
                return self._joined(index, forms)
            case Elementwise():
                return self._elementwise(index, forms[0])
            case _:
                return None

    def _affine(self, index: int, form: Form) -> Form | None:
        step = self._steps.affine[index]
        terms = row_terms(step.op) + 2
        low, high = step.box(*form.widened(gamma(terms)))
        lost = round_up(step.uncertain(form.reach) + self._floor(terms))
        parts = {k: push_affine(step, part) for k, part in form.parts.items()}
        return self._form(index, (below(low, lost), above(high, lost)), parts)

    def _joined(self, index: int, forms: Sequence[Form]) -> Form | None:
        node, start, parts = self._steps.nodes[index], 0, dict[int, Windows]()
        centre = propagate(self._steps, index, [form.widened(2.0 * gamma(len(forms))) for form in forms])
        if isinstance(node.op, Concat) and node.op.axis != 0:
            return None
        for place, form in enumerate(forms):
            for k, part in form.parts.items():
                if isinstance(node.op, Sum):
                    own = part if node.op.signs[place] > 0 else part.like(-part.values)
                else:
                    own = part.among(start, node.shape)
                parts[k] = parts[k].plus(own) if k in parts else own
            start += form.reach.shape[1]
        return self._form(index, centre, parts)

    def _elementwise(self, index: int, form: Form) -> Form:
        node, box = self._steps.nodes[index], self._box(self._steps.nodes[index].inputs[0])
        assert isinstance(node.op, Elementwise)
        slope, ends = band(node.op, *box)
        tau, size = middle(*ends)
        small = size <= _NOTHING * (box[1] - box[0])
        kept, floor = np.where(small, size, 0.0), self._floor(1)
        centre = _moved(_scaled(slope, form.widened(2.0 * UNIT)), tau, round_up(kept + floor))
        factors = laid_out(slope.reshape(-1), node.shape)
        rows = np.flatnonzero(~small)
        new = self._new(index, rows, size.reshape(-1)[rows])
        parts = {k: part.times(factors) for k, part in form.parts.items()} | new
        reach = over(np.abs(slope) * form.reach + np.where(small, 0.0, size) + floor, 8)
        return Form(centre, parts, reach)

    def _new(self, index: int, rows: Places, sizes: Float) -> dict[int, Windows]:
        """Return new symbols at some entries of a node, in groups."""
        shape, found = self._steps.nodes[index].shape, dict[int, Windows]()
        order = by_neighbourhood(rows, shape, max(1, round((AT_ONCE / image_shape(shape)[2]) ** 0.5)))
        for start in range(0, len(order), AT_ONCE):
            some = order[start : start + AT_ONCE]
            found[len(self._sources)] = Windows.of_entries(rows[some], sizes[some], shape, self._dtype)
            self._sources.append(index)
        return found

    def _floor(self, terms: int) -> float:
        """Return what so many products for each coefficient may cost by underflow."""
        return 2.0 * terms * AT_ONCE * len(self._sources) * (1.0 + self._region.eps) * TINY

    def _form(self, index: int, centre: Box, parts: Parts) -> Form | None:
        if sum(part.values.size for part in parts.values()) > MOST:
            return None
        return Form(centre, parts, self._reach(parts, self._steps.nodes[index].shape))

    def _reach(self, parts: Parts, shape: Shape) -> Float:
        height, width, channels = image_shape(shape)
        inputs, others = np.zeros((2, height, width, channels))
        squared = self._region.norm != "linf"
        for k, part in parts.items():
            if self._sources[k] == 0:
                inputs += part.added(squared)
            else:
                others += part.added(squared=False)
        count = AT_ONCE * len(self._sources) + 8
        length = np.sqrt(over(inputs, count)) if squared else inputs
        found = over(self._region.eps * length + others, 2 * count + 8)
        return np.moveaxis(found, 2, 0).reshape(1, *shape)


class Zonotopes:
    """Those of samples, each grown as far as it is asked for.

    Args of the constructor:
        steps: the network.
        region: from a sample to its ball.
        boxes, dtype: as of `Zonotope`.
    """

    def __init__(
        self, steps: Steps, region: Callable[[int], Region], boxes: Sequence[Box], dtype: DType = FLOAT64
    ) -> None:
        self._new: Callable[[int], Zonotope] = lambda b: Zonotope(steps, region(b), b, boxes, dtype)
        self._known: dict[int, Zonotope] = {}
        self._looks = steps.costs.looks

    def pay(self, index: int, mask: Mask) -> Mask:
        """Return (B,) for which samples a look is cheap beside sending entries (B, size) of a node back."""
        if not self._looks:
            return np.zeros(len(mask), dtype=np.bool_)
        counts = mask.sum(axis=1).tolist()
        return np.array([count > 0 and self._of(b).pays(index, count) for b, count in enumerate(counts)])

    def narrowed(self, index: int, box: Box, samples: Mask) -> Box:
        """Return the box (B, *shape) of a node, narrower where the zonotopes of some samples (B,) say so."""
        low, high = box[0].copy(), box[1].copy()
        for b in np.flatnonzero(samples).tolist():
            found, one = self._of(b).box(index), slice(b, b + 1)
            if found is not None:
                low[one] = np.maximum(low[one], np.where(np.isfinite(found[0]), found[0], -np.inf))
                high[one] = np.minimum(high[one], np.where(np.isfinite(found[1]), found[1], np.inf))
        return low, high

    def _of(self, b: int) -> Zonotope:
        if b not in self._known:
            self._known[b] = self._new(b)
        return self._known[b]


def band(op: Elementwise, low: Float, high: Float) -> tuple[Float, Box]:
    """Return slopes s of an activation f and bounds of f(x) - s x on boxes (1, *shape).

    Of the lines of least area, the slope of the one along which the bounds are closer.
    """
    best = lines(op, low, high)
    slopes = [slope.reshape(low.shape) for slope in (best.low_slope, best.high_slope)]
    bands = [lines(op, low, high, (slope[:, None], slope[:, None])) for slope in slopes]
    (low_1, high_1), (low_2, high_2) = (
        (found.low_intercept.reshape(low.shape), found.high_intercept.reshape(low.shape)) for found in bands
    )
    first = high_1 - low_1 <= high_2 - low_2
    return np.where(first, *slopes), (np.where(first, low_1, low_2), np.where(first, high_1, high_2))


def _scaled(slope: Float, box: Box) -> Box:
    """Return bounds of a slope times numbers of a box."""
    products = [slope * end for end in box]
    errors = [product_error(slope, end, value) for end, value in zip(box, products, strict=True)]
    lows, highs = (
        [side(value, error) for value, error in zip(products, errors, strict=True)] for side in (below, above)
    )
    return np.minimum(*lows), np.maximum(*highs)


def _moved(box: Box, by: Float, wider: Float) -> Box:
    """Return a box moved by some numbers, and wider by others."""
    low, high = box[0] + by, box[1] + by
    return below(low, round_up(wider + sum_error(low))), above(high, round_up(wider + sum_error(high)))
