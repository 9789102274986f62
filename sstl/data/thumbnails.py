"""Small grey images and how alike their fine structure is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Grey = NDArray[np.float32]


def thumbnail(image: NDArray[np.uint8], height: int, width: int) -> Grey:
    """Return an image, uint8 (H, W, 3), in grey at another size, (height, width) in [0, 255]."""
    filter_ = Image.Resampling.BOX if width <= image.shape[1] else Image.Resampling.BICUBIC
    grey = Image.fromarray(np.ascontiguousarray(image)).convert("L").resize((width, height), filter_)
    return np.asarray(grey).astype(np.float32)


def fine_structure(grey: Grey, radius: int) -> Grey:
    """Return a grey image (H, W) without what is wider than about 2 ``radius`` pixels: minus its box mean."""
    side = 2 * radius + 1
    padded = np.pad(grey, radius, mode="edge").astype(np.float64)
    sums = np.pad(padded.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    means = (sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]) / side**2
    fine: Grey = (grey - means).astype(np.float32)
    return fine


def correlation(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Return the normalised correlation of two arrays of one shape, in [-1, 1]; 0 if one of them is constant."""
    first, second = first - first.mean(), second - second.mean()
    norm = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / norm if norm > 0 else 0.0
