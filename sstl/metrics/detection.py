"""How well a rain map finds the rain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Detection:
    """Agreement of a found rain map with the true one; each in [0, 1].

    Where nothing is to be found and nothing was (0/0), the agreement is 1.

    Attributes:
        precision: share of the found pixels that are rain.
        recall: share of the rain that was found.
        f1: their harmonic mean.
        iou: intersection over union.
    """

    precision: float
    recall: float
    f1: float
    iou: float


def detection(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Detection:
    """Compare two boolean maps of one shape; ValueError if the shapes differ."""
    if found.shape != truth.shape:
        raise ValueError(f"rain maps of shapes {found.shape} and {truth.shape}.")
    both, of_found, of_truth = (int(np.count_nonzero(m)) for m in (found & truth, found, truth))
    return Detection(
        precision=_ratio(both, of_found),
        recall=_ratio(both, of_truth),
        f1=_ratio(2 * both, of_found + of_truth),
        iou=_ratio(both, of_found + of_truth - both),
    )


def f1_of_all_ones(truth: NDArray[np.bool_]) -> float:
    """Return the F1 of calling every pixel rain, 2p / (1 + p) for a share p of rain: what a found map must beat."""
    return detection(np.ones_like(truth), truth).f1


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
