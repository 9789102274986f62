"""Small copies of an image, and what of it is sought in others: a window in all eight orientations.

Convention: places in images are (y, x) in units of the shorter side, so that the size of the file does not matter.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sstl.data.thumbnails import Grey, fine_structure, thumbnail

Array = NDArray[np.float32]
Place = tuple[float, float]

FINE = 96  # shorter side of the thumbnails by which an alignment is confirmed

# The search is coarser: a window that survives any crop to 80 % of the sides, 0.6 of the shorter side in the middle,
# is looked for anywhere in the other image, at the sizes that such crops lead to.
_COARSE, _WINDOW = 32, 19
_SIZES = (26, 28, 30, 32, 34, 37, 40)
_MARGIN = 0.2
_FREQUENCIES = 8
_LONGEST = 4  # a panorama is compared as if it were 4 to 1

ORIENTATIONS = tuple((mirrored, turns) for mirrored in (False, True) for turns in range(4))


class Sketch:
    """The thumbnails of an image, uint8 (H, W, 3), and what is sought of it in others."""

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self.height, self.width = image.shape[:2]
        shorter = min(self.height, self.width)
        self.extent: Place = (min(self.height / shorter, _LONGEST), min(self.width / shorter, _LONGEST))
        self.fine = thumbnail(image, *(round(FINE * side) for side in self.extent)).astype(np.uint8)
        self.levels = tuple(self._level(size).astype(np.uint8) for size in _SIZES)
        self.place, patch = self._window(self.levels[_SIZES.index(_COARSE)].astype(np.float32))
        self.descriptors = _describe(np.stack([orient(patch, *orientation) for orientation in ORIENTATIONS]))

    def _level(self, size: int) -> Grey:
        image = np.repeat(self.fine[..., None], 3, axis=-1)
        return thumbnail(image, *(round(size * side) for side in self.extent))

    def _window(self, level: Grey) -> tuple[Place, Array]:
        """Return the centre and the pixels of the most structured of the windows that survive any crop."""
        first = [int(_MARGIN * side) for side in level.shape]
        last = [max(start, side - start - _WINDOW) for start, side in zip(first, level.shape, strict=True)]
        structure = np.abs(fine_structure(level, 3))
        corners = product(*(range(start, end + 1) for start, end in zip(first, last, strict=True)))
        y, x = max(corners, key=lambda c: structure[c[0] : c[0] + _WINDOW, c[1] : c[1] + _WINDOW].sum())
        return ((y + _WINDOW / 2) / _COARSE, (x + _WINDOW / 2) / _COARSE), level[y : y + _WINDOW, x : x + _WINDOW]

    def windows(self) -> tuple[Array, NDArray[np.float64]]:
        """Return descriptors (N, D) of all windows of all sizes, and (N, 3): the scale and the centre's y and x."""
        descriptors, places = [], []
        for size, level in zip(_SIZES, self.levels, strict=True):
            patches = np.lib.stride_tricks.sliding_window_view(level.astype(np.float32), (_WINDOW, _WINDOW))
            descriptors.append(_describe(patches.reshape(-1, _WINDOW, _WINDOW)))
            centres = (np.indices(patches.shape[:2]).reshape(2, -1).T + _WINDOW / 2) / size
            places.append(np.insert(centres, 0, _COARSE / size, axis=1))
        return np.concatenate(descriptors), np.concatenate(places)


def _basis() -> Array:
    """Return cosines over a window, (D, W, W), without mean and slopes; higher ones, which are fainter, weigh more."""
    cosines = np.cos(np.pi * np.arange(_FREQUENCIES)[:, None] * (np.arange(_WINDOW) + 0.5) / _WINDOW)
    pairs = [(u, v) for u in range(_FREQUENCIES) for v in range(_FREQUENCIES) if u + v > 1]
    return np.stack([np.outer(cosines[u], cosines[v]) * np.hypot(u, v) ** 0.7 for u, v in pairs]).astype(np.float32)


_BASIS = _basis().reshape(-1, _WINDOW**2)


def _describe(patches: Array) -> Array:
    """Return unit vectors (N, D) of patches (N, W, W); zero for a constant one."""
    vectors = patches.reshape(len(patches), -1) @ _BASIS.T
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    described: Array = vectors / np.maximum(lengths, 1e-3 * _WINDOW**2)
    return described


def orient(image: NDArray[Any], mirrored: bool, turns: int) -> NDArray[Any]:
    """Return a view of an image (H, W) that is mirrored left to right, if so, and then turned counterclockwise."""
    return np.rot90(image[:, ::-1] if mirrored else image, turns)


def orient_place(place: Place, extent: Place, mirrored: bool, turns: int) -> Place:
    """Return where a place (y, x) of an image of an extent (height, width) lies in the image that `orient` returns."""
    (y, x), (height, width) = place, extent
    x = width - x if mirrored else x
    for _ in range(turns):
        y, x, height, width = width - x, y, width, height
    return y, x
