"""Sources: numbered, named images or pairs, whether they lie in folders, a manifest, parquet or on the hub."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np

from sstl.config import home_expanded
from sstl.data import pairing
from sstl.data.files import BundledImages, FileImages, FilePairs, Image
from sstl.data.images import list_images
from sstl.data.layouts import LAYOUTS, find_parts
from sstl.data.manifest import Row, read_manifest
from sstl.data.pairing import Layer, Pair, Side
from sstl.data.tables import open_table, table_format
from sstl.errors import ConfigError

_FAINT = 8  # of 255; less is noise or texture rather than a streak
T_co = TypeVar("T_co", bound=Image | tuple[Image, Image], covariant=True)


class Source(Protocol[T_co]):
    """Items that are read when asked for, each with a name."""

    def __len__(self) -> int:
        """Return the number of items."""
        ...

    def key(self, i: int) -> str:
        """Return the name of item ``i``, unique in the source."""
        ...

    def load(self, i: int) -> T_co:
        """Read item ``i``; InputError if it cannot be read."""
        ...


ImageSource = Source[Image]
"""Gives one image: uint8 HWC RGB, perhaps read-only."""
PairSource = Source[tuple[Image, Image]]
"""Gives a rainy image and its clean one: uint8 HWC RGB, of one size (else InputError), perhaps read-only."""


@dataclass(frozen=True)
class SourceConfig:
    """Where images come from.

    Attributes:
        path: a manifest (``.csv``), a folder, a ``.parquet`` file or a folder of them, ``hub:org/name``, or
            ``bundled``: five clean photographs that scikit-image ships. A relative path starts from the data root.
        split: the split of a manifest or table; of a folder, the sub-folder.
        set: one set of a manifest, for example ``rain100l``: the rows whose key starts with "rain100l-".
        rainy: the sub-folder or column of the rainy images, or "left" or "right" if each file of the folder holds both
            images side by side; the usual names are found without it.
        clean: the same for the clean images.
    """

    path: str
    split: str | None = None
    set: str | None = None
    rainy: str | None = None
    clean: str | None = None


def open_pairs(config: SourceConfig, data_root: Path | None = None) -> PairSource:
    """Open rainy images with their clean ones.

    Of a manifest these are its kinds ``pair`` and ``pair-side-by-side``. Files of a folder that have no partner are
    left out with a warning; `pair_folders` lists them.

    Args:
        config: what to open.
        data_root: where relative paths start; else the environment variable SSTL_DATA, else the working directory.

    Raises:
        ConfigError: the path is missing, or nothing in it is selected; lists what could be.
        InputError: the files cannot be paired.
    """
    if config.path == "bundled":
        raise ConfigError("'bundled' holds clean photographs only; pairs need a manifest, folder or table.")
    path = _locate(config, data_root)
    if path is None or table_format(path):
        return open_table(path or config.path, config.split).pairs(config.rainy, config.clean)
    if path.is_file():
        return FilePairs([row_pair(row) for row in _select(path, ("pair", "pair-side-by-side"), config)])
    return FilePairs(_folder_pairs(split_folder(path, config), config))


def open_images(config: SourceConfig, layer: Layer, data_root: Path | None = None) -> ImageSource:
    """Open the images of one layer, unpaired.

    Of a manifest these are, for "rainy", the kind ``real``; for "clean", the kind ``clean`` (not the clean sides of its
    pairs); for "streak", the kind ``streak``. Of a folder, the images in the layer's sub-folder if it has such beside
    another layer's, else all.

    Args:
        config: what to open.
        layer: "rainy", "clean" or "streak".
        data_root: where relative paths start; else the environment variable SSTL_DATA, else the working directory.

    Raises:
        ConfigError: the path is missing, or nothing in it is selected; lists what could be.
    """
    if config.path == "bundled":
        if layer != "clean":
            raise ConfigError(f"'bundled' holds clean photographs only, no {layer} images.")
        return BundledImages(config.split)
    path = _locate(config, data_root)
    asked = {"rainy": config.rainy, "clean": config.clean, "streak": None}[layer]
    if path is None or table_format(path):
        return open_table(path or config.path, config.split).images(layer, asked)
    if path.is_file():
        rows = _select(path, {"rainy": ("real",), "clean": ("clean",), "streak": ("streak",)}[layer], config)
        return FileImages([row.key for row in rows], [row.file(layer) for row in rows])
    folder = split_folder(path, config)
    if layer != "streak" and asked in ("left", "right"):
        return OneLayer(FilePairs(_folder_pairs(folder, config)), layer)
    folder = _images_folder(folder, layer, asked)
    files = list_images(folder)
    if not files:
        raise ConfigError(f"{folder} holds no images.")
    return FileImages(pairing.file_keys(folder, files), files)


def open_streaks(
    config: SourceConfig, of: Literal["images", "pairs"] = "images", data_root: Path | None = None
) -> ImageSource:
    """Open streak images, or the streak layers of pairs; arguments and errors as of ``open_images``."""
    return StreaksOf(open_pairs(config, data_root)) if of == "pairs" else open_images(config, "streak", data_root)


class OneLayer:
    """The images of one layer of pairs, "rainy" or "clean"."""

    def __init__(self, pairs: PairSource, layer: Literal["rainy", "clean"]) -> None:
        self.pairs = pairs
        self.index = ("rainy", "clean").index(layer)

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.pairs)

    def key(self, i: int) -> str:
        """Return the name of pair ``i``."""
        return self.pairs.key(i)

    def load(self, i: int) -> Image:
        """Read the pair and return the layer's image."""
        return self.pairs.load(i)[self.index]


