"""What the pytest fixture ``lipcert`` gives a test: checks that fail the test where they do not pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lipcert import api
from lipcert.errors import LipcertError
from lipcert.report import wording

if TYPE_CHECKING:
    from lipcert.results import CheckResult, Report, RequirementResult


class Guard:
    """What the fixture gives: checks that fail the test where they do not pass.

    Arguments that are not given come from the test's marker, then from the ini options. Relative paths belong to
    pytest's root folder. `checks` counts what has passed.
    """

    def __init__(self, root: Path, defaults: dict[str, Any]) -> None:
        self._root, self._defaults, self.checks = root, defaults, 0

    def check(
        self,
        certificate: str | Path | None = None,
        model: Any = None,
        *,
        require: str | Sequence[str] = (),
        baseline: str | Path | None = None,
        **options: Any,
    ) -> CheckResult:
        """Check a certificate against a model, and requirements on its bound.

        Args:
            certificate: path of the certificate.
            model: anything that `lipcert.load` reads.
            require: expressions such as ``"bound <= 12.5"``.
            baseline: JSON document of an earlier result, for requirements that speak of one.
            options: further arguments of `lipcert.load`, such as ``mean``.
        """
        texts = _texts(require)
        reference = self._reference(baseline, texts)
        with _Failing():
            network = api.load(self._model(model), **options)
            place = self._path("certificate", certificate)
            result = api.check(place, network, requirements=texts, baseline=reference)
        if not result.valid:
            pytest.fail(f"lipcert: '{place}' does not prove its claim: {result.reason}", pytrace=False)
        self._judge(result.requirements)
        return result

    def certify(
        self,
        data: Any,
        model: Any = None,
        *,
        eps: float | Sequence[float],
        require: str | Sequence[str],
        baseline: str | Path | None = None,
        load: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Report:
        """Certify predictions on labelled data, and check requirements on the report.

        Args:
            data: path of an ``.npz`` file, or a pair of arrays (images, labels).
            model: anything that `lipcert.load` reads.
            eps: one radius or several, in raw input units.
            require: expressions such as ``"certified_accuracy@0.5 >= baseline - 0.01"``; at least one.
            baseline: JSON document of an earlier report, for requirements that speak of one.
            load: further arguments of `lipcert.load`.
            settings: further arguments of `lipcert.certify`.
        """
        texts = _texts(require)
        if not texts:
            pytest.fail("lipcert: nothing is required of the report: give require=...", pytrace=False)
        reference = self._reference(baseline, texts)
        with _Failing():
            network = api.load(self._model(model), **(load or {}))
            samples = self._root / data if isinstance(data, (str, Path)) else data
            radii = [eps] if isinstance(eps, (int, float)) else list(eps)
            report = api.certify(network, samples, eps=radii, requirements=texts, baseline=reference, **settings)
        self._judge(report.requirements)
        return report

    def _judge(self, requirements: Sequence[RequirementResult]) -> None:
        unmet = [f"not met: {r.text} (actual {wording.found(r)})" for r in requirements if not r.passed]
        if unmet:
            pytest.fail("\n".join(f"lipcert: {line}" for line in unmet), pytrace=False)
        self.checks += 1

    def _model(self, given: Any) -> Any:
        model = self._defaults.get("model") if given is None else given
        if model is None:
            pytest.fail("lipcert: no model is given: as an argument, in the marker or as lipcert_model", pytrace=False)
        if not isinstance(model, (str, Path)):
            return model
        factory, at, weights = str(model).partition("@")
        return f"{factory}@{self._root / weights}" if at and ":" in factory else self._root / model

    def _path(self, name: str, given: str | Path | None) -> Path:
        path = self._defaults.get(name) if given is None else given
        if path is None:
            pytest.fail(
                f"lipcert: no {name} is given: as an argument, in the marker or as lipcert_{name}", pytrace=False
            )
        return self._root / path

    def _reference(self, given: str | Path | None, texts: Sequence[str]) -> Path | None:
        """Return the baseline; one that is only a default is for the tests that speak of it."""
        if given is None and not any("baseline" in text for text in texts):
            return None
        return self._path("baseline", given)


class _Failing:
    """Turns the errors of lipcert into failures of the test, one line without a traceback."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, LipcertError):
            pytest.fail(f"lipcert: {error}", pytrace=False)


def _texts(require: str | Sequence[str]) -> tuple[str, ...]:
    return (require,) if isinstance(require, str) else tuple(require)
