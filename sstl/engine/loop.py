"""The training loop, on one page."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from sstl.engine.checkpoint import Progress
from sstl.engine.config import TrainConfig
from sstl.engine.optimizers import Group
from sstl.errors import DivergenceError
from sstl.methods import Method
from sstl.types import PairedBatch, UnpairedBatch

PATIENCE = 20  # steps in a row without a finite loss before training stops


def run_loop(
    config: TrainConfig,
    accelerator: Accelerator,
    method: Any,
    groups: Collection[Group],
    average: Any,
    paired: Iterator[PairedBatch],
    unpaired: Iterator[UnpairedBatch] | None,
    progress: Progress,
    after_step: Callable[[dict[str, float]], bool],
    stopping: Callable[[], bool],
) -> bool:
    """Train until ``config.steps``, until ``after_step`` returns False, or until a process was asked to stop.

    Returns:
        Whether one was asked to stop.

    Args:
        config: the run.
        accelerator: prepared ``method`` and the optimisers; sums gradients over processes and accumulations.
        method, groups, average: the module with both branches, its parameters with their optimisers, and the averaged
            weights (None: no averaging).
        paired, unpaired: endless batches, one per accumulation.
        progress: where the run stands; updated in place.
        after_step: told the step's numbers, means over processes (log, checkpoint, pictures); False asks to stop.
        stopping: whether this process was asked to stop; all of them stop after the same step.
    """
    bare: Method = accelerator.unwrap_model(method)
    method.train()
    while progress.step < config.steps:
        started = time.perf_counter()
        for group in groups:
            group.scheduler.step_update(progress.step)
        bare.begin_step()
        before = [buffer.clone() for buffer in bare.buffers()]
        numbers: dict[str, Tensor] = {}
        for _ in range(config.accumulation):
            with accelerator.accumulate(method):
                rainy = next(unpaired).to(accelerator.device) if unpaired is not None else None
                parts = method(next(paired).to(accelerator.device), rainy)
                accelerator.backward(parts["loss"])
                for name, value in parts.items():
                    numbers[name] = numbers.get(name, 0) + value.detach() / config.accumulation
        norm = torch.stack([group.clip(accelerator) for group in groups])
        mine = torch.stack([*numbers.values(), norm.new_tensor(float(stopping()))])
        # All processes log, drop a step and stop alike.
        *values, stop = accelerator.reduce(mine, "mean").tolist()
        means = dict(zip(numbers, values, strict=True))
        if bool(torch.isfinite(norm).all()) and math.isfinite(means["loss"]):
            for group in groups:
                group.prepared.step()
            progress.skipped_in_a_row = 0
        else:
            for buffer, value in zip(bare.buffers(), before, strict=True):
                buffer.copy_(value)  # batch normalisation has taken the bad batch into its statistics
            progress.skipped += 1
            progress.skipped_in_a_row += 1
        for group in groups:
            group.prepared.zero_grad()
        progress.step += 1
        if progress.skipped_in_a_row == 0:
            bare.after_step(progress.step)
            if average is not None:
                average.update(bare.network, step=progress.step)
        elif progress.skipped_in_a_row >= PATIENCE:
            raise DivergenceError(
                f"the loss was not finite for {PATIENCE} steps in a row, up to step {progress.step}; checkpoints "
                f"from before are kept in {config.output}. Lower optimizer.lr, and resume or begin anew."
            )
        progress.seconds += time.perf_counter() - started
        lr = next(iter(groups)).optimizer.param_groups[0]["lr"]
        if not after_step({"lr": lr, **means}) or stop:
            return bool(stop)
    return False
