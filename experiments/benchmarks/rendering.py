"""How much of a training step of joint small is waiting for rain: by a worker ahead, in the loop, and not at all.

python experiments/benchmarks/rendering.py        (about six minutes on two cores; nothing else should run)
"""

from __future__ import annotations

import json
from itertools import repeat
from pathlib import Path
from typing import Any

import torch

from sstl.networks import create_network
from sstl.ops.files import write_atomic
from sstl.report.benchmark import CROP, batches, seconds_a_step
from sstl.report.environment import environment

RECIPES = ("light", "heavy", "mixed", "real_mix")
BATCH = 8
READY, IN_LOOP, AHEAD = "without_rendering", "in_the_loop", "with_a_worker"


def main() -> None:
    """Measure in one run, so that the ratios compare."""
    results: dict[str, Any] = {}
    for recipe in RECIPES:
        torch.manual_seed(0)
        sources = {READY: repeat(next(batches(recipe, 0, BATCH)))}
        sources |= {name: batches(recipe, workers, BATCH) for name, workers in ((IN_LOOP, 0), (AHEAD, 1))}
        found = seconds_a_step(create_network("joint"), sources, torch.float32)
        shares = {name: found[name] / found[READY] - 1 for name in (IN_LOOP, AHEAD)}
        results[recipe] = {"milliseconds_without_rendering": 1000 * found[READY], "share_of_the_step": shares}
        print(f"{recipe:9} step {1000 * found[READY]:.0f} ms; rendering adds {shares[IN_LOOP]:+.1%} in the loop, "
              f"{shares[AHEAD]:+.1%} with a worker ahead")  # fmt: skip
    tree = {
        "command": "python experiments/benchmarks/rendering.py",
        "network": "joint small", "batch": BATCH, "crop": CROP, "recipes": results, "environment": environment(),
    }  # fmt: skip
    write_atomic(Path(__file__).with_suffix(".json"), json.dumps(tree, indent=1) + "\n")


if __name__ == "__main__":
    main()
