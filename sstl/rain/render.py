"""Rendering: from a recipe and clean images to rainy ones with all their layers, a function of (seed, index) alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from sstl.errors import SstlError
from sstl.rain import imaging, scene
from sstl.rain.camera import Shot, capture, develop, draw_shot
from sstl.rain.recipes import Recipe, load_recipe
from sstl.rain.streaks import StreakLayer, blur, render_layers, splat


class StreakImages(Protocol):
    """Photographed streaks: bright on black, uint8 (H, W, 3) each; any image source is one."""

    def __len__(self) -> int:
        """Return how many there are."""

    def load(self, i: int, /) -> np.ndarray:
        """Return image ``i``."""


@dataclass(frozen=True)
class RainSample:
    """Rendered rain with its truth; float32 in [0, 1], BCHW.

    Attributes:
        clean: the background B, as the camera developed it.
        rainy: what the camera made of ``scene``; the same without a camera.
        scene: clip(compose(clean, streak, mask, veil)), before the camera.
        streak: S, zero where the map is zero.
        mask: the rain map R of ``streak``, (B, 1, H, W).
        transmission: of the veil, (B, 1, H, W); 1 where there is none.
        airlight: of the veil, (B, 3, 1, 1).
        imaging: the imaging model of each image.
        parameters: what was drawn for each image, as plain values.
    """

    clean: Tensor
    rainy: Tensor
    scene: Tensor
    streak: Tensor
    mask: Tensor
    transmission: Tensor
    airlight: Tensor
    imaging: tuple[str, ...]
    parameters: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class _Drawn:
    """The parameters of one image, and its generator for what is random in the effects."""

    imaging: str
    layers: list[StreakLayer]
    distances: list[float]
    depth: Tensor
    beta: float
    mist: float
    splashes: float
    lamps: int
    light: Tensor
    shot: Shot | None
    effects: np.random.Generator


def check_streaks(recipe: Recipe, streaks: StreakImages | None) -> None:
    """Refuse a recipe that lays photographed streaks where there are none: SstlError."""
    if recipe.photographed[1] and not streaks:
        raise SstlError("this recipe lays photographed streaks; give a folder of them (--streaks; see docs/data.md).")


def render(
    clean: Tensor, recipe: Recipe | str, seed: int, indices: Sequence[int], streaks: StreakImages | None = None
) -> RainSample:
    """Rain on clean images.

    Args:
        clean: backgrounds, (B, 3, H, W) in [0, 1].
        recipe: a recipe or its name.
        seed, indices: image i depends only on (recipe, seed, indices[i]) and its size, not on its batch or the device.
        streaks: images for a recipe that lays photographed streaks.

    Returns:
        The rainy images with their layers, on the device of ``clean``.

    Raises:
        SstlError: the recipe needs photographed streaks and there are none.
    """
    recipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
    check_streaks(recipe, streaks)
    generators = [np.random.default_rng([seed, index]) for index in indices]
    height, width = clean.shape[-2:]
    models = [_choose(recipe.imaging, rng) for rng in generators]
    layers = [_draw_layers(recipe, rng) for rng in generators]
    drawn = [
        _draw(recipe, model, own, height, width, np.random.default_rng([seed, index, 1]))
        for model, own, index in zip(models, layers, indices, strict=True)
    ]
    visible = [[scene.occlusion(d.depth, z) for z in d.distances] for d in drawn] if recipe.occlusion else None
    grey = render_layers(layers, height, width, generators, visible) + _splashes(drawn, height, width)
    streak = (grey * torch.stack([d.light for d in drawn])).clamp(max=1)
    if streaks is not None and recipe.photographed[1]:
        streak = torch.stack([_photographed(recipe, streaks, height, width, d.effects) for d in drawn])
    veils = [_veil(recipe, d, height, width, rng) for d, rng in zip(drawn, generators, strict=True)]
    transmission = torch.stack([veil.transmission for veil in veils]).to(clean)
    airlight = torch.tensor([veil.airlight for veil in veils]).view(-1, 1, 1, 1).expand(-1, 3, -1, -1).to(clean)
    developed = torch.stack(
        [image if d.shot is None else develop(image, d.shot.exposure, d.shot.gamma)
         for image, d in zip(clean, drawn, strict=True)]
    )  # fmt: skip
    sample = compose(developed, streak.to(clean), transmission, airlight, models)
    parameters = tuple(_parameters(d, veil) for d, veil in zip(drawn, veils, strict=True))
    return RainSample(**{**vars(sample), "rainy": _captured(sample.scene, drawn), "parameters": parameters})


def compose(clean: Tensor, streak: Tensor, transmission: Tensor, airlight: Tensor, models: Sequence[str]) -> RainSample:
    """Put streak layers (any source, e.g. photographed ones) over clean images by each image's imaging model."""
    mask = imaging.rain_map(streak)
    streak = streak * mask
    screened = torch.tensor([model == "screen" for model in models], device=clean.device).view(-1, 1, 1, 1)
    rainy = torch.where(
        screened, imaging.screen(clean, streak), imaging.heavy(clean, streak, mask, transmission, airlight)
    ).clamp(0, 1)
    return RainSample(clean, rainy, rainy, streak, mask, transmission, airlight, tuple(models))


