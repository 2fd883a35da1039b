"""The checker's verdicts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat

from lipcert.results.base import Count, Document, LevelName, NormName, QuantityName, Result, Seconds
from lipcert.results.report import RequirementResult


class FileDigest(Document):
    """A file and the SHA-256 of its bytes in lower-case hex (null where there is no file)."""

    path: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None


class BallsInfo(Document):
    """What a certificate of samples claims: all inputs within eps of each of them keep its class.

    Attributes:
        eps: radius of the balls, in raw input units. box: least and largest value of an input, null for none.
        samples: how many. data_digest: SHA-256 of the samples, see `lipcert.proof.local.Samples`.
    """

    eps: FiniteFloat
    box: tuple[FiniteFloat, FiniteFloat] | None
    samples: Count
    data_digest: str


class CheckResult(Result):
    """The checker's verdict on a certificate (schema ``lipcert.check/v1``).

    Attributes:
        bound, quantity: what is claimed, null where the claim is not proved. reason: the verdict in one line.
        balls: what is claimed by a certificate of samples, null where it is not proved and for other certificates.
        code: the reason for machines, one of those of `lipcert.proof.Reason`.
        engine: the arithmetic that checked. statement: the network that the claim speaks of, in words.
        certificate, model: the files that were read. requirements: the verdicts on what was required of the bound.
    """

    schema_: Literal["lipcert.check/v1"] = Field(default="lipcert.check/v1", alias="schema")
    valid: bool
    level: LevelName | None
    bound: FiniteFloat | None
    norm: NormName | None
    rule: str | None
    reason: str
    code: str | None = None
    quantity: QuantityName | None = None
    balls: BallsInfo | None = None
    engine: Literal["float64", "exact"] = "float64"
    statement: str | None = None
    certificate: FileDigest | None = None
    model: FileDigest | None = None
    requirements: tuple[RequirementResult, ...] = ()
    seconds: Seconds
