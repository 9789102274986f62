"""Put the best weights of the second phase into the package, as float16, with what they were trained on.

python experiments/first-run/ship.py RUNS        (RUNS holds joint-small/ and joint-small-finish/)
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch

from sstl.engine import read_log
from sstl.networks import load_weights, save_weights
from sstl.networks.weights import SHIPPED

HERE = Path(__file__).resolve().parent
PHASES = ("joint-small", "joint-small-finish")


def main(runs: Path) -> None:
    """Write the weights and copy the logs beside this script."""
    seconds = 0.0
    for phase in PHASES:
        log = runs / phase / "log.jsonl"
        seconds += max(line["seconds"] for line in read_log(log) if "seconds" in line)
        shutil.copy(log, HERE / f"{phase}-log.jsonl")
    weights = load_weights(runs / PHASES[-1] / "best.safetensors")
    info = {
        **weights.info,
        "minutes": round(seconds / 60, 1),
        "configs": [f"experiments/first-run/{phase}.yaml" for phase in PHASES],
        "data": "Rain100L, Rain100H (sample), Rain800, BSDS500 with rendered rain, Garg and Nayar's streaks",
    }
    save_weights(SHIPPED / "joint-small.safetensors", weights.network, info, torch.float16)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