class StreaksOf:
    """The streak layers of pairs, grey: what the rainy image has more than the clean one, in the channel of the most.

    Rain is as bright in all channels; where one is saturated, another still tells how bright. Where all are, rain is at
    least as bright as in the mean of where it is told: else the clean image would be seen through the streaks.
    """

    def __init__(self, pairs: PairSource) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.pairs)

    def key(self, i: int) -> str:
        """Return the name of pair ``i``."""
        return self.pairs.key(i)

    def load(self, i: int) -> Image:
        """Read the pair and return its streak layer, (H, W, 3)."""
        rainy, clean = self.pairs.load(i)
        streak = (np.maximum(rainy, clean) - clean).max(axis=2, keepdims=True)
        hidden = rainy.min(axis=2, keepdims=True) == 255
        told = streak[~hidden & (streak > _FAINT)]
        if told.size:
            streak = np.where(hidden, np.maximum(streak, told.mean().astype(np.uint8)), streak)
        return np.broadcast_to(streak, clean.shape)


def typed(config: SourceConfig) -> SourceConfig:
    """Return a source as a command line names it: below the working directory, else below ``SSTL_DATA``.

    A training file's paths start from ``SSTL_DATA`` alone: what lies where it is run must not change what it trains on.
    """
    root, path = os.environ.get("SSTL_DATA"), home_expanded(config.path)
    elsewhere = root and not path.exists() and (Path(root) / path).exists()
    return replace(config, path=str(Path(root) / path)) if root and elsewhere else config


def _locate(config: SourceConfig, data_root: Path | None) -> Path | None:
    """Return the path of the source, or None if it is on the hub."""
    if config.path.startswith("hub:"):
        if not re.fullmatch(r"hub:\w[\w.-]*(/\w[\w.-]*)?", config.path):
            raise ConfigError(f"'{config.path}' is not of the form hub:org/name.")
        if config.set is not None:
            raise ConfigError(f"{config.path}: 'set' selects from a manifest only; use 'split'.")
        return None
    path = (data_root or Path(os.environ.get("SSTL_DATA", "."))) / home_expanded(config.path)
    if not path.exists():
        raise ConfigError(
            f"{path} does not exist; relative paths start from data_root, else from the environment variable SSTL_DATA."
        )
    if path.is_file() and path.suffix.lower() not in (".csv", ".parquet"):
        raise ConfigError(f"{path} is neither a folder nor a .csv manifest nor a .parquet file.")
    if config.set is not None and path.suffix.lower() != ".csv":
        raise ConfigError(f"{path}: 'set' selects from a .csv manifest only; use 'split' or a sub-folder's path.")
    return path


