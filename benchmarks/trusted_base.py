"""Writes the tables of docs/trust.md anew: the files that a check runs, how long they are, and the reason codes.

    python -m benchmarks.trusted_base

The files are those that a process really imports which checks a certificate of an ONNX model; the exact engine's come
from its folder. Lines of code leave out blank lines, comments and docstrings.
"""

from __future__ import annotations

import ast
import io
import json
import subprocess
import sys
import tempfile
import tokenize
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.pages import fill
from lipcert.network.readers import load
from lipcert.proof import Certificate, Claim, Reason

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "trust.md"
FOREIGN = frozenset({"torch", "scipy", "cvxpy", "scs", "clarabel", "flint"})

PROGRAM = """
import json, sys
from lipcert.network.readers import load
from lipcert.proof import check
from lipcert.proof.local import LocalCertificate, any_certificate, check_local
loaded = any_certificate(open(sys.argv[2], "rb").read())
verdict = (check_local if isinstance(loaded, LocalCertificate) else check)(loaded, load(sys.argv[1]))
files = {name: module.__file__ for name, module in sys.modules.items() if getattr(module, "__file__", None)}
print(json.dumps([verdict.valid, files]))
"""

PARTS = {
    "reading the model": "network/readers/",
    "what a network is": "network/",
    "the exact engine": "proof/exact/",
    "norms": "proof/norms/",
    "rules": "proof/rules/",
    "samples": "proof/local/",
    "the proof": "proof/",
    "small change": "",
}


def sample(folder: Path) -> tuple[Path, Path]:
    """Write a small ONNX model and a certificate of its linf bound; return their paths."""
    weights = [np.ones((5, 4), np.float32), np.ones((3, 5), np.float32)]
    stored = [numpy_helper.from_array(weight, f"w{k}") for k, weight in enumerate(weights)]
    nodes = [
        helper.make_node("Gemm", ["x", "w0"], ["z"], transB=1),
        helper.make_node("Relu", ["z"], ["v"]),
        helper.make_node("Gemm", ["v", "w1"], ["y"], transB=1),
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, s]) for n, s in (("x", 4), ("y", 3)))
    graph = helper.make_graph(nodes, "sample", [x], [y], stored)
    model, file = folder / "model.onnx", folder / "model.lipcert"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model)
    Certificate.of(load(model), Claim("linf", "output", 21.0), "absolute/v1", {}).save(file)
    return model, file


def imported(model: Path, certificate: Path) -> dict[str, Path]:
    """Return the modules that a process imports which checks a certificate, with their files.

    Raises:
        RuntimeError: the certificate is not valid.
    """
    command = [sys.executable, "-c", PROGRAM, str(model), str(certificate)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if run.returncode:
        raise RuntimeError(run.stderr)
    valid, files = json.loads(run.stdout)
    if not valid:
        raise RuntimeError("the sample's certificate is not valid")
    return {name: Path(file) for name, file in files.items()}


def trusted_files() -> list[str]:
    """Return the files of lipcert that a check rests on, relative to the package, ascending."""
    with tempfile.TemporaryDirectory() as folder:
        modules = imported(*sample(Path(folder)))
    package = ROOT / "lipcert"
    found = {file for name, file in modules.items() if name.partition(".")[0] == "lipcert"}
    found |= set((package / "proof" / "exact").glob("*.py"))
    return sorted(file.relative_to(package).as_posix() for file in found)


def code_lines(text: str) -> int:
    """Return the number of lines that hold code: no blank lines, comments or docstrings."""
    tree = ast.parse(text)
    prose: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            prose |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in silent:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - prose)


def files_table() -> str:
    """Return the table of files, one row for each part."""
    grouped: dict[str, list[tuple[str, int]]] = {part: [] for part in PARTS}
    for file in trusted_files():
        part = next(part for part, prefix in PARTS.items() if file.startswith(prefix))
        grouped[part].append((file, code_lines((ROOT / "lipcert" / file).read_text(encoding="utf-8"))))
    rows = ["| part | files | lines of code | which |", "|---|---|---|---|"]
    for part, entries in grouped.items():
        names = ", ".join(f"`{file}` {lines}" for file, lines in entries)
        rows.append(f"| {part} | {len(entries)} | {sum(lines for _, lines in entries)} | {names} |")
    return "\n".join(rows)


def reasons_table() -> str:
    """Return the table of reason codes."""
    rows = ["| code | cause | remedy |", "|---|---|---|"]
    return "\n".join(rows + [f"| `{reason.code}` | {reason.cause} | {reason.remedy or '–'} |" for reason in Reason])


def main() -> None:
    """Write both tables."""
    fill(PAGE, {"files": files_table(), "reasons": reasons_table()})


if __name__ == "__main__":
    main()
