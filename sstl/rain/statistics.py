"""What a streak layer looks like in numbers, true or rendered: density, brightness, direction, width, length."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sstl.rain.imaging import rain_map

_BINOMIAL = np.array([1, 4, 6, 4, 1]) / 16
REACH = 96  # pixels; longer correlations are not looked for


@dataclass(frozen=True)
class StreakStatistics:
    """Of one image's streak layer.

    Attributes:
        density: share of the pixels in the rain map R.
        brightness: mean of the layer over R, in [0, 1]; 0 without rain.
        angle: dominant direction in degrees, 0 straight down, positive leaning right, in (-90, 90].
        coherence: how much one direction dominates, in [0, 1]: (l1 - l2) / (l1 + l2), the structure tensor's
            eigenvalues.
        width, length: full width at half maximum, in pixels, of the layer's autocorrelation across and along that
            direction.
    """

    density: float
    brightness: float
    angle: float
    coherence: float
    width: float
    length: float


def streak_statistics(streak: Tensor) -> StreakStatistics:
    """Measure a streak layer S~ = max(O - B, 0), (C, H, W) in [0, 1], of at least 8x8 pixels."""
    grey = streak.mean(dim=0).double().numpy()
    rain = rain_map(streak[None])[0, 0].numpy() > 0
    angle, coherence = _direction(grey)
    correlation = _autocorrelation(grey)
    across, along = (np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))
    return StreakStatistics(
        density=float(rain.mean()),
        brightness=float(grey[rain].mean()) if rain.any() else 0.0,
        angle=float(np.rad2deg(angle)),
        coherence=coherence,
        width=_width(correlation, across),
        length=_width(correlation, along),
    )


def distances(rendered: list[StreakStatistics], true: list[StreakStatistics]) -> dict[str, float]:
    """Wasserstein-1 distance of each number's distribution over images, in units of the true standard deviation.

    0: the same histogram; 1: shifted by as much as the true images differ among themselves.
    """
    found = {}
    for name in asdict(true[0]):
        ours, theirs = (np.array([getattr(s, name) for s in group]) for group in (rendered, true))
        levels = (np.arange(200) + 0.5) / 200
        gap = np.abs(np.quantile(ours, levels) - np.quantile(theirs, levels)).mean()
        found[name] = float(gap / max(theirs.std(), 1e-6))
    return found


def _direction(grey: NDArray[np.float64]) -> tuple[float, float]:
    """The direction of least change, from straight down, in radians; and the coherence."""
    # Smoothed before it is differentiated: differences of thin lines are biased towards the axes.
    for axis in (0, 1):
        grey = np.apply_along_axis(np.convolve, axis, grey, _BINOMIAL, mode="same")
    rows, columns = np.gradient(grey)
    xx, yy, xy = (columns**2).sum(), (rows**2).sum(), (columns * rows).sum()
    steepest = 0.5 * np.arctan2(2 * xy, xx - yy)  # from the x axis; streaks run across it
    angle = -steepest if abs(steepest) < np.pi / 2 else np.pi / 2
    return float(angle), float(np.hypot(xx - yy, 2 * xy) / max(xx + yy, 1e-12))


def _autocorrelation(grey: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normalised autocorrelation, the origin in the middle, at twice the size so that nothing meets itself wrapped."""
    centred = grey - grey.mean()
    shape = (2 * grey.shape[0], 2 * grey.shape[1])
    power = np.abs(np.fft.rfft2(centred, shape)) ** 2
    correlation = np.fft.fftshift(np.fft.irfft2(power, shape))
    normalised: NDArray[np.float64] = correlation / max(correlation.max(), 1e-12)
    return normalised


def _width(correlation: NDArray[np.float64], direction: tuple[float, float]) -> float:
    """Twice the distance at which the correlation along a direction (x, y) has first fallen to one half."""
    height, width = correlation.shape
    steps = np.arange(0, min(REACH, height // 2 - 2, width // 2 - 2), 0.25)
    values = _bilinear(correlation, height // 2 + steps * direction[1], width // 2 + steps * direction[0])
    below = np.flatnonzero(values < 0.5)
    return float(2 * steps[below[0]]) if len(below) else float(2 * steps[-1])


def _bilinear(
    image: NDArray[np.float64], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.float64]:
    grid = torch.from_numpy(
        np.stack([2 * columns / (image.shape[1] - 1) - 1, 2 * rows / (image.shape[0] - 1) - 1], axis=-1)
    )
    sampled = torch.nn.functional.grid_sample(torch.from_numpy(image)[None, None], grid[None, None], align_corners=True)
    result: NDArray[np.float64] = sampled[0, 0, 0].numpy()
    return result
