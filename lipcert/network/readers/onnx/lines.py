"""Walking back through the nodes that were built: what a node is as a function of an earlier one.

Only scales by single numbers, sums and stand-ins of products and powers are looked through.
"""

from __future__ import annotations

from lipcert.network.builder import Builder
from lipcert.network.enclosure import Enclosure
from lipcert.network.operators import Scale, Sum
from lipcert.network.readers.onnx.values import Refused

ONE, ZERO = Enclosure.exact(1.0), Enclosure.exact(0.0)


def equal(a: Enclosure, b: Enclosure) -> bool:
    """Whether two single numbers are known to be the same."""
    return a.is_exact and b.is_exact and bool(a.mid.reshape(-1)[0] == b.mid.reshape(-1)[0])


def _scalar_scale(builder: Builder, node: int) -> tuple[Enclosure, Enclosure, int] | None:
    """Return (factor, shift, input) of a Scale whose constants are single numbers."""
    op = builder.nodes[node].op
    if not isinstance(op, Scale) or op.factor.mid.size != 1 or op.shift.mid.size != 1:
        return None
    return op.factor.reshape(), op.shift.reshape(), builder.nodes[node].inputs[0]


def bare(builder: Builder, node: int) -> tuple[Enclosure, int]:
    """Return (c, other) with node = c other, where other is not a multiple of anything."""
    c = ONE
    while (scale := _scalar_scale(builder, node)) is not None and equal(scale[1], ZERO):
        c, node = c * scale[0], scale[2]
    return c, node


def behind_scales(builder: Builder, node: int, x: int = -1) -> tuple[Enclosure, Enclosure, int]:
    """Return (c, d, other) with node = c other + d, where other is x, or no scale."""
    c, d = ONE, ZERO
    while node != x and (scale := _scalar_scale(builder, node)) is not None:
        c, d, node = c * scale[0], c * scale[1] + d, scale[2]
    return c, d, node


def line_through(builder: Builder, node: int, x: int) -> tuple[Enclosure, Enclosure] | None:
    """Return (c, d) with node = c x + d, or None."""
    c, d, other = behind_scales(builder, node, x)
    return (c, d) if other == x else None


Polynomial = dict[int, Enclosure]  # degree -> coefficient


def polynomial(builder: Builder, node: int, x: int, depth: int) -> Polynomial | None:
    """Return a node as a polynomial in x of degree at most 3, or None."""
    if node == x:
        return {1: ONE}
    op, inputs = builder.nodes[node].op, builder.nodes[node].inputs
    scale = _scalar_scale(builder, node)
    if depth == 0 or not (scale is not None or isinstance(op, (Sum, Refused))):
        return None
    parts = [polynomial(builder, i, x, depth - 1) for i in inputs]
    known = [p for p in parts if p is not None]
    if len(known) < len(parts):
        return None
    if scale is not None:
        return _combine([(scale[0], known[0]), (scale[1], {0: ONE})])
    if isinstance(op, Sum):
        return _combine([(ONE if sign > 0 else -ONE, p) for sign, p in zip(op.signs, known, strict=True)])
    assert isinstance(op, Refused)
    if op.role == "power":
        known = known * int(op.number)
    elif op.role != "product":
        return None
    found: Polynomial = {0: ONE}
    for factor in known:
        found = _combine([(c, {i + j: e for j, e in factor.items()}) for i, c in found.items()])
        if max(found) > 3:
            return None
    return found


def _combine(terms: list[tuple[Enclosure, Polynomial]]) -> Polynomial:
    """Return the sum of number * polynomial, without the coefficients that are exactly zero."""
    found: Polynomial = {}
    for number, part in terms:
        for degree, coefficient in part.items():
            found[degree] = found.get(degree, ZERO) + number * coefficient
    return {degree: c for degree, c in found.items() if not equal(c, ZERO)} or {0: ZERO}
