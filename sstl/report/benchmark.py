"""How fast networks restore and learn here, against the machine's own rate at matrix products, all in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from sstl.data.stream import GlobalBatches, PairedPart, PairedStream, endless
from sstl.methods import create_method
from sstl.networks import Network
from sstl.ops.memory import peak_memory
from sstl.ops.precision import Precision, resolve_precision
from sstl.report.inspection import HEIGHT, WIDTH, count_parameters, multiply_adds
from sstl.restore import Restorer
from sstl.types import PairedBatch

SIDE = 2048  # of the matrices
REPEATS = 30
PATIENCE = 20.0  # seconds for each network and size; after them nothing is repeated
BATCH, CROP, STEPS, WARM = 16, 96, 6, 3
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Contestant:
    """A network in one of the ways in which it can be run.

    Attributes:
        name: what the tables call it.
        network: with any weights; they do not matter to the time.
        precision: see ``sstl.ops.precision``.
        as_released: run it as the code of its paper does: float32, contiguous, whole images.
    """

    name: str
    network: Network
    precision: Precision = "auto"
    as_released: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """The arithmetic of its convolutions."""
        return torch.float32 if self.as_released else resolve_precision(self.precision, _CPU)

    def prepared(self) -> Callable[[Tensor], object]:
        """Return what restores an image (3, H, W) in [0, 1]."""
        if not self.as_released:
            return Restorer(self.network, _CPU, self.dtype).restore
        network = self.network.cpu().eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

        def restore(image: Tensor) -> object:
            with torch.inference_mode():
                return network(image[None])

        return restore


@dataclass(frozen=True)
class Timing:
    """What a restoration took.

    Attributes:
        name: of the contestant.
        height, width: of the image, in pixels.
        parameters: of the network.
        precision: "bfloat16" or "float32".
        seconds: median over the repetitions; the contestants take turns.
        gflop: floating-point operations of one restoration, twice the multiply-adds, in 10^9.
        share: the rate at which they were done, as a share of a matrix product's in the same arithmetic and run.
        peak_bytes: by how much the process's memory rose; None where the system cannot tell.
    """

    name: str
    height: int
    width: int
    parameters: int
    precision: str
    seconds: float
    gflop: float
    share: float
    peak_bytes: int | None


@dataclass(frozen=True)
class Pace:
    """How fast a network learns.

    Attributes:
        crops_per_second: with the data made by one worker ahead.
        share: the rate of three times the forward operations, as a share of a matrix product's.
        waiting: share of a step that passes in waiting for data.
    """

    crops_per_second: float
    share: float
    waiting: float


def matrix_rate(dtype: torch.dtype, side: int = SIDE, repeats: int = 10) -> float:
    """Return the floating-point operations a second of a product of two square matrices on the processor: a median."""
    left, right = (torch.rand(side, side).to(dtype) for _ in range(2))
    seconds = [_seconds(torch.mm, left, right) for _ in range(repeats + 1)][1:]  # the first one sets libraries up
    return 2 * side**3 / statistics.median(seconds)


def benchmark(
    contestants: Sequence[Contestant],
    sizes: Sequence[tuple[int, int]] = ((HEIGHT, WIDTH),),
    repeats: int = REPEATS,
    rates: Mapping[torch.dtype, float] | None = None,
    tick: Callable[[], object] = lambda: None,
) -> list[Timing]:
    """Time restorations, batch 1, all contestants in turns, so that what else the machine does meets all of them.

    Args:
        contestants: what is timed.
        sizes: (height, width) of the images.
        repeats: restorations of each size, fewer where they take more than ``PATIENCE`` seconds in all.
        rates: of matrix products by arithmetic, as ``matrix_rate`` gives them; measured if None.
        tick: called when a size of a contestant is done.
    """
    rates = rates or {dtype: matrix_rate(dtype) for dtype in {one.dtype for one in contestants}}
    found = []
    for height, width in sizes:
        image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
        runs = [one.prepared() for one in contestants]
        peaks = [_peak(run, image) for run in runs]  # warms up, too
        seconds: list[list[float]] = [[] for _ in runs]
        for _ in range(repeats):
            for run, times in zip(runs, seconds, strict=True):
                if sum(times) < PATIENCE:
                    times.append(_seconds(run, image))
        for one, peak, times in zip(contestants, peaks, seconds, strict=True):
            median, flop = statistics.median(times), 2 * multiply_adds(one.network, height, width)
            precision, share = str(one.dtype).removeprefix("torch."), flop / median / rates[one.dtype]
            parameters = count_parameters(one.network)
            found.append(Timing(one.name, height, width, parameters, precision, median, flop / 1e9, share, peak))
            tick()
    return found


def training_pace(network: Network, recipe: str = "mixed", rate: float | None = None) -> Pace:
    """Time training steps of the supervised branch on bundled photographs under a recipe, batch 16 of 96 x 96.

    Args:
        network: trained here for some steps.
        recipe: of the rain.
        rate: of a matrix product in the same arithmetic; measured if None.
    """
    dtype = resolve_precision("auto", _CPU)
    ready = repeat(next(batches(recipe, 0, BATCH)))
    seconds = seconds_a_step(network, {"ready": ready, "ahead": batches(recipe, 1, BATCH)}, dtype)
    flop = 3 * 2 * multiply_adds(network, CROP, CROP) * BATCH
    share = flop / seconds["ahead"] / (rate or matrix_rate(dtype))
    return Pace(BATCH / seconds["ahead"], share, max(0.0, 1 - seconds["ready"] / seconds["ahead"]))


def batches(recipe: str, workers: int, size: int) -> Iterator[PairedBatch]:
    """Return endless batches of one recipe on the bundled photographs."""
    stream = PairedStream([PairedPart("bundled", split="train", recipe=recipe)], CROP, 0, None, 10**9)
    return endless(stream, GlobalBatches(size), workers)


def seconds_a_step(
    network: Network, sources: Mapping[str, Iterator[PairedBatch]], dtype: torch.dtype, rounds: int = 5
) -> dict[str, float]:
    """Return the median time of a training step from each source, waiting for its batch included.

    The sources take turns of a few steps, so that what else the machine does meets all of them.
    """
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    method = create_method("supervised", network).train()
    optimizer = torch.optim.AdamW(method.parameters(), 1e-3)
    times: dict[str, list[float]] = {name: [] for name in sources}

    def step(source: Iterator[PairedBatch]) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = method(next(source))["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(rounds):
        for name, source in sources.items():
            seconds = [_seconds(step, source) for _ in range(WARM + STEPS)]
            times[name] += seconds[WARM:]  # by then a worker has used up what it did during the others' turns
    return {name: statistics.median(of_source) for name, of_source in times.items()}


def _seconds(work: Callable[..., Any], *arguments: Any) -> float:
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


def _peak(run: Callable[[Tensor], object], image: Tensor) -> int | None:
    run(image[:, :8, :8])  # what the libraries set up once is not the network's
    with peak_memory() as peak:
        run(image)
    return peak.bytes
