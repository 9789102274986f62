"""The guided filter (He et al., ECCV 2010): a smooth base layer that keeps the guide's strong edges."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def box_mean(image: Tensor, radius: int) -> Tensor:
    """Mean over the (2 radius + 1)^2 window around each pixel, of those pixels that lie in the image; (B, C, H, W)."""
    side = 2 * radius + 1
    rows = F.avg_pool2d(image, (side, 1), stride=1, padding=(radius, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, side), stride=1, padding=(0, radius), count_include_pad=False)


def guided_filter(guide: Tensor, image: Tensor, radius: int, smoothing: float) -> Tensor:
    """Filter ``image`` so that in every window it is a linear function of ``guide``.

    Args:
        guide: (B, C, H, W), or (B, 1, H, W) for a guide that all channels share.
        image: (B, C, H, W).
        radius: of the window, in pixels.
        smoothing: epsilon, a variance: texture that varies less than it is smoothed away.

    Returns:
        The filtered image, (B, C, H, W). Borders use the part of the window that lies inside. Its radius of influence
        is 2 ``radius``.
    """
    mean_guide, mean_image = box_mean(guide, radius), box_mean(image, radius)
    covariance = box_mean(guide * image, radius) - mean_guide * mean_image
    variance = box_mean(guide * guide, radius) - mean_guide * mean_guide
    slope = covariance / (variance + smoothing)
    offset = mean_image - slope * mean_guide
    return box_mean(slope, radius) * guide + box_mean(offset, radius)
