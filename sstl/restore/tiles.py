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
    restore: Callable[[slice, slice], Tensor], height: int, width: int, tile: int, overlap: int, stride: int
) -> Iterator[tuple[int, Tensor]]:
    """Restore an image tile by tile, and give it out in bands of finished rows, top to bottom.

    Args:
        restore: takes the rows and columns of a tile, returns its result (C, rows, columns).
        height: of the image.
        width: of the image.
        tile: the largest tile's side; this and the following as for ``spans``.
        overlap: of neighbouring tiles.
        stride: every tile starts at a multiple of it.

    Yields:
        The first row of the band, and the band, (C, rows, width). The bands follow each other without gap.
    """
    rows, columns = spans(height, tile, overlap, stride), spans(width, tile, overlap, stride)
    kept: Tensor | None = None  # the rows of the previous band that this one overlaps
    for number, (top, bottom) in enumerate(rows):
        band = restore(slice(top, bottom), slice(*columns[0]))
        for left, right in columns[1:]:
            band = _join(band, restore(slice(top, bottom), slice(left, right)), overlap, dim=2)
        if kept is not None:
            band = _join(kept, band, overlap, dim=1)
        finished = (rows[number + 1][0] if number + 1 < len(rows) else bottom) - top
        yield top, band[:, :finished]
        kept = band[:, finished:].clone()  # a view would keep the whole band in memory


def _join(first: Tensor, second: Tensor, overlap: int, dim: int) -> Tensor:
    """Lay ``second`` after ``first`` so that they share ``overlap`` entries of ``dim``, with a soft transition there.

    The outer two fifths of the overlap are not used of each tile, because its network saw the tile's border and not the
    image beyond; the transition takes the fifth in the middle. lerp gives equal values back exactly.
    """
    shared = first.size(dim) - overlap
    place = (torch.arange(overlap, device=first.device) + 0.5) / overlap
    weight = ((place - 0.4) * 5).clamp(0, 1)
    weight = weight[:, None] if dim == 1 else weight
    middle = torch.lerp(first.narrow(dim, shared, overlap), second.narrow(dim, 0, overlap), weight)
    rest = second.narrow(dim, overlap, second.size(dim) - overlap)
    return torch.cat([first.narrow(dim, 0, shared), middle, rest], dim)


def _ceil(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)
