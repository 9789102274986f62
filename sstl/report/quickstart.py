"""The main job in miniature: adapt a tiny network to a made-up rain, with the truth at hand to check the gain."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image as PilImage

from sstl.data import SourceConfig, open_pairs
from sstl.data.files import Image
from sstl.errors import ConfigError
from sstl.ops.files import write_atomic
from sstl.rain import Recipe
from sstl.report.adaptation import Adaptation, adapt
from sstl.report.evaluation import RenderedPairs

SOURCE = "quickstart-source"  # tiny, frozen: trained on the recipe ``light`` alone
STEPS = 150

# The target domain: slanted, dense, long streaks. The source has met thin rain of one direction near the vertical only.
SLANTED = Recipe(
    angle=(25.0, 45.0),
    layers=(2, 3),
    layer_angle=(-6.0, 6.0),
    angle_spread=(1.0, 3.0),
    length=(25.0, 60.0),
    width=(1.0, 2.5),
    density=(2.0, 6.0),
    brightness=(0.1, 0.25),
    brightness_spread=(0.3, 0.5),
    blur=(0.2, 0.8),
)


class Scenes:
    """Photographs of scikit-image, cut into square tiles; an image source.

    The three roles share no scene: ``clean`` to rain on in the supervised branch (every fourth tile is held out, to
    judge on), ``photos`` for the unlabelled rainy photos, ``test`` for the pairs that the gain is measured on.
    """

    roles = {"clean": ("motorcycle",), "photos": ("astronaut", "coffee"), "test": ("chelsea", "rocket")}  # noqa: RUF012

    def __init__(self, role: str, side: int = 192) -> None:
        from skimage import data

        scenes = {name: data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(data, name)()
                  for name in self.roles[role]}  # fmt: skip
        self.tiles = [
            (f"{name}-{top}-{left}", np.ascontiguousarray(image[top : top + side, left : left + side]))
            for name, image in scenes.items()
            for top in range(0, image.shape[0] - side + 1, side)
            for left in range(0, image.shape[1] - side + 1, side)
        ]

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self.tiles)

    def key(self, i: int) -> str:
        """Return the scene and place of tile ``i``."""
        return self.tiles[i][0]

    def load(self, i: int) -> Image:
        """Return tile ``i``, uint8 (side, side, 3)."""
        return self.tiles[i][1]


def make_domain(folder: Path, seed: int) -> None:
    """Write the target domain: rainy ``photos``, ``clean`` ones, some ``held-out``, and pairs for the test."""
    rainy = RenderedPairs(Scenes("photos"), SLANTED, seed=1000 + seed)
    test = RenderedPairs(Scenes("test"), SLANTED, seed=2000 + seed)
    clean = Scenes("clean")
    for i in range(len(rainy)):
        _write(folder / "photos" / f"{rainy.key(i)}.png", rainy.load(i)[0])
    for i in range(len(clean)):
        _write(folder / ("clean" if i % 4 else "held-out") / f"{clean.key(i)}.png", clean.load(i))
    for i in range(len(test)):
        for layer, image in zip(("rain", "norain"), test.load(i), strict=True):
            _write(folder / "test" / layer / f"{test.key(i)}.png", image)


def quickstart(
    output: str | Path, method: str = "default", steps: int = STEPS, seed: int = 0, overwrite: bool = False
) -> Adaptation:
    """Make a target domain from scikit-image's photographs, adapt the frozen source to it and report the true gain.

    Args:
        output: gets ``domain/`` (the images) and ``run/`` (weights, log, ``report.html``).
        method: ``supervised`` is the control: the same steps without the unlabelled photos.
        steps: optimiser steps.
        seed: of the rain and the training.
        overwrite: replace what ``output`` holds.

    Raises:
        ConfigError: ``output`` already holds a quickstart.
    """
    output = Path(output)
    if (output / "run").exists() and not overwrite:
        raise ConfigError(f"{output} already holds a quickstart; give --overwrite, or another folder by -o.")
    domain = output / "domain"
    make_domain(domain, seed)
    truth = open_pairs(SourceConfig(str((domain / "test").resolve())))
    return adapt(
        domain / "photos", output / "run", SOURCE, method, steps,
        clean=domain / "clean", held_out=domain / "held-out", recipe="light", learning_rate=5e-4, seed=seed,
        truth=truth, overwrite=overwrite,
    )  # fmt: skip


def _write(path: Path, image: Image) -> None:
    buffer = io.BytesIO()
    PilImage.fromarray(image).save(buffer, format="png")
    write_atomic(path, buffer.getvalue())
