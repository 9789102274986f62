"""Rain as a transform of torchvision.transforms.v2, to train detectors and segmenters for bad weather."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from sstl.compat import import_torchvision_user
from sstl.errors import SstlError
from sstl.rain.recipes import Recipe, load_recipe
from sstl.rain.render import StreakImages, render

Transform: Any = import_torchvision_user("torchvision.transforms.v2").Transform
F = import_torchvision_user("torchvision.transforms.v2.functional")
tv_tensors = import_torchvision_user("torchvision.tv_tensors")


class AddRain(Transform):  # type: ignore[misc]
    """Rain on the images of a sample, and leave boxes, masks, key points and labels as they are.

    Takes whatever a v2 transform takes: PIL images (RGB or L), ``tv_tensors.Image`` and ``Video``, plain tensors
    (..., C, H, W), C = 3 or 1, uint8 or floating-point in [0, 1], and any nesting of them with targets. Kind, size and
    dtype stay. All images of a sample, and all frames of a video, get rain of one seed, each its own streaks.

    The rain follows from torch's global generator, as in other transforms: ``torch.manual_seed`` makes it repeatable,
    and loader workers differ. It is rendered on the processor.

    Args:
        recipe: the name of a recipe (see ``sstl.list_recipes``), a YAML file, or a ``Recipe``.
        p: how often it rains.
        streaks: images for a recipe that lays photographed streaks.

    Raises:
        SstlError: there is no such recipe, it needs streaks, or ``p`` is no probability.
    """

    def __init__(
        self, recipe: str | Path | Recipe = "mixed", p: float = 1.0, streaks: StreakImages | None = None
    ) -> None:
        super().__init__()
        self.recipe = checked_recipe(recipe, p, streaks)
        self.p, self.streaks = p, streaks

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:  # noqa: ARG002 (torchvision's signature)
        """Draw whether it rains, and the seed."""
        return {"rains": bool(torch.rand(()) < self.p), "seed": draw_seed()}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Return an image with rain, and anything else as it is."""
        other = isinstance(inpt, tv_tensors.TVTensor) and not isinstance(inpt, tv_tensors.Image | tv_tensors.Video)
        if other or not params["rains"]:
            return inpt
        if isinstance(inpt, Image.Image):
            grey = inpt.mode == "L"
            planes = F.pil_to_tensor(inpt if grey else inpt.convert("RGB"))
            return F.to_pil_image(self._rain(planes, params["seed"]))
        return tv_tensors.wrap(self._rain(inpt, params["seed"]), like=inpt)

    def _rain(self, planes: Tensor, seed: int) -> Tensor:
        if planes.ndim < 3 or planes.size(-3) not in (1, 3):
            raise SstlError(f"AddRain: an image of shape {tuple(planes.shape)}; give (..., 3, H, W) or (..., 1, H, W).")
        images = planes.as_subclass(Tensor).reshape(-1, *planes.shape[-3:])
        clean = F.to_dtype(images, torch.float32, scale=True)
        rainy = render(clean.expand(-1, 3, -1, -1), self.recipe, seed, range(len(clean)), self.streaks).rainy
        if planes.size(-3) == 1:
            rainy = rainy.mean(dim=1, keepdim=True)
        return F.to_dtype(rainy.reshape(planes.shape), planes.dtype, scale=True)  # type: ignore[no-any-return]


def checked_recipe(recipe: str | Path | Recipe, p: float, streaks: StreakImages | None) -> Recipe:
    """Return the recipe of a transform; SstlError if it or the probability cannot be used."""
    if not 0 <= p <= 1:
        raise SstlError(f"p is {p}; it must be between 0 and 1.")
    found = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    if found.photographed[1] and not streaks:
        raise SstlError("this recipe lays photographed streaks; give them as streaks, or take another recipe.")
    return found


def draw_seed() -> int:
    """Draw the seed of a rain from torch's global generator."""
    return int(torch.randint(2**31, ()))
