"""How strongly what was removed from an image is oriented: rain is, texture and noise are less."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sstl.metrics.grey import Plane, gradient, residual

BLOCK = 32  # pixels: a few streaks wide, and small enough for their direction to be one


def directionality(rainy: NDArray[np.uint8], restored: NDArray[np.uint8]) -> float:
    """Return the coherence of the removed layer r = rainy - restored, weighted by its energy, in [0, 1].

    D = sum_b (l1 - l2) / sum_b (l1 + l2) with the eigenvalues l1 >= l2 of the structure tensor, the sum of
    grad r grad r' over the block b of 32x32 pixels. Stripes of one direction give 1; two perpendicular sets of stripes
    of energies p and q give |p - q| / (p + q); noise gives nearly 0, and so does nothing removed, by definition.

    Cheapest way to fool it: remove one faint streak, or a grating that was never there. It tells the form of what was
    removed, neither how much nor whether it was rain; straight edges of the background are oriented too.

    Args:
        rainy: the input, uint8 (H, W, 3) or (H, W).
        restored: the output, of the same shape.
    """
    xx, yy, xy = (_block_sums(part) for part in structure_tensor(residual(rainy, restored)))
    energy = float(np.sum(xx + yy))
    return float(np.sum(np.hypot(xx - yy, 2 * xy))) / energy if energy > 0 else 0.0


def structure_tensor(plane: Plane) -> tuple[Plane, Plane, Plane]:
    """Return the products of the gradient with itself in each cell: xx, yy and xy."""
    along_x, along_y = gradient(plane)
    return along_x**2, along_y**2, along_x * along_y


def _block_sums(plane: Plane) -> Plane:
    rows, columns = (np.arange(0, size, BLOCK) for size in plane.shape)
    sums: Plane = np.add.reduceat(np.add.reduceat(plane, rows, axis=0), columns, axis=1)
    return sums
