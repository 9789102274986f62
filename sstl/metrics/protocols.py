"""The two protocols under which deraining is scored. Their figures are never mixed in one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sstl.errors import InputError
from sstl.metrics.luma import matlab_luma
from sstl.metrics.psnr import psnr
from sstl.metrics.ssim import ssim

Protocol = Literal["rgb", "y-matlab"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)


@dataclass(frozen=True)
class Score:
    """The score of one image; PSNR in dB, infinite for identical values.

    Attributes:
        psnr: over all pixels.
        ssim: at most 1.
        psnr_rain: over the pixels where it rained; None if there are none or no map was given.
        psnr_free: over the other pixels, likewise.
    """

    psnr: float
    ssim: float
    psnr_rain: float | None = None
    psnr_free: float | None = None


def score(
    restored: NDArray[np.uint8],
    clean: NDArray[np.uint8],
    protocol: Protocol,
    rain: NDArray[np.bool_] | None = None,
) -> Score:
    """Score a restored image against the clean one.

    ``rgb``: PSNR over the RGB values, SSIM the mean of the three channels. ``y-matlab``: both on the luma of MATLAB's
    ``rgb2ycbcr``, rounded to 8 bits, as the published tables of deraining do. Peak and range are 255 in both.

    Args:
        restored: (H, W, 3) uint8 RGB.
        clean: the same shape.
        protocol: "rgb" or "y-matlab".
        rain: the true rain map, (H, W), to score rainy and rain-free pixels apart.

    Raises:
        InputError: the sizes differ, or the image is too small for the window of SSIM.
        ValueError: an image is not uint8 RGB, or the protocol is unknown.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}; it must be one of {', '.join(PROTOCOLS)}.")
    for image in (restored, clean):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"an image is {image.dtype} of shape {image.shape}; it must be uint8 of shape (H, W, 3).")
    if restored.shape != clean.shape:
        (h, w), (clean_h, clean_w) = restored.shape[:2], clean.shape[:2]
        raise InputError(f"the image is {w}x{h} but its clean image is {clean_w}x{clean_h}; both must have one size.")
    a, b = (matlab_luma(restored), matlab_luma(clean)) if protocol == "y-matlab" else (restored, clean)
    parts = (None, None) if rain is None else (_psnr_within(a, b, rain), _psnr_within(a, b, ~rain))
    return Score(psnr(a, b), ssim(a, b), *parts)


def _psnr_within(a: NDArray[np.uint8], b: NDArray[np.uint8], where: NDArray[np.bool_]) -> float | None:
    return psnr(a[where], b[where]) if where.any() else None
