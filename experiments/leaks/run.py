"""Look for leaks that were made of 500 photographs, and for those between the groups and splits of the manifest.

SSTL_DATA=/path/to/data python experiments/leaks/run.py [made_leaks] [groups] [train_against_dev]

Writes results.json beside this script, all of it (about 20 minutes on one core) or the parts that are named: how many
made leaks were found and what else was reported, by change; where the groups of the manifest and the check disagree;
and the leaks between its training and development splits.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from sstl.data import ImageSource, SourceConfig, open_images, open_pairs
from sstl.data.files import Image
from sstl.data.leaks import Joined, find_leaks
from sstl.data.manifest import read_manifest
from sstl.data.sources import OneLayer
from sstl.ops.files import write_atomic
from sstl.report.environment import environment

HERE = Path(__file__).resolve().parent
MANIFEST = "manifest.csv"
IMAGES = 500


def cropped(image: Image, rng: np.random.Generator) -> Image:
    """Return a window of 80 % of the sides, anywhere."""
    size = [round(0.8 * side) for side in image.shape[:2]]
    top, left = (int(rng.integers(whole - part + 1)) for whole, part in zip(image.shape, size, strict=False))
    return image[top : top + size[0], left : left + size[1]]


def compressed(image: Image, _: np.random.Generator) -> Image:
    """Return the image through JPEG of quality 50."""
    buffer = io.BytesIO()
    PillowImage.fromarray(image).save(buffer, "JPEG", quality=50)
    return np.asarray(PillowImage.open(buffer))


def halved(image: Image, _: np.random.Generator) -> Image:
    """Return the image resized by 0.5, bicubic."""
    height, width = image.shape[:2]
    return np.asarray(PillowImage.fromarray(image).resize((width // 2, height // 2), PillowImage.Resampling.BICUBIC))


CHANGES: dict[str, Callable[[Image, np.random.Generator], Image]] = {
    "flip": lambda image, _: image[:, ::-1],
    "rotation by 90 degrees": lambda image, _: np.rot90(image),
    "crop of 80 %": cropped,
    "JPEG 50": compressed,
    "resize 0.5": halved,
}


class Photographs(Joined):
    """All backgrounds of the manifest: clean photographs, clean sides of pairs and real photographs, with groups."""

    def __init__(self, split: str | None = None) -> None:
        config = SourceConfig(MANIFEST, split=split)
        super().__init__(
            [open_images(config, "clean"), OneLayer(open_pairs(config), "clean"), open_images(config, "rainy")]
        )
        rows = read_manifest(Path(os.environ["SSTL_DATA"]) / MANIFEST)
        self.groups = {row.key: row.group for row in rows}

    def one_of_each_group(self, most: int) -> None:
        """Keep the first photograph of each group, and no more than ``most``."""
        seen: dict[str, tuple[ImageSource, int]] = {}
        for i, place in enumerate(self.places):
            seen.setdefault(self.groups[self.key(i)], place)
        self.places = list(seen.values())[:most]


class Changed:
    """The photographs of a source after a change, under the same keys."""

    def __init__(self, source: ImageSource, change: Callable[[Image, np.random.Generator], Image]) -> None:
        self.source, self.change = source, change

    def __len__(self) -> int:
        """Return the number of photographs."""
        return len(self.source)

    def key(self, i: int) -> str:
        """Return a photograph's key."""
        return self.source.key(i)

    def load(self, i: int) -> Image:
        """Read a photograph and change it, for each in its own way."""
        return self.change(self.source.load(i), np.random.default_rng(i))


def made_leaks() -> dict[str, Any]:
    """Look for the changed photographs in the unchanged ones, one change at a time."""
    photographs = Photographs()
    photographs.one_of_each_group(IMAGES)
    keys = {photographs.key(i) for i in range(len(photographs))}
    results: dict[str, Any] = {"images": len(keys)}
    for name, change in CHANGES.items():
        leaks = find_leaks(photographs, Changed(photographs, change), progress=True).leaks
        found = {leak.train for leak in leaks if leak.train == leak.test}
        others = [(leak.train, leak.test, round(leak.correlation, 2)) for leak in leaks if leak.train != leak.test]
        results[name] = {"found": len(found), "missed": sorted(keys - found), "others_reported": others}
        print(f"{name}: {len(found)} of {len(keys)} found; also reported: {others}")
    return results


def manifest_groups() -> dict[str, Any]:
    """Compare all backgrounds with each other, and say where the check and the manifest's groups disagree."""
    photographs = Photographs()
    groups = photographs.groups
    keys = [photographs.key(i) for i in range(len(photographs))]
    reported = {
        frozenset((leak.train, leak.test)) for leak in find_leaks(photographs, photographs, progress=True).leaks
    }
    same = {frozenset((a, b)) for i, a in enumerate(keys) for b in keys[:i] if groups[a] == groups[b]}
    return {
        "images": len(keys),
        "pairs_of_one_group": len(same),
        "of_these_found": len(same & reported),
        "in_a_group_but_not_found": sorted(sorted(pair) for pair in same - reported),
        "found_but_in_two_groups": sorted(sorted(pair) for pair in reported - same),
    }


def splits() -> dict[str, Any]:
    """Look for the development split's backgrounds in the training split."""
    check = find_leaks(Photographs("train"), Photographs("dev"), progress=True)
    found = [(leak.train, leak.test, round(leak.correlation, 2)) for leak in check.leaks]
    return {"train_images": check.train_images, "dev_images": check.test_images, "found": found}


PARTS = {"made_leaks": made_leaks, "groups": manifest_groups, "train_against_dev": splits}


def main() -> None:
    """Run the parts and write the results."""
    file = HERE / "results.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for name in sys.argv[1:] or PARTS:
        results[name] = {**PARTS[name](), "environment": environment()}
        write_atomic(file, json.dumps({"command": "python experiments/leaks/run.py", **results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
