"""Laws that bounds obey when a network is written differently: the function stays, so its bound must stay.

Bounds in closed form (products, absolute values) follow a change of scale by a power of two to the last bits; the
others come from proposals with a little room and stay within `CLOSE`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lipcert.network.builder import Builder
from lipcert.network.enclosure import Float
from lipcert.network.graph import Network
from lipcert.network.operators import Dense, Operator, Reshape, Scale
from lipcert.proof.rules.absolute import Absolute
from lipcert.proof.rules.product import Product
from lipcert.testing.build import RELU, chain, conv, dense, exact, matrices

CLOSE = 1e-6  # relative
ULPS = 2.0
CLOSED_FORMS = frozenset({Product.id, Absolute.id})
SHIFTS = (1, 17, 60, -60)  # exponents of two

Serve = Callable[[Network], tuple[float, str] | None]  # network -> (bound, rule), or None where refused


@dataclass(frozen=True, eq=False)
class Law:
    """The bound of `after` is `factor` times that of `before`.

    Attributes:
        name: what was changed. binary: whether only powers of two were moved, so that closed forms follow exactly.
    """

    name: str
    before: Network
    after: Network
    factor: float = 1.0
    binary: bool = False

    def breach(self, serve: Serve) -> str | None:
        """Return how bounds break the law, in one line, or None where they keep it or `before` is not served."""
        first = serve(self.before)
        if first is None:
            return None
        second = serve(self.after)
        if second is None:
            return f"{self.name}: it serves the network before the change only"
        (old, rule), (new, _) = first, second
        expected = old * self.factor
        allowed = ULPS * math.ulp(expected) if self.binary and rule in CLOSED_FORMS else CLOSE * expected
        return None if abs(new - expected) <= allowed else f"{self.name}: {new!r} instead of {expected!r}"


def laws() -> Iterator[Law]:
    """Yield all laws."""
    weights, biases = matrices(80, 4, 6, 5, 3), [w[:, 0] for w in matrices(81, 1, 6, 5, 3)]
    plain = stack(weights, biases)
    for shift in SHIFTS:
        for position in (0, 1):
            yield Law(
                f"layer {position} times 2^{shift}, the next one divided by it",
                plain,
                _shifted(weights, biases, position, shift),
                binary=True,
            )
        last = [*weights[:-1], np.ldexp(weights[-1], shift)]
        yield Law(f"last layer times 2^{shift}", plain, stack(last, biases), 2.0**shift, True)
    yield from _neurons(weights, biases, plain)
    yield from _splits(weights, biases, plain)
    yield from _images()


def stack(weights: Sequence[Float], biases: Sequence[Float]) -> Network:
    """Return dense layers with ReLU between them."""
    ops: list[Operator] = []
    for weight, bias in zip(weights, biases, strict=True):
        ops += [Dense(exact(weight), exact(bias)), RELU]
    return chain(weights[0].shape[1:], *ops[:-1])


def _shifted(weights: Sequence[Float], biases: Sequence[Float], position: int, shift: int) -> Network:
    """Scale a layer with its bias, and undo it in the next one: ReLU is positively homogeneous."""
    moved, offsets = list(weights), list(biases)
    moved[position] = np.ldexp(moved[position], shift)
    offsets[position] = np.ldexp(offsets[position], shift)
    moved[position + 1] = np.ldexp(moved[position + 1], -shift)
    return stack(moved, offsets)


def _neurons(weights: list[Float], biases: list[Float], plain: Network) -> Iterator[Law]:
    order = np.array([3, 0, 5, 1, 4, 2])
    moved = [weights[0][order], weights[1][:, order], weights[2]]
    yield Law("neurons in another order", plain, stack(moved, [biases[0][order], *biases[1:]]))
    zeros = np.zeros(2)
    grown = [np.vstack([weights[0], np.zeros((2, 4))]), np.hstack([weights[1], np.zeros((5, 2))]), weights[2]]
    yield Law("two dead neurons more", plain, stack(grown, [np.append(biases[0], zeros), *biases[1:]]))


def _splits(weights: list[Float], biases: list[Float], plain: Network) -> Iterator[Law]:
    first, *rest = (Dense(exact(w), exact(b)) for w, b in zip(weights, biases, strict=True))
    nothing = exact(0.0)
    parts: dict[str, tuple[Operator, ...]] = {
        "an identity layer behind the first": (first, Dense(exact(np.eye(6)), exact(np.zeros(6)))),
        "a scale of 4 and one of 1/4 behind the first": (
            first,
            Scale(exact(4.0), nothing),
            Scale(exact(0.25), nothing),
        ),
    }
    for name, ops in parts.items():
        yield Law(name, plain, chain((4,), *ops, RELU, rest[0], RELU, rest[1]))


def _images() -> Iterator[Law]:
    for shift in (3, 60):
        name = f"convolution times 2^{shift}, its head divided by it"
        yield Law(name, _image(0), _image(shift), binary=True)


def _image(shift: int) -> Network:
    layer = conv(82, (2, 1, 3, 3), padding=((1, 1), (1, 1)))
    layer = replace(layer, weight=exact(np.ldexp(layer.weight.mid, shift)), bias=exact(np.ldexp(layer.bias.mid, shift)))
    builder = Builder((1, 4, 4))
    last = builder.add(RELU, builder.add(layer, 0))
    flat = builder.add(Reshape(), last, shape=(32,))
    builder.add(dense(np.ldexp(matrices(83, 32, 2)[0], -shift)), flat)
    return builder.build()
