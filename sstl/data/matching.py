"""The rain of a folder of photos as a recipe: crops of the photos and of clean photographs, matched."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from sstl.config import to_tree
from sstl.data.sources import ImageSource
from sstl.errors import InputError
from sstl.rain import Match, Recipe, match

SIDE = 160  # of the crops, in pixels: a few streaks long
_GRID = 8  # of JPEG: crops are cut at its multiples, so that what it did to an image can be seen


def match_photos(photos: ImageSource, clean: ImageSource, crops: int = 96, seed: int = 0, **options: Any) -> Match:
    """Match a recipe to photos; see ``sstl.rain.match``.

    Args:
        photos: the rainy photos; what cannot be read is left out.
        clean: clean photographs to render on, the more the better.
        crops: how many crops to look at of each.
        seed: of everything random.
        options: of ``sstl.rain.match``.

    Raises:
        InputError: no photo, or no clean photograph, can be read.
    """
    return match(draw_crops(photos, crops, SIDE, seed), draw_crops(clean, crops, SIDE, seed + 1), seed=seed, **options)


def draw_crops(source: ImageSource, count: int, side: int, seed: int) -> Tensor:
    """Return random crops, about as many of each image, (count, 3, side, side); small images continue by reflection.

    Raises:
        InputError: no image can be read; the first one's error.
    """
    rng = np.random.default_rng([seed, 3])
    order = rng.permutation(len(source))
    found: list[Tensor] = []
    first: InputError | None = None
    for turn in itertools.count():
        if len(found) == count:
            break
        if turn == len(source) and not found:
            raise first or InputError("there is no image to take a crop of.")
        try:
            image = source.load(int(order[turn % len(source)]))
        except InputError as error:
            first = first or error
            continue
        pad = [(0, max(0, side - image.shape[axis])) for axis in (0, 1)]
        image = np.pad(image, [*pad, (0, 0)], mode="symmetric")
        top, left = (_GRID * int(rng.integers((image.shape[axis] - side) // _GRID + 1)) for axis in (0, 1))
        crop = np.ascontiguousarray(image[top : top + side, left : left + side])
        found.append(torch.from_numpy(crop).permute(2, 0, 1).float() / 255)
    return torch.stack(found)


def recipe_yaml(recipe: Recipe, about: str) -> str:
    """Return a recipe as the text of a file, whose first line says what it is."""
    about = " ".join(about.split())  # the name of a folder may hold a line break
    return f"# {about}\n{yaml.safe_dump(to_tree(recipe), sort_keys=False, default_flow_style=None, width=120)}"
