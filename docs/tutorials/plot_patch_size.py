"""How much context does rain removal need?
==========================================

The papers that founded this work make two claims. *Context*: most methods train on small patches and see too little of
the image around a pixel to tell a streak from a wire or a reed. *Density*: a prior with one level of sparsity for the
whole image fails, because the density of rain differs from place to place. Here both are looked at with one small
network, ``joint`` of size ``tiny``.

The figures come from ``experiments/patch-size/results.json``, which ``experiments/patch-size/run.py`` writes: seven
trainings of one recipe and one seed, each with the same processor time and as many pixels in each step, scored on whole
images of the development split under the protocol ``y-matlab``. So this page trains nothing. The sentences below the
figures are computed from that file.
"""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

Results = dict[str, Any]

ROOT = Path(sys.argv[0]).resolve().parents[2]
FILE = ROOT / "experiments" / "patch-size" / "results.json"
if not FILE.is_file():
    raise SystemExit(f"{FILE} is missing; write it with 'python experiments/patch-size/run.py'.")
measured = json.loads(FILE.read_text(encoding="utf-8"))
cells: list[Results] = measured["cells"]
sets = list(cells[0]["scores"])

plt.rcParams |= {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e4e4e4"}
plt.rcParams |= {"axes.axisbelow": True, "legend.frameon": False, "figure.constrained_layout.use": True}


def find(crop: int = 96, **options: Any) -> Results:
    """Return the cell of a crop and of the options in which its network departs from ``joint`` tiny."""
    return next(c for c in cells if c["cell"] == {"crop": crop, "options": options})


environment, images = measured["environment"], cells[0]["scores"][sets[0]]["restored"]["psnr"]["count"]
print(f"{measured['cpu_seconds']:g} s of processor time for each training, {images} images of each set.")
print(f"Measured {environment['date'][:10]} with torch {environment['torch']}, {environment['processors']} processors.")

# %%
# The crop
# --------
#
# A small crop has little context, and most of its pixels lie near its border, where the network sees zeros instead of
# the image. But at an equal number of pixels a batch of small crops shows more different images in a step. The points
# are the mean gain in PSNR over the rainy input (the dashed line), with the 95 % interval over the images. It says how
# far the images differ, and nothing about how far another seed would move the point. All cells are scored on the same
# images, so below the figure two of them are also compared image by image.

by_crop = [c for c in cells if not c["cell"]["options"]]
crops = [c["cell"]["crop"] for c in by_crop]


def draw_gains(axis: Axes, shown: list[Results], name: str) -> None:
    """Draw the mean gain of each cell on a set, with its interval, at x = 0, 1, ..."""
    gains = [c["scores"][name]["restored"]["gain"] for c in shown]
    for x, gain in enumerate(gains):
        axis.plot((x, x), gain["interval"] or (gain["mean"],) * 2, color="#999999", linewidth=2, zorder=1)
        axis.annotate(f"{gain['mean']:+.2f}", (x, gain["mean"]), (9, 0), textcoords="offset points", va="center")
    axis.plot(range(len(shown)), [gain["mean"] for gain in gains], "o", color="#0072B2", markersize=7)
    axis.axhline(0, color="#D55E00", linestyle="--", linewidth=1)
    axis.set(title=name, xlim=(-0.4, len(shown) - 0.3))
    axis.grid(axis="x", visible=False)


figure, axes = plt.subplots(1, len(sets), figsize=(9.5, 3.6), squeeze=False)
for axis, name in zip(axes[0], sets, strict=True):
    draw_gains(axis, by_crop, name)
    axis.set_xticks(range(len(crops)), [f"{crop}" for crop in crops])
    axis.set_xlabel("side of the training crops (pixels)")
axes[0, 0].set_ylabel("gain over the input (dB)")
plt.show()


def tell_best(shown: list[Results], labels: list[str]) -> None:
    """Print which cell gains most and least on each set, and on how many images the one beats the other."""
    for name in sets:
        means = [c["scores"][name]["restored"]["gain"]["mean"] for c in shown]
        best, worst = (means.index(extreme) for extreme in (max(means), min(means)))
        first, second = (shown[i]["gains"][name] for i in (best, worst))
        wins = sum(first[key] > second[key] for key in first)
        print(
            f"{name}: {labels[best]} gains most ({means[best]:+.2f} dB), {labels[worst]} least "
            f"({means[worst]:+.2f} dB); the first is better on {wins} of {len(first)} images."
        )


tell_best(by_crop, [f"a crop of {crop}" for crop in crops])

# %%
# The receptive field
# -------------------
#
# Three bodies at a crop of 96 pixels: parallel paths of rate 1 only, the usual rates 1, 2 and 5, and the context module
# of Yu and Koltun, whose rates go up to 16. All three are U-shaped, so that even the smallest sees far. Below each name
# stands what an output pixel can see, and the side of a square of as many pixels as matter to it after training
# (gradients above 4.55 % of the largest). A larger field costs time: within the same budget its network learns from
# fewer crops.

bodies = {"rate 1": find(rates=[1]), "rates 1, 2, 5": find(), "Yu–Koltun": find(bottleneck="context_basic")}
figure, axes = plt.subplots(1, len(sets), figsize=(9.5, 3.9), squeeze=False)
for axis, name in zip(axes[0], sets, strict=True):
    draw_gains(axis, [*bodies.values()], name)
    ticks = [f"{b}\nsees {c['receptive_field']}\nuses {c['effective_field']:g}" for b, c in bodies.items()]
    axis.set_xticks(range(len(bodies)), ticks)
axes[0, 0].set_ylabel("gain over the input (dB)")
figure.supxlabel("bottleneck, and the side of its field in pixels", fontsize="medium")
plt.show()

for label, cell in bodies.items():
    print(f"{label}: {cell['steps']} steps, {cell['crops']} crops.")
tell_best([*bodies.values()], [*bodies])

# %%
# The density of rain
# -------------------
#
# Each image is cut into blocks, and each block's density is the share of its pixels where it rains (R = 1). The upper
# row shows how many blocks there are of each density. A method with one level of sparsity assumes that they all lie at
# one place. The lower row shows the mean squared error of the luma in them, for the input and for the network with and
# without its map. Blocks of one image are not independent, and a bin of few blocks says little.

edges = cells[0]["density"][sets[0]]["edges"]
bins = [f"{100 * low:g}–{100 * high:g}" for low, high in pairwise(edges)]
curves = {
    "input": (find(), "input", "#D55E00", "--"),
    "with map": (find(), "restored", "#0072B2", "-"),
    "without map": (find(detect=False), "restored", "#333333", ":"),
}
figure, axes = plt.subplots(
    2, len(sets), figsize=(9.5, 5.6), height_ratios=(1, 1.8), squeeze=False, sharex=True, sharey="row"
)
for (above, below), name in zip(axes.T, sets, strict=True):
    counts = find()["density"][name]["blocks"]
    drawn = above.bar(range(len(bins)), counts, color="#999999")
    above.bar_label(drawn, fontsize="small")
    above.set(title=name)
    above.margins(y=0.2)
    above.grid(axis="x", visible=False)
    for label, (cell, key, colour, style) in curves.items():
        errors = [float("nan") if e is None else e for e in cell["density"][name][key]]
        below.plot(range(len(bins)), errors, style, color=colour, marker="o", markersize=4, label=label)
    below.set(yscale="log", xlabel="pixels with rain in the block (%)")
    below.set_xticks(range(len(bins)), bins)
    below.yaxis.set_major_formatter("{x:g}")
axes[0, 0].set_ylabel("blocks")
axes[1, 0].set_ylabel("mean squared luma error")
axes[1, 0].legend(loc="upper left")
plt.show()

for name in sets:
    found, without = (cell["density"][name] for cell in (find(), find(detect=False)))
    filled = [i for i, count in enumerate(found["blocks"]) if count]
    lower = sum(found["restored"][i] < without["restored"][i] for i in filled)
    share = max(found["blocks"]) / sum(found["blocks"])
    print(f"{name}: the fullest bin holds {share:.0%} of {sum(found['blocks'])} blocks.")
    for i in (filled[0], filled[-1]):
        print(
            f"  at {bins[i]} % rain ({found['blocks'][i]} blocks) the error is {found['input'][i]:.1f} before, "
            f"{found['restored'][i]:.1f} after, {without['restored'][i]:.1f} without the map;"
        )
    print(f"  the map lowers the error in {lower} of {len(filled)} bins.")

# %%
# What this can show, and what not
# --------------------------------
#
# A budget of minutes is far from a full training, where a larger field or a larger crop may pay later. There is one
# seed; differences of a few tenths of a decibel are not to be trusted. And a measurement on one network does not decide
# a claim about "most methods": it tells what crop and field do to this one.
