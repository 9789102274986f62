"""Train one network on crops of four sizes and with three receptive fields, at one budget; write results.json.

SSTL_DATA=/path/to/data python experiments/patch-size/run.py        (about five minutes on two cores)

Data, loss and optimiser are those of ``experiments/systems/run.py``. Every step sees the same number of pixels.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sstl.config import to_tree
from sstl.data import PairSource, SourceConfig, open_pairs
from sstl.engine import TrainConfig
from sstl.metrics import matlab_luma, rain_map
from sstl.ops.files import write_atomic
from sstl.report.environment import environment
from sstl.report.evaluation import evaluate
from sstl.report.inspection import effective_size, receptive_field
from sstl.restore import load

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "systems"))
import run as systems

CPU_SECONDS = 40.0  # of training for each cell, over all threads
CROPS = {32: 36, 64: 9, 96: 4, 192: 1}  # side of the crop -> crops per step: 36,864 pixels each
SETS = ("rain100l", "rain100h")
BLOCK = 32  # side of the blocks in which the density of rain is measured, in pixels
EDGES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)  # of the bins of density


@dataclass(frozen=True)
class Cell:
    """One training: the side of its crops, and the options in which its network departs from ``joint`` tiny."""

    crop: int
    options: dict[str, Any] = field(default_factory=dict)


CELLS = (
    *map(Cell, CROPS),
    Cell(96, {"rates": [1]}),
    Cell(96, {"bottleneck": "context_basic"}),
    Cell(96, {"detect": False}),
)


def recipe(cell: Cell, steps: int, output: Path) -> TrainConfig:
    """Return the recipe of the systems' comparison for a cell's network and crop."""
    row = systems.Row("joint", "joint", {"size": "tiny", **cell.options})
    config = systems.recipe(row, steps, output)
    return replace(config, data=replace(config.data, crop=cell.crop), batch_size=CROPS[cell.crop])


def errors_by_density(pairs: PairSource, restorer: systems.Remembering) -> dict[str, list[Any]]:
    """Return the mean squared luma error of input and restored per bin of local rain density, and the blocks in it.

    What is left of an image beside its last whole block does not count.
    """
    found = [_blocks(*pairs.load(i), restorer) for i in range(min(len(pairs), systems.IMAGES))]
    density, before, after = (np.concatenate(column) for column in zip(*found, strict=True))
    bins = np.digitize(density, EDGES[1:-1])
    chosen = [bins == k for k in range(len(EDGES) - 1)]
    means = {
        name: [float(errors[of_bin].mean()) if of_bin.any() else None for of_bin in chosen]
        for name, errors in (("input", before), ("restored", after))
    }
    return {"edges": list(EDGES), "blocks": [int(of_bin.sum()) for of_bin in chosen], **means}


def _blocks(rainy: Any, clean: Any, restorer: systems.Remembering) -> tuple[NDArray[np.float64], ...]:
    """Return the density of rain and the mean squared luma errors of input and restored, block by block."""
    restored = restorer.layers(rainy)["background"]
    truth, *lumas = (matlab_luma(image).astype(np.float64) for image in (clean, rainy, restored))
    return _block_means(rain_map(rainy, clean)), *(_block_means((luma - truth) ** 2) for luma in lumas)


def _block_means(plane: NDArray[Any]) -> NDArray[np.float64]:
    """(H, W) -> the mean of each whole block, row by row."""
    rows, columns = (side // BLOCK for side in plane.shape)
    whole = plane[: rows * BLOCK, : columns * BLOCK]
    means: NDArray[np.float64] = whole.reshape(rows, BLOCK, columns, BLOCK).mean(axis=(1, 3))
    return means.ravel()


def measure(cell: Cell) -> dict[str, Any]:
    """Train and score one cell."""
    with TemporaryDirectory() as folder:
        steps = systems.steps_within(CPU_SECONDS, lambda steps: recipe(cell, steps, Path(folder) / "trial"))
        config = recipe(cell, steps, Path(folder) / "run")
        weights, seconds = systems.timed(config)
        loaded = load(weights)
    restorer = systems.Remembering(loaded.network, loaded.device, loaded.dtype)
    scores, gains, density = {}, {}, {}
    for name in SETS:
        pairs = open_pairs(SourceConfig("manifest.csv", split="dev", set=name))
        found = evaluate(pairs, {"restored": restorer}, "y-matlab", limit=systems.IMAGES, progress=True)
        scores[name] = {
            key: {metric: asdict(summary) for metric, summary in of_key.items() if metric != "seconds"}
            for key, of_key in found.results.items()
        }
        gains[name] = {row.key: row.scores["restored"]["gain"] for row in found.rows}
        density[name] = errors_by_density(pairs, restorer)
    radius = restorer.network.receptive_radius
    assert radius is not None
    return {
        "cell": asdict(cell),
        "config": to_tree(replace(config, output=Path("run"))),
        "steps": steps,
        "crops": steps * config.batch_size,
        "cpu_seconds": round(seconds, 1),
        "receptive_field": 2 * radius + 1,
        "effective_field": round(effective_size(receptive_field(restorer.network)), 1),
        "protocol": "y-matlab",
        "scores": scores,
        "gains": gains,
        "density": density,
    }


def main() -> None:
    """Measure all cells and write the file beside this script."""
    cells = []
    for cell in CELLS:
        cells.append(measure(cell))
        print(f"{cell}: {cells[-1]['steps']} steps", flush=True)
    result = {
        "command": "python experiments/patch-size/run.py",
        "cpu_seconds": CPU_SECONDS,
        "block": BLOCK,
        "cells": cells,
        "environment": environment(precision="auto"),
    }
    write_atomic(Path(__file__).with_name("results.json"), json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
