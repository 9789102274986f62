"""Fit the recipes rain100l_like and rain100h_like to the streaks of the training pairs, and report what is left.

SSTL_DATA=/path/to/data python experiments/rain-fit/fit.py        (about five minutes on one core)

A random local search over the ranges of a recipe; what it minimises is the mean distance of six numbers' distributions
(``sstl.rain.statistics``). Writes the recipes into the package and results.json beside this script.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor
from tqdm import tqdm

from sstl.data import SourceConfig, open_pairs
from sstl.ops.files import write_atomic
from sstl.rain import Recipe, load_recipe, render, streak_layer
from sstl.rain.recipes import FOLDER
from sstl.rain.statistics import StreakStatistics, distances, streak_statistics
from sstl.report.environment import environment

HERE = Path(__file__).resolve().parent
STARTS = {"rain100l": "light", "rain100h": "heavy"}
ABOUT = {
    "rain100l": "Rain fitted to the streaks of Rain100L's training pairs (experiments/rain-fit).",
    "rain100h": "Rain fitted to the streaks of Rain100H's training pairs (experiments/rain-fit).",
}
FITTED = ("angle", "layer_angle", "angle_spread", "length", "length_spread", "width", "density", "brightness",
          "brightness_spread", "blur", "layers")  # fmt: skip
SIGNED = ("angle", "layer_angle")
ROUNDS, IMAGES, SIDE, SEED = 200, 44, 192, 1


def crops(name: str) -> tuple[Tensor, Tensor]:
    """Return rainy and clean crops of the middle of training pairs, (IMAGES, 3, SIDE, SIDE); few pairs serve again."""
    pairs = open_pairs(SourceConfig("manifest.csv", split="train", set=name))
    layers: list[list[Tensor]] = [[], []]
    rng = np.random.default_rng(SEED)
    for i in range(IMAGES):
        images = pairs.load(i % len(pairs))
        top, left = (int(rng.integers(images[0].shape[axis] - SIDE + 1)) for axis in (0, 1))
        for layer, image in zip(layers, images, strict=True):
            cut = np.ascontiguousarray(image[top : top + SIDE, left : left + SIDE])
            layer.append(torch.from_numpy(cut).permute(2, 0, 1) / 255)
    return torch.stack(layers[0]), torch.stack(layers[1])


def measured(rainy: Tensor, clean: Tensor) -> list[StreakStatistics]:
    """Measure the streaks of pairs."""
    return [streak_statistics(layer) for layer in streak_layer(rainy, clean)]


def distance(recipe: Recipe, clean: Tensor, true: list[StreakStatistics], seed: int) -> dict[str, float]:
    """Render the recipe on the clean crops and compare."""
    sample = render(clean, recipe, seed, range(len(clean)))
    return distances(measured((sample.rainy * 255).round() / 255, clean), true)


def changed(recipe: Recipe, rng: np.random.Generator) -> Recipe | None:
    """Return the recipe with two of its ranges moved or widened; None if that makes no recipe."""
    changes: dict[str, Any] = {}
    for name in rng.choice(FITTED, 2, replace=False):
        low, high = getattr(recipe, name)
        if name == "layers":
            low, high = (int(v + rng.integers(-1, 2)) for v in (low, high))
            changes[name] = (max(low, 1), max(high, 1))
        elif name in SIGNED:
            changes[name] = tuple(round(float(v + 4 * rng.standard_normal()), 1) for v in (low, high))
        else:
            changes[name] = tuple(
                round(float(max(v, 0.01) * np.exp(0.25 * rng.standard_normal())), 3) for v in (low, high)
            )
    try:
        return dataclasses.replace(recipe, **changes)
    except ValueError:
        return None


def fit(name: str) -> tuple[Recipe, dict[str, Any]]:
    """Search from the start recipe and return the best recipe, with its distances on rain of another seed."""
    rainy, clean = crops(name)
    true = measured(rainy, clean)
    best = start = load_recipe(STARTS[name])
    lowest = np.mean(list(distance(best, clean, true, SEED).values()))
    rng = np.random.default_rng(SEED)
    for _ in tqdm(range(ROUNDS), desc=name, unit="recipe"):
        candidate = changed(best, rng)
        if candidate is None:
            continue
        found = np.mean(list(distance(candidate, clean, true, SEED).values()))
        if found < lowest:
            best, lowest = candidate, found
    return best, {
        "pairs": len(open_pairs(SourceConfig("manifest.csv", split="train", set=name))),
        "before": distance(start, clean, true, SEED + 1),
        "after": distance(best, clean, true, SEED + 1),
    }


def main() -> None:
    """Fit both and write everything."""
    results: dict[str, Any] = {"command": "python experiments/rain-fit/fit.py", "unit": "true standard deviations"}
    for name in STARTS:
        recipe, results[name] = fit(name)
        plain = {
            f.name: list(value) if isinstance(value := getattr(recipe, f.name), tuple) else value
            for f in dataclasses.fields(recipe)
            if f.name in FITTED or f.name == "imaging"
        }
        text = yaml.safe_dump(plain, sort_keys=False, default_flow_style=None)
        write_atomic(FOLDER / f"{name}_like.yaml", f"# {ABOUT[name]}\n{text}")
        print(json.dumps({name: results[name]}, indent=1))
    results["environment"] = environment()
    write_atomic(HERE / "results.json", json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
