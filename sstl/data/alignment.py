"""How one image lies in another that shows the same: turned, mirrored, resized, cropped; sought, then confirmed.

Convention: images are compared as grey thumbnails, and places in them are those of sstl.data.sketches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sstl.data.sketches import FINE, ORIENTATIONS, Array, Place, Sketch, orient, orient_place
from sstl.data.thumbnails import Grey, correlation, even_structure

Box = tuple[int, int, int, int]

_STARTS, _APART = 64, 0.1  # first alignments, and their distance in place (in scale half of it)
_REFINED = 8  # of them: the best
_LIKELY, _PROMISING = 0.35, 0.55  # least correlation before and after the first stage; most false alignments have less
_LEAST_SHARE = 0.25  # of the smaller image; less overlap than this is not pursued
# Structure finer than twice a radius, in the thumbnails' pixels, is compared, with steps of so many pixels: first what
# is wide, to come near the maximum; then what tells two skies over two meadows apart.
_STAGES = ((20, (3.0, 1.5)), (8, (1.5, 0.8, 0.4, 0.2)))


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


def candidates(
    sketches: Sequence[Sketch], into: Sketch, threshold: float, most: int
) -> Iterator[tuple[float, int, list[Alignment]]]:
    """Yield the images whose window looks most like one of ``into``: how much, their index and first alignments.

    Args:
        sketches: the images A.
        into: the image B.
        threshold: the least product of descriptors, in [-1, 1].
        most: how many images at most.
    """
    descriptors, places = into.windows()
    products = np.concatenate([sketch.descriptors for sketch in sketches]) @ descriptors.T
    products = products.reshape(len(sketches), len(ORIENTATIONS), -1)
    best = products.max(axis=(1, 2))
    for index in np.argsort(-best)[:most]:
        if best[index] < threshold:
            return
        of_image = (sketches[index].place, sketches[index].extent)
        starts = [
            Alignment(*orientation, scale, orient_place(*of_image, *orientation), to_place)
            for orientation, scale, to_place in _starts(products[index], places)
        ]
        yield float(best[index]), int(index), starts


def _starts(
    products: NDArray[np.float32], places: NDArray[np.float64]
) -> Iterator[tuple[tuple[bool, int], float, Place]]:
    """Yield orientation, scale and place of the best windows that are not near a better one.

    An image with one edge across it has many that are about as good.
    """
    left = products.copy()
    for _ in range(_STARTS):
        orientation, window = divmod(int(left.argmax()), left.shape[1])
        scale, y, x = map(float, places[window])
        yield ORIENTATIONS[orientation], scale, (y, x)
        near = (np.abs(places[:, 1:] - (y, x)).max(axis=1) < _APART) & (
            np.abs(np.log(places[:, 0] / scale)) < _APART / 2
        )
        left[orientation, near] = -1


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


def align(image: Sketch, into: Sketch, starts: Sequence[Alignment], enough: float) -> Alignment | None:
    """Return the alignment of the highest correlation near first ones, or the first that has ``enough``; or None."""
    layers = [
        [even_structure(sketch.fine.astype(np.float32), radius) for sketch in (image, into)] for radius, _ in _STAGES
    ]
    measured = [_measured(orient(layers[0][0], one.mirrored, one.turns), layers[0][1], one) for one in starts]
    found: list[Alignment] = []
    for start in sorted(measured, key=_correlation, reverse=True)[:_REFINED]:
        if start.correlation < _LIKELY or (found and found[-1].correlation >= enough):
            break
        found.append(_refined(layers, start))
    return max(found, key=_correlation, default=None)


def _correlation(alignment: Alignment) -> float:
    return alignment.correlation


def _refined(layers: Sequence[Sequence[Grey]], start: Alignment) -> Alignment:
    """Move an alignment by steps in scale and place that grow smaller, as long as its correlation grows."""
    best = start
    for (of_image, target), (_, steps) in zip(layers, _STAGES, strict=True):
        source = orient(of_image, start.mirrored, start.turns)
        best = _measured(source, target, best)
        for step in steps:
            while (better := _best_move(source, target, best, step / FINE)).correlation > best.correlation:
                best = better
        if best.correlation < _PROMISING:
            return best
    return best


def _best_move(source: Grey, target: Grey, alignment: Alignment, step: float) -> Alignment:
    moved = (_moved(alignment, *move) for move in _moves(step))
    return max((_measured(source, target, one) for one in moved), key=_correlation)


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
