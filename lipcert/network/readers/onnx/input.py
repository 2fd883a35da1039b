"""The input of an ONNX graph: which axes it has, and which of them is the batch."""

from __future__ import annotations

from typing import Any

from lipcert.errors import UsageError
from lipcert.network.graph import Shape

Dims = list[int | None]  # None where the file leaves the size open


def stored_dims(value: Any) -> Dims | None:
    """Return the shape that the file states for a value, None where it states none."""
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return None
    return [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in kind.shape.dim]


def input_layout(name: str, dims: Dims | None, wanted: Shape | None) -> tuple[Shape, tuple[int, ...], bool]:
    """Decide what the shape of one sample is.

    Args:
        name: of the input.
        dims: its shape as stored.
        wanted: the shape of one sample as the caller gave it.

    Returns:
        The shape of one sample, the batch sizes at which index maps are tried (see `Graph.sizes`), and whether
        the graph's shape has an axis before it.

    Raises:
        UsageError: sizes are open and not given, or those given do not fit.
    """
    if dims is None:
        if wanted is None:
            raise UsageError(f"the input '{name}' has no shape; give input_shape, the shape of one sample")
        return _filled(name, [None] * len(wanted), wanted), (2, 3), True
    if not dims:
        raise UsageError(f"the input '{name}' is a single number; a network needs a vector at least")
    if len(dims) == 1:
        return _filled(name, dims, wanted), (), False
    if dims[0] is None:
        return _filled(name, dims[1:], wanted), (2, 3), True
    if dims[0] == 1:
        return _filled(name, dims[1:], wanted), (), True
    if wanted is None:
        raise UsageError(
            f"the first axis of the input '{name}' of shape {dims} is fixed to {dims[0]}; give input_shape: all of "
            "the sizes where it is no batch axis, those behind it where it is one"
        )
    if len(wanted) == len(dims):
        return _filled(name, dims, wanted), (), False
    return _filled(name, dims[1:], wanted), (dims[0],), True


def _filled(name: str, dims: Dims, wanted: Shape | None) -> Shape:
    """Return the sizes, with the open ones taken from what the caller gave."""
    if wanted is not None and (
        len(wanted) != len(dims) or any(d not in (None, w) for d, w in zip(dims, wanted, strict=True))
    ):
        raise UsageError(f"input_shape {wanted} does not fit the input '{name}', whose samples have shape {dims}")
    sizes = dims if wanted is None else list(wanted)
    known = tuple(size for size in sizes if size is not None)
    if len(known) < len(sizes) or min(known) < 1:
        raise UsageError(f"the input '{name}' has open sizes {dims}; give input_shape, the shape of one sample")
    return known
