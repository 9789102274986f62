"""How one image lies in another that shows the same: turned, mirrored, resized, cropped; sought, then confirmed.

Convention: images are compared as grey thumbnails, and places in them are (y, x) in units of the shorter side, so that
they do not depend on the size of the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sstl.data.thumbnails import Grey, correlation, even_structure, fine_structure, thumbnail

Array = NDArray[np.float32]
Place = tuple[float, float]
Box = tuple[int, int, int, int]

FINE = 96  # shorter side of the thumbnails by which an alignment is confirmed
# Structure finer than twice a radius of their pixels is compared, with steps of so many pixels: first what is wide, to
# come near the maximum, then what tells two skies over two meadows apart.
_PROMISING = 0.55  # after the first; images that show the same have 0.7 and more there
_STAGES = ((20, (3.0, 1.5)), (8, (1.5, 0.8, 0.4, 0.2)))

# The search is coarser: a window that survives any crop to 80 % of the sides, 0.6 of the shorter side in the middle,
# is looked for anywhere in the other image, at the sizes that such crops lead to.
_COARSE, _WINDOW = 32, 19
_SIZES = (26, 28, 30, 32, 34, 37, 40)
_MARGIN = 0.2
_FREQUENCIES = 8
_LEAST_SHARE = 0.25  # of the smaller image; less overlap than this is not pursued
_LONGEST = 4  # a panorama is compared as if it were 4 to 1

ORIENTATIONS = tuple((mirrored, turns) for mirrored in (False, True) for turns in range(4))


@dataclass(frozen=True)
class Alignment:
    """Where an image A lies in an image B.

    Attributes:
        mirrored, turns: A is mirrored left to right, and then turned counterclockwise by ``turns`` times 90 degrees.
        scale: the length in B of A's shorter side.
        from_place: a place (y, x) in A so turned, and
        to_place: where it lies in B.
        correlation: of the fine structure where they overlap, in [-1, 1].
        overlap: the overlap's share of the image that it covers more of, in [0, 1].
    """

    mirrored: bool
    turns: int
    scale: float
    from_place: Place
    to_place: Place
    correlation: float = -1.0
    overlap: float = 0.0


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


def candidates(
    sketches: Sequence[Sketch], into: Sketch, threshold: float, most: int
) -> Iterator[tuple[int, Alignment]]:
    """Yield the images whose window looks most like one of ``into``: their index and a first alignment.

    Args:
        sketches: the images A.
        into: the image B.
        threshold: the least product of descriptors, in [-1, 1].
        most: how many images at most.
    """
    descriptors, places = into.windows()
    products = np.concatenate([sketch.descriptors for sketch in sketches]) @ descriptors.T
    found = products.argmax(axis=1)
    scores = products[np.arange(len(found)), found].reshape(-1, len(ORIENTATIONS))
    best = scores.max(axis=1)
    for index in np.argsort(-best)[:most]:
        if best[index] < threshold:
            return
        orientation = int(scores[index].argmax())
        scale, y, x = map(float, places[found[index * len(ORIENTATIONS) + orientation]])
        mirrored, turns = ORIENTATIONS[orientation]
        from_place = orient_place(sketches[index].place, sketches[index].extent, mirrored, turns)
        yield int(index), Alignment(mirrored, turns, scale, from_place, (y, x))


def overlap_boxes(image: Sketch, into: Sketch, alignment: Alignment) -> tuple[Box, Box]:
    """Return what the two images share, in pixels of the one's and the other's file: left, top, right, bottom."""
    turned = image.extent if alignment.turns % 2 == 0 else image.extent[::-1]
    ends = []
    for axis in (0, 1):
        low = alignment.to_place[axis] - alignment.from_place[axis] * alignment.scale
        ends.append((max(0.0, low), min(into.extent[axis], low + turned[axis] * alignment.scale)))
    corners: list[Place] = [(ends[0][0], ends[1][0]), (ends[0][1], ends[1][1])]
    back = [_back(corner, image, turned, alignment) for corner in corners]
    return _box(back, image), _box(corners, into)


def _back(corner: Place, image: Sketch, turned: Place, alignment: Alignment) -> Place:
    """Return where a place of B lies in A as it is in its file."""
    pairs = zip(corner, alignment.to_place, alignment.from_place, strict=True)
    y, x = ((place - to) / alignment.scale + origin for place, to, origin in pairs)
    upright = orient_place((y, x), turned, False, -alignment.turns % 4)
    return orient_place(upright, image.extent, alignment.mirrored, 0)


def _box(corners: Sequence[Place], image: Sketch) -> Box:
    per_unit = (image.height / image.extent[0], image.width / image.extent[1])
    (top, bottom), (left, right) = (sorted(round(c[axis] * per_unit[axis]) for c in corners) for axis in (0, 1))
    return left, top, right, bottom


def refine(image: Sketch, into: Sketch, first: Alignment) -> Alignment:
    """Return the alignment of the highest correlation near ``first``, by steps in scale and place that grow smaller."""
    best = first
    for radius, steps in _STAGES:
        source = even_structure(orient(image.fine, first.mirrored, first.turns).astype(np.float32), radius)
        target = even_structure(into.fine.astype(np.float32), radius)
        best = _measured(source, target, best)
        for step in steps:
            while (better := _best_move(source, target, best, step / FINE)).correlation > best.correlation:
                best = better
        if best.correlation < _PROMISING:
            return best
    return best


def _best_move(source: Grey, target: Grey, alignment: Alignment, step: float) -> Alignment:
    moved = (_moved(alignment, *move) for move in _moves(step))
    return max((_measured(source, target, one) for one in moved), key=lambda one: one.correlation)


def _moves(step: float) -> list[tuple[float, float, float]]:
    return [(1 + 2 * step, 0, 0), (1 / (1 + 2 * step), 0, 0), (1, step, 0), (1, -step, 0), (1, 0, step), (1, 0, -step)]


def _moved(alignment: Alignment, factor: float, down: float, right: float) -> Alignment:
    y, x = alignment.to_place
    return replace(alignment, scale=alignment.scale * factor, to_place=(y + down, x + right))


def _measured(source: Grey, target: Grey, alignment: Alignment) -> Alignment:
    """Return the alignment with the correlation and the overlap that it leads to."""
    rows, inside_y = _places(source.shape[0], target.shape[0], alignment, 0)
    columns, inside_x = _places(source.shape[1], target.shape[1], alignment, 1)
    pixels = inside_y.sum() * inside_x.sum()
    share = pixels / min(target.size, source.size * alignment.scale**2)
    if share < _LEAST_SHARE:
        return replace(alignment, correlation=-1.0, overlap=float(share))
    sampled = _sample(source, rows[inside_y], columns[inside_x])
    value = correlation(sampled, target[np.ix_(inside_y, inside_x)])
    return replace(alignment, correlation=value, overlap=min(1.0, float(share)))


def _places(length: int, of_target: int, alignment: Alignment, axis: int) -> tuple[Array, NDArray[np.bool_]]:
    """Return where the pixels of the target's axis lie on the source's, in pixels, and which lie in it."""
    centres = (np.arange(of_target, dtype=np.float32) + 0.5) / FINE
    places = (centres - alignment.to_place[axis]) / alignment.scale + alignment.from_place[axis]
    pixels = (places * FINE - 0.5).astype(np.float32)
    return pixels, (pixels >= 0) & (pixels <= length - 1)


def _sample(image: Grey, rows: Array, columns: Array) -> Grey:
    """Return an image at fractional rows and columns, by bilinear interpolation."""
    top, left = (
        np.minimum(axis.astype(int), size - 2) for axis, size in zip((rows, columns), image.shape, strict=True)
    )
    down, right = (rows - top)[:, None], columns - left
    lines = image[top] * (1 - down) + image[top + 1] * down
    sampled: Grey = lines[:, left] * (1 - right) + lines[:, left + 1] * right
    return sampled
