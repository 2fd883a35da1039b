"""From a `torch.export.ExportedProgram` to a `Network`: one pass over its graph.

Calls that do not depend on the input are folded (`torch.constants`); the others are looked up in one table, operator
-> handler, made of the tables of the files named in `HANDLERS`. What has no handler is collected and reported at the
end, all at once; a stand-in takes its place meanwhile, so that the rest is looked at too.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.fx import Node as Call

from lipcert.errors import Unsupported, UnsupportedError, UsageError
from lipcert.network.builder import Builder, prune
from lipcert.network.enclosure import Enclosure
from lipcert.network.graph import Network, Source
from lipcert.network.operators import Gather
from lipcert.network.readers.torch import activations, arithmetic, layers, moves, pooling
from lipcert.network.readers.torch.constants import fold
from lipcert.network.readers.torch.program import Program, bind, first_of, module_path, plain_name
from lipcert.network.readers.torch.reasons import reason
from lipcert.network.readers.torch.values import (
    MIXES,
    Known,
    Missing,
    Refused,
    Size,
    Step,
    Traced,
    Value,
    enclose,
    flatten,
)

HANDLERS: Mapping[str, moves.Handler] = MappingProxyType(
    {
        **moves.HANDLERS,
        **layers.HANDLERS,
        **pooling.HANDLERS,
        **activations.HANDLERS,
        **arithmetic.HANDLERS,
    }
)


def read_program(program: ExportedProgram, source: Source, notes: Sequence[str] = ()) -> Network:
    """Read an exported program.

    Args:
        program: with one input, whose axis 0 is the batch, and one output.
        source: where it came from.
        notes: what a person should know already.

    Raises:
        UsageError: not one input and one output, no batch axis, not float32 or float64, NaN.
        UnsupportedError: parts of the program have no sound rule; all are listed.
    """
    opened = Program.of(program)
    walk = _Walk(opened, Builder(opened.input_shape), list(notes))
    output = walk.run()
    if walk.problems:
        raise UnsupportedError(walk.problems)
    return Network(tuple(prune(walk.builder.nodes, output)), plain_name(opened.dtype), source, tuple(walk.notes))


@dataclass
class _Walk:
    """State of one pass."""

    program: Program
    builder: Builder
    notes: list[str]
    problems: list[Unsupported] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def run(self) -> int:
        """Visit every call that the output needs, and return the output's node."""
        for name, why in self.program.mutated:
            self.problems.append(Unsupported(name, "buffer", why))
        for name, where, tensor in self.program.constants():
            self.values[name] = self._constant(where, tensor)
        self.values[self.program.input.name] = Traced(0)
        for call in self.program.calls:
            self.values[call.name] = self._visit(call)
        value = self.values[self.program.output.name]
        if isinstance(value, Known):
            raise UsageError("the model's output does not depend on its input")
        if not isinstance(value, Traced) and not self.problems:
            self._report(self.program.output, getattr(value, "why", None) or "the output is not one tensor")
        return value.node if isinstance(value, Traced) else 0

    def _constant(self, where: str, tensor: Any) -> Value:
        """Enclose a parameter, a buffer or a lifted constant."""
        if not isinstance(tensor, torch.Tensor):
            return Missing(f"'{where}' is no tensor; only tensors can be constants")
        try:
            return Known(enclose(tensor), tensor.dtype)
        except Refused as error:
            return Missing(f"'{where}' {error}")

    def _visit(self, call: Call) -> Value:
        """Return the value of one call."""
        if call.target is operator.getitem:
            found, position = [self._value(arg) for arg in call.args]
            return found[position] if isinstance(found, list) else found
        try:
            is_size = not isinstance(call.meta.get("val"), (torch.Tensor, list, tuple))
            return self._size(call) if is_size else self._apply(call)
        except (Refused, UsageError) as error:
            self._report(call, str(error))
            return self._stand_in(call)

    def _apply(self, call: Call) -> Value:
        """Fold a call of constants, or append what it computes from the input."""
        target = call.target
        if not isinstance(target, torch._ops.OpOverload):
            raise Refused("control flow and custom operators are not supported")
        arguments = {name: self._value(arg) for name, arg in bind(call).items()}
        plain = list(flatten(list(arguments.values())))
        traced = any(isinstance(value, (Traced, Missing)) for value in plain)
        first = first_of(call)
        if first is None:
            raise Refused("returns no tensor")
        shape = tuple(first.shape)[1 if traced else 0 :]
        step = Step(
            self.builder, target, self._name(call), arguments, shape, first.dtype, self.program.sizes, self.notes
        )
        if not traced:
            return fold(step)
        if step.op not in HANDLERS:
            raise Refused(reason(step.op))
        for lost in (value for value in plain if isinstance(value, Missing)):
            if lost.why is not None:
                raise Refused(lost.why)
            return self._stand_in(call)
        self._check_output(first)
        value = HANDLERS[step.op](step)
        return Traced(value) if isinstance(value, int) else value

    def _check_output(self, first: torch.Tensor) -> None:
        """Check that an output still has the batch axis in front, and the input's dtype.

        Raises:
            Refused: it has not.
        """
        if first.dtype != self.program.dtype:
            kinds = plain_name(first.dtype), plain_name(self.program.dtype)
            raise Refused(f"computes in {kinds[0]} inside a network of {kinds[1]}; use one number format throughout")
        if first.ndim == 0 or str(first.shape[0]) != str(self.program.batch):
            raise Refused(MIXES)
        if any(not isinstance(n, int) for n in first.shape[1:]):
            raise Refused("has a shape that depends on the batch size beyond axis 0")

    def _size(self, call: Call) -> Size:
        """Compute an integer that depends on the batch size, at the sizes where index maps are tried."""
        arguments, sizes = [self._value(arg) for arg in call.args], self.program.sizes
        if call.target is torch.ops.aten.sym_size.int:
            value, axis = arguments
            return Size(tuple((size, *self.builder.nodes[value.node].shape)[axis] for size in sizes))
        target: Any = call.target
        if getattr(target, "__module__", "") != "_operator":
            raise Refused("computes with the batch size in a way that is not supported")
        rows = [[a.at[i] if isinstance(a, Size) else a for a in arguments] for i in range(len(sizes))]
        return Size(tuple(int(target(*row)) for row in rows))

    def _value(self, argument: Any) -> Value:
        if isinstance(argument, Call):
            return self.values[argument.name]
        return [self._value(item) for item in argument] if isinstance(argument, (list, tuple)) else argument

    def _name(self, call: Call) -> str:
        """Return the name of the module that makes the call, told apart where it makes several."""
        name = module_path(call) or call.name
        name = f"{name}.{call.name}" if name in self.used else name
        self.used.add(name)
        return name

    def _report(self, call: Call, why: str) -> None:
        what = str(call.target).removeprefix("aten.").removesuffix(".default")
        path = module_path(call)
        self.problems.append(Unsupported(f"{path}.{call.name}" if path else call.name, what, why))

    def _stand_in(self, call: Call) -> Value:
        """Return something of the right shape in the place of a call that was reported."""
        found = call.meta.get("val")
        if isinstance(found, (list, tuple)):
            return [self._zeros(item, call) for item in found]
        return self._zeros(found, call)

    def _zeros(self, found: Any, call: Call) -> Value:
        if not isinstance(found, torch.Tensor):
            return Missing()
        inputs = [self.values.get(node.name) for node in call.all_input_nodes]
        if not any(isinstance(value, (Traced, Missing, list)) for value in inputs):
            return Known(Enclosure.exact(np.zeros(tuple(found.shape))), found.dtype)
        usable = found.ndim > 0 and str(found.shape[0]) == str(self.program.batch)
        if not usable or any(not isinstance(n, int) for n in found.shape[1:]):
            return Missing()
        return Traced(self.builder.add(Gather(np.full(tuple(found.shape[1:]), -1)), 0))
