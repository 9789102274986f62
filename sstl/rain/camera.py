"""What a camera and a file make of a rainy scene: exposure, gamma, noise, resampling, JPEG. One function an effect."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sstl.rain.ranges import Range, check_ranges


@dataclass(frozen=True)
class Camera:
    """Ranges from which the effects on one image are drawn uniformly.

    Attributes:
        exposure, gamma: see ``develop``; of the scene, so the clean image has them too.
        noise: see ``sensor_noise``; the first number of its two, the other is a tenth of its root.
        resize: see ``resample``; 1 for none.
        quality: see ``jpeg``; from 1 to 95, 0 for none. Every second image has its chroma subsampled.
    """

    exposure: Range = (1.0, 1.0)
    gamma: Range = (1.0, 1.0)
    noise: Range = (0.0, 0.0)
    resize: Range = (1.0, 1.0)
    quality: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        """Refuse ranges that are upside down or out of bounds (ValueError)."""
        check_ranges(self)
        if self.exposure[0] <= 0 or self.gamma[0] <= 0 or not 0 < self.resize[0] <= self.resize[1] <= 1:
            raise ValueError("'exposure' and 'gamma' must be positive, and 'resize' in (0, 1].")
        if self.quality[1] > 95:
            raise ValueError(f"'quality' is {list(self.quality)}; it must be at most 95.")


@dataclass(frozen=True)
class Shot:
    """The effects drawn for one image; the attributes are those of ``Camera``, one number each."""

    exposure: float
    gamma: float
    noise: float
    resize: float
    quality: int
    subsampled: bool


def draw_shot(camera: Camera, rng: np.random.Generator) -> Shot:
    """Draw the effects of one image."""
    return Shot(
        exposure=float(rng.uniform(*camera.exposure)),
        gamma=float(rng.uniform(*camera.gamma)),
        noise=float(rng.uniform(*camera.noise)),
        resize=float(rng.uniform(*camera.resize)),
        quality=int(rng.integers(camera.quality[0], camera.quality[1] + 1)),
        subsampled=bool(rng.integers(2)),
    )


def capture(scene: Tensor, shot: Shot, rng: np.random.Generator) -> Tensor:
    """Noise, resampling and JPEG of one rainy scene, (3, H, W) in [0, 1], in this order; exposure is the scene's."""
    return jpeg(resample(sensor_noise(scene, shot.noise, rng), shot.resize), shot.quality, shot.subsampled)


def develop(image: Tensor, exposure: float, gamma: float) -> Tensor:
    """clip(exposure * x) ^ gamma: a brighter or darker development of the same scene."""
    return (exposure * image).clamp(0, 1) ** gamma if (exposure, gamma) != (1, 1) else image


def sensor_noise(image: Tensor, shot: float, rng: np.random.Generator) -> Tensor:
    """clip(x + sqrt(shot * x + (sqrt(shot) / 10)^2) n), n standard normal: photon noise, and a floor of read noise."""
    if shot == 0:
        return image
    noise = torch.from_numpy(rng.standard_normal(tuple(image.shape), dtype=np.float32))
    return (image + (shot * image + shot / 100).sqrt() * noise).clamp(0, 1)


def resample(image: Tensor, factor: float) -> Tensor:
    """Shrink by ``factor`` (antialiased) and enlarge again, both bicubic, clipped: what the web does to photos."""
    height, width = image.shape[-2:]
    small = max(1, round(factor * height)), max(1, round(factor * width))
    if small == (height, width):
        return image
    shrunk = F.interpolate(image[None], small, mode="bicubic", antialias=True)
    return F.interpolate(shrunk, (height, width), mode="bicubic")[0].clamp(0, 1)


def jpeg(image: Tensor, quality: int, subsampled: bool = True) -> Tensor:
    """Through an 8-bit JPEG file of ``quality`` (0: unchanged), its chroma at half the resolution if ``subsampled``."""
    if quality == 0:
        return image
    pixels = (image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="jpeg", quality=quality, subsampling=2 if subsampled else 0)
    decoded = np.array(Image.open(buffer))
    return torch.from_numpy(decoded).permute(2, 0, 1).to(image.dtype) / 255