def _choose(weights: dict[str, float], rng: np.random.Generator) -> str:
    names = sorted(weights)
    shares = np.array([weights[name] for name in names])
    return names[int(rng.choice(len(names), p=shares / shares.sum()))]


def _draw_layers(recipe: Recipe, rng: np.random.Generator) -> list[StreakLayer]:
    wind = rng.uniform(*recipe.angle)
    layers = _in_wind(recipe, wind, rng)
    if recipe.crossing:
        layers += _in_wind(load_recipe(recipe.crossing), wind, rng)
    return layers


def _in_wind(recipe: Recipe, wind: float, rng: np.random.Generator) -> list[StreakLayer]:
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
                blur=rng.uniform(*recipe.blur) * scale,
                tapered=recipe.tapered,
            )
        )
    return layers


def _draw(
    recipe: Recipe, model: str, layers: list[StreakLayer], height: int, width: int, rng: np.random.Generator
) -> _Drawn:
    """Draw what the scene and the camera add; a generator of its own keeps the streaks what they are without it."""
    deep = recipe.occlusion or recipe.attenuation[1] or recipe.mist[1] or recipe.splashes[1]
    depth = scene.depth_field(height, width, rng) if deep else torch.zeros(height, width)
    beta, mist, splashes = (
        float(rng.uniform(*bounds)) for bounds in (recipe.attenuation, recipe.mist, recipe.splashes)
    )
    lamps = int(rng.integers(recipe.lamps[0], recipe.lamps[1] + 1))
    return _Drawn(
        imaging=model,
        layers=layers,
        # A layer's scale is 1 / distance: the nearest is the longest.
        distances=[float(np.clip(min(recipe.length) / layer.length, 0, 1)) for layer in layers],
        depth=depth,
        beta=beta,
        mist=mist,
        splashes=splashes,
        lamps=lamps,
        light=scene.lamps(height, width, lamps, recipe.tint, rng),
        shot=None if recipe.camera is None else draw_shot(recipe.camera, rng),
        effects=rng,
    )


def _splashes(drawn: Sequence[_Drawn], height: int, width: int) -> Tensor:
    if not any(d.splashes for d in drawn):
        return torch.zeros(len(drawn), 1, height, width)
    points = [
        scene.splash_points(d.depth, d.splashes, max((layer.brightness for layer in d.layers), default=0.2), d.effects)
        for d in drawn
    ]
    return blur(splat(points, height, width), [0.6] * len(drawn))


def _photographed(recipe: Recipe, images: StreakImages, height: int, width: int, rng: np.random.Generator) -> Tensor:
    """The sum of a few streak images, cropped, flipped and weighted at random, (3, height, width), clipped at 1."""
    total = np.zeros((height, width, 3), dtype=np.float32)
    for _ in range(rng.integers(recipe.photographed[0], recipe.photographed[1] + 1)):
        image = images.load(int(rng.integers(len(images))))
        pad = [(0, max(0, height - image.shape[0])), (0, max(0, width - image.shape[1])), (0, 0)]
        image = np.pad(image, pad, mode="symmetric")
        top, left = (int(rng.integers(image.shape[axis] - side + 1)) for axis, side in ((0, height), (1, width)))
        crop = image[top : top + height, left : left + width].astype(np.float32) / 255
        total += float(rng.uniform(*recipe.gain)) * (crop[:, ::-1] if rng.random() < 0.5 else crop)
    return torch.from_numpy(total.clip(0, 1)).permute(2, 0, 1)


class _Veil(NamedTuple):
    transmission: Tensor  # (1, height, width)
    airlight: float  # grey
    even: float  # the mean of what does not depend on depth


def _veil(recipe: Recipe, drawn: _Drawn, height: int, width: int, rng: np.random.Generator) -> _Veil:
    if drawn.imaging != "heavy":
        return _Veil(torch.ones(1, height, width), recipe.airlight[0], 1.0)
    # A smooth random transmission: four random corners, interpolated.
    corners = torch.from_numpy(rng.uniform(*recipe.transmission, (1, 1, 2, 2)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(corners, (height, width), mode="bilinear", align_corners=True)[0]
    airlight = float(rng.uniform(*recipe.airlight))
    deep = scene.attenuation(drawn.depth, drawn.beta) * scene.mist(drawn.depth, drawn.mist)
    return _Veil(smooth * deep, airlight, float(corners.mean()))


def _captured(scenes: Tensor, drawn: Sequence[_Drawn]) -> Tensor:
    if all(d.shot is None for d in drawn):
        return scenes
    images = [capture(image.cpu(), d.shot, d.effects) for image, d in zip(scenes, drawn, strict=True) if d.shot]
    return torch.stack(images).to(scenes)


def _parameters(drawn: _Drawn, veil: _Veil) -> dict[str, Any]:
    return {
        "imaging": drawn.imaging,
        "layers": [asdict(layer) for layer in drawn.layers],
        "airlight": veil.airlight,
        "transmission": veil.even,
        "attenuation": drawn.beta,
        "mist": drawn.mist,
        "splashes": drawn.splashes,
        "lamps": drawn.lamps,
        "camera": None if drawn.shot is None else asdict(drawn.shot),
    }
