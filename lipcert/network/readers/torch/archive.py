"""Looking into a ``.pt2`` archive before torch opens it.

`torch.export.load` trusts its file: it falls back to full pickles, loads compiled code, and evaluates the text of
shape expressions. Those three doors are closed here: every pickle must hold plain tensors, there is no compiled
code, and shape expressions are arithmetic on symbols.
"""

from __future__ import annotations

import ast
import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

import torch

from lipcert.errors import UsageError

_NAMES = """
Symbol Integer Rational Float Add Mul Pow Abs Max Min Mod PythonMod FloorDiv CeilDiv CleanDiv FloorToInt
CeilToInt ModularIndexing Where IntTrueDiv PowByNatural Eq Ne Lt Le Gt Ge And Or Not Piecewise
"""
_FUNCTIONS = frozenset(_NAMES.split())
_ARITHMETIC = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Call, ast.Name, ast.Load, ast.keyword,
    ast.Constant, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip


def check_archive(name: str, data: bytes) -> None:
    """Check that opening an archive executes no code of the file.

    Args:
        name: name of the file, for messages.
        data: its bytes.

    Raises:
        UsageError: it is no archive, or could execute code.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.namelist():
                _check_entry(name, entry, archive.read(entry))
    except UsageError:
        raise
    except Exception:  # what zipfile and json raise on damage is not part of their interface
        raise UsageError(f"'{name}' is no file of torch.export.save, or is damaged") from None


def _check_entry(name: str, entry: str, content: bytes) -> None:
    folder = entry.split("/")[1:-1]
    if "aotinductor" in folder or "executorch" in folder or entry.endswith((".so", ".pyd", ".dll", ".dylib")):
        _refuse(name, f"compiled code ({entry})")
    if entry.endswith(".pt") and content:
        try:
            torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except Exception:
            _refuse(name, f"pickled Python objects ({entry})")
    if entry.endswith(".json"):
        for key, value in _items(json.loads(content.decode() or "{}")):
            if key == "use_pickle" and value:
                _refuse(name, f"pickled Python objects ({entry})")
            if key == "path_name" and str(value).startswith(("custom_obj", "opaque_obj")):
                _refuse(name, f"pickled Python objects ({value})")
            if key == "expr_str" and not _is_arithmetic(str(value)):
                _refuse(name, f"the shape expression {str(value)[:60]!r}")


def _refuse(name: str, what: str) -> None:
    raise UsageError(
        f"'{name}' holds {what}; export the model again without it, or pass allow_pickle=True, which would "
        "execute code of the file"
    )


def _items(document: Any) -> Iterator[tuple[str, Any]]:
    """Yield all keys of a JSON document with their values."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield key, value
            yield from _items(value)
    elif isinstance(document, list):
        for value in document:
            yield from _items(value)


def _is_arithmetic(text: str) -> bool:
    """Whether a text is arithmetic on symbols, so that evaluating it computes a number and nothing else."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError):
        return False
    for node in ast.walk(tree):
        if not isinstance(node, _ARITHMETIC):
            return False
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS):
            return False
        if isinstance(node, ast.Name) and node.id.startswith("_"):
            return False
    strings = {id(n) for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    symbols = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "Symbol"]
    first = [call.args[0] for call in symbols if call.args]
    named = {id(n) for n in first if isinstance(n, ast.Constant) and str(n.value).isidentifier()}
    return strings <= named
