"""What all result documents have in common."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

NormName = Literal["l1", "l2", "linf"]
LevelName = Literal["estimate", "numerical", "verified", "verified-exec"]
StatusName = Literal["unknown", "certified", "attacked", "misclassified"]
QuantityName = Annotated[
    str, Field(pattern=r"^(output|features|margins|logit (0|[1-9][0-9]*)|margin (0|[1-9][0-9]*) (0|[1-9][0-9]*))$")
]
Count = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(ge=0.0)]


class Document(BaseModel):
    """Base of all documents and their parts: immutable, strict about unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, serialize_by_alias=True)


class Result(Document):
    """A document that functions return: it shows itself as text, in notebooks, and as a data frame.

    How it looks is made in `lipcert.report.notebook`, which is imported when it is first asked for.
    """

    def __str__(self) -> str:
        from lipcert.report import notebook

        return notebook.text(self)

    def __repr__(self) -> str:
        from lipcert.report import notebook

        return notebook.brief(self)

    def _repr_html_(self) -> str:
        from lipcert.report import notebook

        return notebook.html(self)

    def to_pandas(self, rows: Literal["result", "samples"] = "result") -> Any:
        """Return a pandas data frame.

        Args:
            rows: ``result`` for one row per eps of a report, one per method of a comparison, else a single one;
                ``samples`` for the per-sample records of a report.

        Raises:
            UsageError: pandas is not installed (extra ``pandas``), or no records were written.
        """
        from lipcert.report import notebook

        return notebook.frame(self, rows)

    def plot(self) -> Any:
        """Return a matplotlib figure, which shows itself in a notebook.

        Raises:
            UsageError: there is nothing to draw of this kind of result.
        """
        from lipcert.report import notebook

        return notebook.plot(self)
