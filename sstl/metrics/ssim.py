"""Structural similarity as its authors defined it."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from sstl.errors import InputError

WINDOW = 11
_SIGMA = 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2

_OFFSETS = np.arange(WINDOW) - WINDOW // 2
_TAPS = np.exp(-(_OFFSETS**2) / (2 * _SIGMA**2))
_TAPS /= _TAPS.sum()


def ssim(image: NDArray[np.number], reference: NDArray[np.number]) -> float:
    """Return the mean structural similarity of two images with values in 0 to 255.

    Wang et al., IEEE TIP 2004, as in their MATLAB code: 11x11 Gaussian window of sigma 1.5, K = (0.01, 0.03), L = 255,
    only windows that lie inside the image, no downsampling; float64. Colour: the mean over the channels.

    Args:
        image: (H, W) or (H, W, C).
        reference: the same shape.

    Raises:
        InputError: the image is smaller than the window.
        ValueError: the shapes differ.
    """
    if image.shape != reference.shape:
        raise ValueError(f"SSIM of images of shapes {image.shape} and {reference.shape}.")
    height, width = image.shape[:2]
    if min(height, width) < WINDOW:
        raise InputError(f"the image is {width}x{height}; SSIM needs at least {WINDOW}x{WINDOW} pixels.")
    if image.ndim == 3:
        return float(np.mean([ssim(image[..., c], reference[..., c]) for c in range(image.shape[2])]))
    x, y = image.astype(np.float64), reference.astype(np.float64)
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y, cov = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2, _blur(x * y) - mean_x * mean_y
    numerator = (2 * mean_x * mean_y + _C1) * (2 * cov + _C2)
    return float(np.mean(numerator / ((mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2))))


def _blur(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted mean of the window around each pixel whose window fits; the Gaussian is separable."""
    rows: NDArray[np.float64] = sliding_window_view(plane, WINDOW, axis=0) @ _TAPS
    means: NDArray[np.float64] = sliding_window_view(rows, WINDOW, axis=1) @ _TAPS
    return means
