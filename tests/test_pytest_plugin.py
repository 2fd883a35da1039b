"""The pytest plugin: a guard that passes, that fails, and all the ways in which one can fail to run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from lipcert import api
from lipcert.pytest_guard import Guard
from lipcert.report.json import write_document

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[1]
DIGITS = ROOT / "examples" / "digits"
CHECK = "lipcert.check('digits.lipcert', 'digits.onnx')"
GUARD = f"def test_model(lipcert):\n    {CHECK}\n"
OTHER = "def test_other():\n    pass\n"
# where the project was installed before it had the plugin, the plugin is named instead
PLUGIN = () if entry_points(group="pytest11", name="lipcert") else ("-p", "lipcert.pytest_plugin")
PLAIN = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")  # the latter takes a second for each session


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the shipped network, its certificate, a changed network, and the bound as a baseline."""
    folder = tmp_path_factory.mktemp("guarded")
    shutil.copy(DIGITS / "digits.onnx", folder)
    with np.load(DIGITS / "test.npz") as data:
        np.savez(folder / "few.npz", images=data["images"][:40], labels=data["labels"][:40])
    network = api.load(str(folder / "digits.onnx"))
    found = api.bound(network, method="product", lower_seconds=0)
    found.certificate.save(folder / "digits.lipcert")
    write_document(folder / "bound.json", api.check(folder / "digits.lipcert", network))
    content = bytearray((folder / "digits.onnx").read_bytes())
    content[-4000] ^= 1
    (folder / "changed.onnx").write_bytes(content)
    # pytest runs that are started in this process forget what they were the first to import: import it all here
    Guard(folder, {}).certify("few.npz", "digits.onnx", eps=0.25, require="clean_accuracy > 0", method="product")
    Guard(folder, {}).check("digits.lipcert", "digits.onnx", require="bound <= baseline", baseline="bound.json")
    return folder


@pytest.fixture
def run(pytester: pytest.Pytester, files: Path) -> Any:
    """Run pytest on a test file, in a folder with the network; nothing else is loaded."""
    for path in files.iterdir():
        shutil.copy(path, pytester.path)

    def go(text: str, *arguments: str, ini: str = "") -> pytest.RunResult:
        pytester.makeini(f"[pytest]\nfilterwarnings = error\n{ini}")
        pytester.makepyfile(test_guard=text)
        return pytester.runpytest_inprocess(*PLUGIN, *PLAIN, *arguments)

    return go


def test_a_few_lines_guard_a_model(run: Any) -> None:
    result = run(
        """
        def test_model(lipcert):
            lipcert.check("digits.lipcert", "digits.onnx", require="bound <= 1.05 * baseline", baseline="bound.json")
            require = "certified_accuracy@0.25 > 0.8"
            lipcert.certify("few.npz", "digits.onnx", eps=0.25, require=require, method="product")
        """
    )
    result.assert_outcomes(passed=1)
    assert result.ret == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("lipcert.check('digits.lipcert', 'changed.onnx')", "the model changed since; certify it anew"),
        ("lipcert.check('digits.lipcert', 'digits.onnx', require='bound <= 1')", "not met: bound <= 1 (actual 4.4"),
        ("lipcert.check('missing.lipcert', 'digits.onnx')", "cannot read the certificate"),
        ("lipcert.check('digits.lipcert', 'missing.onnx')", "there is no file"),
        ("lipcert.check('digits.onnx', 'digits.onnx')", "is not a valid certificate file"),
        ("lipcert.check('digits.lipcert', 'digits.onnx', require='bound <= baseline')", "no baseline is given"),
        ("lipcert.check('digits.lipcert', 'digits.onnx', require='clean > 1')", "which is not computed"),
        ("lipcert.check('digits.lipcert')", "no model is given"),
        ("lipcert.check(model='digits.onnx')", "no certificate is given"),
        ("lipcert.certify('few.npz', 'digits.onnx', eps=1, require=[])", "nothing is required of the report"),
        (
            "lipcert.certify('few.npz', 'digits.onnx', eps=1, require='certified_accuracy@1 > 0.9', method='product')",
            "not met: certified_accuracy@1 > 0.9 (actual",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(run: Any, call: str, words: str) -> None:
    result = run(f"def test_model(lipcert):\n    {call}\n")
    result.assert_outcomes(failed=1)
    lines = [line for line in result.outlines if line.startswith("lipcert: ")]
    assert len(lines) == 1
    assert words in lines[0]
    assert "Traceback" not in result.stdout.str()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            f"import pytest\n@pytest.mark.skip(reason='slow')\n{GUARD}",
            "did not run or is expected to fail: Skipped: slow",
        ),
        (f"import pytest\n@pytest.mark.skipif(True, reason='no GPU')\n{GUARD}", "no GPU"),
        ("import pytest\ndef test_model(lipcert):\n    pytest.skip('later')\n", "later"),
        ("import pytest\ndef test_model(lipcert):\n    pytest.importorskip('no_such_module')\n", "no_such_module"),
        (f"import pytest\n@pytest.mark.xfail(reason='known')\n{GUARD}    assert False\n", "known"),
        ("import pytest\ndef test_model(lipcert):\n    pytest.xfail('one day')\n", "one day"),
        ("def test_model(lipcert):\n    pass\n", "a lipcert guard checked nothing"),
        ("import pytest\n@pytest.mark.lipcert\ndef test_model():\n    pass\n", "a lipcert guard checked nothing"),
    ],
)
def test_a_guard_that_did_not_run_has_failed(run: Any, text: str, words: str) -> None:
    result = run(text)
    outcomes = result.parseoutcomes()
    assert outcomes.get("failed", 0) + outcomes.get("errors", outcomes.get("error", 0)) == 1
    assert not set(outcomes) & {"passed", "skipped", "xfailed", "xpassed"}
    assert result.ret == 1
    assert words in result.stdout.str()


