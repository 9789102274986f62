"""Matching: narrow a wide recipe until what it renders looks like given photos, without knowing their backgrounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from sstl.errors import SstlError
from sstl.rain.appearance import LEAST_SIDE, appearance
from sstl.rain.camera import Camera
from sstl.rain.recipes import Recipe, load_recipe
from sstl.rain.render import RainSample, render

Array = NDArray[np.float64]

NEIGHBOURS = 12  # draws that are accepted for each photo
KEPT = (0.1, 0.9)  # quantiles of the accepted draws between which a range ends
_BATCH = 8
_DRY = 1e-3  # mean streak below which a draw holds no rain to speak of
_STRENGTH = ("density", "length", "brightness")  # to each of which a layer's light is proportional
_CORRECTIONS = 3  # of the strength: the light of short streaks is not quite proportional to their length
_LOOKED_AT = 96  # draws, to measure it
_LAYER = ("angle_spread", "length", "length_spread", "width", "density", "brightness", "brightness_spread", "blur")
_VEIL = ("attenuation", "transmission", "mist", "airlight")


@dataclass(frozen=True)
class Match:
    """What was found of the rain in photos.

    Attributes:
        recipe: the prior, narrowed to the draws that look like the photos; an ordinary recipe.
        dry: share of the accepted draws that hold no rain, in [0, 1]; near 1 the photos are dry.
        explained: for each aspect of rain, the share of its variance among new draws that its prediction from an
            image's appearance explains, at most 1; what is near 0 cannot be seen and keeps the prior's range.
        estimates: for each aspect, its mean prediction over the photos.
    """

    recipe: Recipe
    dry: float
    explained: dict[str, float]
    estimates: dict[str, float]


def match(
    photos: Tensor,
    clean: Tensor,
    prior: Recipe | str = "any",
    draws: int = 768,
    rounds: int = 2,
    seed: int = 0,
    progress: bool = False,
) -> Match:
    """Find the rain of photos by approximate Bayesian computation.

    Rain of the prior is rendered on clean images; a ridge regression learns to predict each aspect of it from the
    image's appearance; the draws whose predictions are nearest to those of a photo are accepted (semi-automatic ABC,
    Fearnhead and Prangle, JRSS B 2012); the ranges are narrowed to the accepted draws, and become the next round's
    prior. At last the recipe's rain is made as strong as that of the photos (``as_strong``). Deterministic in ``seed``.

    Args:
        photos: crops of rainy photos, (N, 3, S, S) in [0, 1].
        clean: crops of clean photographs of that size, (M, 3, S, S); the more kinds of things they show, the less is
            texture taken for rain.
        prior: the widest rain to consider.
        draws: how many images to render in a round.
        rounds: how many times to narrow.
        seed: of everything random.
        progress: show a progress bar on stderr.

    Raises:
        SstlError: the sizes differ or are too small, or there are too few draws to learn from.
    """
    if photos.shape[1:] != clean.shape[1:] or min(photos.shape[2:]) < LEAST_SIDE:
        raise SstlError(
            f"match needs photos and clean images of one size, {LEAST_SIDE} pixels or more, "
            f"not {tuple(photos.shape[2:])} and {tuple(clean.shape[2:])}."
        )
    if draws < 8 * NEIGHBOURS:
        raise SstlError(f"'draws' is {draws}; match needs at least {8 * NEIGHBOURS}.")
    recipe = load_recipe(prior) if isinstance(prior, str) else prior
    seen = appearance(photos)
    for round_ in range(rounds):
        tried, aspects, parameters = _try(recipe, clean, draws, seed + round_, progress)
        model = _Regression(tried, aspects)
        accepted = _nearest(model.predict(seen) / model.error, model.predict(tried) / model.error)
        recipe = narrowed(recipe, [parameters[i] for i in accepted])
    recipe = as_strong(recipe, float(np.exp(model.predict(seen)[:, 0]).mean()) - _DRY, clean, seed)
    dry = float(np.mean(np.exp(aspects[accepted, 0]) < 2 * _DRY))
    names = list(_aspects_of_one(parameters[0], 0.0, 0.0, 0.0, 0.0, 0.0))
    return Match(
        recipe,
        dry,
        dict(zip(names, model.explained.round(3).tolist(), strict=True)),
        dict(zip(names, model.predict(seen).mean(axis=0).round(4).tolist(), strict=True)),
    )


def _try(
    recipe: Recipe, clean: Tensor, draws: int, seed: int, progress: bool
) -> tuple[Array, Array, list[dict[str, Any]]]:
    """Render draws of a recipe; return their appearances, their aspects and their parameters."""
    rng = np.random.default_rng([seed, 2])
    seen, aspects = [], []
    parameters: list[dict[str, Any]] = []
    for first in tqdm(range(0, draws, _BATCH), desc="match", unit="batch", disable=not progress, leave=False):
        indices = range(first, min(first + _BATCH, draws))
        chosen = clean[torch.from_numpy(rng.integers(len(clean), size=len(indices)))]
        flipped = torch.from_numpy(rng.random(len(indices)) < 0.5).view(-1, 1, 1, 1)
        sample = render(torch.where(flipped, chosen.flip(-1), chosen), recipe, seed, indices)
        seen.append(appearance((sample.rainy * 255).round() / 255))
        aspects.append(_aspects(sample))
        parameters += sample.parameters
    return np.concatenate(seen), np.concatenate(aspects), parameters


def _aspects(sample: RainSample) -> Array:
    """Return what is to be predicted of each image's rain, (B, P)."""
    colour = sample.streak.mean(dim=(2, 3))
    amount = colour.mean(dim=1)
    tint = (colour.amax(dim=1) - colour.amin(dim=1)) / (amount + _DRY)
    upper, lower = ((1 - half).mean(dim=(1, 2, 3)) for half in sample.transmission.chunk(2, dim=2))
    cover = sample.mask.mean(dim=(1, 2, 3))
    numbers = torch.stack([amount, cover, tint, upper, lower], dim=1).tolist()
    rows = [list(_aspects_of_one(p, *row).values()) for p, row in zip(sample.parameters, numbers, strict=True)]
    return np.array(rows, dtype=float)


