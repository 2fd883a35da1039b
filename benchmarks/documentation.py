"""Writes the tables of the documentation anew that say what the code can do, from the code's own tables.

    python -m benchmarks.documentation

docs/coverage.md: operators, activations, formats and norms; docs/which-method.md: the methods; docs/command-line.md:
the options. A test holds the committed pages to what this module returns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx.defs

from benchmarks.command_line import options_table
from benchmarks.pages import fill, table
from lipcert.bounds.local.registry import LOCAL_METHODS
from lipcert.bounds.method import Method
from lipcert.bounds.registry import METHODS, VARIANTS
from lipcert.network import operators
from lipcert.network.activations import TABLE, slope_interval
from lipcert.network.graph import Network
from lipcert.network.operators import Activation, Affine, Elementwise, Gather, Input, Operator
from lipcert.network.readers import WEIGHTS
from lipcert.network.readers.onnx.constants import FOLDS
from lipcert.network.readers.onnx.operators import OPERATORS, reason
from lipcert.network.readers.torch.walk import HANDLERS
from lipcert.proof.claims import NORMS
from lipcert.proof.local.curved import has_lines
from lipcert.proof.subject import subject
from lipcert.testing.build import RELU, chain, dense, matrices
from lipcert.testing.zoo import PARAMETERS, zoo

DOCS = Path(__file__).resolve().parents[1] / "docs"
NO_RULE = "there is no rule for this operator"


def norms(of: frozenset[Any] | set[Any]) -> str:
    """Return norms in their usual order."""
    return ", ".join(norm for norm in NORMS if norm in of) or "–"


# --- coverage -------------------------------------------------------------------------------------------------


def all_operators() -> list[type[Operator]]:
    """Return the classes of operators, as the module has them."""
    made = [kind for kind in vars(operators).values() if isinstance(kind, type) and issubclass(kind, Operator)]
    return [kind for kind in made if kind not in (Operator, Affine, Activation, Input)]


def operators_table() -> str:
    """Return what each operator is."""
    return table(
        ["operator", "kind", "what it is"], [[f"`{k.__name__}`", _role(k), _first_line(k)] for k in all_operators()]
    )


def served_table() -> str:
    """Return which methods serve networks that hold an operator, found on tiny ones; equal methods together."""
    networks = {"moved entries": _moved(), **zoo()}
    normal = {name: subject(network, "output") for name, network in networks.items()}
    kinds = all_operators()
    holding = [[normal[name] for name, network in networks.items() if _has(network, kind)] for kind in kinds]
    groups: dict[tuple[str, ...], list[str]] = {}
    for method in METHODS:
        groups.setdefault(tuple(_mark(method, having) for having in holding), []).append(f"`{method.name}`")
    rows = [[f"`{kind.__name__}`", *(marks[place] for marks in groups)] for place, kind in enumerate(kinds)]
    return table(["operator", *(", ".join(names) for names in groups.values())], rows)


def _moved() -> Network:
    first, second = (dense(w) for w in matrices(0, 4, 4, 2))
    return chain((4,), first, Gather(np.array([2, 0, 1, 1])), RELU, second)


def _has(network: Network, kind: type[Operator]) -> bool:
    return any(type(node.op) is kind for node in network.nodes)


def _role(kind: type[Operator]) -> str:
    return "affine" if issubclass(kind, Affine) else "activation" if issubclass(kind, Activation) else "join"


def _mark(method: Method, networks: list[Network]) -> str:
    """Return a mark where a method serves one of the networks in one of its norms."""
    return "✓" if any(method.refuses(net, norm) is None for net in networks for norm in method.norms) else "–"


def _first_line(kind: type[Operator]) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0].rstrip(".")


def activations_table() -> str:
    """Return every activation with its slopes and what the local proofs know of it."""
    rows = []
    for name, row in TABLE.items():
        given = tuple(np.array(p) for p in PARAMETERS.get(name, ()))
        alpha, beta = (float(slope) for slope in slope_interval(Elementwise(name, given)))
        example = ", ".join(f"{p} = {v:g}" for p, v in zip(row.parameters, PARAMETERS.get(name, ()), strict=True))
        lines = "verified" if has_lines(Elementwise(name, given)) else "numerical"
        rows.append([f"`{name}`", f"[{alpha:.6g}, {beta:.6g}]", example or "–", row.needs if example else "–", lines])
    return table(["activation", "slopes", "for the parameters", "parameters need", "linear bounds (CROWN)"], rows)


def onnx_table() -> str:
    """Return the operators of ONNX: on data, on constants, and those refused with the reason."""
    refused: dict[str, list[str]] = {}
    for name in sorted({schema.name for schema in onnx.defs.get_all_schemas() if schema.domain in ("", "ai.onnx")}):
        why = reason(name, on_constants=False)
        if name not in OPERATORS and why != NO_RULE:
            refused.setdefault(why, []).append(name)
    rows = [["read, on data", _names(OPERATORS)], ["folded, on constants", _names(FOLDS)]]
    rows += [[f"refused: {why}", ", ".join(f"`{name}`" for name in names)] for why, names in refused.items()]
    return table(["what becomes of it", "operators"], rows)


def torch_table() -> str:
    """Return the operators of torch.export's graphs that are read."""
    return table(["what becomes of it", "operators"], [["read, on data", _names(HANDLERS)]])


def _names(of: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(of))


def forms_table() -> str:
    """Return the forms of a model."""
    weights = ", ".join(f"`{suffix}`" for suffix in WEIGHTS)
    rows = [
        ["`.onnx`", "`model.onnx`", "`lipcert.load('model.onnx')`"],
        ["`.pt2` (`torch.export`)", "`model.pt2`", "`lipcert.load('model.pt2')`"],
        [f"weights ({weights}) and the code that builds the module", "`package.module:factory@weights`",
         "`lipcert.load(('package.module:factory', 'weights.safetensors'))`"],
        ["`nn.Module` in evaluation mode", "–", "`lipcert.load(module, input_shape=(1, 28, 28))`"],
    ]  # fmt: skip
    return table(["form", "command line", "Python"], rows)


# --- methods --------------------------------------------------------------------------------------------------


def methods_table() -> str:
    """Return the methods for global bounds."""
    rows = [[f"`{m.name}`", m.summary, norms(m.norms), m.cost] for m in (*METHODS, *VARIANTS)]
    return table(["method", "what it does", "norms", "cost"], rows)


def local_table() -> str:
    """Return the local methods."""
    head = ["method", "what it does", "norms", "level", "cost"]
    levels = {True: "verified", False: "numerical"}
    return table(head, [[f"`{m.name}`", m.summary, norms(m.norms), levels[m.derived], m.cost] for m in LOCAL_METHODS])


PAGES: Mapping[str, Mapping[str, Callable[[], str]]] = {
    "coverage.md": {
        "forms": forms_table,
        "operators": operators_table,
        "served": served_table,
        "activations": activations_table,
        "onnx": onnx_table,
        "torch": torch_table,
    },
    "which-method.md": {"methods": methods_table, "local": local_table},
    "command-line.md": {"options": options_table},
}


def main() -> None:
    """Write all tables."""
    for name, tables in PAGES.items():
        fill(DOCS / name, {mark: make() for mark, make in tables.items()})


if __name__ == "__main__":
    main()
