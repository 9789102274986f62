"""What can be measured of a restored image without its clean one; beware, each can be fooled."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sstl.errors import InputError
from sstl.metrics import directionality, leakage, leftover, niqe

NAMES = ("niqe", "directionality", "leftover", "leakage")


def naturalness(image: NDArray[np.uint8]) -> dict[str, float]:
    """Return the image's NIQE; nothing if it is not defined (smaller than a patch, or flat)."""
    try:
        return {"niqe": niqe(image)}
    except InputError:
        return {}


def without_reference(rainy: NDArray[np.uint8], restored: NDArray[np.uint8]) -> dict[str, float]:
    """Return the restored image's NIQE and the measures of the removed layer, those that are defined and finite."""
    measures = {"directionality": directionality, "leftover": leftover, "leakage": leakage}
    found = {name: measure(rainy, restored) for name, measure in measures.items()}
    return naturalness(restored) | {name: value for name, value in found.items() if math.isfinite(value)}
