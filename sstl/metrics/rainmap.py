"""Where it rains in a pair of 8-bit images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 5  # grey levels of 255; a difference of 5 itself is rain-free


def rain_map(rainy: NDArray[np.uint8], clean: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return R, (H, W): true where O - B exceeds 5 of 255 in any channel of the (H, W, 3) pair.

    The integer twin of ``sstl.rain.rain_map``.
    """
    brighter = rainy.astype(np.int16) - clean.astype(np.int16)
    found: NDArray[np.bool_] = brighter.max(axis=-1) > THRESHOLD
    return found
