"""Samples as people see them: small pictures where an input is one, else its entries by name."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from lipcert.network.enclosure import Float
from lipcert.results import FeatureValue, Picture

SIDE = 64  # pixels; larger pictures are reduced, to keep reports small
THINNEST = 4  # entries that a picture must have in height and width
SMALLEST = 64  # entries that a flat input must have to be taken for a square picture
SHOWN = 12  # entries of an input that is no picture
CHANNELS = (1, 3)


def planes(sample: Float) -> Float | None:
    """Return a sample as (channels, height, width), or None where it is no picture.

    Pictures are (C, H, W) and (H, W, C) with one or three channels, (H, W), and flat inputs of a square number of
    entries, such as 784.
    """
    shape = sample.shape
    if len(shape) == 3 and shape[0] in CHANNELS and min(shape[1:]) >= THINNEST:
        return sample
    if len(shape) == 3 and shape[2] in CHANNELS and min(shape[:2]) >= THINNEST:
        return np.moveaxis(sample, 2, 0)
    bare = sample.squeeze()
    if bare.ndim == 1 and bare.size >= SMALLEST and math.isqrt(bare.size) ** 2 == bare.size:
        side = math.isqrt(bare.size)
        return bare.reshape(1, side, side)
    return bare[None] if bare.ndim == 2 and min(bare.shape) >= THINNEST else None


def picture(values: Float, box: tuple[float, float]) -> Picture:
    """Draw planes (C, H, W) of one or three colours; the ends of the box are black and white."""
    low, high = box
    return _encode((values - low) / ((high - low) or 1.0))


def change_picture(shift: Float) -> Picture:
    """Draw a difference (C, H, W): grey where nothing changes, black and white where most does."""
    mean = shift.mean(axis=0, keepdims=True)
    return _encode(0.5 + 0.5 * mean / (float(np.abs(mean).max()) or 1.0))


def features(sample: Float, adversarial: Float | None, names: Sequence[str]) -> tuple[FeatureValue, ...]:
    """List entries of a sample, those that change most first, at most `SHOWN`; unnamed ones by their position."""
    flat = sample.ravel()
    other = flat if adversarial is None else adversarial.ravel()
    order = np.argsort(-np.abs(other - flat), kind="stable")[:SHOWN].tolist()
    return tuple(
        FeatureValue(
            name=names[i] if i < len(names) else f"entry {i}",
            value=float(flat[i]),
            changed=None if adversarial is None else float(other[i]),
        )
        for i in order
    )


def _encode(shares: Float) -> Picture:
    """Return planes of shares of white as a PNG file."""
    levels: npt.NDArray[np.uint8] = np.rint(255.0 * shares.clip(0.0, 1.0)).astype(np.uint8)
    drawn = Image.fromarray(levels[0] if len(levels) == 1 else np.ascontiguousarray(np.moveaxis(levels, 0, 2)))
    if max(drawn.size) > SIDE:
        drawn.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    content = io.BytesIO()
    drawn.save(content, "PNG", optimize=True)
    return Picture(width=drawn.width, height=drawn.height, png=base64.b64encode(content.getvalue()).decode())
