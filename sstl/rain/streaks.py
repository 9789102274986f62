"""The streak renderer: falling drops drawn as motion-blurred lines, batched, deterministic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

STEP = 0.75  # distance between the points of a line, in pixels; below 1 a line has no gaps


@dataclass(frozen=True)
class StreakLayer:
    """One layer of streaks that share a wind; lengths in pixels, angles in degrees, brightness in [0, 1].

    Attributes:
        angle: mean direction, 0 is straight down, positive leans to the right.
        angle_spread: standard deviation of the direction.
        length: mean streak length; single streaks vary around it by the factor exp(N(0, length_spread^2)).
        length_spread: that standard deviation.
        width: full width at half maximum of a streak's cross-section, at least 1.
        density: streaks per 1000 pixels.
        brightness: mean peak brightness; single streaks vary by exp(N(0, brightness_spread^2)).
        brightness_spread: that standard deviation.
        blur: standard deviation of an extra defocus of the whole layer, in pixels.
        tapered: a streak fades at its ends; else it is as bright from end to end, as lines that were drawn are.
    """

    angle: float
    angle_spread: float
    length: float
    length_spread: float
    width: float
    density: float
    brightness: float
    brightness_spread: float
    blur: float
    tapered: bool = True


def render_layers(
    layers: list[list[StreakLayer]],
    height: int,
    width: int,
    generators: list[np.random.Generator],
    visible: list[list[Tensor]] | None = None,
) -> Tensor:
    """Render streaks: one list of layers and one generator per image, and how much of each layer is seen where.

    Returns:
        Grey streaks, shape (B, 1, height, width), float32 >= 0: the layers' sum, not clipped.
    """
    canvas = torch.zeros(len(layers), 1, height, width)
    for depth in range(max((len(own) for own in layers), default=0)):
        present = [i for i, own in enumerate(layers) if depth < len(own)]
        chosen = [layers[i][depth] for i in present]
        points = [_drops(layer, height, width, generators[i]) for layer, i in zip(chosen, present, strict=True)]
        sigmas = [_sigma(layer) for layer in chosen]
        drawn = blur(splat(points, height, width), sigmas)
        if visible is not None:
            drawn = drawn * torch.stack([visible[i][depth] for i in present])[:, None]
        canvas[present] += drawn
    return canvas


def _sigma(layer: StreakLayer) -> float:
    # A splatted line is a box of about one pixel, variance 1/12 plus the bilinear kernel's; the rest is blur.
    cross_section = max(layer.width, 1.0) / 2.355
    return float(np.sqrt(max(cross_section**2 - 0.25, 0.0) + layer.blur**2))


def _drops(layer: StreakLayer, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Return the points of all drops of a layer, shape (N, 3): x, y, weight."""
    margin = 0.75 * layer.length  # streaks may enter from outside the picture
    area = (height + 2 * margin) * (width + 2 * margin)
    count = rng.poisson(layer.density * area / 1000)
    centre = rng.uniform(0, 1, (count, 2)) * [width + 2 * margin, height + 2 * margin] - margin
    angle = np.deg2rad(rng.normal(layer.angle, layer.angle_spread, count))
    length = layer.length * np.exp(rng.normal(0, layer.length_spread, count))
    peak = layer.brightness * np.exp(rng.normal(0, layer.brightness_spread, count))
    reach = np.stack([np.abs(np.sin(angle)), np.abs(np.cos(angle))], axis=1) * length[:, None] / 2 + 1
    seen = ((centre > -reach) & (centre < reach + np.array([width, height]))).all(axis=1)
    centre, angle, length, peak = centre[seen], angle[seen], length[seen], peak[seen]
    steps = np.maximum(np.ceil(length / STEP).astype(int), 1)
    drop = np.repeat(np.arange(len(steps)), steps)
    nth = np.arange(len(drop)) - np.repeat(np.cumsum(steps) - steps, steps)
    along = (nth + np.float32(0.5)) * (1 / steps).astype(np.float32)[drop] - np.float32(0.5)  # from -1/2 to 1/2
    # Exposure begins and ends while the drop is in motion.
    taper = np.minimum(1, 3 * (0.5 - np.abs(along)) + 0.1) if layer.tapered else np.ones_like(along)
    # A line of weight STEP per point has density 1 per pixel of length; blurred by sigma its peak falls by the factor
    # sigma * sqrt(2 pi), which is put back so that "brightness" is what one sees.
    gain = max(1.0, np.sqrt(2 * np.pi) * np.hypot(_sigma(layer), 0.35))
    weight = peak * length / steps * gain
    # All that differs by drop is computed by drop; there are some thirty times as many points.
    of_drop = np.stack([length * np.sin(angle), length * np.cos(angle), weight], axis=1).astype(np.float32)[drop]
    points = np.empty((len(drop), 3), dtype=np.float32)
    points[:, :2] = centre.astype(np.float32)[drop] + along[:, None] * of_drop[:, :2]
    points[:, 2] = taper * of_drop[:, 2]
    return points


def splat(points: list[np.ndarray], height: int, width: int) -> Tensor:
    """Add points to images bilinearly; (B, 1, height, width)."""
    image = torch.from_numpy(np.repeat(np.arange(len(points)), [len(p) for p in points]))
    x, y, weight = torch.from_numpy(np.concatenate(points).astype(np.float32, copy=False)).unbind(dim=1)
    near = (x > -1) & (x < width) & (y > -1) & (y < height)
    image, x, y, weight = image[near], x[near], y[near], weight[near]
    left, top = x.floor(), y.floor()
    right_share, lower_share = x - left, y - top
    # A frame of one pixel takes the shares that fall outside.
    canvas = torch.zeros(len(points), height + 2, width + 2)
    corner = (image * (height + 2) + top.long() + 1) * (width + 2) + left.long() + 1
    for dx, horizontal in ((0, 1 - right_share), (1, right_share)):
        for dy, vertical in ((0, 1 - lower_share), (1, lower_share)):
            canvas.view(-1).index_add_(0, corner + dy * (width + 2) + dx, weight * horizontal * vertical)
    return canvas[:, None, 1:-1, 1:-1]


def blur(images: Tensor, sigmas: list[float]) -> Tensor:
    """Blur image i by a Gaussian of sigmas[i]; separable, borders see darkness."""
    largest = max(sigmas)
    if largest < 0.05:
        return images
    reaches = torch.tensor([max(1, int(np.ceil(3 * sigma))) for sigma in sigmas])
    radius = int(reaches.max())
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    spread = torch.tensor(sigmas).clamp(min=1e-3)[:, None]
    kernel = torch.exp(-0.5 * (offsets / spread) ** 2)
    kernel[offsets.abs() > reaches[:, None]] = 0  # an image's blur must not depend on what else is in its batch
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    stacked = images.transpose(0, 1)  # (1, B, H, W): one group per image
    groups = len(sigmas)
    stacked = F.conv2d(stacked, kernel[:, None, None, :], padding=(0, radius), groups=groups)
    stacked = F.conv2d(stacked, kernel[:, None, :, None], padding=(radius, 0), groups=groups)
    return stacked.transpose(0, 1)
