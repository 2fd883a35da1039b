"""The result documents: what every command prints as JSON, and what every face of a report is made from.

Each document names its schema (``lipcert.bound/v1`` ...). Unknown fields are errors, numbers are finite or null.
`model_json_schema()` of each class is the published schema.
"""

from lipcert.results.base import (
    Count,
    Document,
    Fraction,
    LevelName,
    NormName,
    QuantityName,
    Result,
    Seconds,
    StatusName,
)
from lipcert.results.bound import BoundResult, CompareResult, LayerContribution, ModelInfo, SolverInfo
from lipcert.results.check import BallsInfo, CheckResult, FileDigest
from lipcert.results.inspection import DoctorResult, Finding, InspectResult, NodeInfo, UnsupportedPart
from lipcert.results.plan import PlannedStage, PlanResult
from lipcert.results.records import Heading, Part, RecordLine, SampleLine
from lipcert.results.regression import OutputChange, RegressionReport
from lipcert.results.report import (
    AdversarialExample,
    ClassRow,
    Exhibit,
    FeatureValue,
    Histogram,
    Picture,
    ProofInfo,
    Provenance,
    Report,
    RequirementResult,
    StageResult,
)
from lipcert.results.runs import RunRow, RunsResult

__all__ = [
    "AdversarialExample",
    "BallsInfo",
    "BoundResult",
    "CheckResult",
    "ClassRow",
    "CompareResult",
    "Count",
    "DoctorResult",
    "Document",
    "Exhibit",
    "FeatureValue",
    "FileDigest",
    "Finding",
    "Fraction",
    "Heading",
    "Histogram",
    "InspectResult",
    "LayerContribution",
    "LevelName",
    "ModelInfo",
    "NodeInfo",
    "NormName",
    "OutputChange",
    "Part",
    "Picture",
    "PlanResult",
    "PlannedStage",
    "ProofInfo",
    "Provenance",
    "QuantityName",
    "RecordLine",
    "RegressionReport",
    "Report",
    "RequirementResult",
    "Result",
    "RunRow",
    "RunsResult",
    "SampleLine",
    "Seconds",
    "SolverInfo",
    "StageResult",
    "StatusName",
    "UnsupportedPart",
]
