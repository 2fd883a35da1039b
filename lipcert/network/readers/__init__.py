"""Reading networks: one function, `load`, for every form. onnx and torch are imported when they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from lipcert.errors import UsageError, nearest
from lipcert.network.graph import Network, Shape
from lipcert.network.preprocess import with_normalisation

WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".model", ".tar")
_FACTORY_HELP = (
    "weights alone do not say how to compute; give the code that builds the module too, as "
    "('package.module:factory', '{name}') in Python or 'package.module:factory@{name}' on the command line "
    "(a path 'file.py:factory' works as well)"
)


def load(
    model: Any,
    *,
    input_shape: Shape | None = None,
    mean: Sequence[float] | float | None = None,
    std: Sequence[float] | float | None = None,
    allow_pickle: bool = False,
) -> Network:
    """Read a network.

    Args:
        model: path of an ``.onnx`` or ``.pt2`` file; ``"module:factory@weights"``; a pair (factory, weights), the
            factory being ``"package.module:name"``, ``"file.py:name"`` or a callable; or an `nn.Module` in
            evaluation mode.
        input_shape: per-sample shape, where the model does not say it.
        mean, std: normalisation ``(x - mean) / std``, one number or one per channel, which becomes part of the
            network; its input is then in raw units.
        allow_pickle: whether pickled objects may be read; they can execute code.

    Raises:
        UsageError: the file is missing, damaged, empty or of an unknown kind, or the call is inconsistent.
        UnsupportedError: parts of the model have no sound rule; all are listed.
    """
    network = _load(model, input_shape, allow_pickle)
    if mean is None and std is None:
        return network
    return with_normalisation(network, 0.0 if mean is None else mean, 1.0 if std is None else std)


def _load(model: Any, input_shape: Shape | None, allow_pickle: bool) -> Network:
    if isinstance(model, Network):
        return model
    if isinstance(model, tuple) and len(model) == 2:
        return _load_factory(model[0], Path(model[1]), input_shape, allow_pickle)
    if isinstance(model, (str, PathLike)):
        return _load_path(str(model), input_shape, allow_pickle)
    if type(model).__module__ == "builtins" or not callable(model):
        raise UsageError(f"cannot read a network from a {type(model).__name__}; give a path, a module or a pair")
    from torch import nn

    from lipcert.network.readers.torch.export import read_module

    if not isinstance(model, nn.Module):
        raise UsageError(f"cannot read a network from a {type(model).__name__}; give a path, a module or a pair")
    return read_module(model, input_shape)


def _load_path(text: str, input_shape: Shape | None, allow_pickle: bool) -> Network:
    path = Path(text)
    factory, at, weights = text.partition("@")
    if at and ":" in factory and not path.exists():
        return _load_factory(factory, Path(weights), input_shape, allow_pickle)
    _check_file(path)
    if path.suffix == ".onnx":
        from lipcert.network.readers.onnx.file import read_onnx

        return read_onnx(path, input_shape=input_shape)
    if path.suffix == ".pt2":
        from lipcert.network.readers.torch.export import read_pt2

        network = read_pt2(path, allow_pickle)
        if input_shape is not None and tuple(input_shape) != network.input_shape:
            raise UsageError(f"'{text}' takes inputs of shape {network.input_shape}, not {tuple(input_shape)}")
        return network
    if path.suffix in WEIGHTS:
        raise UsageError(f"'{text}': {_FACTORY_HELP.format(name=path.name)}")
    raise UsageError(f"'{text}' has an unknown suffix; lipcert reads .onnx, .pt2, and weights with a factory")


def _load_factory(factory: Any, weights: Path, input_shape: Shape | None, allow_pickle: bool) -> Network:
    _check_file(weights)
    from lipcert.network.readers.torch.export import read_factory

    return read_factory(factory, weights, input_shape, allow_pickle)


def _beside(path: Path) -> str:
    """Name the file in the same folder that was most likely meant."""
    try:
        near = nearest(path.name, (file.name for file in path.parent.iterdir()))
    except OSError:  # there is no such folder
        return ""
    return "" if near is None else f": did you mean '{path.parent / near}'?"


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise UsageError(f"'{path}' is a folder, not a file")
    if not path.exists():
        raise UsageError(f"there is no file '{path}'{_beside(path)}")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise UsageError(f"cannot read '{path}': {error.strerror}") from None
    if empty:
        raise UsageError(f"'{path}' is empty")
