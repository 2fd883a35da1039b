"""What can be claimed of a network, and how far the claim can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Literal, get_args

Norm = Literal["l1", "l2", "linf"]
Quantity = Literal["output", "features"]
LevelName = Literal["estimate", "numerical", "verified", "verified-exec"]

NORMS: tuple[Norm, ...] = get_args(Norm)
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)


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


@dataclass(frozen=True)
class Claim:
    """``||f(x) - f(x')|| <= bound * ||x - x'||`` for all inputs x, x' in real arithmetic.

    Attributes:
        norm: the norm on both sides.
        quantity: f is the whole ``output``, or the ``features``: the input of the last linear layer of the
            normal form without its softmax.
        bound: the Lipschitz constant claimed, finite and non-negative.
    """

    norm: Norm
    quantity: Quantity
    bound: float

    def __post_init__(self) -> None:
        if self.norm not in NORMS or self.quantity not in QUANTITIES:
            raise ValueError(f"no claim is known about the {self.quantity} in {self.norm}")
        if not (math.isfinite(self.bound) and self.bound >= 0):
            raise ValueError(f"a bound is finite and not negative, not {self.bound}")