def _aspects_of_one(
    parameters: dict[str, Any], amount: float, cover: float, tint: float, upper: float, lower: float
) -> dict[str, float]:
    layers, shot = parameters["layers"], parameters["camera"] or {}
    mean = {key: float(np.mean([layer[key] for layer in layers])) if layers else 0.0 for key in (*_LAYER, "angle")}
    return {
        "amount": float(np.log(amount + _DRY)),
        "cover": cover,
        "angle": mean["angle"],
        "directions": float(np.std([layer["angle"] for layer in layers])) + mean["angle_spread"] if layers else 0.0,
        "length": float(np.log1p(mean["length"])),
        "width": mean["width"] + mean["blur"],
        "brightness": mean["brightness"],
        "density": float(np.log1p(sum(layer["density"] for layer in layers))),
        "tint": tint,
        "veil_above": upper,
        "veil_below": lower,
        "airlight": parameters["airlight"] * (upper + lower) / 2,
        "screen": float(parameters["imaging"] == "screen"),
        "lamps": float(parameters["lamps"] > 0),
        "exposure": shot.get("exposure", 1.0),
        "gamma": shot.get("gamma", 1.0),
        "noise": float(np.sqrt(shot.get("noise", 0.0))),
        "resize": shot.get("resize", 1.0),
        "quality": shot.get("quality") or 100.0,
    }


class _Regression:
    """Ridge regression of standardised aspects on standardised appearances; its penalty is chosen on held-out rows."""

    def __init__(self, features: Array, targets: Array) -> None:
        self.mean, self.scale = features.mean(axis=0), features.std(axis=0) + 1e-6
        self.offset, self.spread = targets.mean(axis=0), targets.std(axis=0) + 1e-6
        inputs, wanted = self._standard(features), (targets - self.offset) / self.spread
        held = np.arange(len(inputs)) % 4 == 0
        errors = []
        penalties = (1.0, 10.0, 100.0, 1000.0)
        for penalty in penalties:
            weights = _ridge(inputs[~held], wanted[~held], penalty)
            errors.append(np.mean((inputs[held] @ weights - wanted[held]) ** 2, axis=0))
        best = int(np.argmin(np.mean(errors, axis=1)))
        self.explained = 1 - errors[best]
        # An aspect that cannot be seen is predicted as its mean: divided by its error it moves nothing.
        self.error = self.spread * np.sqrt(np.maximum(errors[best], 1e-3))
        self.weights = _ridge(inputs, wanted, penalties[best])

    def _standard(self, features: Array) -> Array:
        # A photo may look like no draw at all; far out a straight line means nothing.
        standard: Array = ((features - self.mean) / self.scale).clip(-4, 4)
        return np.concatenate([standard, np.ones((len(standard), 1))], axis=1)

    def predict(self, features: Array) -> Array:
        """Return the aspects, in their units."""
        predicted: Array = self._standard(features) @ self.weights * self.spread + self.offset
        return predicted


def _ridge(inputs: Array, targets: Array, penalty: float) -> Array:
    gram = inputs.T @ inputs + penalty * np.eye(inputs.shape[1])
    return np.asarray(np.linalg.solve(gram, inputs.T @ targets), dtype=np.float64)


