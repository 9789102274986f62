"""Leaks: backgrounds of one set that are in another one too, whatever was done to them on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sstl.config import home_expanded
from sstl.data.alignment import Alignment, Box, align, candidates, overlap_boxes
from sstl.data.files import FileImages, FilePairs, Image
from sstl.data.layouts import Part, find_parts
from sstl.data.sketches import Sketch
from sstl.data.sources import ImageSource, OneLayer, SourceConfig, open_images, open_pairs, split_folder
from sstl.data.tables import table_format
from sstl.errors import ConfigError, InputError
from sstl.ops.progress import hidden

SOUGHT = 0.85  # least product of descriptors to look closer; made leaks have 0.9 and more
CONFIRMED = 0.75  # least correlation of the aligned fine structure; made leaks have 0.85 or more, others below 0.65
OVERLAP = 0.5  # least share of the smaller image that must lie in the other
_CLOSER = 8  # images that are looked at closer for each test image
_BLOCK = 512  # training images that are compared at once, which takes some 50 MB
_WHOLE = 0.97  # a box with less than this of an image's sides is a crop
_IDENTICAL = Alignment(False, 0, 1.0, (0.0, 0.0), (0.0, 0.0), correlation=1.0, overlap=1.0)
_SAME_SIZE = 0.03  # departure of the scale from 1 that counts as resized


@dataclass(frozen=True)
class Leak:
    """One background that is in both sets.

    Attributes:
        train, test: the names of the two images.
        how: what was done to the training image to become the test image, in words.
        mirrored, turns: whether it was mirrored left to right, and then by how many times 90 degrees it was turned
            counterclockwise.
        scale: pixels of the test image for each pixel of the training image.
        train_box, test_box: what they share, in pixels of each: left, top, right, bottom.
        correlation: of the fine structure of what they share, at most 1.
    """

    train: str
    test: str
    how: str
    mirrored: bool
    turns: int
    scale: float
    train_box: Box
    test_box: Box
    correlation: float


@dataclass(frozen=True)
class Check:
    """What was found between two sets.

    Attributes:
        leaks: in the order of the test images.
        train_images, test_images: how many images were compared.
        unreadable: one message for each image that could not be read.
    """

    leaks: tuple[Leak, ...]
    train_images: int
    test_images: int
    unreadable: tuple[str, ...]


def find_leaks(train: ImageSource, test: ImageSource, progress: bool = False) -> Check:
    """Compare each image of ``test`` with each of ``train``.

    Found are images that are the same, or were mirrored, turned by 90, 180 or 270 degrees, cropped to 80 % of their
    sides or more, resized, or compressed again. A window of each training image is looked for in the test image by
    low-frequency cosines; what looks alike is aligned and confirmed if the fine structure of the overlap correlates.

    Args:
        train: the training images.
        test: the test images; it may be the same source, whose images are then not compared with themselves.
        progress: show a progress bar on stderr.
    """
    messages: list[str] = []
    known = _sketches(train, messages, "read train", progress)
    others = known if test is train else _sketches(test, messages, "read test", progress)
    leaks: list[Leak] = []
    for other in tqdm(others, desc="compare", unit="image", leave=False, **hidden(not progress)):
        for one, alignment in _alike(known, other):
            for names in product(one.names, other.names):
                if not (test is train and names[0] == names[1]):
                    leaks.append(_leak(one, other, alignment, *names))
    train_images, test_images = (sum(len(sketched.names) for sketched in side) for side in (known, others))
    return Check(tuple(leaks), train_images, test_images, tuple(messages))


@dataclass(frozen=True)
class _Sketched:
    names: list[str]  # of the images with exactly these pixels
    digest: bytes
    sketch: Sketch


def _sketches(source: ImageSource, messages: list[str], label: str, progress: bool) -> list[_Sketched]:
    """Read all images once; images of equal pixels share an entry."""
    found: dict[bytes, _Sketched] = {}
    for i in tqdm(range(len(source)), desc=label, unit="image", leave=False, **hidden(not progress)):
        try:
            image = source.load(i)
        except InputError as error:
            messages.append(str(error))
            continue
        digest = hashlib.sha256(np.ascontiguousarray(image).tobytes() + str(image.shape).encode()).digest()
        if digest not in found:
            found[digest] = _Sketched([], digest, Sketch(image))
        found[digest].names.append(source.key(i))
    return list(found.values())


def _alike(known: Sequence[_Sketched], other: _Sketched) -> list[tuple[_Sketched, Alignment]]:
    found = [(one, _IDENTICAL) for one in known if one.digest == other.digest]
    others = [one for one in known if one.digest != other.digest]
    likely: list[tuple[float, _Sketched, list[Alignment]]] = []
    for start in range(0, len(others), _BLOCK):
        sketches = [one.sketch for one in others[start : start + _BLOCK]]
        for score, index, starts in candidates(sketches, other.sketch, SOUGHT, _CLOSER):
            likely.append((score, others[start + index], starts))
    for _, one, starts in sorted(likely, key=lambda entry: -entry[0])[:_CLOSER]:
        alignment = align(one.sketch, other.sketch, starts, CONFIRMED)
        if alignment and alignment.correlation >= CONFIRMED and alignment.overlap >= OVERLAP:
            found.append((one, alignment))
    return found


def _leak(one: _Sketched, other: _Sketched, alignment: Alignment, train: str, test: str) -> Leak:
    boxes = overlap_boxes(one.sketch, other.sketch, alignment)
    shorter = [min(sketched.sketch.height, sketched.sketch.width) for sketched in (one, other)]
    scale = alignment.scale * shorter[1] / shorter[0]
    turned = f"turned by {90 * alignment.turns} degrees" if alignment.turns else ""
    steps = ["mirrored" if alignment.mirrored else "", turned]
    for name, box, sketch in (("train", boxes[0], one.sketch), ("test", boxes[1], other.sketch)):
        if box[2] - box[0] < _WHOLE * sketch.width or box[3] - box[1] < _WHOLE * sketch.height:
            steps.append(f"only {box[2] - box[0]}x{box[3] - box[1]} at {box[0]},{box[1]} of {name}")
    steps.append(f"resized by {scale:.2f}" if abs(scale - 1) > _SAME_SIZE else "")
    how = ", ".join(step for step in steps if step) or "the same but for its pixel values"
    if one.digest == other.digest:
        how = "identical"
    return Leak(
        train, test, how, alignment.mirrored, alignment.turns, round(scale, 3), *boxes, round(alignment.correlation, 3)
    )


def backgrounds(config: SourceConfig) -> ImageSource:
    """Open the clean images of any data: those of its pairs and those alone; the rainy ones if there are no clean ones.

    Of a folder of pairs, images without a partner are among them: what is trained on alone may be one of them.

    Raises:
        ConfigError: the path is missing, nothing in it is selected, or a folder in it cannot be told apart.
    """
    path = home_expanded(config.path)
    if path.is_dir() and not table_format(path) and not (config.rainy or config.clean):
        return _of_folder(split_folder(path, config))
    found: list[ImageSource] = []
    for opened in (_clean_of_pairs, lambda config: open_images(config, "clean", Path())):
        try:
            found.append(opened(config))
        except ConfigError as error:
            problem = error
        if found and (config.path.startswith("hub:") or table_format(path)):
            break  # the clean column of the pairs is that of the clean images
    if not found:
        try:
            found.append(open_images(config, "rainy", Path()))
        except ConfigError:
            raise problem from None
    return Joined(found)


def _clean_of_pairs(config: SourceConfig) -> ImageSource:
    return OneLayer(open_pairs(config, Path()), "clean")


def _of_folder(folder: Path) -> ImageSource:
    parts = find_parts(folder)
    if problem := next((part.problem for part in parts if part.problem), None):
        raise ConfigError(problem)
    clean = [part for part in parts if part.pairs or part.layer == "clean"]
    others = [part for part in parts if part.images and part.layer not in ("clean", "streak")]
    unknown = [part for part in others if part.layer is None]
    chosen = [*clean, *unknown] or others
    if not chosen:
        raise ConfigError(f"{folder} holds no images.")
    return Joined([_of_part(folder, part) for part in chosen])


def _of_part(folder: Path, part: Part) -> ImageSource:
    if part.layout in ("left", "right"):
        return OneLayer(FilePairs(part.pairs), "clean")
    # Each once, for many renderings.
    files = part.images or tuple(dict.fromkeys([*(pair.clean for pair in part.pairs), *part.unpaired]))
    return FileImages([path.relative_to(folder).as_posix() for path in files], files)


class Joined:
    """Several sources of images, one behind the other."""

    def __init__(self, sources: Sequence[ImageSource]) -> None:
        self.sources = sources
        self.places = [(source, i) for source in sources for i in range(len(source))]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.places)

    def key(self, i: int) -> str:
        """Return the name of image ``i``."""
        source, index = self.places[i]
        return source.key(index)

    def load(self, i: int) -> Image:
        """Read image ``i``; InputError if it cannot be read."""
        source, index = self.places[i]
        return source.load(index)
