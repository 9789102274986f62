"""The contact sheet of a data set: a dozen of its pairs, rainy beside clean."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np

from sstl.data import ImageSource, PairSource
from sstl.data.files import Image
from sstl.errors import InputError
from sstl.report.pictures import grid, thumbnail

SHOWN = 12
_BESIDE = 2  # items beside each other, so that the sheet is about as wide as high
_HEIGHT = 200


def contact_sheet(sources: Sequence[PairSource | ImageSource]) -> bytes | None:
    """Return a PNG of `SHOWN` items spread evenly over the sources; None if none of them can be read.

    Args:
        sources: all of pairs, which are shown as rainy | clean, or all of images; what cannot be read is left out.
    """
    items = list(_chosen(sources))
    if not items:
        return None
    rows = [items[start : start + _BESIDE] for start in range(0, len(items), _BESIDE)]
    pictures = [[thumbnail(image) for _, images in row for image in images] for row in rows]
    columns = max(map(len, pictures))
    captions = (("rainy", "clean") * _BESIDE)[:columns] if len(items[0][1]) == 2 else ()
    sheet = grid(pictures, captions, [" | ".join(key for key, _ in row) for row in rows], _HEIGHT)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _chosen(sources: Sequence[PairSource | ImageSource]) -> Iterator[tuple[str, Sequence[Image]]]:
    places = [(source, i) for source in sources for i in range(len(source))]
    for place in np.unique(np.linspace(0, len(places) - 1, SHOWN).astype(int)) if places else ():
        source, i = places[place]
        try:
            item = source.load(i)
        except InputError:
            continue
        yield source.key(i), item if isinstance(item, tuple) else (item,)
