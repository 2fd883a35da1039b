"""The settings of a certification run."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lipcert.bounds.local.registry import LOCAL_METHODS
from lipcert.bounds.registry import METHODS, VARIANTS
from lipcert.errors import UsageError, suggestion
from lipcert.proof.claims import NORMS, QUANTITIES, Level, Norm, Quantity
from lipcert.robustness.attack import Attack
from lipcert.robustness.passes.precision import PRECISIONS

CASCADE, GLOBAL = "cascade", "global"


@dataclass(frozen=True)
class Units:
    """Units of inputs and outputs that are numbers.

    Attributes:
        per_input: (n,) radius of each input for eps = 1; one number, for all.
        scale, offset: (m,) or one number: outputs count as scale * output + offset.
    """

    per_input: tuple[float, ...] = (1.0,)
    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to certify, and how.

    Attributes:
        eps: radii, in raw input units; kept in ascending order.
        norm: norm of the ball.
        box: least and largest value that an input may have: verdicts are then about the ball inside the box; or None
            for the whole ball. Only local methods prove more by it; attacks stay inside.
        method: ``cascade`` (global bound, attacks, and local methods from cheap to expensive, see `plan`), ``global``
            (the global bound alone), the name of a method for the global bound (alone), or of a local method (behind
            the product bound).
        level: what a certified sample must be: ``verified``, ``verified-exec`` or ``numerical``.
        quantity: ``features``, every rival class on its own with the last linear layer taken out; ``output``, one
            bound for all logits (the sqrt 2 form); or ``margins``, the first of these with every pair of classes
            bounded on its own too, where the bound method proposes multipliers. Without a last linear layer
            ``features`` are the ``output``.
        arithmetic: of the deployed pass at level ``verified-exec``, a name in `precision.PRECISIONS`; None for the
            model's own.
        attack: settings of the attack, which only ``cascade`` runs.
        requirements: expressions (see `requirements`).
        baseline: path of an earlier result that requirements speak of, or None.
        certificate: path of a certificate whose bound is used after checking it.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``: where attacks run; certified verdicts are the CPU's.
        batch_size: samples at a time; chosen by the time that batches take where None.
        shard: ``"I/N"``: only samples I-1, I-1+N, I-1+2N, ..., or None for all.
        folder: where the records go, or None for nowhere.
        resume: whether to go on with the records in `folder`.
        time_limit: seconds for the run; what it leaves out is unknown. Predictions and radii from the global bound
            are always given. Without one, single pairs of classes are only looked at in small networks.
        lower_seconds: seconds for the lower bound beside the global bound, in a cascade.
        budget_per_sample: seconds that the stages behind the global one may spend on one sample, judged by what they
            took so far, or None.
        top_k: how many classes the label has to be among.
        radius: whether local methods raise each sample's certified radius by bisection, too.
        save_adversarial: whether adversarial inputs are written to `folder`.
        proofs: whether certificates of the samples that local methods certified are written to `folder`.
        units: of a run on outputs that are numbers (`regression`); None for classes.

    Raises:
        UsageError: a setting is out of range.
    """

    eps: tuple[float, ...]
    norm: Norm = "l2"
    box: tuple[float, float] | None = None
    method: str = CASCADE
    level: str = "verified"
    quantity: Quantity = "margins"
    arithmetic: str | None = None
    attack: Attack = field(default_factory=Attack)
    requirements: tuple[str, ...] = ()
    baseline: str | PathLike[str] | None = None
    certificate: str | PathLike[str] | None = None
    device: str = "auto"
    batch_size: int | None = None
    shard: str | None = None
    folder: Path | None = None
    resume: bool = False
    time_limit: float | None = None
    lower_seconds: float = 2.0
    budget_per_sample: float | None = None
    top_k: int = 1
    radius: bool = False
    save_adversarial: bool = False
    proofs: bool = False
    units: Units | None = None

    def __post_init__(self) -> None:
        eps = tuple(sorted(float(e) for e in self.eps))
        object.__setattr__(self, "eps", eps)
        object.__setattr__(self, "requirements", tuple(self.requirements))
        if not eps:
            raise UsageError("no radius is given: at least one eps is needed")
        wrong = [e for e in eps if not (math.isfinite(e) and e > 0)]
        if wrong:
            raise UsageError(f"eps {wrong[0]} is not a radius: a positive number is needed")
        if len(set(self.keys)) < len(eps):
            raise UsageError(f"two radii are equal to six digits: {', '.join(map(repr, eps))}")
        named = [*(method.name for method in LOCAL_METHODS), *(method.name for method in (*METHODS, *VARIANTS))]
        methods = [CASCADE, GLOBAL, *named]
        if self.method not in methods:
            raise UsageError(f"there is no method '{self.method}': {suggestion(self.method, methods)}")
        if self.norm not in NORMS:
            raise UsageError(f"there is no norm '{self.norm}': one of {', '.join(NORMS)}")
        if self.box is not None and not -math.inf < self.box[0] < self.box[1] < math.inf:
            raise UsageError(f"the input box [{self.box[0]}, {self.box[1]}] is empty or not finite")
        if self.quantity not in QUANTITIES:
            raise UsageError(f"there is no quantity '{self.quantity}': one of {', '.join(QUANTITIES)}")
        levels = [level.label for level in Level if level > Level.ESTIMATE]
        if self.level not in levels:
            raise UsageError(f"samples can be certified at level {', '.join(levels)}, not '{self.level}'")
        if self.arithmetic is not None and self.arithmetic not in PRECISIONS:
            raise UsageError(f"there is no arithmetic '{self.arithmetic}': one of {', '.join(PRECISIONS)}")
        if self.arithmetic is not None and self.level != Level.VERIFIED_EXEC.label:
            raise UsageError("an arithmetic is that of the deployed pass: it goes with level verified-exec only")
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"the batch size is {self.batch_size}: at least 1 is needed")
        if self.resume and self.folder is None:
            raise UsageError("there is nothing to resume without a folder of records")
        if self.top_k < 1:
            raise UsageError(f"top_k is {self.top_k}: at least 1 is needed")
        for name, seconds in (("time_limit", self.time_limit), ("budget_per_sample", self.budget_per_sample)):
            if seconds is not None and not seconds >= 0:
                raise UsageError(f"{name} is {seconds}: seconds cannot be negative")
        if self.save_adversarial and (self.folder is None or not self.attacks):
            raise UsageError(f"adversarial inputs go into a folder, after attacks: method '{CASCADE}', and a folder")
        if self.radius and not (self.attacks or self.local_methods):
            raise UsageError(f"radii are searched by local methods: method '{CASCADE}', or one of them")
        if self.proofs:
            self._require_proofs()
        self.part()

    def _require_proofs(self) -> None:
        """Raise UsageError where nothing of this run can become a certificate of samples."""
        if self.folder is None:
            raise UsageError("proofs go into a folder: give one")
        if self.level != Level.VERIFIED.label:
            raise UsageError(f"proofs are certificates of level {Level.VERIFIED.label}, not {self.level}")
        if not (self.attacks or self.local_methods):
            raise UsageError(
                f"proofs are of samples that local methods certify: method '{CASCADE}', or one of them; what a global "
                "bound certifies follows from its own certificate"
            )
        if self.top_k > 1:
            raise UsageError("proofs say that a sample keeps its class: they do not go with top_k")

    @property
    def keys(self) -> tuple[str, ...]:
        """The radii as keys of the report's maps."""
        return tuple(format(e, "g") for e in self.eps)

    @property
    def attacks(self) -> bool:
        """Whether attacks are run."""
        return self.method == CASCADE

    @property
    def bound_method(self) -> str:
        """Name of the method for the global bound."""
        if self.local_methods:
            return "product"
        return "auto" if self.method in (CASCADE, GLOBAL) else self.method

    @property
    def local_methods(self) -> tuple[str, ...]:
        """Names of the local methods that look at what the global bound leaves open."""
        return tuple(method.name for method in LOCAL_METHODS if method.name == self.method)

    @property
    def bound_seconds(self) -> float | None:
        """Seconds for an anytime bound method, and as many for the margins."""
        share = 0.1 if self.attacks or self.units else 0.4
        return None if self.time_limit is None else share * self.time_limit

    def part(self) -> tuple[int, int]:
        """Return (I, N) of the shard, (1, 1) for all samples.

        Raises:
            UsageError: the shard is not I/N with 1 <= I <= N.
        """
        if self.shard is None:
            return 1, 1
        match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", self.shard)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(f"'{self.shard}' is not a shard: write I/N, such as 1/4 for the first of four")
        return int(match[1]), int(match[2])

    def rows(self, total: int) -> npt.NDArray[np.int64]:
        """Return the positions of the shard's samples among so many.

        Raises:
            UsageError: there are none.
        """
        part, parts = self.part()
        index = np.arange(part - 1, total, parts, dtype=np.int64)
        if not len(index):
            raise UsageError(f"shard {self.shard} of {total} samples is empty: use at most {total} shards")
        return index

    def summary(self) -> Mapping[str, str | int | float | bool | None]:
        """Return the settings that a person needs to repeat the run, as plain values."""
        return {
            "eps": ", ".join(map(repr, self.eps)),
            "norm": self.norm,
            "box": None if self.box is None else f"{self.box[0]!r}, {self.box[1]!r}",
            "method": self.method,
            "level": self.level,
            "arithmetic": self.arithmetic,
            "quantity": self.quantity,
            "attack_steps": self.attack.steps if self.attacks else None,
            "attack_restarts": self.attack.restarts if self.attacks else None,
            "attack_seed": self.attack.seed if self.attacks else None,
            "certificate": None if self.certificate is None else str(self.certificate),
            "shard": self.shard,
            "time_limit": self.time_limit,
            "budget_per_sample": self.budget_per_sample,
            "top_k": self.top_k,
            "radius": self.radius,
            **({} if self.units is None else {name: json.dumps(value) for name, value in vars(self.units).items()}),
        }
