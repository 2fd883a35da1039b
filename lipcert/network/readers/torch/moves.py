"""Operators of torch that only move, repeat or drop entries, concatenation, and MaxMin.

Such an operator is read by running it, as torch has it, on an array that holds the number of each entry: what
comes out is the index map, with all of torch's conventions. Entries are numbered from 1, so that a zero is a
constant zero (padding, `tril`).

That no two samples mix is tried on batches, at two sizes where the batch size is open: every extent along the way
is affine in it, so two sizes settle all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from lipcert.network.enclosure import Enclosure
from lipcert.network.graph import Node
from lipcert.network.operators import Concat, Extremum, Gather, Ints, Reshape, Scale
from lipcert.network.readers.common import rearrange, sort_groups
from lipcert.network.readers.torch.values import MIXES, Known, Refused, Size, Step, Traced, Value

_NAMES = """
_unsafe_view alias broadcast_to channel_shuffle chunk clone constant_pad_nd contiguous detach detach_ diagonal
expand flatten flip im2col index index_select lift lift_fresh lift_fresh_copy moveaxis movedim mT narrow
native_channel_shuffle numpy_T pad permute pixel_shuffle pixel_unshuffle ravel reflection_pad1d
reflection_pad2d reflection_pad3d repeat repeat_interleave replication_pad1d replication_pad2d
replication_pad3d reshape roll select slice split split_with_sizes squeeze swapaxes swapdims t
tensor_split tile transpose tril triu unbind unflatten unfold unsafe_chunk unsafe_split
unsafe_split_with_sizes unsqueeze upsample_nearest1d upsample_nearest2d upsample_nearest3d view
"""
MOVERS = frozenset(_NAMES.split())


def move(step: Step) -> Value:
    """Append the index map of an operator that moves entries; several outputs give a list."""
    if step.op == "roll" and 0 in {d % (step.rank(step.x) + 1) for d in step.get("dims") or [0]}:
        raise Refused(MIXES)  # a roll by a multiple of the sizes tried would look like none
    fill, quiet = _without_fill(step)
    maps = [_run(quiet, position) for position in range(len(step.sizes))]
    if any(len(m) != len(maps[0]) for m in maps):
        raise Refused(MIXES)
    outputs = [_gather(step, [m[k] for m in maps], fill) for k in range(len(maps[0]))]
    return outputs if _is_list(step) else outputs[0]


def move_constant(step: Step) -> Value:
    """Move the entries of a constant."""
    name, *_ = step.arguments
    known: Known = step.arguments[name]

    def run(array: Any) -> list[Any]:
        return _outputs(_call(step, torch.from_numpy(np.array(array)), 0))

    mids, rads = run(known.value.mid), run(known.value.radius)
    found = [Known(Enclosure(m, r), known.dtype) for m, r in zip(mids, rads, strict=True)]
    return found if _is_list(step) else found[0]


def _is_list(step: Step) -> bool:
    return "[]" in str(step.target._schema.returns[0].type) or "List" in str(step.target._schema.returns[0].type)


def _without_fill(step: Step) -> tuple[float, Step]:
    """Split the value that padding fills in from a step; the step left fills in zeros."""
    if step.op not in ("pad", "constant_pad_nd") or not step.get("value"):
        return 0.0, step
    return float(step.scalar("value")), replace(step, arguments={**step.arguments, "value": 0})


def _run(step: Step, position: int) -> list[Ints]:
    """Return the index map of one sample, for each output, at one of the batch sizes tried."""
    batch, own = step.sizes[position], step.builder.nodes[step.x].shape
    count = int(np.prod(own, dtype=np.int64))
    numbers = torch.arange(1, batch * count + 1, dtype=torch.float64).reshape(batch, *own)
    return [_one_sample(array, batch, count) for array in _outputs(_call(step, numbers, position))]


def _one_sample(array: Any, batch: int, count: int) -> Ints:
    index = array.astype(np.int64)
    if index.ndim == 0 or index.shape[0] != batch or (index[0] > count).any():
        raise Refused(MIXES)
    steps = np.where(index[0] > 0, count, 0)
    if any(not np.array_equal(index[k], index[0] + k * steps) for k in range(batch)):
        raise Refused(MIXES)
    return np.asarray(index[0] - 1)


def _call(step: Step, first: torch.Tensor, position: int) -> Any:
    """Run the operator with `first` as its first argument."""
    _first, *others = step.arguments
    arguments = {other: _plain(step.arguments[other], position) for other in others}
    try:
        return step.target(first, **arguments)
    except (RuntimeError, IndexError, ValueError):
        raise Refused(MIXES) from None  # the only thing changed is the batch size


def _plain(value: Value, position: int) -> Any:
    """Turn a value into what torch takes."""
    if isinstance(value, Traced):
        raise Refused("moves entries to places that depend on the input")
    if isinstance(value, Known):
        return torch.from_numpy(np.array(value.value.mid)).to(value.dtype)
    if isinstance(value, Size):
        return value.at[position]
    return [_plain(item, position) for item in value] if isinstance(value, (list, tuple)) else value


def _outputs(found: Any) -> list[Any]:
    return [t.numpy() for t in (found if isinstance(found, (list, tuple)) else [found])]


def _gather(step: Step, indices: list[Ints], fill: float) -> Traced:
    index, *others = indices
    if any(not np.array_equal(index, other) for other in others):
        raise Refused(MIXES)
    y = rearrange(step.builder, step.x, lambda _: index, step.name)
    if fill and (index < 0).any():
        shift = Enclosure.exact(np.where(index < 0, fill, 0.0))
        y = step.builder.add(Scale(Enclosure.exact(1.0), shift), y, name=f"{step.name}.value")
    return Traced(y)


# --- concatenation ------------------------------------------------------------------------------------------


def cat(step: Step) -> int:
    """Append a concatenation; a maximum beside the minimum of the same two slices becomes MaxMin."""
    nodes = _all_traced(step)
    rank = step.rank(nodes[0])
    if any(step.rank(node) != rank for node in nodes):
        raise Refused(MIXES)
    return _join(step, nodes, step.axis(step.get("dim", 0), nodes[0]))


def hstack(step: Step) -> int:
    """Append a concatenation along the first axis behind the batch."""
    return _join(step, _all_traced(step), 0)


def stack(step: Step) -> int:
    """Append a stack along a new axis."""
    nodes = _all_traced(step)
    rank = step.rank(nodes[0])
    axis = int(step.get("dim", 0)) % (rank + 2) - 1
    if axis < 0:
        raise Refused(MIXES)
    shape = step.builder.nodes[nodes[0]].shape
    wide = (*shape[:axis], 1, *shape[axis:])
    return _join(step, [step.builder.add(Reshape(), node, shape=wide) for node in nodes], axis)


def _all_traced(step: Step) -> list[int]:
    values = list(step.arguments["tensors"])
    if not all(isinstance(v, Traced) for v in values):
        raise Refused("joins the input with constants, which is not supported; add the constants in a later layer")
    return [v.node for v in values]


def _join(step: Step, nodes: list[int], axis: int) -> int:
    return _max_min(step, nodes, axis) or step.add(Concat(axis), *nodes)


def _max_min(step: Step, nodes: list[int], axis: int) -> int | None:
    """Append MaxMin as one sorting of pairs, which is 1-Lipschitz where its two halves together are not."""
    parts = [step.builder.nodes[_behind_reshapes(step, node)] for node in nodes]
    maxima = [part.op.maximum for part in parts if isinstance(part.op, Extremum)]
    pairs = [found for part in parts if (found := _pairs(step, part)) is not None]
    if len(parts) != 2 or len(pairs) != 2 or sorted(maxima) != [False, True]:
        return None
    (source, groups), (other, others) = pairs
    if source != other or not np.array_equal(groups, others):
        return None
    # position 2 g of the sorted pairs is the minimum of pair g, 2 g + 1 its maximum
    shapes = [step.builder.nodes[node].shape for node in nodes]
    halves = [2 * np.arange(len(groups)).reshape(shape) + top for shape, top in zip(shapes, maxima, strict=True)]
    return sort_groups(step.builder, source, groups, np.concatenate(halves, axis=axis), step.name)


def _pairs(step: Step, part: Node) -> tuple[int, Ints] | None:
    """Return the node whose entries an extremum of two slices compares, and which with which: (m, 2) positions."""
    if not isinstance(part.op, Extremum) or len(part.inputs) != 2:
        return None
    slices = [step.builder.nodes[_behind_reshapes(step, i)] for i in part.inputs]
    indices = [s.op.index.ravel() for s in slices if isinstance(s.op, Gather)]
    sources = {_behind_reshapes(step, i) for s in slices for i in s.inputs}
    if len(indices) != 2 or len(sources) != 1 or min(index.min() for index in indices) < 0:
        return None
    return sources.pop(), np.sort(np.stack(indices, axis=1), axis=1)


def _behind_reshapes(step: Step, node: int) -> int:
    while isinstance(step.builder.nodes[node].op, Reshape):
        node = step.builder.nodes[node].inputs[0]
    return node


Handler = Callable[[Step], Value]
HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(MOVERS, move),
    "cat": cat,
    "concat": cat,
    "hstack": hstack,
    "stack": stack,
}
