"""Resize and Upsample: nearest neighbours with whole factors, which repeat entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from lipcert.network.graph import Shape
from lipcert.network.readers.onnx.call import Call
from lipcert.network.readers.onnx.graph import Move
from lipcert.network.readers.onnx.values import Array, Refusal

PLACES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "asymmetric")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor")


def resize(call: Call) -> list[Move]:
    """Return the move of a Resize or Upsample."""
    call.choice("mode", "nearest")
    old = call.graph.opset <= 10
    place = call.choice("coordinate_transformation_mode", "asymmetric" if old else "half_pixel", *PLACES)
    rounding = call.choice("nearest_mode", "floor" if old else "round_prefer_floor", *ROUNDINGS)
    # with a whole factor s, output k shows input k / s rounded down, or (k + 1/2) / s - 1/2 rounded to the
    # nearest: both are k // s
    if (place == "asymmetric") != (rounding == "floor"):
        raise Refusal(f"nearest neighbours by '{place}' and '{rounding}' do not repeat entries evenly")
    factors = _factors(call)

    def step(a: Array, size: int) -> Any:
        for axis, factor in enumerate(factors(a.shape, size)):
            if factor != int(factor) or factor < 1:
                raise Refusal(f"resizes axis {axis} by {factor}; only whole factors are supported")
            a = np.repeat(a, int(factor), axis=axis)
        return a

    return [step]


def _factors(call: Call) -> Callable[[Shape, int], list[float]]:
    """Return the function (graph shape, batch size) -> factor of each axis, for Resize and Upsample."""
    axes = call.get("axes")
    position = 1 if call.proto.op_type == "Upsample" or call.graph.opset <= 10 else 2
    call.choice("keep_aspect_ratio_policy", "stretch")
    scales = call.get("scales")
    if scales is None and call.has(position) and call.numbers(position).shape != (0,):
        scales = [float(s) for s in call.exact(position)]
    target = None if scales is not None else call.whole(3)

    def factors(shape: Shape, size: int) -> list[float]:
        places = range(len(shape)) if axes is None else normalize_axis_tuple(axes, len(shape))
        found = [1.0] * len(shape)
        given = target.at(size) if target is not None else np.array(scales)
        for axis, value in zip(places, given, strict=True):
            found[axis] = float(value) if target is None else float(value) / shape[axis]
        return found

    return factors
