"""Processes that train together, as one would, and processes that share a list of jobs."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def place() -> tuple[int, int]:
    """Return the number of this process and how many train together; 0 and 1 if it is alone."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def drawn(count: int, draw: Callable[[int], Tensor]) -> Tensor:
    """Draw for the global batch, by ``draw(its size)``, and return this process's rows.

    Process r of w has the samples r, r + w, ... of each global batch; all have the same random state, and keep it.

    Args:
        count: this process's share of the batch, the same on all of them.
        draw: makes as many rows from torch's random numbers.
    """
    rank, world = place()
    return draw(count * world)[rank::world]


def averaged(value: Tensor) -> Tensor:
    """Return the mean over processes, of which each keeps the gradient of its own part.

    Gradients are averaged over processes afterwards, and so become those of a function of the global mean.
    """
    _, world = place()
    if world == 1:
        return value
    total = value.detach().clone()
    torch.distributed.all_reduce(total)
    mean = total / world
    return mean + (value - value.detach()) if value.requires_grad else mean


def gathered(rows: Tensor) -> Tensor:
    """Return the rows of all processes, detached, in the order of the global batch."""
    _, world = place()
    if world == 1:
        return rows.detach()
    each = [torch.empty_like(rows) for _ in range(world)]
    torch.distributed.all_gather(each, rows.detach().contiguous())
    return torch.stack(each, dim=1).flatten(0, 1)


@dataclass(frozen=True)
class Crew:
    """The processes of a launch that share a list of jobs.

    Attributes:
        rank: number of this one; 0 speaks for all.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    def share(self, jobs: Sequence[T], together: Callable[[T], Hashable]) -> list[int]:
        """Return the numbers of this process's jobs; those of which ``together`` is equal are of one process."""
        groups: dict[Hashable, int] = {}
        return [
            i for i, job in enumerate(jobs) if groups.setdefault(together(job), len(groups)) % self.world == self.rank
        ]

    def gather(self, part: dict[int, T]) -> list[T]:
        """Return everyone's results by their numbers on the first process, on the others only their own."""
        parts: list[Any] = [part]
        if self.world > 1:
            self._meet()
            parts = [None] * self.world if self.rank == 0 else []
            torch.distributed.gather_object(part, parts or None)
            parts = parts or [part]
        found = {number: result for some in parts for number, result in some.items()}
        return [found[number] for number in sorted(found)]

    def wait(self) -> None:
        """Wait until all have come here."""
        if self.world > 1:
            self._meet()
            torch.distributed.barrier()

    def _meet(self) -> None:
        if not torch.distributed.is_initialized():
            # One may finish long before another.
            torch.distributed.init_process_group("gloo", timeout=timedelta(days=7))


ALONE = Crew()


def crew() -> Crew:
    """Return the launch that this process belongs to (``accelerate launch``, ``torchrun``), or ALONE."""
    return Crew(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
