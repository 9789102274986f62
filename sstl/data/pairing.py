"""Pairing rainy and clean files by what their names share, never by their order."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from sstl.data.images import list_images
from sstl.errors import ConfigError, InputError

Side = Literal["left", "right"]
Layer = Literal["rainy", "clean", "streak"]

# What the layers are called in the data sets seen in the wild: sub-folders, and columns of tables.
LAYER_NAMES: dict[Layer, tuple[str, ...]] = {
    "rainy": ("rainy", "rain", "rainy_image", "rainy_images", "rain_image", "input", "inputs", "data", "lq"),
    "clean": ("clean", "norain", "no_rain", "target", "targets", "ground_truth", "groundtruth", "gt", "clear", "hq"),
    "streak": ("streak", "streaks", "rainstreak", "rain_streak"),
}

_RAINY_WORDS = "rainy|rain|input|in"  # "in": Rain12 has 001_in.png beside 001_GT.png
_CLEAN_WORDS = "no[-_]?rain|target|ground[-_]?truth|gt|clean|clear"


def _as_layer_word(words: str) -> re.Pattern[str]:
    # A word counts only if it stands apart from the rest, or a digit follows: "rain-1", "input1", but not "rainbow".
    return re.compile(rf"^(?:{words})(?:[-_ ]+|(?=\d))|(?:[-_ ]+|(?<=\d))(?:{words})$", re.IGNORECASE)


_RAINY_WORD, _CLEAN_WORD = _as_layer_word(_RAINY_WORDS), _as_layer_word(_CLEAN_WORDS)
_LAYER_WORD = _as_layer_word(f"{_CLEAN_WORDS}|{_RAINY_WORDS}")
_DOWNSCALED = re.compile(r"(?<=\d)x2$", re.IGNORECASE)  # Rain200L and Rain200H: rain/X2/1x2.png
_DOWNSCALED_FOLDER = re.compile(r"(?:^|/)x2$", re.IGNORECASE)
_RENDERING = re.compile(r"_\d+$")  # Rain1400: 12_3.jpg is the third rendering of 12.jpg
_LEADING_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")


@dataclass(frozen=True)
class Pair:
    """A rainy file and its clean file.

    Attributes:
        key: the pair's name.
        rainy: the rainy file.
        clean: the clean file; the same file if both lie side by side.
        rainy_side: the half of that file that is rainy, or None for two files.
    """

    key: str
    rainy: Path
    clean: Path
    rainy_side: Side | None = None


def pair_folders(rainy: Path, clean: Path) -> tuple[list[Pair], list[Path]]:
    """Pair the images below two folders by their names.

    Tried in this order: the same name; the same without the layer's word (rain-1 and norain-1, input1 and norain1) or
    rain100's "x2"; without leading zeros; and last, many rainy renderings of one clean image (12_3 and 12).
    A folder inside the two is part of the name.

    Returns:
        The pairs, in the order of the rainy names, and the images of either folder that are in no pair.

    Raises:
        InputError: a folder is missing, two files of one folder differ only in their suffix, or two clean files fit a
            rainy one equally well.
    """
    return pair_files(_by_stem(rainy), _by_stem(clean))


def pair_files(rainy: Mapping[str, Path], clean: Mapping[str, Path]) -> tuple[list[Pair], list[Path]]:
    """Pair files by the names given to them, as `pair_folders` does by their paths below the two folders."""

    @cache
    def index(rewrite: _Rewrite) -> dict[str, list[str]]:  # made when first needed: most sets need one or two
        found: defaultdict[str, list[str]] = defaultdict(list)
        for stem in clean:
            found[rewrite(stem)].append(stem)
        return found

    pairs = [
        Pair(stem, path, clean[match])
        for stem, path in rainy.items()
        if (match := _find(stem, path, index, clean)) is not None
    ]
    used = {path for pair in pairs for path in (pair.rainy, pair.clean)}
    return pairs, [path for path in (*rainy.values(), *clean.values()) if path not in used]


def layer_of_name(stem: str) -> Literal["rainy", "clean"] | None:
    """Return the layer that a file's name tells by a word of its own ("rain-1", "7_gt"), or None."""
    if _CLEAN_WORD.search(stem):
        return "clean"
    return "rainy" if _RAINY_WORD.search(stem) else None