@pytest.mark.parametrize("flags", [("-k", "other"), ("-m", "not lipcert"), ("--deselect", "test_guard.py::test_model")])
def test_a_guard_that_was_deselected_fails_the_session(run: Any, flags: tuple[str, ...]) -> None:
    result = run(GUARD + OTHER, *flags)
    result.assert_outcomes(passed=1, deselected=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*lipcert guards that did not run and pass*", "test_guard.py::test_model"])


def test_a_session_with_nothing_but_a_deselected_guard_fails(run: Any) -> None:
    assert run(GUARD, "-k", "nothing").ret == 1


def test_a_run_can_be_partial_on_purpose(run: Any) -> None:
    result = run(GUARD + OTHER, "-k", "other", "--lipcert-partial")
    result.assert_outcomes(passed=1, deselected=1)
    assert result.ret == 0
    assert run(f"import pytest\n@pytest.mark.skip\n{GUARD}", "--lipcert-partial").ret == 0
    assert run(GUARD, "--collect-only").ret == 0


@pytest.mark.parametrize("name", ["test_guard.py::test_model", "test_guard.py"])
def test_guards_can_be_named_so_that_they_cannot_get_lost(run: Any, name: str) -> None:
    ini = f"lipcert_guards = {name}\n"
    assert run(GUARD, ini=ini).ret == 0
    lost = run(OTHER, "test_guard.py::test_other", ini="lipcert_guards = test_guard.py::test_model\n")
    assert lost.ret == 1
    lost.stdout.fnmatch_lines(["*lipcert guards that did not run and pass*", "test_guard.py::test_model"])


def test_settings_come_from_the_ini_file_and_from_the_marker(run: Any) -> None:
    ini = "lipcert_model = digits.onnx\nlipcert_certificate = digits.lipcert\nlipcert_baseline = bound.json\n"
    default = "def test_model(lipcert):\n    assert lipcert.check(require='bound <= baseline').valid\n"
    plain = "def test_plain(lipcert):\n    assert lipcert.check().valid\n"
    run(default + plain, ini=ini).assert_outcomes(passed=2)
    marked = f"import pytest\n@pytest.mark.lipcert(model='changed.onnx')\n{default}"
    run(marked, ini=ini).assert_outcomes(failed=1)
    wrong = run(f"import pytest\n@pytest.mark.lipcert(modle='x')\n{GUARD}", ini=ini)
    wrong.assert_outcomes(errors=1)
    wrong.stdout.fnmatch_lines(["*the marker takes model, certificate, baseline*"])


def test_relative_paths_belong_to_the_root_folder(
    run: Any, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pytester.path / "deep").mkdir()
    pytester.makeini("[pytest]\n")
    monkeypatch.chdir(pytester.path / "deep")
    pytester.makepyfile(test_guard=GUARD)
    result = pytester.runpytest_inprocess(
        *PLUGIN, str(pytester.path / "test_guard.py"), "--rootdir", str(pytester.path)
    )
    result.assert_outcomes(passed=1)


def test_guards_are_selected_by_their_marker(run: Any) -> None:
    run(GUARD + OTHER, "-m", "lipcert").assert_outcomes(passed=1, deselected=1)
    run(GUARD + OTHER, "--strict-markers").assert_outcomes(passed=2)


@pytest.mark.parametrize(("flags", "code"), [((), 0), (("-k", "other"), 1)], ids=["all", "deselected"])
def test_it_is_the_same_in_other_processes(
    run: Any, pytester: pytest.Pytester, flags: tuple[str, ...], code: int
) -> None:
    pytester.makeini("[pytest]\nlipcert_guards = test_guard.py::test_model\n")
    pytester.makepyfile(test_guard=GUARD + OTHER)
    command = (sys.executable, "-m", "pytest", *PLUGIN, *PLAIN, "-n", "1", *flags)
    result = pytester.run(*command, timeout=120)
    assert result.ret == code, result.stdout.str()
    assert ("did not run and pass" in result.stdout.str()) == (code == 1)


def test_nothing_but_pytest_is_imported_before_a_guard_runs(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text(
        "import sys\ndef test_x():\n"
        "    heavy = {'numpy', 'torch', 'onnx', 'pydantic', 'scipy', 'rich', 'typer', 'lipcert.api'}\n"
        "    assert not heavy & set(sys.modules)\n    assert 'lipcert.pytest_plugin' in sys.modules\n"
    )
    found = subprocess.run(
        [sys.executable, "-m", "pytest", *PLUGIN, *PLAIN, str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 0, found.stdout


def test_the_plugin_is_registered() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"lipcert": "lipcert.pytest_plugin"}


def test_junit_shows_a_guard_that_did_not_run_as_failed(run: Any, pytester: pytest.Pytester) -> None:
    run(f"import pytest\n@pytest.mark.skip(reason='slow')\n{GUARD}", "--junitxml=j.xml")
    suite = ElementTree.parse(pytester.path / "j.xml").getroot().find("testsuite")
    assert suite is not None
    assert int(suite.get("failures", 0)) + int(suite.get("errors", 0)) == 1
    assert suite.get("skipped") == "0"
