"""A few steps of adaptation on one photo or a video's frames, kept only if crops that were held back favour them."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sstl.data.stream import PairedPart, PairedStream
from sstl.errors import SstlError
from sstl.methods.test_time import RainAgain, error_under_rain
from sstl.networks import Network
from sstl.networks.deveil import Deveil
from sstl.ops.random import seeded
from sstl.restore.restorer import Restorer, as_planes, scale_of
from sstl.types import PairedBatch, UnpairedBatch

STEPS = 30
LEARNING_RATE = 2e-5  # beside 1e-4, at which the shipped weights took too much light away: experiments/test_time
BATCH = 4  # crops of the photos, and as many of the bundled photographs
LARGEST, SMALLEST = 128, 16  # sides of the crops
HELD_BACK = 8  # crops, at most
ANCHOR = PairedPart("bundled", split="train", recipe="mixed")


@dataclass(frozen=True)
class Adapted:
    """What an adaptation to photos came to.

    Attributes:
        restorer: with the adapted weights; the one that was given if they were not kept.
        before, after: mean absolute error on the held-back crops where rain that the start found in them is laid over
            the start's restoration, which is the truth; None if there was nothing to learn from.
        reason: why the start was kept, or None.
    """

    restorer: Restorer
    before: float | None
    after: float | None
    reason: str | None = None


def adapt_to_photo(
    restorer: Restorer, photos: Any, steps: int = STEPS, seed: int = 0, learning_rate: float = LEARNING_RATE
) -> Adapted:
    """Adapt a copy of a restorer's network to one photo, or to the frames of a video, by the method ``test_time``.

    It trains on crops, so that memory does not grow with the photos. A quarter of each photo, in strips across its
    longer side, is held back; if the error there does not fall, the given restorer is what is returned. The anchor that
    prevents forgetting are the bundled photographs under the recipe ``mixed``. Of a de-veiling network the network
    inside is adapted. The result is a function of the photos, the weights and the seed; the global random state is left
    as it was.

    Args:
        restorer: where to start; its network is not changed.
        photos: an image of any kind that ``Restorer`` takes (but no batch), or a list of such.
        steps: optimiser steps, at least 1.
        seed: of everything random.
        learning_rate: of AdamW.

    Raises:
        InputError: a file cannot be read.
        SstlError: an image is of another kind, or ``steps`` is below 1.
    """
    if steps < 1:
        raise SstlError(f"the adaptation's steps are {steps}; there must be at least 1.")
    frames = [as_planes(photo) for photo in (photos if isinstance(photos, list | tuple) else [photos])]
    if not frames:
        raise SstlError("there is no photo to adapt to; give one, or a list of them.")
    network = copy.deepcopy(restorer.network)
    own = Restorer(network, restorer.device, restorer.dtype, restorer.tile)
    with seeded(seed), own.settled(frames):  # what a photo gets is trained, whatever its crops get
        method = RainAgain(network.network if isinstance(network, Deveil) else network)
        crops = Crops(frames, np.random.default_rng(seed))
        held = crops.held_back()
        if held is None:
            return Adapted(restorer, None, None, f"smaller than {4 * SMALLEST} x {SMALLEST} pixels")
        with _arithmetic(restorer):
            pairs = method.eval().rained_again(_batch(held, restorer))
            if not bool(pairs.mask.any()):
                return Adapted(restorer, None, None, "no rain was found in what was held back of it")
            before = _error(method.network, pairs)
            _train(method, crops, restorer, steps, seed, learning_rate)
            after = _error(method.eval().network, pairs)
    if not after < before:  # also if it is NaN
        return Adapted(
            restorer,
            before,
            after if math.isfinite(after) else None,
            "the adaptation did not lower the error on what was held back of it",
        )
    return Adapted(own, before, after)


class Crops:
    """Square crops of frames, of one side; strips across each frame's longer side are held back from training.

    The side is a quarter of the smallest frame's longer side, but at most its shorter one, a multiple of 8, and at most
    ``LARGEST``; 0 if that leaves less than ``SMALLEST``. Of four strips as wide as the side the third is held back.
    """

    def __init__(self, frames: Sequence[Tensor], rng: np.random.Generator) -> None:
        self.frames, self.rng = frames, rng
        side = min(min(LARGEST, max(frame.shape[1:]) // 4, min(frame.shape[1:])) for frame in frames)
        self.side = side // 8 * 8 if side >= SMALLEST else 0
        self.free = {length: self._free(length) for length in {max(frame.shape[1:]) for frame in frames} if self.side}

    def held_back(self) -> Tensor | None:
        """Return up to ``HELD_BACK`` crops, (N, 3, side, side) in [0, 1], spread over frames and strips, or None."""
        if not self.side:
            return None
        strips = [(frame, start) for frame in self.frames for start in self._strips(max(frame.shape[1:]))]
        chosen = np.linspace(0, len(strips) - 1, min(HELD_BACK, len(strips))).round().astype(int)
        return torch.stack([self._crop(*strips[i]) for i in chosen])

    def draw(self, count: int) -> Tensor:
        """Return ``count`` crops for training, (count, 3, side, side) in [0, 1], half of them mirrored."""
        crops = []
        for _ in range(count):
            frame = self.frames[int(self.rng.integers(len(self.frames)))]
            starts = self.free[max(frame.shape[1:])]
            crop = self._crop(frame, starts[int(self.rng.integers(len(starts)))])
            crops.append(crop.flip(-1) if self.rng.random() < 0.5 else crop)
        return torch.stack(crops)

    def _strips(self, length: int) -> range:
        """Where the held-back strips of a side of this length start."""
        return range(2 * self.side, length - self.side + 1, 4 * self.side)

    def _free(self, length: int) -> list[int]:
        """Where crops may start that meet no held-back strip."""
        starts, strips = range(length - self.side + 1), self._strips(length)
        return [start for start in starts if all(abs(start - strip) >= self.side for strip in strips)]

    def _crop(self, frame: Tensor, start: int) -> Tensor:
        """The crop at ``start`` along the longer side, anywhere along the other."""
        across = int(self.rng.integers(min(frame.shape[1:]) - self.side + 1))
        top, left = (start, across) if frame.size(1) >= frame.size(2) else (across, start)
        crop = frame[:, top : top + self.side, left : left + self.side].to("cpu", torch.float32) / scale_of(frame)
        return crop.expand(3, -1, -1)


def _train(method: RainAgain, crops: Crops, restorer: Restorer, steps: int, seed: int, learning_rate: float) -> None:
    # 128 MB hold the three bundled photographs; without, each step would decode them again.
    anchor = PairedStream([ANCHOR], crops.side, seed, None, 128_000_000)
    optimizer = torch.optim.AdamW(method.parameters(), learning_rate, weight_decay=0.0)
    method.train()
    for step in tqdm(range(steps), desc="adapt", unit="step", leave=False):
        paired = anchor[range(BATCH * step, BATCH * (step + 1))].to(restorer.device)
        loss = method(paired, _batch(crops.draw(BATCH), restorer))["loss"]
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(method.parameters(), 1.0)
        if bool(torch.isfinite(norm)):
            optimizer.step()
        optimizer.zero_grad()


def _batch(crops: Tensor, restorer: Restorer) -> UnpairedBatch:
    return UnpairedBatch(crops.to(restorer.device), ("",) * len(crops))


@torch.no_grad()
def _error(network: Network, pairs: PairedBatch) -> float:
    return float(error_under_rain(network(pairs.rainy).background.clamp(0, 1), pairs))


def _arithmetic(restorer: Restorer) -> torch.autocast:
    # Without its cache: that keeps the weights of the first step, whatever the optimiser makes of them.
    enabled = restorer.dtype == torch.bfloat16
    return torch.autocast(restorer.device.type, torch.bfloat16, enabled=enabled, cache_enabled=False)
