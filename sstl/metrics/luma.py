"""The luma of MATLAB's rgb2ycbcr, to the bit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# 65.481, 128.553 and 24.966 in thousandths; the sum is divided by 255 * 1000.
_WEIGHTS = (65481, 128553, 24966)
_DIVISOR = 255_000


def matlab_luma(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return Y = round(16 + (65.481 R + 128.553 G + 24.966 B) / 255), half away from zero, 16 to 235.

    Integers throughout, because floating point falls on either side of the exact halves.

    Args:
        image: (..., 3) RGB.
    """
    red, green, blue = (image[..., c].astype(np.int32) for c in range(3))
    total = _WEIGHTS[0] * red + _WEIGHTS[1] * green + _WEIGHTS[2] * blue
    return (16 + (total + _DIVISOR // 2) // _DIVISOR).astype(np.uint8)
