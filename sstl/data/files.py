"""Images and pairs in plain files, and the photographs that scikit-image ships."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sstl.data.images import read_rgb8
from sstl.data.pairing import Pair
from sstl.errors import ConfigError, InputError

Image: TypeAlias = NDArray[np.uint8]


class FilePairs:
    """Pairs of image files."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.pairs)

    def key(self, i: int) -> str:
        """Return the name of pair ``i``."""
        return self.pairs[i].key

    def load(self, i: int) -> tuple[Image, Image]:
        """Read the rainy and the clean image; InputError if either cannot be read or their sizes differ."""
        pair = self.pairs[i]
        if pair.rainy_side is not None:
            left, right = _halves(read_rgb8(pair.rainy), pair.rainy)
            return (left, right) if pair.rainy_side == "left" else (right, left)
        return same_size(read_rgb8(pair.rainy), read_rgb8(pair.clean), str(pair.rainy), str(pair.clean))


class FileImages:
    """Image files."""

    def __init__(self, keys: Sequence[str], files: Sequence[Path]) -> None:
        self.keys = keys
        self.files = files

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.files)

    def key(self, i: int) -> str:
        """Return the name of image ``i``."""
        return self.keys[i]

    def load(self, i: int) -> Image:
        """Read the image; InputError if it cannot be read."""
        return read_rgb8(self.files[i])


class BundledImages:
    """The clean photographs that lie in scikit-image's wheel (none that it would download).

    Args:
        split: ``train`` or ``dev``, which share no scene; None for all.
    """

    splits: ClassVar = {"train": ("astronaut", "coffee", "motorcycle-left"), "dev": ("chelsea", "rocket")}

    def __init__(self, split: str | None = None) -> None:
        if split is not None and split not in self.splits:
            raise ConfigError(f"'bundled' has no split '{split}'. Its splits: {', '.join(self.splits)}.")
        self.keys = self.splits[split] if split else tuple(key for part in self.splits.values() for key in part)

    def __len__(self) -> int:
        """Return the number of photographs."""
        return len(self.keys)

    def key(self, i: int) -> str:
        """Return the name of photograph ``i``."""
        return self.keys[i]

    def load(self, i: int) -> Image:
        """Return the photograph."""
        from skimage import data

        key = self.keys[i]
        image = data.stereo_motorcycle()[0] if key == "motorcycle-left" else getattr(data, key)()
        return np.ascontiguousarray(image)


def same_size(rainy: Image, clean: Image, rainy_name: str, clean_name: str) -> tuple[Image, Image]:
    """Return both images; InputError naming both if their sizes differ."""
    if rainy.shape != clean.shape:
        (h, w), (other_h, other_w) = rainy.shape[:2], clean.shape[:2]
        raise InputError(f"{rainy_name} is {w}x{h} but {clean_name} is {other_w}x{other_h}; a pair has one size.")
    return rainy, clean


def _halves(image: Image, path: Path) -> tuple[Image, Image]:
    width = image.shape[1]
    if width % 2:
        raise InputError(f"{path} is {width} pixels wide, which does not split into two images side by side.")
    # Copies, so that keeping one half does not keep the whole file in memory.
    return image[:, : width // 2].copy(), image[:, width // 2 :].copy()
