"""Small grey images and how alike their fine structure is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Grey = NDArray[np.float32]

_NOISE = 2.0  # grey levels of 255: structure as faint as that is compression, and is not made stronger


def thumbnail(image: NDArray[np.uint8], height: int, width: int) -> Grey:
    """Return an image, uint8 (H, W, 3), in grey at another size, (height, width) in [0, 255]."""
    filter_ = Image.Resampling.BOX if width <= image.shape[1] else Image.Resampling.BICUBIC
    grey = Image.fromarray(np.ascontiguousarray(image)).convert("L").resize((width, height), filter_)
    return np.asarray(grey).astype(np.float32)


def fine_structure(grey: Grey, radius: int) -> Grey:
    """Return a grey image (H, W) without what is wider than about 2 ``radius`` pixels: minus its box mean."""
    fine: Grey = (grey - _box_mean(grey, radius)).astype(np.float32)
    return fine


def even_structure(grey: Grey, radius: int) -> Grey:
    """Return the fine structure without the finest, as strong everywhere: divided by its deviation in the box around.

    Without the division a horizon, one edge across a whole image, would outweigh everything else, and all horizons are
    alike. What is finer than 3 pixels is smoothed away: it depends on how the image was resized.
    """
    fine = fine_structure(_box_mean(grey, 1).astype(np.float32), radius)
    variance = _box_mean(fine**2, radius).clip(min=0)
    even: Grey = (fine / np.sqrt(variance + _NOISE**2)).astype(np.float32)
    return even


def _box_mean(image: Grey, radius: int) -> NDArray[np.float64]:
    side = 2 * radius + 1
    padded = np.pad(image, radius, mode="edge").astype(np.float64)
    sums = np.pad(padded.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    means: NDArray[np.float64] = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return means / side**2


def correlation(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Return the normalised correlation of two arrays of one shape, in [-1, 1]; 0 if one of them is constant."""
    first, second = first - first.mean(), second - second.mean()
    norm = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / norm if norm > 0 else 0.0
