"""Removing a veil by the dark channel prior (He et al., CVPR 2009), as JORDER-R-DEVEIL does between two derainings."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sstl.ops.guided import guided_filter

WINDOW = 5  # of the dark channel, in pixels
GUIDED_RADIUS = 10  # JORDER's guided filter has a window of 20
SMOOTHING = 1e-3
LEAST_TRANSMISSION = 0.05
KEPT = 0.95  # omega of He et al.: a little haze is left, so that distance can still be seen


def dark_channel(image: Tensor, window: int = WINDOW) -> Tensor:
    """Smallest value over channels and an odd window, (B, C, H, W) -> (B, 1, H, W); near 0 in clear outdoor photos."""
    rows = F.max_pool2d(-image.amin(dim=1, keepdim=True), (1, window), 1, (0, window // 2))
    return -F.max_pool2d(rows, (window, 1), 1, (window // 2, 0))


def estimate_airlight(image: Tensor) -> Tensor:
    """Mean colour of the 0.1 % of pixels (at least one) with the brightest dark channel, (B, C, 1, 1)."""
    dark = dark_channel(image).flatten(1)
    brightest = dark.topk(max(1, dark.size(1) // 1000), dim=1).indices
    pixels = image.flatten(2).gather(2, brightest[:, None].expand(-1, image.size(1), -1))
    return pixels.mean(dim=2)[..., None, None]


def estimate_transmission(image: Tensor, airlight: Tensor) -> Tensor:
    """The veil's transmission t in [0.05, 1], (B, 1, H, W): 1 - 0.95 dark(I / A), refined along the image's edges."""
    rough = 1 - KEPT * dark_channel(image / airlight.clamp(min=1e-3))
    guide = image.mean(dim=1, keepdim=True)
    return guided_filter(guide, rough, GUIDED_RADIUS, SMOOTHING).clamp(LEAST_TRANSMISSION, 1)


def remove_veil(image: Tensor, airlight: Tensor) -> Tensor:
    """J = (I - (1 - t) A) / t, clipped to [0, 1]; the inverse of ``rain.heavy`` without streaks."""
    transmission = estimate_transmission(image, airlight)
    return ((image - (1 - transmission) * airlight) / transmission).clamp(0, 1)
