"""NIQE: how far the local statistics of one image are from those of photographs, without a reference."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from sstl.errors import InputError
from sstl.metrics.grey import Plane, grey

PATCH = 96  # pixels; half of it at the second scale
SHARP = 0.75  # of the sharpest patch's sharpness; what a patch needs to be fitted on
FEATURES = 36
_ROUNDING = 1e-9  # grey levels
_SHIPPED = Path(__file__).with_suffix(".npz")
_PAIRS = ((0, 1), (1, 0), (1, 1), (1, -1))  # rows and columns to the neighbour, as in the paper

_TAPS = np.exp(-((np.arange(7) - 3) ** 2) / (2 * (7 / 6) ** 2))
_TAPS /= _TAPS.sum()
# Keys' cubic, stretched to twice its width: halving without aliasing, as MATLAB's imresize does it.
_NEAR, _FAR = np.array([0.25, 0.75]), np.array([1.25, 1.75])
_CUBIC = np.concatenate([1.5 * _NEAR**3 - 2.5 * _NEAR**2 + 1, -0.5 * _FAR**3 + 2.5 * _FAR**2 - 4 * _FAR + 2])
_HALVING = np.concatenate([_CUBIC[::-1], _CUBIC]) / (2 * _CUBIC.sum())


@dataclass(frozen=True, eq=False)
class Statistics:
    """The multivariate Gaussian of the features of sharp patches of good photographs.

    Attributes:
        mean: (36,).
        covariance: (36, 36).
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]


def niqe(image: NDArray[np.uint8], statistics: Statistics | None = None) -> float:
    """Return the distance of an image's local statistics from those of photographs; 0 at best, no upper bound.

    Mittal, Soundararajan and Bovik, IEEE SPL 2013: of each 96x96 patch and of its half-size copy, the shapes of the
    generalised Gaussians of the locally normalised grey values and of the products of neighbours (36 features); then
    sqrt((m - n)' ((M + N) / 2)^+ (m - n)) with the mean m and covariance M of the image's patches and n, N of
    ``statistics``. Departures: grey is not rounded, the shape is interpolated in the paper's table, patches without
    variation are left out.

    Two warnings. The shipped statistics are our own (``niqe.md``): a value does not compare with NIQE from other
    statistics. And NIQE knows photographs, not rain: it ranks restorers wrongly (on SPA-Data the weakest comes first),
    rewards grain that looks like a camera's, and says nothing of whether the content was kept. Read it beside the
    measures of the removed layer, never alone.

    Args:
        image: (H, W, 3) RGB or (H, W), uint8, at least 96x96; what does not fill a patch is cut off right and below.
        statistics: what to compare with; the shipped ones if None.

    Raises:
        InputError: the image is smaller than a patch, or all of its patches are flat.
    """
    found, _ = patch_features(image)
    if not len(found):
        raise InputError("NIQE is not defined for an image whose patches are all flat.")
    reference = shipped_statistics() if statistics is None else statistics
    covariance = np.cov(found, rowvar=False) if len(found) > 1 else np.zeros_like(reference.covariance)
    difference = found.mean(axis=0) - reference.mean
    distance = difference @ np.linalg.pinv((covariance + reference.covariance) / 2) @ difference
    return math.sqrt(max(float(distance), 0.0))


def fit_niqe(images: Iterable[NDArray[np.uint8]]) -> Statistics:
    """Return the statistics of the sharp patches of images, those of at least 0.75 times their image's sharpest.

    Raises:
        InputError: an image is smaller than a patch.
        ValueError: the images hold fewer patches than features.
    """
    chosen = []
    for image in images:
        found, sharpness = patch_features(image)
        chosen.append(found[sharpness > SHARP * sharpness.max(initial=0)])
    patches = np.concatenate(chosen) if chosen else np.empty((0, FEATURES))
    if len(patches) <= FEATURES:
        raise ValueError(f"{len(patches)} sharp patches cannot tell the covariance of {FEATURES} features.")
    return Statistics(patches.mean(axis=0), np.cov(patches, rowvar=False))


