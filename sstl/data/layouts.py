"""Layouts: what a folder tree holds, told by the names of its folders and files, and at last by its pixels."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sstl.data import halves, pairing
from sstl.data.images import IMAGE_SUFFIXES, list_images
from sstl.data.pairing import LAYER_NAMES, Layer, Pair, file_keys, is_layer_name
from sstl.errors import InputError

Kind = Literal["folders", "scenes", "names", "list", "left", "right", "images"]
LAYOUTS: dict[Kind, str] = {
    "folders": "a folder of rainy and a folder of clean images, paired by name",
    "scenes": "scenes of rainy frames (-R-) and their clean frame (-C-)",
    "names": "rainy and clean images in one folder, told apart by their names",
    "list": "pairs listed in a text file",
    "left": "rainy (left) and clean (right) side by side in each file",
    "right": "clean (left) and rainy (right) side by side in each file",
    "images": "images without partners",
}

# RainDS has a folder for each kind of rain beside its clean "gt"; elsewhere these names are streak layers.
_KINDS_OF_RAIN = ("rainstreak", "raindrop", "rainstreak_raindrop")
_LONGEST_LINE = 10_000
_SCENE = re.compile(r"^(?P<scene>.+)-(?P<layer>[RC])-(?P<frame>\d+)$")  # GT-RAIN: Scene_0-0-Webcam-R-012.png


@dataclass(frozen=True)
class Part:
    """One set of images in a folder tree.

    Attributes:
        name: where it lies below the root of the tree, "." for the root itself; of several kinds of rain beside one
            clean folder, where the rainy images lie.
        layout: a key of `LAYOUTS`.
        pairs: in the order of the rainy names.
        unpaired: images that should be in a pair and are in none.
        images: images of a layout without pairs.
        layer: the layer that the folder's name tells these images to be; None if it does not.
        problem: why it could not be paired, or empty.
    """

    name: str
    layout: Kind
    pairs: tuple[Pair, ...] = ()
    unpaired: tuple[Path, ...] = ()
    images: tuple[Path, ...] = ()
    layer: Layer | None = None
    problem: str = ""


def find_parts(root: Path) -> list[Part]:
    """Return the sets of images in a folder tree, such as those of its splits, in the order of their names.

    Told in this order: lists of pairs in a text file; sub-folders with usual names for rainy and clean images; frames
    marked -R- and -C-; words in the files' names; halves of each file that show the same (these are opened).

    Raises:
        InputError: ``root`` is not there or cannot be listed.
    """
    files = list_images(root)
    texts = sorted(path for path in root.glob("*.txt") if path.is_file())  # no pipes
    parts = [_part_of_list(root, path, pairs) for path in texts if (pairs := _read_list(path))]
    parts += [part for home, folders in _homes(root, files).items() for part in _parts_of_home(root, home, folders)]
    known = {path for part in parts for path in (*part.unpaired, *(p for pair in part.pairs for p in _paths(pair)))}
    broken = [root / part.name for part in parts if part.problem]
    rest = [path for path in files if path not in known and not any(path.is_relative_to(home) for home in broken)]
    parts += [_part_of_files(root, folder, found) for folder, found in _groups(root, rest, split=bool(parts)).items()]
    return sorted(parts, key=lambda part: part.name)


def _paths(pair: Pair) -> tuple[Path, Path]:
    return pair.rainy, pair.clean


def _name(root: Path, folder: Path) -> str:
    return folder.relative_to(root).as_posix()


def _groups(root: Path, files: Sequence[Path], split: bool) -> dict[Path, list[Path]]:
    """Return files by their folder if ``split``, else in one group."""
    groups: defaultdict[Path, list[Path]] = defaultdict(list)
    for path in files:
        groups[path.parent if split else root].append(path)
    return groups


def _homes(root: Path, files: Sequence[Path]) -> dict[Path, list[tuple[Path, Path]]]:
    """Return the folders that hold a folder of rainy and one of clean images, each with these (rainy, clean)."""
    children: defaultdict[Path, set[Path]] = defaultdict(set)
    for folder in {path.parent for path in files}:
        while folder != root:
            children[folder.parent].add(folder)
            folder = folder.parent
    homes: dict[Path, list[tuple[Path, Path]]] = {}
    for home, found in sorted(children.items()):
        clean = [folder for folder in found if is_layer_name(folder.name, "clean")]
        rainy = [folder for folder in found if is_layer_name(folder.name, "rainy")]
        rainy = rainy or [folder for folder in found if folder.name.lower() in _KINDS_OF_RAIN]
        if len(clean) == 1 and rainy:
            homes[home] = [(folder, clean[0]) for folder in sorted(rainy)]
    return homes


def _parts_of_home(root: Path, home: Path, folders: Sequence[tuple[Path, Path]]) -> Iterable[Part]:
    for rainy, clean in folders:
        name = _name(root, home if len(folders) == 1 else rainy)
        try:
            pairs, unpaired = pairing.pair_folders(rainy, clean)
        except InputError as error:
            yield Part(name, "folders", problem=str(error))
        else:
            yield Part(name, "folders", tuple(pairs), tuple(unpaired))


def _read_list(path: Path) -> list[tuple[str, str]]:
    """Return the two paths of each line, as in SPA-Data's real_test_1000.txt; none if the file is anything else."""
    listed = []
    try:
        with path.open(encoding="utf-8") as lines:
            while line := lines.readline(_LONGEST_LINE):
                words = line.split()
                if words and not (len(words) == 2 and all(map(_is_image_name, words))):
                    return []
                listed += [(words[0], words[1])] if words else []
    except (OSError, UnicodeDecodeError):
        return []
    return listed


