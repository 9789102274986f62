"""
Detect, estimate, restore: R, S and B
=====================================

The imaging model is O = B + S·R: the observed image O is the background B with streaks of intensity S where the binary
map R is 1. A joint network answers three questions in this order: where does it rain (R), how bright is the rain (S),
and what is behind it (B). This page trains a small one of three stages, shows what each stage answers under light and
under heavy rain, and then looks at what the map is good for.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from sstl.data.files import BundledImages, Image
from sstl.data.stream import PairedPart
from sstl.engine import DataConfig, MethodConfig, NetworkConfig, OptimizerConfig, TrainConfig, train
from sstl.methods.base import every_stage
from sstl.metrics import detection, f1_of_all_ones, matlab_luma, psnr
from sstl.networks import load_weights
from sstl.rain import rain_map, streak_layer
from sstl.report.evaluation import RenderedPairs

STEPS = 40 if "SSTL_TUTORIAL_SECONDS" in os.environ else 450
STAGES = 3
RAINS = ("light", "heavy")
ROWS = Path(sys.argv[0]).resolve().parents[2] / "experiments" / "systems" / "rows"
FILES = {"with map": ROWS / "joint.json", "without map": ROWS / "joint-no_map.json"}
for file in FILES.values():
    if not file.is_file():
        raise SystemExit(f"{file} is missing; write it with 'python experiments/systems/run.py'.")

Answer = dict[str, np.ndarray]
"""R (H, W, 1), S·R and B (H, W, 3), in [0, 1]: what a stage says, or the truth."""


# %%
# Training
# --------
#
# A narrow ``jorder_r``: one network takes rain away three times, each time from what the last time left (progressive
# removal). S·R is the sum of what was taken so far, R is where any stage so far found rain. All stages are trained, on
# three photographs from scikit-image. Half of the crops get thin rain (the recipe ``light``), the other half dense rain
# of several directions (``heavy``). The loss is the squared error of each image, on a scale that keeps heavy rain from
# drowning light rain (``balance``).


def recipe(output: Path) -> TrainConfig:
    """Return the training."""
    rains = tuple(PairedPart("bundled", split="train", recipe=rain) for rain in RAINS)
    return TrainConfig(
        output=output,
        data=DataConfig(paired=rains, crop=48, workers=0),
        network=NetworkConfig("jorder_r", {"width": 16, "recurrences": 1, "stages": STAGES}),
        method=MethodConfig("supervised", {"distance": "mse", "balance": 1e-3, "mask": 3e-3}),
        optimizer=OptimizerConfig(lr=5e-3, warmup_steps=10),
        steps=STEPS,
        batch_size=4,
        ema_decay=0.98,
        picture_every=0,
    )


with TemporaryDirectory() as folder:
    network = load_weights(train(recipe(Path(folder) / "run"))).network

# %%
# Stage by stage
# --------------
#
# The rows are the three answers, the columns the three stages and the truth. S·R is what the imaging model takes away.
# The photographs were not trained on. In brackets behind each map's F1 stands the F1 of a map that is 1 everywhere: an
# answer is worth something only above it.


def answers(rainy: Image, clean: Image) -> tuple[list[Answer], Answer]:
    """Return the answers of all stages, first to last, and the true one."""
    observed, background = (torch.tensor(image).movedim(-1, 0)[None] / 255 for image in (rainy, clean))
    with torch.inference_mode():
        stages = every_stage(network(observed))
    streak = streak_layer(observed, background)
    return [_answer(s.mask, s.removed, s.background) for s in stages], _answer(rain_map(streak), streak, background)


def _answer(*layers: Tensor) -> Answer:
    arrays = [layer[0].clamp(0, 1).movedim(0, -1).numpy() for layer in layers]
    return dict(zip(("R", "S·R", "B"), arrays, strict=True))


def decibels(image: np.ndarray, true: Answer) -> float:
    """Return the luma PSNR of an image in [0, 1] against the true background."""
    return psnr(*(matlab_luma((255 * picture).round().astype(np.uint8)) for picture in (image, true["B"])))


def f1(answer: Answer, true: Answer) -> float:
    """Return the F1 of a map, cut at one half."""
    return detection(answer["R"] > 0.5, true["R"] > 0.5).f1


def draw_stages(rainy: Image, clean: Image, top: int, left: int, side: int = 96) -> Figure:
    """Draw all answers within a square of a pair, enlarged."""
    stages, true = answers(rainy, clean)
    figure, axes = plt.subplots(3, 2 + STAGES, figsize=(12, 7.9), layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    axes[0, 0].imshow(rainy[top : top + side, left : left + side], interpolation="nearest")
    axes[0, 0].set_title(f"O, {decibels(rainy / 255, true):.2f} dB", fontsize="medium")
    axes[1, 0].imshow(rainy)
    axes[1, 0].add_patch(Rectangle((left, top), side, side, fill=False, color="white", linewidth=1.5))
    all_ones = f1_of_all_ones(true["R"] > 0.5)
    for k, answer in enumerate([*stages, true]):
        told = {
            "R": f"F1 {f1(answer, true):.2f} ({all_ones:.2f})",
            "S·R": f"mean {255 * answer['S·R'].mean():.1f} of 255",
            "B": f"{decibels(answer['B'], true):.2f} dB" if answer is not true else "",
        }
        for axis, (name, layer) in zip(axes[:, k + 1], answer.items(), strict=True):
            part = layer[top : top + side, left : left + side]
            axis.imshow(part if name == "B" else part.mean(axis=2), "gray", vmin=0, vmax=1, interpolation="nearest")
            where = "the truth" if answer is true else f"stage {k + 1}"
            axis.set_title(f"{name}, {where}\n{told[name]}", fontsize="medium")
    return figure


pairs = {rain: RenderedPairs(BundledImages("dev"), rain, count=6, seed=1) for rain in RAINS}
for rain in RAINS:
    draw_stages(*pairs[rain].load(0), top=100, left=176)
plt.show()

# %%
# One picture proves little; here are the means over six pairs of each rain, and whether a later stage is a better one.

for rain in RAINS:
    scores = []
    for i in range(len(pairs[rain])):
        rainy, clean = pairs[rain].load(i)
        stages, true = answers(rainy, clean)
        scores.append([decibels(rainy / 255, true), *(decibels(stage["B"], true) for stage in stages)])
    means = np.mean(scores, axis=0)
    print(f"{rain}: input {means[0]:.2f} dB; " + ", ".join(f"stage {k + 1} {means[k + 1]:.2f}" for k in range(STAGES)))
    last = sum(score[-1] > score[1] for score in scores)
    print(
        f"  the last stage beats the first on {last} of {len(scores)} pairs, {means[-1] - means[1]:+.2f} dB in the mean"
    )

# %%
# What the map is good for
# ------------------------
#
# A network that is not told where it rains must decide at every pixel by how much to change it, also where nothing is
# to be changed. That is how rain-free texture gets lost: it looks a little like rain, and taking a little of it away
# costs little. With R as an answer of its own, which is trained as such, S·R can be next to nothing there. So much for
# the argument. ``experiments/systems/run.py`` has trained ``joint`` with its map and without (``detect=False``, R = 1
# everywhere) under one recipe and one budget. The figure shows both on the pixels where it does not rain and on those
# where it does (PSNR of the luma, 95 % interval over the images).
#
# The two panels belong together. A network that changes nothing keeps rain-free pixels perfectly, as the input does.

measured = {name: json.loads(file.read_text(encoding="utf-8")) for name, file in FILES.items()}
for name, row in measured.items():
    print(f"{name}: {row['steps']} steps, {row['crops']} crops, {row['cpu_seconds']:g} s of processor time")
sets = list(measured["with map"]["scores"])
PIXELS = {"psnr_free": "pixels without rain", "psnr_rain": "pixels with rain"}


def summary(name: str, of_set: str, metric: str) -> dict[str, Any]:
    """Return the mean and the interval of "input", "with map" or "without map"."""
    row = measured["with map" if name == "input" else name]
    found: dict[str, Any] = row["scores"][of_set]["y-matlab"]["input" if name == "input" else "restored"][metric]
    return found


def draw_means(axis: Axes, metric: str) -> None:
    """Draw the means with their intervals, set by set."""
    candidates = {"input": ("#D55E00", "s"), "with map": ("#0072B2", "o"), "without map": ("#333333", "^")}
    for shift, (name, (colour, marker)) in zip((-0.25, 0, 0.25), candidates.items(), strict=True):
        for x, of_set in enumerate(sets):
            found = summary(name, of_set, metric)
            axis.plot((x + shift,) * 2, found["interval"] or (found["mean"],) * 2, color=colour, linewidth=1.5)
            label = name if x == 0 else None
            axis.plot(x + shift, found["mean"], marker, color=colour, markersize=7, linestyle="", label=label)
            where = {"textcoords": "offset points", "fontsize": "small", "rotation": 90, "va": "center"}
            axis.annotate(f"{found['mean']:.1f}", (x + shift, found["mean"]), (5, 0), **where)
    axis.set_xticks(range(len(sets)), sets)
    axis.set(title=PIXELS[metric], ylabel="PSNR (dB)", xlim=(-0.5, len(sets) - 0.4))
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#e4e4e4")
    axis.set_axisbelow(True)


figure, axes = plt.subplots(1, 2, figsize=(10, 3.9), layout="constrained")
for axis, metric in zip(axes, PIXELS, strict=True):
    draw_means(axis, metric)
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
plt.show()


def overlap(of_set: str, metric: str) -> bool:
    """Return whether the two intervals over the images overlap, or are unknown."""
    first, second = (summary(name, of_set, metric)["interval"] for name in FILES)
    return not (first and second) or (first[0] <= second[1] and second[0] <= first[1])


gains: dict[str, list[float]] = {metric: [] for metric in PIXELS}
for of_set in sets:
    for metric in PIXELS:
        with_map, without = (summary(name, of_set, metric)["mean"] for name in FILES)
        gains[metric].append(with_map - without)
    lost = summary("input", of_set, "psnr_free")["mean"] - summary("with map", of_set, "psnr_free")["mean"]
    print(
        f"{of_set}: the map brings {gains['psnr_free'][-1]:+.2f} dB on pixels without rain, where the input is still "
        f"{lost:.1f} dB better, and {gains['psnr_rain'][-1]:+.2f} dB on those with rain."
    )

kept, removed = (sum(gain > 0 for gain in of_metric) for of_metric in gains.values())
if kept == len(sets):
    print("This agrees with the argument: with its map the network keeps rain-free pixels nearer to the truth.")
elif kept == 0:
    print("This does not bear the argument out: the map does not keep rain-free pixels nearer to the truth.")
else:
    print(f"This is undecided: the map keeps rain-free pixels nearer to the truth on {kept} of {len(sets)} sets.")
print(f"On pixels with rain the network with the map is nearer to the truth on {removed} of {len(sets)} sets.")
shared = sum(overlap(of_set, metric) for of_set in sets for metric in PIXELS)
print(f"In {shared} of {len(sets) * len(PIXELS)} comparisons the two intervals overlap.")

# %%
# What this can show, and what not
# --------------------------------
#
# One seed and minutes of training: a difference within the intervals is none, and a network that is still far from what
# it can do may trade rain against background by chance. Where a network removes more rain, it touches more of the
# background; only a gain on both kinds of pixels is a gain without a question. To know what the map is worth after a
# full training, train both for longer and with several seeds.
