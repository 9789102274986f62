"""What a data set holds, every image looked at: how many, how large, which have no partner, which cannot be read."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sstl.data.files import FileImages, FilePairs, Image
from sstl.data.layouts import LAYOUTS, Part, find_parts
from sstl.data.manifest import Row, read_manifest
from sstl.data.pairing import Layer
from sstl.data.sources import ImageSource, PairSource, row_pair
from sstl.data.tables import open_splits, table_format
from sstl.errors import ConfigError, InputError
from sstl.ops.progress import hidden

Size = tuple[int, int]

COUNTS = ("pairs", "clean", "rainy", "streak", "images")
_LAYER_OF_KIND: dict[str, Layer] = {"clean": "clean", "real": "rainy", "streak": "streak"}


@dataclass(frozen=True)
class Surveyed:
    """One set of images of a data set, surveyed.

    Attributes:
        name: its place in the data set.
        layout: how it is laid out, in words.
        counts: of ``pairs`` and their different ``clean`` images; of images alone that are ``clean``, ``rainy`` or
            ``streak``, or else ``images``.
        sizes: (width, height) of images (a pair counts once) -> how many there are, the most frequent first.
        unpaired: images that should have a partner and have none.
        unreadable: what could not be read, or not be paired: one message each.
        source: the images; None if there are none.
    """

    name: str
    layout: str
    counts: dict[str, int] = field(default_factory=dict)
    sizes: dict[Size, int] = field(default_factory=dict)
    unpaired: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    source: PairSource | ImageSource | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the images, ready for JSON."""
        counts = {name: self.counts.get(name, 0) for name in COUNTS}
        sizes = [{"width": width, "height": height, "count": n} for (width, height), n in self.sizes.items()]
        failed = {"unpaired": list(self.unpaired), "unreadable": list(self.unreadable)}
        return {"name": self.name, "layout": self.layout, **counts, "sizes": sizes, **failed}


def survey(where: Path | str, progress: bool = False) -> list[Surveyed]:
    """Look at every image of a folder tree, a manifest, a table, or a data set of the hub.

    Args:
        where: a path; or text, a path too or ``hub:org/name``.
        progress: show a progress bar on stderr.

    Raises:
        ConfigError: the path is missing, cannot be opened, or holds no images.
    """
    parts = [found for found in _open(where) if found.source is not None or found.unpaired or found.unreadable]
    if not parts:
        raise ConfigError(f"{where} holds no images; give the folder that they lie in.")
    total = sum(len(part.source) for part in parts if part.source)
    with tqdm(total=total, desc="look", unit="image", leave=False, **hidden(not progress)) as bar:
        return [_looked_at(part, bar) for part in parts]


def _open(where: Path | str) -> list[Surveyed]:
    path = Path(where)
    if isinstance(where, str) and where.startswith("hub:"):
        return _open_table(where)
    if not path.exists():
        raise ConfigError(f"{path} does not exist; give a folder, a .csv manifest, a .parquet file or hub:ORG/NAME.")
    if table_format(path):
        return _open_table(path)
    if path.is_file():
        return _open_manifest(path)
    return [_of_part(path, part) for part in find_parts(path)]


def _of_part(root: Path, part: Part) -> Surveyed:
    unpaired = tuple(path.relative_to(root).as_posix() for path in part.unpaired)
    broken = (part.problem,) if part.problem else ()
    common = {"unpaired": unpaired, "unreadable": broken}
    if not part.images:
        return _of_pairs(part.name, LAYOUTS[part.layout], FilePairs(part.pairs), **common)
    keys = [path.relative_to(root).as_posix() for path in part.images]
    return _of_images(part.name, LAYOUTS[part.layout], FileImages(keys, part.images), part.layer, **common)


def _of_pairs(name: str, layout: str, source: FilePairs, **rest: Any) -> Surveyed:
    counts = {"pairs": len(source), "clean": len({pair.clean for pair in source.pairs})}
    return Surveyed(name, layout, counts, source=source if len(source) else None, **rest)


def _of_images(name: str, layout: str, source: ImageSource, layer: Layer | None, **rest: Any) -> Surveyed:
    return Surveyed(name, layout, {layer or "images": len(source)}, source=source, **rest)


def _open_manifest(path: Path) -> list[Surveyed]:
    rows: defaultdict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in read_manifest(path):
        rows[row.split, row.set, row.kind].append(row)
    parts = []
    for (split, set_, kind), found in sorted(rows.items()):
        name, layout = f"{split} {set_}".strip(), f"manifest: {kind}"
        if kind in _LAYER_OF_KIND:
            layer = _LAYER_OF_KIND[kind]
            source = FileImages([row.key for row in found], [row.file(layer) for row in found])
            parts.append(_of_images(name, layout, source, layer))
        else:
            parts.append(_of_pairs(name, layout, FilePairs([row_pair(row) for row in found])))
    return parts


def _open_table(where: Path | str) -> list[Surveyed]:
    parts = []
    for split, table in open_splits(where).items():
        try:
            pairs = table.pairs()
            parts.append(Surveyed(split, "table", {"pairs": len(pairs), "clean": len(pairs)}, source=pairs))
        except ConfigError:
            parts.append(_of_images(split, "table", table.images("rainy"), None))
    return parts


def _looked_at(part: Surveyed, bar: Any) -> Surveyed:
    """Return ``part`` with the sizes of its images, and what could not be read."""
    source = part.source

    def look(i: int) -> Size | str:
        assert source is not None
        try:
            item = source.load(i)
        except InputError as error:
            return str(error)
        finally:
            bar.update()
        image: Image = item[0] if isinstance(item, tuple) else item
        return image.shape[1], image.shape[0]

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding leaves Python's lock
        found = list(pool.map(look, range(len(source) if source else 0)))
    sizes = Counter(size for size in found if not isinstance(size, str))
    messages = [message for message in found if isinstance(message, str)]
    return replace(part, sizes=dict(sizes.most_common()), unreadable=(*part.unreadable, *messages))
