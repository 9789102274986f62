"""Rain as an augmentation of kornia, for batches of tensors on any device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sstl.compat import import_torchvision_user
from sstl.errors import SstlError
from sstl.rain.recipes import Recipe
from sstl.rain.render import StreakImages, render
from sstl.rain.transforms import checked_recipe, draw_seed

IntensityAugmentation: Any = import_torchvision_user("kornia.augmentation").IntensityAugmentationBase2D


class RandomRecipeRain(IntensityAugmentation):  # type: ignore[misc]
    """Rain of a recipe on a batch (B, 3, H, W) in [0, 1], as other intensity augmentations of kornia.

    It may stand in ``AugmentationSequential``; masks, boxes and key points stay as they are. Which images it rains on
    and with which seed is in ``_params``, so that a call can be repeated with ``params=``. Gradients pass to the images
    unless the recipe has a camera. (``kornia.augmentation.RandomRain`` draws grey lines of one length and direction.)

    Args:
        recipe: the name of a recipe (see ``sstl.list_recipes``), a YAML file, or a ``Recipe``.
        streaks: images for a recipe that lays photographed streaks.
        same_on_batch: the same rain on all images.
        p: how often it rains on an image.
        keepdim: give (3, H, W) for (3, H, W).

    Raises:
        SstlError: there is no such recipe, it needs streaks, or ``p`` is no probability.
    """

    def __init__(
        self,
        recipe: str | Path | Recipe = "mixed",
        streaks: StreakImages | None = None,
        same_on_batch: bool = False,
        p: float = 0.5,
        keepdim: bool = False,
    ) -> None:
        found = checked_recipe(recipe, p, streaks)
        super().__init__(p=p, same_on_batch=same_on_batch, p_batch=1.0, keepdim=keepdim)
        self.recipe, self.streaks = found, streaks

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        """Draw the seed, and number the images that it rains on."""
        count = batch_shape[0]
        index = torch.zeros(count, dtype=torch.long) if self.same_on_batch else torch.arange(count)
        return {"seed": torch.full((count,), draw_seed()), "index": index}

    def apply_transform(
        self,
        input: Tensor,  # kornia's name
        params: dict[str, Tensor],
        flags: dict[str, Any],  # noqa: ARG002
        transform: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the same with rain."""
        if input.size(1) != 3:
            raise SstlError(f"RandomRecipeRain: images of shape {tuple(input.shape)}; give (B, 3, H, W) in [0, 1].")
        if not len(input):
            return input
        return render(input, self.recipe, int(params["seed"][0]), params["index"].tolist(), self.streaks).rainy.to(
            input
        )
