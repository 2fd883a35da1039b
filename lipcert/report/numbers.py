"""Numbers as people read them, rounded only in the direction that keeps what they say true.

An upper bound is shown rounded up, a lower bound, a radius and a certified accuracy rounded down. All rounding is
done on the exact value (decimal or fraction), so the text is on the right side of the float it stands for.
"""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal

DIGITS = 6
MISSING = "–"
PIXELS = 255  # values of a pixel above 0
_PLAIN = range(-5, 9)  # powers of ten that are written without an exponent


def up(value: float | None, digits: int = DIGITS) -> str:
    """Return the shortest text of at most `digits` significant digits that is not below `value`."""
    return _round(value, digits, ROUND_CEILING)


def down(value: float | None, digits: int = DIGITS) -> str:
    """Return the shortest text of at most `digits` significant digits that is not above `value`."""
    return _round(value, digits, ROUND_FLOOR)


def near(value: float | None, digits: int = 3) -> str:
    """Return a value that claims nothing (a time, a rate), rounded to nearest."""
    return _round(value, digits, ROUND_HALF_EVEN)


def plain(value: float | None, digits: int = DIGITS) -> str:
    """Return a measured value, rounded down from the shortest decimal that denotes it: 0.57, not 0.569999."""
    return _round(value, digits, ROUND_FLOOR, shortest=True)


def percent_down(count: int, total: int, places: int = 2) -> str:
    """Return ``count / total`` as a percentage, rounded down."""
    return _percent(count, total, places, ROUND_FLOOR)


def percent_up(count: int, total: int, places: int = 2) -> str:
    """Return ``count / total`` as a percentage, rounded up."""
    return _percent(count, total, places, ROUND_CEILING)


def eps_key(eps: float) -> str:
    """Return the key of `eps` in the maps of a report."""
    return format(eps, "g")


def eps(value: float) -> str:
    """Return a radius as people know it: that of pictures, which no short decimal is, with its fraction of 255."""
    key, steps = eps_key(value), round(value * PIXELS)
    known = float(key) == value or steps < 1 or abs(value * PIXELS - steps) > 1e-9
    return key if known else f"{key} ({steps}/{PIXELS})"


def count(value: int) -> str:
    """Return a count with its thousands set apart."""
    return f"{value:,}"


def count_of(fraction: float, total: int) -> int:
    """Return the count behind a fraction of `total` samples; exact where that is ``count / total`` in float64."""
    return round(fraction * total)


def duration(seconds: float) -> str:
    """Return a time for people: ``0.4 s``, ``12 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 0.01:
        return "under 0.01 s"
    if seconds < 60:
        return f"{near(seconds, 2)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def memory(size: int | None) -> str:
    """Return an amount of memory for people: ``under 1 MiB``, ``12 MiB``, ``3.4 GiB``."""
    if size is None:
        return MISSING
    if size < 2**20:
        return "under 1 MiB"
    return f"{near(size / 2**20, 2)} MiB" if size < 1000 * 2**20 else f"{near(size / 2**30, 2)} GiB"


def _round(value: float | None, digits: int, rounding: str, *, shortest: bool = False) -> str:
    if value is None:
        return MISSING
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a number that can be shown")
    rounded = Context(prec=digits, rounding=rounding).create_decimal(Decimal(repr(value) if shortest else value))
    if not rounded:
        return "0"
    short = rounded.normalize()
    if rounded.adjusted() in _PLAIN:
        return format(short, ",f")
    return format(short, "e").replace("e+", "e")


def _percent(part: int, total: int, places: int, rounding: str) -> str:
    if total == 0:
        return MISSING
    # exact: 60 digits hold part * 100 / total far beyond `places`; a tie beyond them is impossible for counts
    share = Context(prec=60, rounding=rounding).divide(Decimal(part) * 100, Decimal(total))
    return f"{share.quantize(Decimal(1).scaleb(-places), rounding=rounding)}\N{NO-BREAK SPACE}%"
