"""How much of what was removed lies where the background has its texture."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sstl.metrics.grey import gradient, grey, residual


def leakage(rainy: NDArray[np.uint8], restored: NDArray[np.uint8]) -> float:
    """Return the correlation of the removed layer's gradients with the restored image's, in [-1, 1]; best is near 0.

    rho = cov(|grad r|, |grad restored|) / (std |grad r| std |grad restored|) over the image, r = rainy - restored. A
    residual that is a copy of the texture gives 1, one that is independent of it 0 (in the mean), one that keeps to
    the flat parts a negative value; where either has no variation, or the image no gradients (1x1), it is 0. Lengths,
    not directions, because what a low-pass filter removes is orthogonal to what it leaves, and yet lies at the same
    edges. It is not 0 for true rain either: streaks that were left raise it, and rain that saturates or that was
    blended as on a screen depends on the background. Compare restorers on the same images.

    Cheapest way to fool it: remove nothing, or rain over flat parts only.

    Args:
        rainy: the input, uint8 (H, W, 3) or (H, W).
        restored: the output, of the same shape.
    """
    removed, kept = (np.hypot(*gradient(plane)) for plane in (residual(rainy, restored), grey(restored)))
    if not removed.size:  # too small for a gradient
        return 0.0
    removed, kept = removed - removed.mean(), kept - kept.mean()
    norm = math.sqrt(float(np.sum(removed**2)) * float(np.sum(kept**2)))
    return min(1.0, max(-1.0, float(np.sum(removed * kept)) / norm)) if norm > 0 else 0.0
