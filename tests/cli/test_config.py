"""Settings files: the command line beats the file, the file beats the defaults, nothing unknown passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sample_documents import make_comparison, make_report

from lipcert import api
from lipcert.cli.app import COMMANDS
from lipcert.cli.config import find_settings, read_settings
from lipcert.errors import UsageError


@pytest.fixture
def asked(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `compare` and `certify` were asked for."""
    settings: dict[str, Any] = {}

    def compare(network: Any, **given: Any) -> Any:
        settings.update(given)
        return make_comparison()

    def certify(network: Any, data: Any, **given: Any) -> Any:
        settings.update(given, data=data)
        return make_report(100)

    monkeypatch.setattr(api, "compare", compare)
    monkeypatch.setattr(api, "certify", certify)
    return settings


def test_command_line_beats_file_beats_default(cli: Any, asked: dict[str, Any], tmp_path: Path) -> None:
    cli("compare", "m", "--json")
    assert (asked["norm"], asked["time_limit"]) == ("l2", None)
    (tmp_path / "lipcert.toml").write_text('norm = "linf"\ntime-limit = 7\n')
    cli("compare", "m", "--json")
    assert (asked["norm"], asked["time_limit"]) == ("linf", 7.0)
    cli("compare", "m", "--json", "--norm", "l1")
    assert (asked["norm"], asked["time_limit"]) == ("l1", 7.0)


def test_a_commands_own_table_beats_the_common_part(cli: Any, asked: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "lipcert.toml").write_text('norm = "linf"\n[compare]\nnorm = "l1"\n[certify]\nnorm = "l2"\n')
    cli("compare", "m")
    assert asked["norm"] == "l1"


def test_pyproject_has_a_table_for_us(cli: Any, asked: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n[tool.lipcert]\nnorm = "l1"\n')
    cli("compare", "m")
    assert asked["norm"] == "l1"


def test_lists_and_paths(cli: Any, asked: dict[str, Any], loaded: Any, data: str, tmp_path: Path) -> None:
    (tmp_path / "lipcert.toml").write_text(
        "mean = [0.5, 0.25]\nstd = 0.5\n[certify]\ndata = 'd.npz'\neps = [0.1, '8/255']\n"
        "require = 'certified_accuracy@0.1 >= 0.6'\n"
    )
    found = cli("certify", "m", "--json")
    assert found.code == 0, found.err
    assert asked["eps"] == [0.1, 8 / 255]
    assert asked["data"].name == str(tmp_path / "d.npz")
    assert tuple(asked["requirements"]) == ("certified_accuracy@0.1 >= 0.6",)
    _, settings = loaded[-1]
    assert (settings["mean"], settings["std"]) == ([0.5, 0.25], [0.5])


def test_flags_can_be_set(cli: Any, asked: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "lipcert.toml").write_text("json = true\n")
    assert cli("compare", "m").document["schema"] == "lipcert.compare/v1"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("nrom = 'l2'", "did you mean 'norm'?"),
        ("[compare]\ntime-limt = 3", "did you mean 'time-limit'?"),
        ("[certfy]\neps = [1]", "did you mean 'certify'?"),
        ("[bound]\neps = [0.5]", "unknown setting 'eps' for 'bound'"),
        ("bound = 3", "is a table"),
        ("model = 'x.onnx'", "unknown setting 'model'"),
        ("zzz = 1", "there are allow-pickle"),
        ("norm = ", "not a TOML file"),
        ("norm = 'l7'", "lipcert.toml"),
        ("time-limit = 'soon'", "lipcert.toml"),
    ],
)
def test_what_is_unknown_or_wrong_is_an_error(
    cli: Any, asked: dict[str, Any], tmp_path: Path, text: str, hint: str
) -> None:
    (tmp_path / "lipcert.toml").write_text(text)
    found = cli("compare", "m")
    assert found.code == 2
    assert hint in found.err
    assert found.err.count("\n") == 1
    assert asked == {}


def test_two_files_in_one_folder_are_one_too_many(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "lipcert.toml").write_text("")
    (tmp_path / "pyproject.toml").write_text("[tool.lipcert]\n")
    found = cli("doctor")
    assert found.code == 2
    assert "keep one of them" in found.err


def test_settings_are_looked_for_up_to_the_repository_and_no_further(tmp_path: Path) -> None:
    inner = tmp_path / "repository" / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "lipcert.toml").write_text("")
    assert find_settings(inner) is None, "outside a repository only the folder itself counts"
    (tmp_path / "repository" / ".git").mkdir()
    assert find_settings(inner) is None, "what lies above the repository does not count"
    (tmp_path / "repository" / "lipcert.toml").write_text("")
    assert find_settings(inner) == tmp_path / "repository" / "lipcert.toml"
    (inner / "pyproject.toml").write_text("[tool.lipcert]\n")
    assert find_settings(inner) == inner / "pyproject.toml"
    (inner / "pyproject.toml").write_text("[tool.other]\n")
    assert find_settings(inner) == tmp_path / "repository" / "lipcert.toml"


def test_a_file_can_be_named(cli: Any, asked: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "lipcert.toml").write_text("norm = 'l1'\n")
    (tmp_path / "other.toml").write_text("norm = 'linf'\n")
    cli("--config", "other.toml", "compare", "m")
    assert asked["norm"] == "linf"
    found = cli("--config", "missing.toml", "compare", "m")
    assert found.code == 2
    assert "missing.toml" in found.err


def test_relative_paths_belong_to_the_files_folder(tmp_path: Path) -> None:
    path = tmp_path / "lipcert.toml"
    path.write_text("[certify]\ndata = 'x.npz'\nreport = '/absolute/r'\n")
    values = read_settings(path, COMMANDS).values["certify"]
    assert values == {"data": tmp_path / "x.npz", "report": Path("/absolute/r")}


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lipcert.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not a TOML file"):
        read_settings(path, COMMANDS)
