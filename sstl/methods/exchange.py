"""Rain that was found in photos, laid over clean images: new pairs whose truth is known."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sstl.ops.processes import drawn
from sstl.ops.veil import LEAST_TRANSMISSION, dark_channel, estimate_airlight
from sstl.rain import rain_map, streak_layer
from sstl.types import PairedBatch, Restoration

FAINT = 4 / 255  # residuals below this are noise or texture rather than streaks
STRONGEST = 8.0  # a streak is brightened by at most this factor, so that nothing found is not blown up into rain
FAR = 31  # pixels; wider than dense rain and its gaps
WIDE = 15  # pixels; wider than any streak
_GRID = 4  # a veil is smooth: its transmission is kept at so many places along each side of a crop


def rain_found(photos: Tensor, restored: Restoration) -> Tensor:
    """The streaks that were removed from photos, (B, 3, H, W) -> (B, 1, H, W), where the map, if any, says rain.

    What was removed of a whole square, wider than any streak, is veil rather than streak, and is left out (a white top
    hat): laid over clean images, it would be removed twice, and found again; the network would darken ever more.
    """
    removed = photos - restored.background
    streak = found_streaks(removed if restored.mask is None else removed * (restored.mask > 0.5))
    lowest = -F.max_pool2d(-streak, WIDE, stride=1, padding=WIDE // 2)
    return streak - F.max_pool2d(lowest, WIDE, stride=1, padding=WIDE // 2)


def found_streaks(residual: Tensor) -> Tensor:
    """The streaks in residuals O - B^ of photos, (B, 3, H, W) -> (B, 1, H, W), not negative.

    Rain is light of no colour: what all channels lost in common is streak, the rest is not.
    """
    streak = residual.amin(dim=1, keepdim=True)
    return streak * (streak > FAINT)


def crowded(streak: Tensor, others: Tensor, share: float) -> Tensor:
    """Return streaks, (B, 1, H, W), of which a random ``share`` has the streaks of ``others`` beside its own."""
    more = (drawn(len(streak), torch.rand) < share).to(streak).view(-1, 1, 1, 1)
    return streak + more * others


def lay_over(clean: Tensor, streak: Tensor, brightness: tuple[float, float], key: tuple[str, ...]) -> PairedBatch:
    """Return clean images, (B, 3, H, W), under streaks, (B, 1, H, W), of a 98th percentile out of ``brightness``."""
    bright = streak.flatten(1).quantile(0.98, dim=1).clamp(min=FAINT).view(-1, 1, 1, 1)
    wanted = drawn(len(streak), lambda n: torch.empty(n, 1, 1, 1).uniform_(*brightness)).to(bright)
    return as_pairs((clean + streak * (wanted / bright).clamp(max=STRONGEST)).clamp(0, 1), clean, key)


def lay_veil(pairs: PairedBatch, photos: Tensor, share: Tensor) -> PairedBatch:
    """Return pairs behind the veils of as many photos without streaks, (B, 3, H, W), by O' = t O + (1 - t) A.

    The transmission is what the dark channel of the photo says (He et al., CVPR 2009), but only a ``share`` of
    that channel, of one value or of one a photo, is veil; see ``veil_share``.
    """
    airlight = estimate_airlight(photos)
    dark = dark_channel(photos, FAR) / airlight.mean(dim=1, keepdim=True).clamp(min=1e-3)
    haze = F.interpolate(
        F.adaptive_avg_pool2d(dark, _GRID), pairs.rainy.shape[-2:], mode="bilinear", align_corners=False
    )
    transmission = (1 - share.view(-1, 1, 1, 1) * haze).clamp(LEAST_TRANSMISSION, 1)
    return as_pairs(transmission * pairs.rainy + (1 - transmission) * airlight, pairs.clean, pairs.key)


def darkness(images: Tensor) -> Tensor:
    """Mean dark channel of images over windows that reach beyond dense rain: what is bright all over them is veil.

    In windows of 5 pixels dense streaks that were overlooked pass for a veil; laid over clean images, it teaches a
    network to darken everything.
    """
    return dark_channel(images, FAR).mean()


def veil_share(photos: Tensor, clean: Tensor) -> Tensor:
    """The share of photos' ``darkness`` that clear photographs do not have, in [0, 1]; 0 for clear photos."""
    return (1 - clean / photos.clamp(min=1e-3)).clamp(min=0)


def left_dry(pairs: PairedBatch, share: float) -> PairedBatch:
    """Return pairs of which a random ``share`` wears no rain: what is given is the truth."""
    dry = (drawn(len(pairs.clean), torch.rand) < share).to(pairs.clean.device).view(-1, 1, 1, 1)
    return as_pairs(torch.where(dry, pairs.clean, pairs.rainy), pairs.clean, pairs.key)


def as_pairs(rainy: Tensor, clean: Tensor, key: tuple[str, ...]) -> PairedBatch:
    """Return rainy images and their clean ones with the streak layer and the map that follow from them."""
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
    with torch.autocast(streak.device.type, enabled=False):  # in half precision the grid is off by half a pixel
        wide = streak.to(torch.promote_types(streak.dtype, torch.float32))
        grid = F.affine_grid(torch.cat([matrix, shift], dim=2).to(wide), list(streak.shape), align_corners=False)
        return F.grid_sample(wide, grid, padding_mode="reflection", align_corners=False).to(streak)


def _either_way(count: int) -> Tensor:
    return torch.empty(count).uniform_(-1, 1)
