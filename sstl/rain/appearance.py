"""What a rainy image looks like in numbers that can be measured without knowing what is behind the rain."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

FEATURES = 166  # numbers of an appearance
LEAST_SIDE = 64  # pixels; spectra of smaller images say little
_THIN = 7  # pixels; what is narrower than that in a row may be a streak
_ORIENTATIONS = 12
_BANDS = (0.04, 0.1, 0.22, 0.5)  # cycles a pixel
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_LEVEL = 1 / 255


def appearance(images: Tensor) -> NDArray[np.float64]:
    """Return numbers that rain, veil, light and camera change, one row an image: (B, FEATURES).

    Bright and dark thin structures (rain makes bright ones only) with their strengths, orientations and spectra; the
    dark channel; light and colour; contrast; noise; the grid of JPEG. The logarithm is taken where ratios matter.

    Args:
        images: (B, 3, H, W) in [0, 1], sides of at least 64 pixels; of a JPEG, cut at multiples of 8.
    """
    grey = images.mean(dim=1, keepdim=True)
    bright, dark = _top_hat(grey), _top_hat(-grey)
    parts = [
        _strengths(bright),
        _strengths(dark),
        _orientations(bright),
        _orientations(dark),
        _spectrum(grey),
        _quantiles(_dark_channel(images)),
        _quantiles(grey),
        _colours(images, bright),
        _contrast(grey),
        *(_noise(layer) for layer in (grey, images[:, :1] - grey, images[:, 2:] - grey)),
        *(_grid(layer) for layer in (grey, images[:, :1] - grey)),
    ]
    return torch.cat(parts, dim=1).numpy()


def _top_hat(grey: Tensor) -> Tensor:
    """What is brighter than its row within a few pixels: x - opening(x), >= 0, (B, 1, H, W)."""
    border = _THIN // 2
    lowest = -F.max_pool2d(-grey, (1, _THIN), 1, (0, border))
    return grey - F.max_pool2d(lowest, (1, _THIN), 1, (0, border))


def _strengths(layer: Tensor) -> Tensor:
    levels = layer.new_tensor((0.5, 0.75, 0.9, 0.97, 0.99))
    found = _sampled(layer).quantile(levels, dim=1).T
    return torch.cat([(found + _LEVEL).log(), (layer.mean(dim=(1, 2, 3))[:, None] + _LEVEL).log()], dim=1)


def _power(layer: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the power spectrum (B, H, W/2 + 1), and the radius and the orientation of its frequencies."""
    height, width = layer.shape[-2:]
    window = torch.hann_window(height, dtype=layer.dtype)[:, None] * torch.hann_window(width, dtype=layer.dtype)
    centred = (layer - layer.mean(dim=(2, 3), keepdim=True))[:, 0] * window
    rows, columns = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None, :]
    # A line's energy lies across it: 0 for lines straight down, positive for lines that lean right as they fall.
    return torch.fft.rfft2(centred).abs().square(), torch.hypot(rows, columns), torch.atan2(-rows, columns)


def _orientations(layer: Tensor) -> Tensor:
    """Log shares of power by orientation in each band; and each band's main direction and how far it dominates."""
    power, radius, angle = _power(layer)
    sector = ((angle / math.pi + 0.5) * _ORIENTATIONS).long().clamp(0, _ORIENTATIONS - 1)
    found = []
    for low, high in pairwise(_BANDS):
        inside = (radius >= low) & (radius < high)
        of_band = power[:, inside]
        total = of_band.sum(dim=1, keepdim=True) + 1e-9
        shares = (
            torch.zeros(len(power), _ORIENTATIONS, dtype=power.dtype).index_add_(1, sector[inside], of_band) / total
        )
        sine, cosine = ((of_band * wave(2 * angle[inside])).sum(dim=1) / total[:, 0] for wave in (torch.sin, torch.cos))
        found += [(shares + 1e-3).log(), torch.stack([0.5 * torch.atan2(sine, cosine), torch.hypot(sine, cosine)], 1)]
    return torch.cat(found, dim=1)


def _spectrum(grey: Tensor) -> Tensor:
    power, radius, _ = _power(grey)
    ring = (radius * 12).long().clamp(0, 6).flatten()
    rings = torch.zeros(len(power), 7, dtype=power.dtype).index_add_(1, ring, power.flatten(1))
    return (rings / power[0].numel() + 1e-9).log()


def _dark_channel(images: Tensor) -> Tensor:
    rows = F.max_pool2d(-images.amin(dim=1, keepdim=True), (1, 7), 1, (0, 3))
    return -F.max_pool2d(rows, (7, 1), 1, (3, 0))


def _sampled(layer: Tensor) -> Tensor:
    """Every second pixel of every second row, (B, N): quantiles sort, and a quarter tells as much."""
    return layer[..., ::2, ::2].flatten(1)


def _quantiles(layer: Tensor) -> Tensor:
    """Quantiles of the whole, and the means of the upper and the lower half."""
    means = [half.mean(dim=(1, 2, 3))[:, None] for half in layer.chunk(2, dim=2)]
    return torch.cat([_sampled(layer).quantile(layer.new_tensor(_QUANTILES), dim=1).T, *means], dim=1)


def _colours(images: Tensor, bright: Tensor) -> Tensor:
    """Channel means, saturation, and how the thin bright structures differ in colour from the rest."""
    means = images.mean(dim=(2, 3))
    saturation = (images.amax(dim=1) - images.amin(dim=1)).mean(dim=(1, 2))[:, None]
    of_bright = (images * bright).sum(dim=(2, 3)) / (bright.sum(dim=(2, 3)) + 1e-6)
    cast = (of_bright - of_bright.mean(dim=1, keepdim=True)) - (means - means.mean(dim=1, keepdim=True))
    return torch.cat([means, saturation, cast, cast.abs().amax(dim=1, keepdim=True)], dim=1)


def _contrast(grey: Tensor) -> Tensor:
    mean, square = F.avg_pool2d(grey, 16), F.avg_pool2d(grey.square(), 16)
    spread = (square - mean.square()).clamp(min=0).sqrt().flatten(1)
    return (spread.quantile(spread.new_tensor((0.1, 0.5, 0.9)), dim=1).T + _LEVEL).log()


def _noise(layer: Tensor) -> Tensor:
    """Log of the diagonal detail at two scales: its median and mean, and its strength in the flattest blocks.

    Texture has flat places, noise has none.
    """
    found = []
    for scale in (1, 2):
        small = F.avg_pool2d(layer, scale)
        detail = (small[..., 1:, 1:] - small[..., 1:, :-1] - small[..., :-1, 1:] + small[..., :-1, :-1]).abs()
        blocks = F.avg_pool2d(detail, 8, 4).flatten(1)
        found += [_sampled(detail).median(dim=1).values, detail.mean(dim=(1, 2, 3))]
        found += [blocks.kthvalue(max(1, share * blocks.size(1) // 100), dim=1).values for share in (2, 10, 30)]
    return (torch.stack(found, dim=1) + 0.1 * _LEVEL).log()


def _grid(layer: Tensor) -> Tensor:
    """How much stronger steps are at every 8th and every 16th column or row than at the others, in logarithms."""
    found = []
    for dim in (2, 3):
        steps = layer.diff(dim=dim).abs().mean(dim=(1, 5 - dim))
        for period in (8, 16):
            whole = steps[:, : steps.size(1) // period * period].view(len(steps), -1, period).mean(dim=1) + 1e-4
            found.append((whole.amax(dim=1) / whole.median(dim=1).values).log())
    return torch.stack(found, dim=1)
