"""Pairing rainy and clean files by what their names share, never by their order."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
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

_WORDS = "no[-_]?rain|rainy|rain|input|target|ground[-_]?truth|gt|clean|clear"
# A word counts only if it stands apart from the rest, or a digit follows: "rain-1", "input1", but not "rainbow".
_LAYER_WORD = re.compile(rf"^(?:{_WORDS})(?:[-_ ]+|(?=\d))|(?:[-_ ]+|(?<=\d))(?:{_WORDS})$", re.IGNORECASE)
_DOWNSCALED = re.compile(r"(?<=\d)x2$", re.IGNORECASE)  # Rain100L and Rain100H: rainx2/1x2.png
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
    rainy_files, clean_files = _by_stem(rainy), _by_stem(clean)
    indices = [(of_rainy, _index(clean_files, of_clean)) for of_rainy, of_clean in _MATCHERS]
    pairs = [
        Pair(stem, path, clean_files[match])
        for stem, path in rainy_files.items()
        if (match := _find(stem, path, indices, clean_files)) is not None
    ]
    used = {path for pair in pairs for path in (pair.rainy, pair.clean)}
    return pairs, [path for path in (*rainy_files.values(), *clean_files.values()) if path not in used]


def file_keys(folder: Path, files: Sequence[Path]) -> list[str]:
    """Return each file's path below ``folder`` without its suffix; with it where two files would get the same name."""
    names = [PurePosixPath(file.relative_to(folder).as_posix()) for file in files]
    stems = [str(name.with_suffix("")) for name in names]
    count = Counter(stems)
    return [stem if count[stem] == 1 else str(name) for name, stem in zip(names, stems, strict=True)]


def layer_folders(folder: Path, layer: Layer) -> list[Path]:
    """Return the sub-folders of a data set that have a usual name for ``layer``."""
    return [entry for entry in _sub_folders(folder) if entry.name.lower().replace("-", "_") in LAYER_NAMES[layer]]


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
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _by_stem(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in list_images(folder):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in files:
            raise InputError(f"{path} and {files[stem].name} have the same name; keep one of them.")
        files[stem] = path
    return files


_Rewrite = Callable[[str], str]


def _same(stem: str) -> str:
    return stem


def _bare(stem: str) -> str:
    parent, name = PurePosixPath(stem).parent, _DOWNSCALED.sub("", PurePosixPath(stem).name)
    return str(parent / (_LAYER_WORD.sub("", name) or name)).lower()


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


def _index(files: dict[str, Path], rewrite: _Rewrite) -> dict[str, list[str]]:
    index: defaultdict[str, list[str]] = defaultdict(list)
    for stem in files:
        index[rewrite(stem)].append(stem)
    return index


def _find(
    stem: str, path: Path, indices: list[tuple[_Rewrite, dict[str, list[str]]]], clean_files: dict[str, Path]
) -> str | None:
    for rewrite, index in indices:
        matches = index.get(rewrite(stem), [])
        if len(matches) > 1:
            names = " and ".join(str(clean_files[match]) for match in matches)
            raise InputError(f"{path} fits several clean images: {names}; rename or remove all but one.")
        if matches:
            return matches[0]
    return None