@functools.cache
def shipped_statistics() -> Statistics:
    """Return the statistics that are shipped beside this file."""
    with np.load(_SHIPPED, allow_pickle=False) as file:
        return Statistics(file["mean"], file["covariance"])


def patch_features(image: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the features of an image's patches, (N, 36), and their sharpness, the mean local deviation, (N,).

    Raises:
        InputError: the image is smaller than a patch.
    """
    height, width = image.shape[:2]
    if min(height, width) < PATCH:
        raise InputError(f"the image is {width}x{height}; NIQE needs at least {PATCH}x{PATCH} pixels.")
    plane = grey(image[: height // PATCH * PATCH, : width // PATCH * PATCH])
    normalised, deviation = _normalise(plane)
    half, _ = _normalise(_halve(_halve(plane).T).T)
    found = np.concatenate([_features(_patches(normalised, PATCH)), _features(_patches(half, PATCH // 2))], axis=1)
    defined = np.isfinite(found).all(axis=1)
    return found[defined], _patches(deviation, PATCH).mean(axis=(1, 2))[defined]


def _normalise(plane: Plane) -> tuple[Plane, Plane]:
    """Return (I - mean) / (deviation + 1) over a 7x7 Gaussian window, and the deviation."""
    mean = _blur(plane)
    deviation = np.sqrt(np.abs(_blur(plane**2) - mean**2))
    difference = plane - mean
    difference[np.abs(difference) < _ROUNDING] = 0  # or flat patches would have features
    return difference / (deviation + 1), deviation


def _blur(plane: Plane) -> Plane:
    rows: Plane = sliding_window_view(np.pad(plane, 3, mode="edge"), 7, axis=0) @ _TAPS
    means: Plane = sliding_window_view(rows, 7, axis=1) @ _TAPS
    return means


def _halve(plane: Plane) -> Plane:
    padded = np.pad(plane, ((3, 3), (0, 0)), mode="symmetric")
    halved: Plane = sliding_window_view(padded, 8, axis=0)[::2] @ _HALVING
    return halved


def _patches(plane: Plane, side: int) -> Plane:
    """(H, W) -> (N, side, side)."""
    rows, columns = plane.shape[0] // side, plane.shape[1] // side
    return plane.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side)


def _features(patches: Plane) -> NDArray[np.float64]:
    """(N, side, side) -> (N, 18); not finite where a patch has no variation."""
    shape, left, right, _ = _asymmetric_gaussian(patches)
    columns = [shape, (left + right) / 2]
    for shift in _PAIRS:
        shape, left, right, mean = _asymmetric_gaussian(patches * np.roll(patches, shift, axis=(1, 2)))
        columns += [shape, mean, left, right]
    return np.stack(columns, axis=1)


def _asymmetric_gaussian(values: Plane) -> tuple[Plane, ...]:
    """Fit an asymmetric generalised Gaussian to each patch by moments: its shape, left and right scale, and mean."""
    axes = (1, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        left, right = (
            np.sqrt(np.sum(values**2, axis=axes, where=side) / np.sum(side, axis=axes))
            for side in (values < 0, values > 0)
        )
        ratio = left / right
        moments = np.mean(np.abs(values), axis=axes) ** 2 / np.mean(values**2, axis=axes)
        moments *= (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    grid, of_moments, of_scale, of_mean = _tables()
    shape = np.interp(moments, of_moments, grid)
    scale = np.interp(shape, grid, of_scale)
    left, right = left * scale, right * scale
    return shape, left, right, (right - left) * np.interp(shape, grid, of_mean)


@functools.cache
def _tables() -> tuple[NDArray[np.float64], ...]:
    """Shapes g, and G(2/g)^2 / (G(1/g) G(3/g)), which grows with g, sqrt(G(1/g) / G(3/g)), G(2/g) / G(1/g)."""
    grid = np.arange(200, 10_001) / 1000
    one, two, three = (np.array([math.lgamma(k / g) for g in grid]) for k in (1, 2, 3))
    return grid, np.exp(2 * two - one - three), np.exp((one - three) / 2), np.exp(two - one)
