"""Train on true pairs of Rain100L and on rendered rain alone, at one budget, and score both on the development pairs.

SSTL_DATA=/path/to/data python experiments/rain-fit/compare.py [FOLDER]      (about twenty minutes on two cores)

The backgrounds, the network, the seed and the steps are the same; only the rain differs: that of the training pairs,
the recipe fitted to them (rain100l_like), or the recipe that the fit started from (light). Runs that FOLDER holds, by
default runs/rain-fit, are gone on with. Writes compare.json beside this script.
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
RAINS = {"true pairs": None, "rain100l_like": "rain100l_like", "light": "light"}
STEPS, BATCH, CROP, SEED = 600, 8, 96, 1


def run(rain: str, folder: Path) -> Path:
    """Train under one kind of rain, or go on, and return the weights."""
    recipe = RAINS[rain]
    output = folder / rain.replace(" ", "-")
    pairs = PairedPart(
        "manifest.csv", split="train", set="rain100l", recipe=recipe, rain_on="pairs" if recipe else "clean"
    )
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


def main() -> None:
    """Train all and write the figures."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/rain-fit")
    restorers = {rain: load(run(rain, folder)) for rain in RAINS}
    dev = open_pairs(SourceConfig("manifest.csv", split="dev", set="rain100l"))
    found = evaluate(dev, restorers).results
    scores: dict[str, Any] = {
        name: {"psnr": result["psnr"].mean, "interval": result["psnr"].interval} for name, result in found.items()
    }
    behind = {rain: scores["true pairs"]["psnr"] - scores[rain]["psnr"] for rain in RAINS}
    tree = {
        "command": "python experiments/rain-fit/compare.py",
        "network": "joint small, from scratch", "steps": STEPS, "batch": BATCH, "crop": CROP, "seed": SEED,
        "trained_on": "backgrounds of Rain100L's training pairs", "scored_on": f"{len(dev)} development pairs",
        "protocol": "y-matlab", "scores": scores, "behind_true_pairs": behind, "environment": environment(),
    }  # fmt: skip
    write_atomic(HERE / "compare.json", json.dumps(tree, indent=1) + "\n")
    for rain, gap in behind.items():
        print(f"{rain}: {scores[rain]['psnr']:.2f} dB, {gap:.2f} dB behind the true pairs")


if __name__ == "__main__":
    main()
