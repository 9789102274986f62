"""Large images in overlapping tiles, blended without seams, so that memory does not grow with the image's area."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor


def spans(length: int, tile: int, overlap: int, stride: int) -> list[tuple[int, int]]:
    """Cut ``range(length)`` into pieces of about equal size that overlap their neighbours by ``overlap``.

    Args:
        length: at least 1.
        tile: the largest piece, a multiple of ``stride``.
        overlap: less than ``tile``, a multiple of ``stride``.
        stride: every piece starts at a multiple of it.

    Returns:
        (start, end) of each; one piece if ``length`` is at most ``tile``.
    """
    if length <= tile:
        return [(0, length)]
    count = _ceil(length - overlap, tile - overlap)
    step = _ceil(_ceil(length - overlap, count), stride) * stride
    return [(start, min(start + step + overlap, length)) for start in range(0, length - overlap, step)]


def blended_bands(
    restore: Callable[[slice, slice], Tensor], height: int, width: int, tile: int, overlap: int, halo: int, stride: int
) -> Iterator[tuple[int, Tensor]]:
    """Restore an image tile by tile, and give it out in bands of finished rows, top to bottom.

    Of a tile the outer ``halo`` pixels are not used where it has a neighbour, because its network saw the tile's border
    there and not the image beyond. What is left of the overlap is a soft transition from one tile to the next.

    Args:
        restore: takes the rows and columns of a tile, returns its result (C, rows, columns).
        height: of the image.
        width: of the image.
        tile: the largest tile's side, its halos included; this and the following as for ``spans``.
        overlap: of neighbouring tiles, more than two halos.
        halo: pixels.
        stride: every tile starts at a multiple of it.

    Yields:
        The first row of the band, and the band, (C, rows, width). The bands follow each other without gap.
    """
    rows, columns = spans(height, tile, overlap, stride), spans(width, tile, overlap, stride)
    ramp = ((torch.arange(overlap) + 0.5 - halo) / (overlap - 2 * halo)).clamp(0, 1)
    kept: Tensor | None = None  # the rows of the previous band that this one overlaps
    for number, (top, bottom) in enumerate(rows):
        band = _band(restore, slice(top, bottom), columns, overlap, ramp)
        if kept is not None:
            shared = band[:, :overlap]
            shared.copy_(torch.lerp(kept, shared, ramp[:, None].to(band.device)))
        finished = (rows[number + 1][0] if number + 1 < len(rows) else bottom) - top
        yield top, band[:, :finished]
        kept = band[:, finished:].clone()  # a view would keep the whole band in memory


def _band(
    restore: Callable[[slice, slice], Tensor], rows: slice, columns: list[tuple[int, int]], overlap: int, ramp: Tensor
) -> Tensor:
    """Lay the tiles of these rows beside each other; lerp gives equal values back exactly."""
    first = restore(rows, slice(*columns[0]))
    if len(columns) == 1:
        return first
    band = first.new_empty(first.size(0), first.size(1), columns[-1][1])
    band[..., : columns[0][1]] = first
    for left, right in columns[1:]:
        tile = restore(rows, slice(left, right))
        shared = band[..., left : left + overlap]
        shared.copy_(torch.lerp(shared, tile[..., :overlap], ramp.to(band.device)))
        band[..., left + overlap : right] = tile[..., overlap:]
    return band


def _ceil(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)
