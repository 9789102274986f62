"""How much of a training step of joint small is waiting for rain: by a worker ahead, in the loop, and not at all.

python experiments/benchmarks/rendering.py        (about three minutes on two cores; nothing else should run)
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import torch

from sstl.data.stream import GlobalBatches, PairedPart, PairedStream, endless
from sstl.methods import create_method
from sstl.networks import create_network
from sstl.ops.files import write_atomic
from sstl.report.environment import environment
from sstl.types import PairedBatch

RECIPES = ("light", "heavy", "mixed", "real_mix")
BATCH, CROP, STEPS, WARM = 8, 96, 16, 4


def batches(recipe: str, workers: int) -> Iterator[PairedBatch]:
    """Return endless batches of one recipe on the bundled photographs."""
    stream = PairedStream([PairedPart("bundled", split="train", recipe=recipe)], CROP, 0, None, 10**9)
    return endless(stream, GlobalBatches(BATCH), workers)


def seconds_a_step(source: Iterator[PairedBatch]) -> float:
    """Return the median time of a training step, waiting for its batch included."""
    torch.manual_seed(0)
    network = create_network("joint").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    method = create_method("supervised", network).train()
    optimizer = torch.optim.AdamW(method.parameters(), 1e-3)
    times = []
    for _ in range(WARM + STEPS):
        start = time.perf_counter()
        method(next(source))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - start)
    return statistics.median(times[WARM:])


def main() -> None:
    """Measure in one run, so that the ratios compare."""
    results: dict[str, Any] = {}
    for recipe in RECIPES:
        ready = seconds_a_step(repeat(next(batches(recipe, 0))))
        in_loop, ahead = (seconds_a_step(batches(recipe, workers)) for workers in (0, 1))
        results[recipe] = {
            "milliseconds_without_rendering": 1000 * ready,
            "share_in_the_loop": in_loop / ready - 1,
            "share_with_a_worker": ahead / ready - 1,
        }
        print(f"{recipe:9} step {1000 * ready:.0f} ms; rendering adds {in_loop / ready - 1:+.1%} in the loop, "
              f"{ahead / ready - 1:+.1%} with a worker ahead")  # fmt: skip
    tree = {
        "command": "python experiments/benchmarks/rendering.py",
        "network": "joint small", "batch": BATCH, "crop": CROP, "recipes": results, "environment": environment(),
    }  # fmt: skip
    write_atomic(Path(__file__).with_suffix(".json"), json.dumps(tree, indent=1) + "\n")


if __name__ == "__main__":
    main()
