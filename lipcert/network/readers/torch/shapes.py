"""Which of several input shapes a live module takes, found out by trying."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from lipcert.errors import UsageError
from lipcert.network.graph import Shape
from lipcert.network.readers.torch.weights import first_line

COLOURS = (3, 4)


def shape_for_images(module: nn.Module, images: Shape) -> Shape:
    """Return the per-sample shape in which a module takes images.

    Args:
        module: in evaluation mode; run once or twice, on zeros.
        images: per-sample shape of the data. A module of images wants channels first, so a missing axis of channels
            and channels last are tried, too.

    Raises:
        UsageError: the module takes none of these.
    """
    shapes: list[Shape] = [images]
    if len(images) == 2:
        shapes.append((1, *images))
    if len(images) == 3 and images[-1] in (1, *COLOURS):
        shapes.append((images[-1], *images[:-1]))
    problems = []
    for shape in shapes:
        problem = _problem(module, shape)
        if problem is None:
            return shape
        problems.append(problem)
    raise UsageError(f"the model cannot take the images, of shape {images} ({problems[0]}): give input_shape")


def _problem(module: nn.Module, shape: Sequence[int]) -> str | None:
    """Return why a module cannot take two samples of a shape, or None where it can."""
    parameter = next((p for p in module.parameters() if p.is_floating_point()), None)
    like = torch.empty(0) if parameter is None else parameter
    try:
        with torch.no_grad():
            outputs = module(like.new_zeros((2, *shape)))
    except Exception as error:  # the user's own code runs here, and may raise anything
        return first_line(error)
    whole = isinstance(outputs, torch.Tensor) and outputs.ndim > 0 and len(outputs) == 2
    return None if whole else "it does not give one output per sample"
