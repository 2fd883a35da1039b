"""What can be claimed of a network, and how far the claim can be trusted."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

Norm = Literal["l1", "l2", "linf"]
Quantity = str
"""``output``, ``features``, ``margins``, ``logit I`` or ``margin I J``; see `Claim`."""
LevelName = Literal["estimate", "numerical", "verified", "verified-exec"]

NORMS: tuple[Norm, ...] = get_args(Norm)
QUANTITIES: tuple[Quantity, ...] = ("output", "features", "margins")
"""Those that name no class."""

Table = tuple[tuple[float, ...], ...]

_INDEX = "(0|[1-9][0-9]{0,8})"
_DIRECTION = re.compile(f"logit {_INDEX}|margin {_INDEX} {_INDEX}")


class Level(IntEnum):
    """Trust in a number, ordered: a gate accepts a level and everything above it."""

    ESTIMATE = 0
    NUMERICAL = 1
    VERIFIED = 2
    VERIFIED_EXEC = 3

    @property
    def label(self) -> LevelName:
        """Spelling in documents and on the command line."""
        return _LABELS[self]

    @classmethod
    def parse(cls, label: str) -> Level:
        """Return the level with this spelling.

        Raises:
            ValueError: there is none.
        """
        for level in cls:
            if level.label == label:
                return level
        raise ValueError(f"unknown level '{label}'; one of {', '.join(level.label for level in cls)}")


_LABELS: Mapping[Level, LevelName] = MappingProxyType(dict(zip(Level, get_args(LevelName), strict=True)))


def logit(i: int) -> Quantity:
    """Return the name of one logit."""
    return f"logit {i}"


def margin(i: int, j: int) -> Quantity:
    """Return the name of the margin f_i - f_j."""
    return f"margin {i} {j}"


def classes_of(quantity: Quantity) -> tuple[int, ...]:
    """Return the classes that a quantity names: (I,) for a logit, (I, J) for a margin, () for the others.

    Raises:
        ValueError: there is no such quantity.
    """
    if quantity in QUANTITIES:
        return ()
    match = _DIRECTION.fullmatch(quantity)
    classes = () if match is None else tuple(int(text) for text in match.groups() if text is not None)
    if not classes or (len(classes) == 2 and classes[0] == classes[1]):
        raise ValueError(f"there is no quantity '{quantity}': output, features, margins, logit I, margin I J")
    return classes


@dataclass(frozen=True)
class Claim:
    """``||f(x) - f(x')|| <= bound * ||x - x'||`` for all inputs x, x' in real arithmetic.

    Attributes:
        norm: the norm on both sides.
        quantity: f is the whole ``output``, or the ``features``: the input of the last linear layer of the
            normal form without its softmax. ``logit I`` is one entry of the output, ``margin I J`` the difference
            of two (I not J), both counted from 0 and of the network without a last softmax. ``margins``: all of
            these differences, each with its own bound.
        bound: the Lipschitz constant claimed, finite and non-negative; of ``margins`` the largest.
        table: of ``margins`` only: entry (I, J) is the bound of f_I - f_J; symmetric, zero on the diagonal.
    """

    norm: Norm
    quantity: Quantity
    bound: float
    table: Table | None = None

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ValueError(f"no claim is known about the {self.quantity} in {self.norm}")
        classes_of(self.quantity)
        if not (math.isfinite(self.bound) and self.bound >= 0):
            raise ValueError(f"a bound is finite and not negative, not {self.bound}")
        if (self.table is not None) != (self.quantity == "margins"):
            raise ValueError("a claim about margins has a table of them, and no other has")
        if self.table is not None:
            _check_table(self.table, self.bound)

    @property
    def widest(self) -> Quantity:
        """The quantity that `bound` itself is about: of ``margins`` the one with the largest bound."""
        if self.table is None:
            return self.quantity
        entries = np.array(self.table)
        i, j = np.unravel_index(int(entries.argmax()), entries.shape)
        return margin(int(i), int(j)) if i != j else margin(0, 1)

    def exceeded_by(self, bound: float, table: npt.NDArray[np.float64] | None) -> str | None:
        """Say where what a rule derived is above what is claimed, or return None where the claim is covered.

        bound, table: as derived, of the same quantity.
        """
        if self.table is None:
            return None if bound <= self.bound else f"proved {bound!r}, claimed {self.bound!r}"
        claimed = np.array(self.table)
        if table is None or table.shape != claimed.shape:
            return "margins are claimed that were not derived"
        above = np.argwhere(~(table <= claimed))
        if not len(above):
            return None
        i, j = above[0]
        return f"margin {i} {j}: proved {float(table[i, j])!r}, claimed {float(claimed[i, j])!r}"


def _check_table(table: Table, bound: float) -> None:
    """Refuse a table that is not symmetric, not zero on the diagonal, or whose largest entry is another bound."""
    entries = np.array(table)  # raises ValueError where the rows differ in length
    if entries.ndim != 2 or entries.shape[0] != entries.shape[1] or len(entries) < 2:
        raise ValueError("the bounds of the margins are a square table of at least two classes")
    if not (np.isfinite(entries).all() and (entries >= 0).all() and (entries == entries.T).all()):
        raise ValueError("the bounds of the margins are finite, not negative and symmetric")
    if np.diagonal(entries).any() or entries.max() != bound:
        raise ValueError("the bounds of the margins are zero on the diagonal, and the largest is the bound")
