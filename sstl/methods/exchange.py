"""Rain that was found in photos, laid over clean images: new pairs whose truth is known."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sstl.ops.processes import drawn
from sstl.rain import rain_map, streak_layer
from sstl.types import PairedBatch

FAINT = 4 / 255  # residuals below this are noise or texture rather than streaks
STRONGEST = 8.0  # a streak is brightened by at most this factor, so that nothing found is not blown up into rain


def found_streaks(residual: Tensor) -> Tensor:
    """The streaks in residuals O - B^ of photos, (B, 3, H, W) -> (B, 1, H, W), not negative.

    Rain is light of no colour: what all channels lost in common is streak, the rest is not.
    """
    streak = residual.amin(dim=1, keepdim=True)
    return streak * (streak > FAINT)


def lay_over(clean: Tensor, streak: Tensor, brightness: tuple[float, float], key: tuple[str, ...]) -> PairedBatch:
    """Return clean images, (B, 3, H, W), under streaks, (B, 1, H, W), of a 98th percentile out of ``brightness``."""
    bright = streak.flatten(1).quantile(0.98, dim=1).clamp(min=FAINT).view(-1, 1, 1, 1)
    wanted = drawn(len(streak), lambda n: torch.empty(n, 1, 1, 1).uniform_(*brightness)).to(bright)
    rainy = (clean + streak * (wanted / bright).clamp(max=STRONGEST)).clamp(0, 1)
    layer = streak_layer(rainy, clean)
    return PairedBatch(rainy, clean, layer, rain_map(layer), key)


def moved(streak: Tensor, turn: float, zoom: float) -> Tensor:
    """Streaks at another place: each image (a square) shifted, mirrored, turned and resized at random, by reflection.

    Args:
        streak: (B, C, H, W).
        turn: largest angle, in degrees.
        zoom: largest factor of the size, at least 1; the smallest is its inverse.
    """
    count = len(streak)
    angle = drawn(count, _either_way) * math.radians(turn)
    size = torch.exp(drawn(count, _either_way) * math.log(zoom))
    mirror = drawn(count, lambda n: torch.randint(2, (n,))) * 2 - 1
    x = torch.stack([mirror * angle.cos(), -angle.sin()], dim=1)
    y = torch.stack([mirror * angle.sin(), angle.cos()], dim=1)
    matrix = torch.stack([x, y], dim=1) * size[:, None, None]
    shift = drawn(count, lambda n: torch.empty(n, 2, 1).uniform_(-1, 1))
    grid = F.affine_grid(torch.cat([matrix, shift], dim=2).to(streak), list(streak.shape), align_corners=False)
    return F.grid_sample(streak, grid, padding_mode="reflection", align_corners=False)


def _either_way(count: int) -> Tensor:
    return torch.empty(count).uniform_(-1, 1)
