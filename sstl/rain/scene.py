"""What a scene does to rain: depth and its attenuation, mist and splashes near the ground, lamps at night."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sstl.rain.ranges import Range


def depth_field(height: int, width: int, rng: np.random.Generator) -> Tensor:
    """A stand-in for depth, (height, width) in [0, 1], 0 near: a ground that recedes to a horizon, with hills in it.

    d = clip(g + 0.3 n), g from 1 at the horizon (a random height in the upper half) to 0 at the lower border, n smooth
    noise in [-1, 1].
    """
    horizon = rng.uniform(0, 0.5)
    rows = (torch.arange(height) + 0.5) / height
    ground = ((1 - rows) / (1 - horizon)).clamp(0, 1)[:, None]
    noise = torch.from_numpy(rng.uniform(-1, 1, (1, 1, 4, 4)).astype(np.float32))
    hills = F.interpolate(noise, (height, width), mode="bicubic", align_corners=True)[0, 0]
    return (ground + 0.3 * hills).clamp(0, 1)


def attenuation(depth: Tensor, beta: float) -> Tensor:
    """Transmission exp(-beta d): the rain between the camera and a thing at depth d, seen as a veil."""
    return torch.exp(-beta * depth)


def mist(depth: Tensor, strength: float) -> Tensor:
    """Transmission exp(-strength g) of spray over the ground, g = exp(-(d / 0.3)^2) where the ground is near."""
    return torch.exp(-strength * torch.exp(-((depth / 0.3) ** 2)))


def occlusion(depth: Tensor, distance: float) -> Tensor:
    """How much is seen of drops at ``distance`` (in [0, 1]): all before farther things, nothing behind nearer ones.

    A smooth step of width 0.2: clip((d - distance) / 0.2 + 1).
    """
    return ((depth - distance) / 0.2 + 1).clamp(0, 1)


def lamps(height: int, width: int, count: int, tint: Range, rng: np.random.Generator) -> Tensor:
    """Light at night, (3, height, width): 0.1 + 0.9 * the brightest of ``count`` Gaussian glows, or 1 without lamps.

    Drops shine where lamps light them. A lamp's colour is white less ``tint`` of a random hue's complement.
    """
    if count == 0:
        return torch.ones(3, height, width)
    rows, columns = torch.arange(height)[:, None] / height, torch.arange(width)[None, :] / width
    glow = torch.zeros(3, height, width)
    for _ in range(count):
        top, left, size = rng.uniform(0, 0.7), rng.uniform(0, 1), rng.uniform(0.1, 0.35)
        distance = (rows - top) ** 2 + ((columns - left) * width / height) ** 2
        colour = torch.ones(3)
        if tint[1]:  # white lamps draw nothing, so that their scenes are what they were
            colour = torch.from_numpy(1 - rng.uniform(*tint) * rng.dirichlet((0.5, 0.5, 0.5))).float()
        glow = torch.maximum(glow, colour[:, None, None] * torch.exp(-distance / (2 * size**2)))
    return 0.1 + 0.9 * glow


def splash_points(depth: Tensor, density: float, brightness: float, rng: np.random.Generator) -> np.ndarray:
    """Drops that spring up where rain meets near ground: points (N, 3) of x, y and weight, for the splatter.

    ``density`` splashes per 1000 pixels of ground (d < 0.4) in the lower half, each a crown of twelve droplets on half
    an ellipse, 1 to 3 pixels wide where d = 0.4 and twice that where d = 0.
    """
    height, width = depth.shape
    count = rng.poisson(density * height * width / 2000)
    x, y = rng.uniform(0, width, count), rng.uniform(height / 2, height, count)
    near = 1 - depth.numpy()[y.astype(int), x.astype(int)] / 0.4
    x, y, near = x[near > 0], y[near > 0], near[near > 0]
    size = rng.uniform(1, 3, len(x)) * (1 + near)
    angle = rng.uniform(0, np.pi, (len(x), 12))
    points_x = x[:, None] + size[:, None] * np.cos(angle)
    points_y = y[:, None] - 0.7 * size[:, None] * np.sin(angle)
    weight = brightness * rng.uniform(0.3, 1, angle.shape)
    return np.stack([points_x.ravel(), points_y.ravel(), weight.ravel()], axis=1)
