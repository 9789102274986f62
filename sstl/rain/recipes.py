"""Recipes: named ranges of rain, drawn anew for each image from (seed, index)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sstl.config import load_config
from sstl.errors import SstlError, did_you_mean
from sstl.rain import imaging
from sstl.rain.streaks import StreakLayer, render_layers

FOLDER = Path(__file__).parent / "recipes"
Range = tuple[float, float]


@dataclass(frozen=True)
class Recipe:
    """Ranges from which the parameters of one image's rain are drawn uniformly; units as in ``StreakLayer``.

    Attributes:
        imaging: relative frequency of the imaging models ``region``, ``screen`` and ``heavy``.
        layers: smallest and largest number of streak layers; they share the image's wind.
        angle: direction of the wind; ``layer_angle`` is how far a layer's direction departs from it.
        transmission, airlight: the veil, for ``heavy``: a grey airlight over a smooth random transmission.
        scale: factor that a layer's length and width share, so that near layers are long and wide.
    """

    angle: Range
    length: Range
    density: Range
    brightness: Range
    imaging: dict[str, float] = field(default_factory=lambda: {"region": 1.0})
    layers: tuple[int, int] = (1, 1)
    layer_angle: Range = (0.0, 0.0)
    angle_spread: Range = (1.0, 1.0)
    length_spread: Range = (0.2, 0.2)
    width: Range = (1.0, 1.5)
    brightness_spread: Range = (0.3, 0.3)
    blur: Range = (0.0, 0.0)
    scale: Range = (1.0, 1.0)
    transmission: Range = (1.0, 1.0)
    airlight: Range = (0.7, 0.7)

    def __post_init__(self) -> None:
        """Refuse ranges that are upside down, unknown imaging models and an empty choice of them (ValueError)."""
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, tuple) and value[0] > value[1]:
                raise ValueError(f"'{f.name}' is {list(value)}; the smaller value comes first.")
            if isinstance(value, tuple) and value[0] < 0 and f.name not in ("angle", "layer_angle"):
                raise ValueError(f"'{f.name}' is {list(value)}; it must not be negative.")
        unknown = set(self.imaging) - {"region", "screen", "heavy"}
        if unknown or not sum(self.imaging.values()) > 0 or min(self.imaging.values()) < 0:
            raise ValueError(f"'imaging' is {self.imaging}; give weights to region, screen or heavy.")


@dataclass(frozen=True)
class RainSample:
    """Rendered rain with its truth; float32 in [0, 1], BCHW.

    Attributes:
        clean: the background B.
        rainy: clip(compose(clean, streak, mask, veil)).
        streak: S, zero where the map is zero.
        mask: the rain map R of ``streak``, (B, 1, H, W).
        transmission: of the veil, (B, 1, H, W); 1 where there is none.
        airlight: of the veil, (B, 3, 1, 1).
        imaging: the imaging model of each image.
    """

    clean: Tensor
    rainy: Tensor
    streak: Tensor
    mask: Tensor
    transmission: Tensor
    airlight: Tensor
    imaging: tuple[str, ...]


def list_recipes() -> list[str]:
    """Return the names of the recipes in the package, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Return a recipe of the package by name, or one from a YAML file; SstlError or ConfigError if there is none."""
    if str(name_or_path) in list_recipes():
        return load_config(Recipe, FOLDER / f"{name_or_path}.yaml")
    if Path(name_or_path).suffix not in (".yaml", ".yml"):
        raise SstlError(f"unknown recipe '{name_or_path}'.{did_you_mean(str(name_or_path), list_recipes())}")
    return load_config(Recipe, name_or_path)


def render(clean: Tensor, recipe: Recipe | str, seed: int, indices: Sequence[int]) -> RainSample:
    """Rain on clean images.

    Args:
        clean: backgrounds, (B, 3, H, W) in [0, 1].
        recipe: a recipe or its name.
        seed, indices: image i depends only on (recipe, seed, indices[i]) and its size, not on its batch or the device.

    Returns:
        The rainy images with their layers, on the device of ``clean``.
    """
    recipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
    generators = [np.random.default_rng([seed, index]) for index in indices]
    height, width = clean.shape[-2:]
    models = [_choose(recipe.imaging, rng) for rng in generators]
    layers = [_draw_layers(recipe, rng) for rng in generators]
    streak = render_layers(layers, height, width, generators).clamp(max=1)
    veils = [_draw_veil(recipe, model, height, width, rng) for model, rng in zip(models, generators, strict=True)]
    transmission = torch.stack([veil[0] for veil in veils]).to(clean)
    airlight = torch.tensor([veil[1] for veil in veils]).view(-1, 1, 1, 1).expand(-1, 3, -1, -1).to(clean)
    return compose(clean, streak.to(clean).expand(-1, 3, -1, -1), transmission, airlight, models)


def compose(clean: Tensor, streak: Tensor, transmission: Tensor, airlight: Tensor, models: Sequence[str]) -> RainSample:
    """Put streak layers (any source, e.g. photographed ones) over clean images by each image's imaging model."""
    mask = imaging.rain_map(streak)
    streak = streak * mask
    screened = torch.tensor([model == "screen" for model in models], device=clean.device).view(-1, 1, 1, 1)
    rainy = torch.where(
        screened, imaging.screen(clean, streak), imaging.heavy(clean, streak, mask, transmission, airlight)
    )
    return RainSample(clean, rainy.clamp(0, 1), streak, mask, transmission, airlight, tuple(models))


def _choose(weights: dict[str, float], rng: np.random.Generator) -> str:
    names = sorted(weights)
    shares = np.array([weights[name] for name in names])
    return names[int(rng.choice(len(names), p=shares / shares.sum()))]


def _draw_layers(recipe: Recipe, rng: np.random.Generator) -> list[StreakLayer]:
    wind = rng.uniform(*recipe.angle)
    layers = []
    for _ in range(rng.integers(recipe.layers[0], recipe.layers[1] + 1)):
        scale = rng.uniform(*recipe.scale)
        layers.append(
            StreakLayer(
                angle=wind + rng.uniform(*recipe.layer_angle),
                angle_spread=rng.uniform(*recipe.angle_spread),
                length=rng.uniform(*recipe.length) * scale,
                length_spread=rng.uniform(*recipe.length_spread),
                width=rng.uniform(*recipe.width) * scale,
                density=rng.uniform(*recipe.density) / scale**2,
                brightness=rng.uniform(*recipe.brightness),
                brightness_spread=rng.uniform(*recipe.brightness_spread),
                blur=rng.uniform(*recipe.blur),
            )
        )
    return layers


def _draw_veil(recipe: Recipe, model: str, height: int, width: int, rng: np.random.Generator) -> tuple[Tensor, float]:
    """Return a smooth transmission, (1, height, width), and a grey airlight; full transmission without a veil."""
    if model != "heavy":
        return torch.ones(1, height, width), recipe.airlight[0]
    # A stand-in for depth: four random corners, interpolated; distant parts see more rain.
    corners = torch.from_numpy(rng.uniform(*recipe.transmission, (1, 1, 2, 2)).astype(np.float32))
    field_ = torch.nn.functional.interpolate(corners, (height, width), mode="bilinear", align_corners=True)
    return field_[0], float(rng.uniform(*recipe.airlight))
