"""Bounds, one or several side by side."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, FiniteFloat

from lipcert.results.base import Count, Document, LevelName, NormName, QuantityName, Result, Seconds


class ModelInfo(Document):
    """The network that was looked at.

    Attributes:
        statement: the function that claims speak of, in words: which arithmetic, and what is known within intervals.
    """

    path: str
    sha256: str | None
    graph_digest: str
    weights_digest: str
    parameters: Count | None
    hidden_neurons: Count
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    dtype: str
    statement: str | None = None


class SolverInfo(Document):
    """What a numerical solver said of its own work; never the source of a bound."""

    name: str
    status: str
    gap: FiniteFloat | None


class LayerContribution(Document):
    """How much one node multiplies (or adds to) the bound.

    Attributes:
        node: name of the node. kind: its operator. factor: norm of an affine operator or slope of an activation.
        cumulative: the bound from the input up to and including this node.
    """

    node: str
    kind: str
    factor: FiniteFloat
    cumulative: FiniteFloat


class BoundResult(Result):
    """One upper bound of a Lipschitz constant (schema ``lipcert.bound/v1``).

    Attributes:
        bound: the upper bound, null where the method refused or failed (then `error` says why).
        bound_hex: the same number exactly (``float.hex``).
        quantity: what is bounded: the whole ``output``, the ``features`` before the last linear layer, one ``logit I``,
            one ``margin I J`` (the difference of two logits), or all ``margins``, of which `bound` is the largest.
        margins: of ``margins`` only: the bound of every difference of two logits.
        lower_bound: best lower bound found for the same constant (level ``estimate``).
        memory: bytes of resident memory that the method needed in addition to what was in use before, libraries
            loaded for it included; null where not measured (only `compare` does, on Linux).
        certificate: path of the certificate file that was written, or null.
        error: why there is no bound: "refused: ..." where the method does not serve the network, else "failed: ...".
    """

    schema_: Literal["lipcert.bound/v1"] = Field(default="lipcert.bound/v1", alias="schema")
    model: ModelInfo
    norm: NormName
    method: str
    bound: FiniteFloat | None
    bound_hex: str | None
    level: LevelName | None
    lower_bound: FiniteFloat | None
    ratio: FiniteFloat | None
    quantity: QuantityName | None = None
    margins: tuple[tuple[FiniteFloat, ...], ...] | None = None
    seconds: Seconds
    memory: Count | None = None
    certificate: str | None
    solver: SolverInfo | None
    contributions: tuple[LayerContribution, ...] = ()
    notes: tuple[str, ...] = ()
    error: str | None = None


class CompareResult(Result):
    """All methods on one network (schema ``lipcert.compare/v1``); rows keep the order of the methods asked for."""

    schema_: Literal["lipcert.compare/v1"] = Field(default="lipcert.compare/v1", alias="schema")
    model: ModelInfo
    norm: NormName
    lower_bound: FiniteFloat | None
    rows: tuple[BoundResult, ...]
    seconds: Seconds
