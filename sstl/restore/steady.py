"""Less flicker: each restored frame of a video is averaged with its neighbours where they show the same, drier."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from sstl.ops.motion import box_mean, displacement, warp

_WINDOW = 7  # side of the squares over which two frames are compared
_NOISE, _LARGEST = 0.02, 0.12  # mean difference in such a square that is no sign of another content: least and most
_RAIN = 0.02  # where a neighbour is drier by less than this a frame stays as it is
_TRUST = 0.03  # a restored pixel counts as 1 / (this + what was removed there)


class Frame(NamedTuple):
    """A frame before and after restoring, (1, 3, H, W) in [0, 1]."""

    rainy: Tensor
    restored: Tensor


def steadied(frames: Iterable[Frame]) -> Iterator[Tensor]:
    """Yield each restored frame, (1, 3, H, W), steadied by the one before and the one after; one frame behind.

    Rain falls elsewhere in each frame: what a streak hides in one, the next shows. So the neighbours are brought onto
    the frame by their motion and averaged with it, and each pixel counts the more the less was removed there. A
    neighbour counts only where less was removed of it, and where it shows the same as the frame, up to what the removal
    leaves uncertain: not where the motion was not found, something else came into view, or the scene was cut. Where
    nothing was removed, nothing changes.
    """
    before: Frame | None = None
    current: Frame | None = None
    for after in chain(frames, [None]):
        if current is not None:
            yield _steady(current, [frame for frame in (before, after) if frame is not None])
        before, current = current, after


def _steady(frame: Frame, neighbours: list[Frame]) -> Tensor:
    removed = _difference(*frame)
    weight = 1 / (_TRUST + removed)
    total, weights = weight * frame.restored, weight
    for other in neighbours:
        if other.restored.shape != frame.restored.shape:
            continue
        flow = displacement(_grey(frame.restored), _grey(other.restored))
        moved = warp(torch.cat(other, dim=1), flow, "bicubic").clamp(0, 1)
        rainy, restored = moved[:, :3], moved[:, 3:]
        removed_there = _difference(rainy, restored)
        uncertain = (_NOISE + box_mean(removed + removed_there, _WINDOW)).clamp(max=_LARGEST)
        # Where as much was removed there, as of texture that moves along, the neighbour knows no better.
        drier = box_mean((removed - removed_there).clamp(min=0), _WINDOW).square()
        wet = drier / (drier + _RAIN**2)
        unlike = box_mean(_difference(restored, frame.restored), _WINDOW) / uncertain
        weight = wet * torch.exp(-unlike.square()) / (_TRUST + removed_there)
        total, weights = total + weight * restored, weights + weight
    return total / weights


def _difference(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).abs().mean(1, keepdim=True)


def _grey(image: Tensor) -> Tensor:
    return image.mean(1, keepdim=True)
