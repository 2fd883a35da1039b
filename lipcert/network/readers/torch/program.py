"""An exported program made ready for reading: functional, with one input and one output, and its calls in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node as Call

from lipcert.errors import UsageError
from lipcert.network.graph import Shape

MOST_SAMPLES = 8  # largest fixed batch: index maps are tried on whole batches
TRAINING = "is changed by every call (training mode?); call model.eval() before exporting"


@dataclass(frozen=True, eq=False)
class Program:
    """A functional program of one input and one output.

    Attributes:
        exported: the program.
        input: its input. output: the call whose value it returns.
        mutated: buffers that it changes, and why that is refused.
    """

    exported: ExportedProgram
    input: Call
    output: Call
    mutated: tuple[tuple[str, str], ...]

    @staticmethod
    def of(exported: ExportedProgram) -> Program:
        """Make a program ready.

        Raises:
            UsageError: not one input with a batch axis and one output, or not float32 or float64.
        """
        exported = _functional(exported)
        signature, graph = exported.graph_signature, exported.graph
        inputs = [s for s in signature.input_specs if s.kind == InputKind.USER_INPUT]
        places = [i for i, s in enumerate(signature.output_specs) if s.kind == OutputKind.USER_OUTPUT]
        if len(inputs) != 1 or len(places) != 1:
            raise UsageError(
                f"the model has {len(inputs)} inputs and {len(places)} outputs; wrap it in a module that takes one "
                "tensor and returns one"
            )
        source = next(n for n in graph.nodes if n.op == "placeholder" and n.name == inputs[0].arg.name)
        (result,) = (n for n in graph.nodes if n.op == "output")
        final = result.args[0][places[0]]
        if not isinstance(final, Call) or not isinstance(source.meta["val"], torch.Tensor):
            raise UsageError("the model does not map one tensor to one tensor")
        _check_input(source.meta["val"])
        changed = [s for s in signature.output_specs if s.kind == OutputKind.BUFFER_MUTATION]
        return Program(exported, source, final, tuple((str(s.target), TRAINING) for s in changed))

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the input."""
        found: torch.dtype = self.input.meta["val"].dtype
        return found

    @property
    def batch(self) -> int | torch.SymInt:
        """Size of axis 0 of the input: a number where the program fixes it, else a symbol."""
        found: int | torch.SymInt = self.input.meta["val"].shape[0]
        return found

    @property
    def sizes(self) -> tuple[int, ...]:
        """Batch sizes at which index maps are tried."""
        return (self.batch,) if isinstance(self.batch, int) else (2, 3)

    @property
    def input_shape(self) -> Shape:
        """Per-sample shape of the input."""
        return tuple(int(n) for n in self.input.meta["val"].shape[1:])

    @property
    def calls(self) -> list[Call]:
        """The calls that the output needs, in order."""
        needed, open_calls = {self.output}, [self.output]
        while open_calls:
            for call in open_calls.pop().all_input_nodes:
                if call not in needed:
                    needed.add(call)
                    open_calls.append(call)
        return [call for call in self.exported.graph.nodes if call.op == "call_function" and call in needed]

    def constants(self) -> Iterator[tuple[str, str, Any]]:
        """Yield the parameters, buffers and lifted constants: name in the graph, name in the model, tensor."""
        for spec in self.exported.graph_signature.input_specs:
            if spec.kind != InputKind.USER_INPUT and spec.target is not None:
                tensor = self.exported.state_dict.get(spec.target)
                yield spec.arg.name, spec.target, self.exported.constants.get(spec.target) if tensor is None else tensor


def _functional(program: ExportedProgram) -> ExportedProgram:
    """Return the program without in-place operators and nested graphs, its layers kept whole."""
    targets = [call.target for call in program.graph.nodes if call.op == "call_function"]
    return program if all(_is_functional(target) for target in targets) else program.run_decompositions({})


def _is_functional(target: Any) -> bool:
    if not isinstance(target, torch._ops.OpOverload):
        return getattr(target, "__module__", "") == "_operator"
    return not target._schema.is_mutable or target is torch.ops.aten.detach_.default  # which changes no number


def _check_input(tensor: torch.Tensor) -> None:
    if tensor.dtype not in (torch.float32, torch.float64):
        raise UsageError(f"the model computes in {plain_name(tensor.dtype)}; convert it with model.float() first")
    if tensor.ndim == 0 or any(not isinstance(n, int) for n in tensor.shape[1:]):
        raise UsageError("only axis 0 of the model's input, the batch, may be of open size; fix the others")
    if tensor.ndim == 1:
        raise UsageError("the model's input has no batch axis; export it with inputs of shape (batch, features)")
    if isinstance(tensor.shape[0], int) and tensor.shape[0] > MOST_SAMPLES:
        raise UsageError(
            f"the model was exported for batches of {tensor.shape[0]}; export it with an open batch size "
            "(torch.export.Dim) or batches of 1"
        )


def bind(call: Call) -> dict[str, Any]:
    """Return the arguments of a call by the names of its operator's schema, defaults filled in."""
    target: Any = call.target
    schema = target._schema
    bound = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    bound.update(zip([a.name for a in schema.arguments], call.args, strict=False))
    bound.update(call.kwargs)
    return {a.name: bound[a.name] for a in schema.arguments if a.name in bound}


def module_path(call: Call) -> str:
    """Return the path of the innermost module that makes a call, '' for the model itself."""
    paths = [path for path, _ in call.meta.get("nn_module_stack", {}).values() if not path.startswith("_empty")]
    return paths[-1] if paths else ""


def first_of(call: Call) -> torch.Tensor | None:
    """Return shape and dtype of a call's first output, as a tensor without data; None where it is no tensor."""
    found = call.meta["val"]
    first = next(iter(found), None) if isinstance(found, (list, tuple)) else found
    return first if isinstance(first, torch.Tensor) else None


def plain_name(dtype: torch.dtype) -> str:
    """Return ``"float32"`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")