def file_keys(folder: Path, files: Sequence[Path]) -> list[str]:
    """Return each file's path below ``folder`` without its suffix; with it where two files would get the same name."""
    names = ["/".join(file.parts[len(folder.parts) :]) for file in files]
    stems = [name.rpartition(".")[0] for name in names]
    count = Counter(stems)
    return [stem if count[stem] == 1 else name for name, stem in zip(names, stems, strict=True)]


def layer_folders(folder: Path, layer: Layer) -> list[Path]:
    """Return the sub-folders of a data set that have a usual name for ``layer``."""
    return [entry for entry in _sub_folders(folder) if is_layer_name(entry.name, layer)]


def is_layer_name(name: str, layer: Layer) -> bool:
    """Return whether a folder of this name usually holds ``layer``."""
    return name.lower().replace("-", "_") in LAYER_NAMES[layer]


def find_layer_folder(folder: Path, layer: Layer, name: str | None = None) -> Path:
    """Return the sub-folder of a data set that holds ``layer``, by the name given or else by the usual names.

    Raises:
        ConfigError: there is no or more than one such sub-folder; lists the sub-folders.
    """
    found = layer_folders(folder, layer) if name is None else [folder / name]
    if len(found) == 1 and found[0].is_dir():
        return found[0]
    lack = f"no one sub-folder with a usual name for {layer} images" if name is None else f"no sub-folder '{name}'"
    names = ", ".join(entry.name for entry in _sub_folders(folder)) or "none"
    raise ConfigError(
        f"{folder} has {lack}; set '{layer}' to one of its sub-folders ({names}), "
        "or to left or right if each file holds both images side by side."
    )


def _sub_folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:  # unlike a Path's, its entries know without a call each what they are
        return sorted(folder / entry.name for entry in entries if not entry.name.startswith(".") and _is_folder(entry))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a loop
        return False


def _by_stem(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    above = len(folder.parts)
    for path in list_images(folder):
        stem = "/".join(path.parts[above:]).rpartition(".")[0]
        if stem in files:
            raise InputError(f"{path} and {files[stem].name} have the same name; keep one of them.")
        files[stem] = path
    return files


_Rewrite = Callable[[str], str]


def _same(stem: str) -> str:
    return stem


def _bare(stem: str) -> str:
    parent, _, name = stem.rpartition("/")  # not pathlib's: it is ten times slower, and sets have 100,000 names
    name = _DOWNSCALED.sub("", name)
    return f"{_DOWNSCALED_FOLDER.sub('', parent)}/{_LAYER_WORD.sub('', name) or name}".lower()


def _number(stem: str) -> str:
    return _LEADING_ZEROS.sub("", _bare(stem))


def _rendered(stem: str) -> str:
    return _RENDERING.sub("", _bare(stem))


def _rendered_number(stem: str) -> str:
    return _LEADING_ZEROS.sub("", _rendered(stem))


# From strict to loose, how a rainy and a clean name are rewritten before they are compared.
_MATCHERS: tuple[tuple[_Rewrite, _Rewrite], ...] = (
    (_same, _same),
    (_bare, _bare),
    (_number, _number),
    (_rendered, _bare),
    (_rendered_number, _number),
)


def _find(
    stem: str, path: Path, index: Callable[[_Rewrite], dict[str, list[str]]], clean_files: Mapping[str, Path]
) -> str | None:
    for of_rainy, of_clean in _MATCHERS:
        matches = index(of_clean).get(of_rainy(stem), [])
        if len(matches) > 1:
            names = " and ".join(str(clean_files[match]) for match in matches)
            raise InputError(f"{path} fits several clean images: {names}; rename or remove all but one.")
        if matches:
            return matches[0]
    return None
