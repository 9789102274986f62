"""Draw the figures of the suite: gap recovered by each trial, the score against the truth, and restorations to look at.

python experiments/shift/draw.py [--work FOLDER]

The pictures are of photographs that scikit-image ships, rained on by the recipes of the domains: FOLDER is where
``run.py`` left the adapted weights; without them only the plots are drawn.
"""

from __future__ import annotations

import argparse
import io
import json
import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from domains import reserved
from numpy.typing import NDArray
from sources import SOURCES
from table import Cells, gains_of, load_cells, shares

from sstl.data.files import BundledImages
from sstl.ops.files import write_atomic
from sstl.rain import Recipe, render
from sstl.report.pictures import grid
from sstl.report.plots import bars
from sstl.restore import load

HERE = Path(__file__).resolve().parent
WRONG = ("collapsed", "smoothed")  # on purpose, and with the truth: no methods
SHOWN = ("heavy", "blend", "veil", "night", "gust")
SIDE, SEED = 256, 20


def gap_plot(cells: Cells) -> bytes:
    """Draw what each trial recovers of the gap, in per cent, with intervals, if it ran wherever the control did."""
    developed = set(reserved()["developed_on"])
    groups = {"developed on": developed, "untouched": {key[0] for key in cells} - developed}
    trials = sorted({key[2] for key in cells if key[1] == "joint"} - {"start", "oracle", *WRONG})
    pairs = {name: {t: gains_of(cells, list(group), ["joint"], t) for t in trials} for name, group in groups.items()}
    whole = {name: {t: len(own) == len(of["control"]) for t, own in of.items()} for name, of in pairs.items()}
    trials = [trial for trial in trials if any(of[trial] for of in whole.values())]
    found = {
        name: [shares(of[trial]) if whole[name][trial] else None for trial in trials] for name, of in pairs.items()
    }
    values = {name: [100 * one[0] if one else None for one in column] for name, column in found.items()}
    spans = {name: [(100 * one[1], 100 * one[2]) if one else None for one in column] for name, column in found.items()}
    return bars(trials, values, "Gap recovered by joint", "per cent of the oracle's gain", spans, digits=0)


def score_plot() -> bytes:
    """Draw the predicted against the true gain of every checkpoint, a panel for each domain."""
    rows = json.loads((HERE / "trust.json").read_text())["rows"]
    columns = 4
    figure, axes = plt.subplots(
        math.ceil(len(rows) / columns), columns, figsize=(11, 2.8 * math.ceil(len(rows) / columns)), squeeze=False
    )
    for axis, row in zip(axes.flat, rows, strict=False):
        predicted, true = np.array(row["points"]).T
        axis.axhline(0, color="0.8", linewidth=1)
        axis.axvline(0, color="0.8", linewidth=1)
        axis.scatter(true, predicted, s=12)
        kind = "calibrated on" if row["calibrated_on"] else "untouched"
        axis.set_title(f"{row['domain']}, {row['source']} ({kind}): {row['spearman']:.2f}", fontsize=8)
    for axis in axes.flat[len(rows) :]:
        axis.axis("off")
    figure.supxlabel("true gain (dB)")
    figure.supylabel("predicted gain (dB)")
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def rained_on(photograph: NDArray[np.uint8], recipe: Recipe, number: int) -> tuple[NDArray[np.uint8], ...]:
    """Return the middle of a photograph under rain, and as the recipe's camera sees it without."""
    top, left = ((side - SIDE) // 2 for side in photograph.shape[:2])
    clean = torch.from_numpy(photograph[top : top + SIDE, left : left + SIDE].copy()).permute(2, 0, 1)[None] / 255
    sample = render(clean, recipe, SEED, [number])
    return tuple(
        (layer[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy() for layer in (sample.rainy, sample.clean)
    )


def pictures(work: Path) -> bytes:
    """Draw photographs under the rain of the domains where the default was run, before and after it adapted joint."""
    images = BundledImages()
    rows = {}
    for number, name in enumerate(SHOWN):
        adapted = work / "cells" / name / "joint" / "default" / "weights.safetensors"
        if adapted.exists():
            rainy, clean = rained_on(images.load(number % len(images)), reserved()["recipes"][name], number)
            rows[name] = [rainy, *(load(path).restore(rainy) for path in (SOURCES[0].path, adapted)), clean]
    buffer = io.BytesIO()
    captions = ("rainy", "start", "default", "truth")
    grid(list(rows.values()), captions, list(rows), height=SIDE).save(buffer, "JPEG", quality=90, optimize=True)
    return buffer.getvalue()


def main() -> None:
    """Draw what can be drawn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/shift"))
    work = parser.parse_args().work
    write_atomic(HERE / "gap.svg", gap_plot(load_cells()))
    write_atomic(HERE / "score.svg", score_plot())
    if any(work.glob("cells/*/joint/default/weights.safetensors")):
        write_atomic(HERE / "pictures.jpg", pictures(work))


if __name__ == "__main__":
    main()