def _select(path: Path, kinds: Sequence[str], config: SourceConfig) -> list[Row]:
    of_kind = [row for row in read_manifest(path) if row.kind in kinds]
    rows = [r for r in of_kind if config.split in (None, r.split) and config.set in (None, r.set)]
    if not rows:
        asked = f"split {config.split or 'any'}, set {config.set or 'any'}"
        splits, sets = _listed(r.split for r in of_kind), _listed(r.set for r in of_kind)
        raise ConfigError(f"{path} has no {' or '.join(kinds)} with {asked}. Its splits: {splits}; its sets: {sets}.")
    return rows


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(set(names) - {""})) or "none"


def row_pair(row: Row) -> Pair:
    """Return the pair of a manifest's row of kind ``pair`` or ``pair-side-by-side``; its other kinds have none."""
    rainy = row.file("rainy")
    if row.kind == "pair-side-by-side":
        return Pair(row.key, rainy, rainy, rainy_side="right")
    return Pair(row.key, rainy, row.file("clean"))


def split_folder(path: Path, config: SourceConfig) -> Path:
    """Return the sub-folder of the split, or ``path`` if none is asked for; ConfigError if it is not there."""
    if config.split is None:
        return path
    if not (path / config.split).is_dir():
        folders = _listed(entry.name for entry in path.iterdir() if entry.is_dir())
        raise ConfigError(f"{path} has no sub-folder for the split '{config.split}'. It has: {folders}.")
    return path / config.split


def _images_folder(folder: Path, layer: Layer, asked: str | None) -> Path:
    if asked is not None:
        return pairing.find_layer_folder(folder, layer, asked)
    # A folder of photos may well have a sub-folder "rain"; only beside another layer's folder is it a layer.
    own = pairing.layer_folders(folder, layer)
    others = [other for name in pairing.LAYER_NAMES if name != layer for other in pairing.layer_folders(folder, name)]
    return own[0] if len(own) == 1 and others else folder


def _folder_pairs(folder: Path, config: SourceConfig) -> Sequence[Pair]:
    pairs: Sequence[Pair]
    if config.rainy in ("left", "right") or config.clean in ("left", "right"):
        pairs = _side_by_side(folder, config)
    else:
        pairs, unpaired = _pairs_by_folder(folder, config)
        if unpaired and pairs:
            warnings.warn(f"{len(unpaired)} images have no partner and are left out: {unpaired[0]}, ...", stacklevel=3)
    if not pairs:
        raise ConfigError(f"{folder} holds no rainy image that has its clean one.")
    return pairs


def _pairs_by_folder(folder: Path, config: SourceConfig) -> tuple[Sequence[Pair], Sequence[Path]]:
    try:
        rainy = pairing.find_layer_folder(folder, "rainy", config.rainy)
        clean = pairing.find_layer_folder(folder, "clean", config.clean)
    except ConfigError:
        if config.rainy or config.clean or any(pairing.layer_folders(folder, layer) for layer in pairing.LAYER_NAMES):
            raise
        return _pairs_by_layout(folder)
    return pairing.pair_folders(rainy, clean)


def _pairs_by_layout(folder: Path) -> tuple[Sequence[Pair], Sequence[Path]]:
    """Return the pairs, and what is unpaired, of a folder that has no usual sub-folders for its layers."""
    parts = [part for part in find_parts(folder) if part.pairs]
    if not parts:
        pairing.find_layer_folder(folder, "rainy")  # says what could be set
    if len(parts) > 1:
        names = ", ".join(part.name for part in parts)
        raise ConfigError(f"{folder} holds several sets of pairs; set 'split' to one of its sub-folders ({names}).")
    part = parts[0]
    if part.layout in ("left", "right"):  # a guess by pixels, which the user must know of
        sides = f"rainy: {part.layout}, clean: {'left' if part.layout == 'right' else 'right'}"
        warnings.warn(f"{folder} seems to hold {LAYOUTS[part.layout]}; to be sure, set {sides}.", stacklevel=5)
    return part.pairs, part.unpaired


def _side_by_side(folder: Path, config: SourceConfig) -> list[Pair]:
    sides: dict[tuple[str | None, str | None], Side] = {("left", "right"): "left", ("right", "left"): "right"}
    rainy_side = sides.get((config.rainy, config.clean))
    if rainy_side is None:
        raise ConfigError(
            f"{folder}: of images side by side, set one of 'rainy' and 'clean' to left, the other to right."
        )
    files = list_images(folder)
    return [
        Pair(key, file, file, rainy_side) for key, file in zip(pairing.file_keys(folder, files), files, strict=True)
    ]