def _nearest(photos: Array, draws: Array) -> NDArray[np.int64]:
    """Return the indices of the draws nearest to each photo, one after the other."""
    squares = (photos**2).sum(axis=1)[:, None] + (draws**2).sum(axis=1) - 2 * photos @ draws.T
    return np.argsort(squares, axis=1, kind="stable")[:, :NEIGHBOURS].ravel()


def streaks_alone(recipe: Recipe) -> Recipe:
    """Return a recipe without veil and camera: rain that leaves everything between the streaks as it is.

    To be trained on: few clean photographs under a veil, or in another exposure, teach a network to darken whatever is
    not among them.
    """
    models = {name: share for name, share in recipe.imaging.items() if name != "heavy"}
    clear = {key: getattr(Recipe, key) for key in (*_VEIL, "splashes", "occlusion", "camera")}
    return replace(recipe, imaging=models or {"region": 1.0}, **clear)


def narrowed(recipe: Recipe, accepted: Sequence[dict[str, Any]]) -> Recipe:
    """Return a recipe whose ranges are those of accepted draws: of each parameter the middle four fifths.

    Args:
        recipe: the recipe of the draws.
        accepted: parameters as ``render`` returns them.
    """
    # What a scale or a crossing recipe does is in the layers that were drawn.
    changes: dict[str, Any] = {"scale": (1.0, 1.0), "crossing": None}
    changes["layers"] = _whole([len(p["layers"]) for p in accepted])
    layers = [layer for p in accepted for layer in p["layers"]]
    if layers:
        # A faint layer tells little of the rain that is seen.
        weights = [layer["density"] * layer["length"] * layer["brightness"] for layer in layers]
        changes |= {key: _range([layer[key] for layer in layers], weights) for key in _LAYER}
        rainy = [p["layers"] for p in accepted if p["layers"]]
        winds = [float(np.mean([layer["angle"] for layer in own])) for own in rainy]
        apart = [layer["angle"] - wind for own, wind in zip(rainy, winds, strict=True) for layer in own]
        changes |= {"angle": _range(winds), "layer_angle": _range(apart)}
    models = [p["imaging"] for p in accepted]
    shares = {name: models.count(name) / len(models) for name in sorted(set(models))}
    changes["imaging"] = {name: round(share, 3) for name, share in shares.items() if share >= 0.05}
    veiled = [p for p in accepted if p["imaging"] == "heavy"]
    if veiled:
        changes |= {key: _range([p[key] for p in veiled]) for key in _VEIL}
    changes["lamps"] = _whole([p["lamps"] for p in accepted])
    shots = [p["camera"] for p in accepted if p["camera"] is not None]
    if shots:
        camera = {key: _range([shot[key] for shot in shots]) for key in ("exposure", "gamma", "noise", "resize")}
        changes["camera"] = Camera(**camera, quality=_whole([shot["quality"] for shot in shots]))
    return replace(recipe, **changes)


def as_strong(recipe: Recipe, amount: float, clean: Tensor, seed: int) -> Recipe:
    """Return a recipe whose mean streak is ``amount``: density, length and brightness are changed alike.

    Accepted draws of long streaks have few or faint ones. A recipe draws each from its range, whatever the others are,
    and the draws that are strong in all of them make its rain stronger than any photo's.

    Args:
        recipe: without rain it is returned as it is.
        amount: mean of the streaks in [0, 1] over the photos, dry ones included.
        clean: images to render on, (M, 3, S, S).
        seed: of the draws.
    """
    for _ in range(_CORRECTIONS):
        rendered = mean_streak(recipe, clean, seed)
        if rendered <= 0 or amount <= 0:
            break
        factor = (amount / rendered) ** (1 / len(_STRENGTH))
        scaled = {key: tuple(round(factor * end, 4) for end in getattr(recipe, key)) for key in _STRENGTH}
        recipe = replace(recipe, **scaled)  # type: ignore[arg-type]
    return recipe


def mean_streak(recipe: Recipe, clean: Tensor, seed: int) -> float:
    """Return the mean of a recipe's streaks, in [0, 1], over draws on clean images, (M, 3, S, S)."""
    found = []
    for first in range(0, _LOOKED_AT, _BATCH):
        indices = range(first, first + _BATCH)
        found.append(float(render(clean[[i % len(clean) for i in indices]], recipe, seed, indices).streak.mean()))
    return float(np.mean(found))


def _range(values: Sequence[float], weights: Sequence[float] | None = None) -> tuple[float, float]:
    ordered = np.argsort(values)
    share = np.cumsum((np.ones(len(values)) if weights is None else np.asarray(weights))[ordered])
    low, high = (float(np.asarray(values)[ordered[np.searchsorted(share, kept * share[-1])]]) for kept in KEPT)
    return round(low, 4), round(high, 4)


def _whole(values: Sequence[int]) -> tuple[int, int]:
    low, high = _range([float(value) for value in values])
    return int(low), int(high)