def _is_image_name(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES and ".." not in Path(name).parts


def _part_of_list(root: Path, path: Path, listed: Sequence[tuple[str, str]]) -> Part:
    pairs, unpaired = [], []
    for names in listed:
        rainy, clean = (root / name.lstrip("./") for name in names)
        if rainy.is_file() and clean.is_file():
            pairs.append(Pair(rainy.relative_to(root).with_suffix("").as_posix(), rainy, clean))
        else:
            unpaired += [rainy, clean]
    return Part(path.stem, "list", tuple(pairs), tuple(unpaired))


def _part_of_files(root: Path, folder: Path, files: Sequence[Path]) -> Part:
    name, keys = _name(root, folder), file_keys(folder, files)
    by_key = dict(zip(keys, files, strict=True))
    kinds: tuple[tuple[Kind, _Layers], ...] = (("scenes", _by_frame(by_key)), ("names", _by_word(by_key)))
    for kind, layers in kinds:
        if layers["rainy"] and layers["clean"]:
            return _part_of_layers(name, kind, layers)
    if (side := halves.rainy_side(files)) is not None:
        return Part(name, side, tuple(Pair(key, path, path, side) for key, path in by_key.items()))
    layer = next((layer for layer in LAYER_NAMES if is_layer_name(folder.name, layer)), None)
    return Part(name, "images", images=tuple(files), layer=layer)


def _part_of_layers(name: str, kind: Kind, layers: _Layers) -> Part:
    pair = _pair_frames if kind == "scenes" else pairing.pair_files
    try:
        pairs, unpaired = pair(layers["rainy"], layers["clean"])
    except InputError as error:
        return Part(name, kind, problem=str(error))
    return Part(name, kind, tuple(pairs), (*unpaired, *layers["other"].values()))


_Layers = dict[Literal["rainy", "clean", "other"], dict[str, Path]]


def _by_frame(files: Mapping[str, Path]) -> _Layers:
    layers: _Layers = {"rainy": {}, "clean": {}, "other": {}}
    for key, path in files.items():
        mark = _SCENE.match(key)
        layers["other" if mark is None else "rainy" if mark["layer"] == "R" else "clean"][key] = path
    return layers


def _by_word(files: Mapping[str, Path]) -> _Layers:
    layers: _Layers = {"rainy": {}, "clean": {}, "other": {}}
    for key, path in files.items():
        layers[pairing.layer_of_name(path.stem) or "other"][key] = path
    return layers


def _pair_frames(rainy: Mapping[str, Path], clean: Mapping[str, Path]) -> tuple[list[Pair], list[Path]]:
    """Pair a rainy frame with the clean frame of its number, or with its scene's only one."""
    frames: defaultdict[str, dict[str, Path]] = defaultdict(dict)
    for key, path in clean.items():
        scene, _, frame = _scene(key)
        frames[scene][frame] = path
    pairs = []
    for key, path in rainy.items():
        scene, _, frame = _scene(key)
        known = frames[scene]
        if partner := next(iter(known.values())) if len(known) == 1 else known.get(frame):
            pairs.append(Pair(key, path, partner))
    used = {path for pair in pairs for path in _paths(pair)}
    return pairs, [path for path in (*rainy.values(), *clean.values()) if path not in used]


def _scene(key: str) -> tuple[str, str, str]:
    mark = _SCENE.match(key)
    assert mark is not None  # they were chosen by it
    return mark["scene"], mark["layer"], mark["frame"]
