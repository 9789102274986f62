"""How much of a training step of joint small is waiting for rain: by a worker ahead, in the loop, and not at all.

python experiments/benchmarks/rendering.py        (about six minutes on two cores; nothing else should run)
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
BATCH, CROP, ROUNDS, STEPS, WARM = 8, 96, 5, 6, 3
READY, IN_LOOP, AHEAD = "without_rendering", "in_the_loop", "with_a_worker"


def batches(recipe: str, workers: int) -> Iterator[PairedBatch]:
    """Return endless batches of one recipe on the bundled photographs."""
    stream = PairedStream([PairedPart("bundled", split="train", recipe=recipe)], CROP, 0, None, 10**9)
    return endless(stream, GlobalBatches(BATCH), workers)


def seconds_a_step(sources: dict[str, Iterator[PairedBatch]]) -> dict[str, float]:
    """Return the median time of a training step from each source, waiting for its batch included.

    The sources take turns of a few steps, so that what else the machine does meets all of them.
    """
    torch.manual_seed(0)
    network = create_network("joint").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    method = create_method("supervised", network).train()
    optimizer = torch.optim.AdamW(method.parameters(), 1e-3)
    times: dict[str, list[float]] = {name: [] for name in sources}
    for _ in range(ROUNDS):
        for name, source in sources.items():
            for step in range(WARM + STEPS):
                start = time.perf_counter()
                method(next(source))["loss"].backward()
                optimizer.step()
                optimizer.zero_grad()
                if step >= WARM:  # by then a worker has used up what it did during the others' turns
                    times[name].append(time.perf_counter() - start)
    return {name: statistics.median(of_source) for name, of_source in times.items()}


def main() -> None:
    """Measure in one run, so that the ratios compare."""
    results: dict[str, Any] = {}
    for recipe in RECIPES:
        ready = repeat(next(batches(recipe, 0)))
        found = seconds_a_step({READY: ready, IN_LOOP: batches(recipe, 0), AHEAD: batches(recipe, 1)})
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
