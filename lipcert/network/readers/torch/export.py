"""The three forms of a torch model: a live module, a ``.pt2`` file, a factory with weights."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.export import ExportedProgram

from lipcert.errors import LipcertError, Unsupported, UnsupportedError, UsageError
from lipcert.network.graph import Network, Shape, Source
from lipcert.network.readers.torch.archive import check_archive
from lipcert.network.readers.torch.factory import find_factory
from lipcert.network.readers.torch.walk import read_program
from lipcert.network.readers.torch.weights import first_line, load_into, read_weights, sha256

Factory = str | Callable[[], nn.Module]
_LOGGERS = ("torch.export", "torch._subclasses.fake_tensor")


def read_module(module: nn.Module, input_shape: Shape | None) -> Network:
    """Read a live module in evaluation mode.

    Args:
        module: takes one tensor (N, *input_shape) and returns one.
        input_shape: per-sample shape; the module's attribute `input_shape` where None.

    Raises:
        UsageError: a submodule is in training mode, or the shape is missing.
        UnsupportedError: parts of the module have no sound rule, or torch cannot export it.
    """
    training = next((name or "the model" for name, part in module.named_modules() if part.training), None)
    if training is not None:
        raise UsageError(f"'{training}' is in training mode, which is another function; call model.eval() first")
    name = type(module).__name__
    return _read(module, input_shape, Source(f"torch module {name}", "module", None, _count(module)), ())


def read_pt2(path: Path, allow_pickle: bool = False) -> Network:
    """Read a file written by `torch.export.save`.

    Args:
        path: the file.
        allow_pickle: whether the file may hold pickled objects; they can execute code.

    Raises:
        UsageError: the file is damaged, or holds what could execute code.
        UnsupportedError: parts of the program have no sound rule; all are listed.
    """
    data = path.read_bytes()
    if not allow_pickle:
        check_archive(path.name, data)
    try:
        with _quiet():
            program = torch.export.load(io.BytesIO(data))
    except Exception as error:
        raise UsageError(f"'{path}' is no file of torch.export.save, or is damaged: {first_line(error)}") from None
    count = sum(parameter.numel() for parameter in program.parameters())
    return _walk(program, Source(str(path), "pt2", sha256(data), count), ())


def read_factory(factory: Factory, weights: Path, input_shape: Shape | None, allow_pickle: bool = False) -> Network:
    """Build a module with a factory, load weights into it, and read it in evaluation mode.

    Args:
        factory: ``"package.module:name"``, ``"path/to/file.py:name"`` or a callable, that returns an `nn.Module`.
            Its code is executed.
        weights: safetensors, or what `torch.save(model.state_dict())` writes.
        input_shape: per-sample shape; the module's attribute `input_shape` where None.
        allow_pickle: whether full pickles may be read; they can execute code.

    Raises:
        UsageError: no such factory, or the weights do not fit the module.
        UnsupportedError: parts of the module have no sound rule; all are listed.
    """
    build = find_factory(factory) if isinstance(factory, str) else factory
    state, notes, digest = read_weights(weights, allow_pickle)
    try:
        module = build()
    except LipcertError:
        raise
    except Exception as error:
        raise UsageError(f"the factory {factory} failed: {type(error).__name__}: {first_line(error)}") from None
    if not isinstance(module, nn.Module):
        raise UsageError(f"the factory {factory} returned a {type(module).__name__}, not a torch.nn.Module")
    notes = (*notes, *load_into(module, state, weights.name))
    return _read(module.eval(), input_shape, Source(str(weights), "factory", digest, _count(module)), notes)


def _read(module: nn.Module, input_shape: Shape | None, source: Source, notes: Sequence[str]) -> Network:
    shape = input_shape if input_shape is not None else getattr(module, "input_shape", None)
    if shape is None:
        raise UsageError(
            "the shape of one input is not known; pass input_shape without the batch axis, such as (1, 28, 28), "
            "or --input-shape 1,28,28"
        )
    return _walk(_export(module, tuple(int(n) for n in shape)), source, notes)


def _walk(program: ExportedProgram, source: Source, notes: Sequence[str]) -> Network:
    with _quiet(), torch.no_grad():
        return read_program(program, source, notes)


def _export(module: nn.Module, shape: Shape) -> ExportedProgram:
    """Export with an open batch size, or a fixed one where the module does not allow it."""
    parameter = next((p for p in module.parameters() if p.is_floating_point()), None)
    dtype = torch.float32 if parameter is None else parameter.dtype
    device = "cpu" if parameter is None else parameter.device
    failures = []
    for batch, dynamic in ((2, ({0: torch.export.Dim("batch")},)), (2, None), (1, None)):
        example = torch.zeros((batch, *shape), dtype=dtype, device=device)
        try:
            with _quiet(), torch.no_grad():
                return torch.export.export(module, (example,), dynamic_shapes=dynamic, strict=False)
        except Exception as error:
            failures.append(error)
    why = f"torch.export cannot trace it with an input of shape {shape}: {first_line(failures[-1])}"
    raise UnsupportedError([Unsupported(type(module).__name__, "module", why)])


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's own warnings; what matters to a person is said in errors and notes."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled
