"""Train on true pairs of a set and on rendered rain alone, at one budget, and score both on its development pairs.

SSTL_DATA=/path/to/data python experiments/rain-fit/compare.py [FOLDER]      (about twenty minutes of one core)

The backgrounds, the network, the seed and the steps are the same; only the rain differs: that of the training pairs,
the recipe fitted to them (..._like), the recipe that the fit started from (light, heavy), or one that was made by
looking at them (drawn). Runs that FOLDER holds, by default runs/rain-fit, are gone on with. Writes compare.json beside
this script.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from sstl.data import SourceConfig, open_pairs
from sstl.data.stream import PairedPart
from sstl.engine import DataConfig, NetworkConfig, OptimizerConfig, TrainConfig, train
from sstl.engine.checkpoint import list_checkpoints
from sstl.ops.files import write_atomic
from sstl.report.environment import environment
from sstl.report.evaluation import evaluate
from sstl.restore import load

HERE = Path(__file__).resolve().parent
RAINS: dict[str, tuple[str | None, ...]] = {  # None: the pairs as they are
    "rain100l": (None, "rain100l_like", "light"),
    "rain100h": (None, "rain100h_like", "heavy", "drawn"),
}
STEPS, BATCH, CROP, SEED = 600, 8, 96, 1


def run(name: str, rain: str | None, folder: Path) -> Path:
    """Train on the backgrounds of a set under one kind of rain, or go on, and return the weights."""
    output = folder / f"{name}-{_told(rain)}".replace(" ", "-")
    pairs = PairedPart("manifest.csv", split="train", set=name, recipe=rain, rain_on="pairs" if rain else "clean")
    config = TrainConfig(
        output=output,
        network=NetworkConfig("joint"),
        data=DataConfig((pairs,), crop=CROP),
        optimizer=OptimizerConfig(lr=1.2e-3, warmup_steps=50),
        steps=STEPS,
        batch_size=BATCH,
        ema_decay=0.98,
        seed=SEED,
        checkpoint_every=100,
        picture_every=0,
    )
    return train(config, resume=bool(list_checkpoints(output / "checkpoints")))


def _told(rain: str | None) -> str:
    return rain or "true pairs"


def compared(name: str, folder: Path) -> dict[str, Any]:
    """Return the scores of a set's rains, and how far they are behind that of its pairs."""
    restorers = {_told(rain): load(run(name, rain, folder)) for rain in RAINS[name]}
    dev = open_pairs(SourceConfig("manifest.csv", split="dev", set=name))
    found = evaluate(dev, restorers).results
    scores: dict[str, Any] = {
        rain: {"psnr": result["psnr"].mean, "interval": result["psnr"].interval} for rain, result in found.items()
    }
    behind = {rain: scores["true pairs"]["psnr"] - scores[rain]["psnr"] for rain in restorers}
    for rain, gap in behind.items():
        print(f"{name}, {rain}: {scores[rain]['psnr']:.2f} dB, {gap:.2f} dB behind the true pairs")
    return {"scored_on": f"{len(dev)} development pairs", "scores": scores, "behind_true_pairs": behind}


def main() -> None:
    """Train all and write the figures."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/rain-fit")
    tree = {
        "command": "python experiments/rain-fit/compare.py",
        "network": "joint small, from scratch", "steps": STEPS, "batch": BATCH, "crop": CROP, "seed": SEED,
        "trained_on": "backgrounds of the set's training pairs", "protocol": "y-matlab",
        "sets": {name: compared(name, folder) for name in RAINS}, "environment": environment(),
    }  # fmt: skip
    write_atomic(HERE / "compare.json", json.dumps(tree, indent=1) + "\n")


if __name__ == "__main__":
    main()
