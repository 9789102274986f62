"""Grey values and their gradients, on which the measures without a reference work."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float64]

_WEIGHTS = (0.299, 0.587, 0.114)


def grey(image: NDArray[np.uint8]) -> Plane:
    """Return 0.299 R + 0.587 G + 0.114 B, not rounded, 0 to 255, (H, W), of an image (H, W, 3) or (H, W).

    Raises:
        ValueError: the image is not uint8 of such a shape.
    """
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        raise ValueError(f"an image is {image.dtype} of shape {image.shape}; it must be uint8, (H, W, 3) or (H, W).")
    if image.ndim == 2:
        return image.astype(np.float64)
    red, green, blue = (weight * image[..., c].astype(np.float64) for c, weight in enumerate(_WEIGHTS))
    return red + green + blue


def residual(rainy: NDArray[np.uint8], restored: NDArray[np.uint8]) -> Plane:
    """Return what was removed, grey(rainy) - grey(restored), (H, W) in grey levels; ValueError if the shapes differ."""
    if rainy.shape != restored.shape:
        raise ValueError(f"images of shapes {rainy.shape} and {restored.shape}.")
    return grey(rainy) - grey(restored)


def gradient(plane: Plane) -> tuple[Plane, Plane]:
    """Return the derivatives along x and y, each (H - 1, W - 1), in the cells between four pixels.

    Differences over one pixel, averaged over the other axis: unlike central differences they see stripes of two pixels
    a period, and both derivatives of a plane wave have one phase, so that its structure tensor has rank 1.
    """
    right, down = np.diff(plane, axis=1), np.diff(plane, axis=0)
    return (right[1:] + right[:-1]) / 2, (down[:, 1:] + down[:, :-1]) / 2
