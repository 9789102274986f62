"""Whether each file holds a rainy and a clean image side by side, and which half is the rainy one, by their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sstl.data.images import read_rgb8
from sstl.data.pairing import Side
from sstl.data.thumbnails import correlation, fine_structure, thumbnail
from sstl.errors import InputError

SAMPLE = 48  # files that are looked at
# The fine structure of a pair's halves correlates by 0.9 and more, that of a photograph's halves by 0.0 +- 0.2.
CORRELATION = 0.6
AGREEMENT = 0.8  # of the files must look like a pair
_ASPECT = 1.2  # two portrait images of 2:3 side by side are 1.33 times as wide as high
_SIDE, _RADIUS = 48, 4  # of the halves' thumbnails; what is finer than 8 of their 48 pixels is compared


def rainy_side(files: Sequence[Path]) -> Side | None:
    """Return the half of each file that is rainy, or None if the halves do not show the same.

    Rain brightens: the rainy half is the one that is brighter on the mean. Up to `SAMPLE` files, spread evenly, are
    opened; those that cannot be read are passed over.
    """
    chosen = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, SAMPLE).astype(int))] if files else []
    brighter: list[float] = []
    others = 0
    for path in chosen:
        try:
            difference = _brighter_right(read_rgb8(path))
        except InputError:
            continue
        if difference is None:
            others += 1
        else:
            brighter.append(difference)
        if others > (1 - AGREEMENT) * len(chosen):  # most folders hold ordinary photographs, which are told soon
            return None
    if len(brighter) < AGREEMENT * (len(brighter) + others) or not brighter:
        return None
    return "right" if np.mean(brighter) > 0 else "left"


def _brighter_right(image: NDArray[np.uint8]) -> float | None:
    """Return by how much the right half is brighter if both halves of an image (H, W, 3) show the same, else None."""
    height, width = image.shape[:2]
    if width % 2 or width < _ASPECT * height:
        return None
    left, right = (thumbnail(half, _SIDE, _SIDE) for half in (image[:, : width // 2], image[:, width // 2 :]))
    if correlation(fine_structure(left, _RADIUS), fine_structure(right, _RADIUS)) < CORRELATION:
        return None
    return float((right - left).mean())
