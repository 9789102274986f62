"""Fit the statistics that NIQE compares with, write them into the package, and check them on other photographs.

SSTL_DATA=/path/to/data python experiments/niqe/fit.py        (about a minute on two cores)
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

import sstl.metrics
from sstl.data import ImageSource, SourceConfig, open_images
from sstl.metrics import Statistics, fit_niqe, niqe
from sstl.ops.files import write_atomic
from sstl.report.environment import environment
from sstl.report.evaluation import RenderedPairs

RECIPES = ("light", "heavy")


def photographs(split: str) -> ImageSource:
    """Return the clean photographs of a split of the manifest: its rows of kind ``clean``."""
    return open_images(SourceConfig("manifest.csv", split=split), "clean")


def to_npz(statistics: Statistics) -> bytes:
    """Return the statistics as a file that numpy reads without pickle."""
    buffer = io.BytesIO()
    np.savez(buffer, mean=statistics.mean, covariance=statistics.covariance)
    return buffer.getvalue()


def check(images: ImageSource, statistics: Statistics, recipe: str) -> dict[str, Any]:
    """Return how often a photograph has a better (lower) NIQE than the same under a recipe's rain, and the means."""
    pairs = RenderedPairs(images, recipe, seed=0)
    values = np.array([[niqe(image, statistics) for image in pairs.load(i)] for i in range(len(pairs))])
    return {
        "share_clean_is_better": float(np.mean(values[:, 1] < values[:, 0])),
        "mean_clean": float(values[:, 1].mean()),
        "mean_rainy": float(values[:, 0].mean()),
        "images": len(values),
    }


def main() -> None:
    """Fit on the training split, check on the development split, and write both files."""
    train, dev = photographs("train"), photographs("dev")
    statistics = fit_niqe(train.load(i) for i in range(len(train)))
    path = Path(sstl.metrics.__file__).with_name("niqe.npz")
    write_atomic(path, to_npz(statistics))
    result = {
        "command": "python experiments/niqe/fit.py",
        "fitted_on": {"kind": "clean", "split": "train", "photographs": len(train)},
        "checked_on": {recipe: check(dev, statistics, recipe) for recipe in RECIPES},
        "environment": environment(),
    }
    write_atomic(Path(__file__).with_name("results.json"), json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["checked_on"], indent=1))


if __name__ == "__main__":
    main()
