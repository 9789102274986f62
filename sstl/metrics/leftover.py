"""How much fine energy in the direction of the removed streaks is left in a restored image."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sstl.metrics.directionality import structure_tensor
from sstl.metrics.grey import Plane, grey, residual

LONGEST = 16.0  # pixels a period; streaks are finer, and most of a background's energy is coarser
SPREAD = 15.0  # degrees to either side of the dominant direction: what rain of one wind spreads
_NOTHING = 1e-6  # squared grey levels; what rounding leaves of a flat image


def leftover(rainy: NDArray[np.uint8], restored: NDArray[np.uint8]) -> float:
    """Return the streak energy of the restored image relative to the rainy one's; 1 if nothing was removed.

    The direction is that of the removed layer r = rainy - restored: across its streaks lies the first eigenvector u of
    its structure tensor sum grad r grad r'. With the discrete Fourier transform F of the grey image without its mean,
    under a Hann window, L = sum_K |F restored|^2 / sum_K |F rainy|^2 over the frequencies K within 15 degrees of u (or
    of -u) and above 1/16 cycles a pixel. Streaks on a flat background of which the share s was removed give (1 - s)^2.
    No upper bound; above 1, such energy was added. On a photograph it falls as more of the rain is removed, but to the
    share of the background's own texture in that direction, which nobody knows without truth: compare values of one
    image, and do not read them as shares of rain. Only the main direction of rain of several is looked at.

    Cheapest way to fool it: blur across the streaks, which removes the background's texture too; or remove something
    oriented otherwise, so that the direction looked at holds no rain. `leakage` and `directionality` see these.

    Args:
        rainy: the input, uint8 (H, W, 3) or (H, W).
        restored: the output, of the same shape.
    """
    xx, yy, xy = (float(np.sum(part)) for part in structure_tensor(residual(rainy, restored)))
    if xx + yy == 0:
        return 1.0
    across = math.atan2(2 * xy, xx - yy) / 2
    before, after = (_energy(grey(image), across) for image in (rainy, restored))
    if before < _NOTHING:
        return math.inf if after > _NOTHING else 1.0
    return after / before


def _energy(plane: Plane, across: float) -> float:
    """Return the energy of the fine waves whose direction is within the spread of the angle ``across``, in radians."""
    height, width = plane.shape
    window = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[None, 1:-1]
    power = np.abs(np.fft.fft2((plane - plane.mean()) * window)) ** 2
    y, x = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    radius = np.hypot(x, y)
    cosine = np.abs(x * math.cos(across) + y * math.sin(across))
    return float(power[(radius > 1 / LONGEST) & (cosine >= radius * math.cos(math.radians(SPREAD)))].sum())
