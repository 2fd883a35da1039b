r"""Networks with one kink per activation, seen from the centre of a ball: linear maps with noises that are ReLUs.

Let f have slopes a left and b right of its kink k, and let z* be the pre-activation at the centre, on the side `here`.
With t the signed way past the kink, t = z - k where z* <= k and t = k - z where z* > k,

    f(z) = f(k) + (slope here) (z - k) + (b - a) relu(t)            (both sides of k, both cases)

so every unstable neuron is a linear one and a noise w = relu(t), which is zero at the centre. Stable neurons are
linear. Hence, exactly, with dx = x - centre,

    t = t* + T dx + N w,    f = f* + G dx + M w,    w = relu(t),    t* <= 0,    N strictly lower triangular.

Cutting the region where t_i = 0 makes the neuron linear: w_i = 0 where t_i <= 0, and w_i = t_i where t_i >= 0, which
is put into all the other rows, in order.

Only the Gram matrix of the rows T, G matters for bounds on l2 balls, so nothing of the size of the input is kept but
the rows themselves, to find points.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from lipcert.bounds.local.crown import Relaxed
from lipcert.bounds.local.lines import Shape
from lipcert.bounds.local.noise import NoiseModel, noise_model
from lipcert.bounds.local.sectors import Sector
from lipcert.bounds.local.view import View
from lipcert.network.operators import Activation, Elementwise


@dataclass(frozen=True, eq=False)
class Kinks:
    """P linear functions of outputs, each on a part of the ball of its sample; float64.

    Attributes:
        start: (P, u + 1) t* of each neuron, and f* last.
        low, high: (P, u) least and largest t, low <= 0 <= high.
        free: (P, u) neurons that are ReLUs; the others are linear on the part, or padding.
        forced: (P, u) 1 where the part keeps to t >= 0, -1 to t <= 0, 0 where it does not say.
        gram: (P, u + 1, u + 1) products of the rows T, G.
        noise: (P, u + 1, u) N, and M last; zero for neurons that are not free.
        eps: (P,) radii.
        unit: (P,) mean size of the coefficients M on the whole ball: what weights of cuts are of the order of.
    """

    start: Tensor
    low: Tensor
    high: Tensor
    free: Tensor
    forced: Tensor
    gram: Tensor
    noise: Tensor
    eps: Tensor
    unit: Tensor

    def __len__(self) -> int:
        return len(self.start)

    @property
    def move(self) -> Tensor:
        """(P,) about how far the functions move on the balls: their linear parts, or a share of their noises."""
        squares = self.gram.diagonal(dim1=1, dim2=2).clamp(min=0.0)
        noises = (self.noise[:, -1].abs() * squares[:, :-1].sqrt()).sum(dim=1)
        return self.eps * torch.maximum(squares[:, -1].sqrt(), 0.01 * noises)

    def take(self, rows: Tensor) -> Kinks:
        """Return some of them, given by index or mask."""
        return Kinks(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def join(self, others: Kinks) -> Kinks:
        """Return these and others of the same size."""
        return Kinks(*(torch.cat([getattr(k, name) for k in (self, others)]) for name in self.__dataclass_fields__))

    def halves(self, neuron: Tensor) -> tuple[Kinks, Kinks]:
        """Return the parts t <= 0 and t >= 0 of a free neuron (P,) each."""
        rows = torch.arange(len(self), device=neuron.device)
        column = self.noise[rows, :, neuron]
        without = self.noise.clone()
        without[rows, :, neuron] = 0.0
        free = self.free.clone()
        free[rows, neuron] = False
        below, above = self.forced.clone(), self.forced.clone()
        below[rows, neuron], above[rows, neuron] = -1, 1
        off = replace(self, noise=without, free=free, forced=below)
        own = self.gram[rows, neuron]  # products with the row of the neuron
        square = own[rows, neuron][:, None, None] * column[:, :, None] * column[:, None]
        mixed = column[:, :, None] * own[:, None]
        on = Kinks(
            self.start + column * self.start[rows, neuron][:, None],
            self.low,
            self.high,
            free,
            above,
            self.gram + mixed + mixed.mT + square,
            without + column[:, :, None] * without[rows, neuron][:, None],
            self.eps,
            self.unit,
        )
        return off, on


@dataclass(frozen=True, eq=False)
class Seen:
    """The network around the centres of B balls.

    Attributes:
        model: T and G, and N and M, for S functions of each sample, before signs are taken. See `noise`.
        signs: (B, u) of t in z; 0 for padding. low, high: (B, u) of t. start: (B, u + S).
        jumps: (B, u) b - a. slopes: (B, u) of the pieces at the centres. eps: (B,).
    """

    model: NoiseModel
    signs: Tensor
    low: Tensor
    high: Tensor
    start: Tensor
    jumps: Tensor
    slopes: Tensor
    eps: Tensor

    def kinks(self, samples: Tensor, functions: Tensor) -> Kinks:
        """Return P functions of samples (P,), on their whole balls."""
        count = self.signs.shape[1]
        which = torch.arange(count, device=samples.device).expand(len(samples), -1)
        which = torch.cat([which, count + functions[:, None]], dim=1)
        gram = self._gram[samples].gather(1, which[..., None].expand(-1, -1, self._gram.shape[2]))
        gram = gram.gather(2, which[:, None].expand(-1, count + 1, -1))
        noise = self._noise[samples].gather(1, which[..., None].expand(-1, -1, count))
        free = (self.signs != 0)[samples]
        start = self.start[samples].gather(1, which)
        nothing = torch.zeros_like(free, dtype=torch.int8)
        unit = noise[:, count].abs().sum(dim=1) / free.sum(dim=1).clamp(min=1)
        low, high, eps = self.low[samples], self.high[samples], self.eps[samples]
        return Kinks(start, low, high, free, nothing, gram, noise, eps, unit)

    def points(self, samples: Tensor, functions: Tensor, weights: Tensor) -> Tensor:
        """Return (P, n) sums of the rows T and G with weights (P, u + 1)."""
        count = self.signs.shape[1]
        neurons = (weights[:, :count] * self.signs[samples])[:, None] @ self.model.inputs[samples, :count]
        return neurons[:, 0] + weights[:, count:] * self.model.inputs[samples, count + functions]

    @cached_property
    def _outer(self) -> Tensor:
        """(B, u + S) signs of all rows."""
        ones = self.start.new_ones((len(self.start), self.start.shape[1] - self.signs.shape[1]))
        return torch.cat([self.signs, ones], dim=1)

    @cached_property
    def _gram(self) -> Tensor:
        return self._outer[:, :, None] * self.model.gram * self._outer[:, None]

    @cached_property
    def _noise(self) -> Tensor:
        count, total = self.signs.shape[1], self.start.shape[1]
        columns = [torch.nn.functional.pad(part, (0, 0, total - part.shape[1], 0)) for part in self.model.noise]
        full = torch.cat([self.start.new_zeros((len(self.start), total, 0)), *columns], dim=2)
        return full * self._outer[:, :, None] * (self.jumps * (self.signs != 0))[:, None, :count]


def obstacle(view: View) -> str | None:
    """Return which activation has not exactly one kink and two straight sides, or None."""
    for index, node in enumerate(view.nodes):
        if isinstance(node.op, Activation):
            curve = view.activation(index).curve if isinstance(node.op, Elementwise) else None
            if curve is None or not curve.is_straight or len(curve.kinks(*view.activation(index).parameters)) != 1:
                return f"'{node.name}' is not straight on both sides of one kink"
    return None


def unstable(relaxed: Relaxed) -> Tensor:
    """Return (B,) how many neurons of each sample are not linear on its region; `obstacle` is None."""
    view = relaxed.view
    counts = torch.zeros(len(relaxed.ball), dtype=torch.int64, device=view.device)
    for index, node in enumerate(view.nodes):
        if isinstance(node.op, Elementwise):
            shape, (low, high) = view.activation(index), relaxed.boxes[node.inputs[0]]
            (kink,) = (point.to(low) for point in shape.curve.kinks(*shape.parameters))
            counts = counts + (~((low >= kink) | (high <= kink))).flatten(1).sum(dim=1)
    return counts


def seen(relaxed: Relaxed, rows: Tensor) -> Seen:
    """Return the network around the centres, for functions (B, S, *output_shape). Level: numerical.

    Args:
        relaxed: the network relaxed on l2 balls; `obstacle` is None.
        rows: coefficients on the outputs.
    """
    view, centre = relaxed.view, relaxed.view.trace(relaxed.ball.centre)
    sides = {
        index: _side(view.activation(index), relaxed.boxes[node.inputs[0]], centre[node.inputs[0]])
        for index, node in enumerate(view.nodes)
        if isinstance(node.op, Elementwise)
    }
    sectors = {index: side.sector for index, side in sides.items()}
    model = noise_model(view, sectors, len(view.nodes) - 1, rows)
    values = (rows.flatten(2) @ centre[-1].flatten(1)[..., None])[..., 0].double()

    def picked(name: str) -> Tensor:
        parts = [
            getattr(sides[k], name).flatten(1).gather(1, pick).double()
            for k, pick in zip(model.nodes, model.picks, strict=True)
        ]
        return torch.cat([values[:, :0], *parts], dim=1)

    free = torch.cat([values[:, :0], *model.radii], dim=1) > 0
    start = torch.where(free, picked("start"), -1.0)
    low, high = torch.where(free, picked("low"), -1.0), torch.where(free, picked("high"), 1.0)
    signs = torch.where(free, picked("sign"), 0.0)
    start, jump, slope = torch.cat([start, values], dim=1), picked("jump"), picked("slope")
    return Seen(model, signs, low, high, start, jump, slope, relaxed.ball.eps.double())


@dataclass(frozen=True, eq=False)
class _Side:
    """Of an activation node, (B, *shape) each: see `Kinks` and `Seen`."""

    sector: Sector
    sign: Tensor
    start: Tensor
    low: Tensor
    high: Tensor
    jump: Tensor
    slope: Tensor


def _side(shape: Shape, box: tuple[Tensor, Tensor], centre: Tensor) -> _Side:
    """Return the linear piece at the centre, or that of the box, and the way past the kink."""
    low, high = box
    (kink,) = (point.to(low) for point in shape.curve.kinks(*shape.parameters))
    values = [shape.function(kink + step, *shape.parameters) for step in (-1.0, 0.0, 1.0)]
    left, right = (values[k + 1] - values[k] for k in (0, 1))
    unstable = ~((low >= kink) | (high <= kink))
    past = torch.where(unstable, centre > kink, low >= kink)
    sign = torch.where(past, -1.0, 1.0).to(low)
    slope = torch.where(past, right, left)
    width = torch.where(unstable, 0.5, 0.0).to(low)
    ends = sign * (low - kink), sign * (high - kink)
    return _Side(
        Sector(slope - width, slope + width),
        sign,
        sign * (centre - kink),
        torch.minimum(*ends).clamp(max=0.0),
        torch.maximum(*ends).clamp(min=0.0),
        (right - left).expand_as(low),
        slope.expand_as(low),
    )
