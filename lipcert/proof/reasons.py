"""Why a certificate is accepted or not: every reason with a code for machines, its cause and its remedy."""

from __future__ import annotations

from enum import Enum

from lipcert.errors import CertificateError


class Reason(Enum):
    """Why a verdict is what it is.

    Attributes:
        code: stable name for machines. cause: what is the case. remedy: what to do, empty where nothing is wrong.
    """

    PROVED = ("proved", "the claim is proved for this model", "")
    MALFORMED = (
        "malformed",
        "the file is not a certificate: it is damaged, cut off or of another format",
        "fetch it again, or certify the model anew",
    )
    NOT_FINITE = (
        "not-finite",
        "the certificate holds NaN, an infinity or a bound that is no bound",
        "certify the model anew",
    )
    OTHER_STRUCTURE = (
        "other-structure",
        "the certificate belongs to a model of another structure",
        "certify this model anew",
    )
    OTHER_WEIGHTS = (
        "other-weights",
        "the certificate belongs to other weights",
        "the model changed since; certify it anew",
    )
    UNKNOWN_RULE = (
        "unknown-rule",
        "this version of lipcert does not know the certificate's rule",
        "update lipcert",
    )
    NOT_IN_ENGINE = (
        "not-in-engine",
        "this engine of the checker does not have the certificate's rule",
        "check with the default engine",
    )
    WRONG_NORM = (
        "wrong-norm",
        "the certificate's rule proves nothing in the norm of the claim",
        "certify the model anew in this norm",
    )
    NO_SUBJECT = (
        "no-subject",
        "this model does not have what the claim speaks of",
        "certify its whole output",
    )
    ARITHMETIC = (
        "arithmetic",
        "this process does not compute in IEEE 754 float64, so nothing can be proved in it",
        "run the check in a process of its own, see `lipcert doctor`",
    )
    TOO_LARGE = (
        "too-large",
        "the model is too large for this engine of the checker",
        "check with the default engine",
    )
    REFUSED = (
        "refused",
        "the witness does not prove a bound for this model",
        "certify the model anew",
    )
    OTHER_DATA = (
        "other-data",
        "the certificate belongs to other samples",
        "give the samples that were certified, or certify these",
    )
    NOT_ROBUST = (
        "not-robust",
        "the witness does not prove that every sample keeps its class",
        "certify the samples anew, at a smaller radius if need be",
    )
    TOO_LOW = (
        "too-low",
        "the witness proves a larger bound than the certificate claims",
        "certify the model anew, or claim what is proved",
    )

    def __init__(self, code: str, cause: str, remedy: str) -> None:
        self.code, self.cause, self.remedy = code, cause, remedy

    @property
    def text(self) -> str:
        """Cause and remedy in one line."""
        return f"{self.cause}: {self.remedy}" if self.remedy else self.cause


class Malformed(CertificateError):
    """A file that is no certificate; `reason` is MALFORMED or NOT_FINITE."""

    def __init__(self, message: str, reason: Reason) -> None:
        super().__init__(message)
        self.reason = reason
