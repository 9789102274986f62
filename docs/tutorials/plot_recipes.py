"""
Rain that is made: the recipes
==============================

A recipe is a small YAML file of ranges: how rain falls, where it hides, what veil it makes and what the camera adds.
Each image's rain is drawn from the ranges as a function of (seed, index) alone. Here is one picture of each recipe, and
the layers that a network may learn from.
"""

# %%
# One photograph under every recipe
# ---------------------------------
# ``garg`` lays photographed streaks, which the user has to get (see docs/data.md); drawn ones stand for them here.
from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch
from skimage import data

from sstl.rain import RainSample, list_recipes, render
from sstl.rain.recipes import about_recipe

clean = torch.from_numpy(data.coffee()[40:320, 60:480].copy()).permute(2, 0, 1)[None] / 255


class DrawnStreaks:
    """Three images of slanted lines, in the place of photographed streaks."""

    def __len__(self) -> int:
        """Return how many."""
        return 3

    def load(self, i: int) -> np.ndarray:
        """Return one, uint8 (H, W, 3)."""
        rows, columns = np.mgrid[:280, :420]
        lines = (columns + (i + 1) * rows // 6) % (37 + 12 * i) < 2
        fading = 0.5 + 0.5 * np.sin(rows / (15 + 5 * i))
        return np.repeat((150 * lines * fading).astype(np.uint8)[..., None], 3, axis=2)


def shown(image: torch.Tensor) -> np.ndarray:
    """(1 or 3, H, W) -> what matplotlib draws."""
    return image.expand(3, -1, -1).permute(1, 2, 0).numpy()


samples: dict[str, RainSample] = {
    name: render(clean, name, 2, [i], DrawnStreaks()) for i, name in enumerate(list_recipes())
}
figure, axes = plt.subplots(-(-len(samples) // 3), 3, figsize=(12, 2.9 * -(-len(samples) // 3)), layout="constrained")
for axis in axes.flat:
    axis.axis("off")
for axis, (name, sample) in zip(axes.flat, samples.items(), strict=False):
    axis.imshow(shown(sample.rainy[0]))
    axis.set_title(name)
    print(f"{name:14} {about_recipe(name)}")
plt.show()

# %%
# The layers of one sample
# ------------------------
# Every sample returns its clean image, streaks S, map R and transmission. Put together by the imaging model they are
# exactly the rainy image, before the camera.
sample = samples["veil"]
layers = {
    "rainy O": sample.rainy,
    "clean B": sample.clean,
    "streaks S": sample.streak,
    "map R": sample.mask,
    "transmission": sample.transmission,
}
figure, axes = plt.subplots(1, len(layers), figsize=(15, 2.4), layout="constrained")
for axis, (title, layer) in zip(axes, layers.items(), strict=True):
    axis.imshow(shown(layer[0]))
    axis.set_title(title)
    axis.axis("off")
composed = (
    sample.transmission * (sample.clean + sample.streak * sample.mask) + (1 - sample.transmission) * sample.airlight
)
plt.show()
print(f"largest difference of O from a(B + SR) + (1 - a)A: {(composed.clamp(0, 1) - sample.scene).abs().max():.1e}")

# %%
# Make a data set of them with ``sstl synthesize CLEAN -o OUT --recipe veil``, or train on rain that is made as it is
# needed: ``data.paired: [{path: my-dry-photos, recipe: veil}]``.
