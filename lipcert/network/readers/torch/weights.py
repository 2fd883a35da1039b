"""Weights in files: safetensors and torch checkpoints, read without executing code.

`torch.load(weights_only=True)` builds tensors and containers only. A fixed list adds numpy's plain arrays, dtypes
and scalars, which many training scripts leave in their checkpoints. Anything else is refused, because reading it
would execute code of the file.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lipcert.errors import UsageError

NESTED = ("state_dict", "model_state_dict", "model")  # where training scripts keep the weights
MOST_LEVELS = 8  # of containers around the weights
State = dict[str, torch.Tensor]


def _numpy_names() -> list[Any]:
    """Return what an array of numbers is pickled with, under numpy's names of version 1 and 2."""
    from numpy._core.multiarray import _reconstruct, scalar

    kinds = {type(np.dtype(code)) for code in "?bhilqBHILQefd"}
    makers = (_reconstruct, scalar)
    both = [(f, f"numpy.{core}.multiarray.{f.__name__}") for f in makers for core in ("core", "_core")]
    return [*both, np.ndarray, np.dtype, *kinds]


def sha256(data: bytes) -> str:
    """Return the digest of a file's bytes."""
    return hashlib.sha256(data).hexdigest()


def read_weights(path: Path, allow_pickle: bool = False) -> tuple[State, tuple[str, ...], str]:
    """Read a state dict.

    Args:
        path: a safetensors file, or a checkpoint of `torch.save`; the weights may lie under one of `NESTED`.
        allow_pickle: whether objects other than tensors and numpy arrays may be built; that can execute code.

    Returns:
        The tensors by name (on the CPU), what a person should know, and the SHA-256 of the file.

    Raises:
        UsageError: the file is damaged, holds something else, or where the weights are is ambiguous.
    """
    data = path.read_bytes()
    if not data:
        raise UsageError(f"'{path}' is empty")
    found = _safetensors(path, data) if path.suffix == ".safetensors" else _checkpoint(path, data, allow_pickle)
    state, place = find_state(found, path)
    notes = (f"the weights were found at {place} in '{path.name}'",) if place else ()
    return state, notes, sha256(data)


def _safetensors(path: Path, data: bytes) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return dict(load(data))
    except (SafetensorError, ValueError, KeyError) as error:
        raise UsageError(f"'{path}' is no safetensors file, or is damaged: {first_line(error)}") from None


def _checkpoint(path: Path, data: bytes, allow_pickle: bool) -> Any:
    try:
        with torch.serialization.safe_globals(_numpy_names()):
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        if allow_pickle:
            return _pickle(path, data)
        raise UsageError(_why_not_weights(path, str(error))) from None


def _pickle(path: Path, data: bytes) -> Any:
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=False)
    except Exception as error:
        raise UsageError(f"'{path}' cannot be read: {type(error).__name__}: {first_line(error)}") from None


def first_line(error: BaseException) -> str:
    """Return the first line of an error message that says something."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)


def _why_not_weights(path: Path, message: str) -> str:
    found = re.search(r"GLOBAL (\S+)|for (?:class|unrecognized object) `?(?:<class ')?([\w.]+)", message)
    if "TorchScript" in message:
        return f"'{path}' is a TorchScript archive; save torch.export.save(...) or model.state_dict() instead"
    if found is None:
        return f"'{path}' is no checkpoint of tensors made by torch.save, or is damaged"
    name = next(group for group in found.groups() if group)
    return (
        f"'{path}' holds the Python object {name}, which is neither a tensor nor a numpy array; save "
        "model.state_dict() alone, or pass allow_pickle=True, which would execute code of the file"
    )


def find_state(found: Any, path: Path, place: str = "") -> tuple[State, str]:
    """Return the state dict in what a file holds, and where it was found ('' where it is the file itself).

    Raises:
        UsageError: there is none, or several.
    """
    if isinstance(found, nn.Module):
        return dict(found.state_dict()), f"{place} (a pickled module)".strip()
    if isinstance(found, (list, tuple)) and len(found) == 1 and place.count("[") < MOST_LEVELS:
        return find_state(found[0], path, f"{place}[0]")
    if isinstance(found, Mapping):
        arrays = {k: _tensor(v) for k, v in found.items() if isinstance(v, (torch.Tensor, np.ndarray, np.generic))}
        keys = [key for key in NESTED if isinstance(found.get(key), (Mapping, list, tuple, nn.Module))]
        if arrays and len(arrays) == len(found) and all(isinstance(key, str) for key in arrays):
            return arrays, place
        if len(keys) == 1 and place.count("[") < MOST_LEVELS:
            return find_state(found[keys[0]], path, f"{place}[{keys[0]!r}]")
        if len(keys) > 1:
            raise UsageError(f"'{path}' holds weights under several keys, {', '.join(keys)}; save one of them alone")
    inside = ", ".join(map(repr, list(found)[:8])) if isinstance(found, Mapping) else type(found).__name__
    raise UsageError(f"'{path}' holds no state dict{f' at {place}' if place else ''}; it holds {inside}")


def _tensor(array: Any) -> torch.Tensor:
    return array if isinstance(array, torch.Tensor) else torch.from_numpy(np.array(array))


def load_into(module: nn.Module, state: State, name: str) -> tuple[str, ...]:
    """Load weights into a module, every key and shape of which must fit.

    Args:
        module: changed in place.
        state: the weights; a prefix ``module.`` of all keys (of DataParallel) is dropped where it does not fit.
        name: name of the file, for messages.

    Returns:
        What a person should know.

    Raises:
        UsageError: missing or unexpected keys, or other shapes; all are named.
    """
    notes = []
    own = module.state_dict()
    if state.keys() != own.keys() and state and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): tensor for key, tensor in state.items()}
        notes.append("the prefix 'module.' of all keys was dropped")
    differing = {"missing": own.keys() - state.keys(), "unexpected": state.keys() - own.keys()}
    problems = [f"{what} {_listed(keys)}" for what, keys in differing.items() if keys]
    for key in own:
        if key in state and own[key].shape != state[key].shape:
            problems.append(f"'{key}' has shape {tuple(state[key].shape)}, not {tuple(own[key].shape)}")
    if problems:
        raise UsageError(f"the weights of '{name}' do not fit the module: {'; '.join(problems)}")
    narrowed = sorted(k for k in own if _is_narrower(own[k].dtype, state[k].dtype))
    if narrowed:
        notes.append(f"the module rounds weights of '{name}' to its own number format: {_listed(narrowed)}")
    module.load_state_dict(state)
    return tuple(notes)


def _is_narrower(own: torch.dtype, stored: torch.dtype) -> bool:
    if not own.is_floating_point or not stored.is_floating_point:
        return own != stored
    return torch.finfo(own).eps > torch.finfo(stored).eps or torch.finfo(own).max < torch.finfo(stored).max


def _listed(keys: Any) -> str:
    ordered = sorted(keys)
    return ", ".join(ordered[:6]) + (f" and {len(ordered) - 6} more" if len(ordered) > 6 else "")
