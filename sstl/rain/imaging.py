"""The imaging models of rain: how a background, streaks, a rain map and a veil make the observed image.

Convention: O observed, B background, S streak layer, R binary map (B, 1, H, W), all in [0, 1], RGB, BCHW. The functions
do not clip: saturation is a property of the 8-bit image, applied by whoever makes one.
"""

from __future__ import annotations

import torch
from torch import Tensor

MAP_THRESHOLD = 5 / 255


def additive(background: Tensor, streak: Tensor) -> Tensor:
    """O = B + S."""
    return background + streak


def region(background: Tensor, streak: Tensor, mask: Tensor) -> Tensor:
    """O = B + S * R: the map says where rain is, the streak how strong (JORDER, Yang et al., CVPR 2017)."""
    return background + streak * mask


def heavy(
    background: Tensor, streak: Tensor, mask: Tensor, transmission: Tensor | float, airlight: Tensor | float
) -> Tensor:
    """O = a * (B + S * R) + (1 - a) * A: streaks behind a veil of transmission a and airlight A (JORDER).

    Overlapping layers are summed into ``streak`` first. ``transmission`` is (B, 1, H, W) or a number in [0, 1];
    ``airlight`` is (B, 3, 1, 1) or a number. With a = 1 this is ``region``.
    """
    return transmission * region(background, streak, mask) + (1 - transmission) * airlight


def screen(background: Tensor, streak: Tensor) -> Tensor:
    """O = 1 - (1 - B)(1 - S): how image editors blend rain; never leaves [0, 1]."""
    return 1 - (1 - background) * (1 - streak)


def streak_layer(rainy: Tensor, clean: Tensor) -> Tensor:
    """The full streak layer of a pair, S~ = max(O - B, 0)."""
    return (rainy - clean).clamp(min=0)


def rain_map(streak: Tensor, threshold: float = MAP_THRESHOLD) -> Tensor:
    """R = 1 where the streak exceeds ``threshold`` in any channel (hard threshold); shape (B, 1, H, W).

    On 8-bit images the bound itself (5/255) counts as rain-free; a quarter of a grey level of slack keeps that true in
    float32.

    >>> rain_map(torch.tensor([0.0, 5 / 255, 6 / 255]).expand(1, 3, 1, 3)).tolist()
    [[[[0.0, 0.0, 1.0]]]]
    """
    slack = 0.25 / 255
    return (streak.amax(dim=1, keepdim=True) > threshold + slack).to(torch.float32)
