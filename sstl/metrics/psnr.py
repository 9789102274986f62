"""Peak signal-to-noise ratio of one image."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def psnr(image: NDArray[np.number], reference: NDArray[np.number], peak: float = 255) -> float:
    """Return 10 log10(peak^2 / MSE) in dB over all values of two arrays of one shape; infinite if they are equal.

    >>> import numpy as np
    >>> black = np.zeros((4, 4, 3), np.uint8)
    >>> round(psnr(black + 1, black), 2)
    48.13
    >>> psnr(black, black)
    inf

    Raises:
        ValueError: the shapes differ, or the arrays are empty.
    """
    if image.shape != reference.shape or image.size == 0:
        raise ValueError(f"PSNR of arrays of shapes {image.shape} and {reference.shape}.")
    difference = image.astype(np.float64) - reference.astype(np.float64)
    mse = float(np.mean(difference**2))
    return 10 * math.log10(peak**2 / mse) if mse > 0 else math.inf
