"""Tables with columns of images: hub data sets, parquet, image folders with metadata; by Hugging Face datasets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sstl.data.files import Image, same_size
from sstl.data.images import content_rgb8, read_rgb8
from sstl.data.pairing import LAYER_NAMES, Layer
from sstl.errors import ConfigError, InputError

_METADATA = ("metadata.csv", "metadata.jsonl")
_LONGEST_LINE = 10_000


def table_format(path: Path) -> str | None:
    """Return how `datasets` calls a parquet file, or a folder that holds parquet or hub-style metadata; else None."""
    if path.is_file():
        return "parquet" if path.suffix.lower() == ".parquet" else None
    for folder, _, names in os.walk(path):
        for name in names:
            if name == "metadata.parquet" or (name in _METADATA and _names_files(Path(folder, name))):
                return "imagefolder"
            if name.lower().endswith(".parquet"):
                return "parquet"
    return None


def _names_files(metadata: Path) -> bool:
    # Other programs leave a metadata.csv beside photos too; the hub's has a column "file_name" or "..._file_name".
    if not metadata.is_file():  # a pipe
        return False
    with metadata.open(encoding="utf-8", errors="replace") as lines:
        return "file_name" in lines.readline(_LONGEST_LINE)


def open_table(where: Path | str, split: str | None) -> Table:
    """Open a parquet file, a folder of parquet or of images with metadata, or ``hub:org/name``.

    Args:
        where: the file or folder; or the name on the hub, which is downloaded on first use.
        split: the split to take; may be left out if there is only one.

    Raises:
        ConfigError: the table cannot be opened, or the split is unknown or not given; lists the splits.
    """
    splits = open_splits(where)
    if split is None and len(splits) == 1:
        split = next(iter(splits))
    if split not in splits:
        raise ConfigError(f"{where}: 'split' is {split or 'not given'}; it must be one of {', '.join(splits)}.")
    return splits[split]


def open_splits(where: Path | str) -> dict[str, Table]:
    """Open all splits of what `open_table` opens; ConfigError if that cannot be done."""
    import datasets

    try:
        if isinstance(where, str):
            splits = datasets.load_dataset(where.removeprefix("hub:"))
        else:
            files = {"data_files": str(where)} if where.is_file() else {"data_dir": str(where)}
            splits = datasets.load_dataset(table_format(where), **files)
    except (datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{where} cannot be opened as a table of images: {' '.join(str(error).split())}") from None
    return {split: Table(table, f"{where}[{split}]", _roots(where)) for split, table in splits.items()}


def _roots(where: Path | str) -> tuple[Path, ...]:
    """Return the folders that files of the table lie in."""
    import datasets
    import huggingface_hub

    downloaded = (datasets.config.HF_DATASETS_CACHE, huggingface_hub.constants.HF_HUB_CACHE)
    folders = downloaded if isinstance(where, str) else (where if where.is_dir() else where.parent,)
    return tuple(Path(os.path.realpath(folder)) for folder in folders)


class Table:
    """A table of which some columns hold images.

    Args:
        table: a `datasets.Dataset`.
        name: what it is called in errors.
        roots: where the files lie that its cells may name; no others are opened.
    """

    def __init__(self, table: Any, name: str, roots: tuple[Path, ...]) -> None:
        self.table = table
        self.name = name
        self.roots = roots

    def pairs(self, rainy: str | None = None, clean: str | None = None) -> ColumnPairs:
        """Return the pairs of two columns; ConfigError that lists the columns if there are no such two."""
        pairs = ColumnPairs(self.images("rainy", rainy), self.images("clean", clean))
        if pairs.rainy.column == pairs.clean.column:
            raise self._refusal("no two columns of images", "set 'rainy' and 'clean' to")
        return pairs

    def images(self, layer: Layer, column: str | None = None) -> ColumnImages:
        """Return the images of the column named, or with a usual name for the layer, or the only one with images."""
        import datasets

        features = self.table.features
        usual = [name for name in features if name.lower() in (*LAYER_NAMES[layer], f"{layer}_image")]
        fitting = [column] if column else usual or [n for n, f in features.items() if isinstance(f, datasets.Image)]
        if len(fitting) != 1 or fitting[0] not in features:
            lack = f"no column '{column}'" if column else f"no one column for {layer} images"
            raise self._refusal(lack, "rename to 'streak'" if layer == "streak" else f"set '{layer}' to")
        column = fitting[0]
        no_images = ConfigError(f"{self.name}: the column '{column}' does not hold images.")
        if "string" in str(getattr(features[column], "dtype", "")):  # datasets would take any text for a path
            raise no_images
        try:
            images = self.table.select_columns([column]).cast_column(column, datasets.Image(decode=False))
        except (TypeError, ValueError, NotImplementedError):
            raise no_images from None
        keys = [str(key) for key in self.table["key"]] if "key" in features else []
        if len(set(keys)) != len(self.table):
            keys = [f"{i:06d}" for i in range(len(self.table))]
        return ColumnImages(images, column, keys, self.name, self.roots)

    def _refusal(self, lack: str, remedy: str) -> ConfigError:
        return ConfigError(f"{self.name} has {lack}; {remedy} one of {', '.join(self.table.column_names)}.")


class ColumnImages:
    """The images of one column, named by the column ``key`` if its values are unique, else by their row."""

    def __init__(self, table: Any, column: str, keys: list[str], name: str, roots: tuple[Path, ...]) -> None:
        self.table = table
        self.column = column
        self.keys = keys
        self.name = name
        self.roots = roots

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.keys)

    def key(self, i: int) -> str:
        """Return the name of row ``i``."""
        return self.keys[i]

    def place(self, i: int) -> str:
        """Return where image ``i`` lies, for errors."""
        return f"{self.name} row {i} column '{self.column}'"

    def load(self, i: int) -> Image:
        """Decode the image; InputError if it cannot be decoded."""
        cell = self.table[i][self.column]
        if not cell or not (cell["bytes"] or cell["path"]):
            raise InputError(f"{self.place(i)}: there is no image; leave the row out.")
        if cell["bytes"]:
            return content_rgb8(cell["bytes"], self.place(i))
        # Whoever made the table wrote the path: it may be that of any file here.
        if not any(Path(os.path.realpath(cell["path"])).is_relative_to(root) for root in self.roots):
            raise InputError(f"{self.place(i)}: {cell['path']!r} is not a file of the table; leave the row out.")
        return read_rgb8(cell["path"])


class ColumnPairs:
    """The pairs of two columns."""

    def __init__(self, rainy: ColumnImages, clean: ColumnImages) -> None:
        self.rainy = rainy
        self.clean = clean

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rainy)

    def key(self, i: int) -> str:
        """Return the name of row ``i``."""
        return self.rainy.key(i)

    def load(self, i: int) -> tuple[Image, Image]:
        """Decode both images; InputError if either cannot be decoded or their sizes differ."""
        return same_size(self.rainy.load(i), self.clean.load(i), self.rainy.place(i), self.clean.place(i))
