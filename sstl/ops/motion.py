"""Motion between two images: where each pixel of one is in the other, and bringing one image onto the other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_LEVELS = ((8, 4), (4, 1), (2, 1))  # (scale, search radius): motion of up to 32 pixels, to some quarter of a pixel
_WINDOW = 9  # side of the squares that are compared, in pixels of the level
_STILL = 0.002  # what a pixel of displacement must gain, in grey values of [0, 1]; without it flat areas drift


def displacement(image: Tensor, other: Tensor) -> Tensor:
    """Find each pixel of ``image`` in ``other`` by block matching, coarse to fine.

    Args:
        image, other: (B, 1, H, W) in [0, 1].

    Returns:
        (B, 2, H, W): x and y, in pixels, of the way from a pixel of ``image`` to its place in ``other``.
    """
    height, width = image.shape[-2:]
    flow = image.new_zeros(len(image), 2, 1, 1)
    for scale, radius in _LEVELS:
        size = (max(height // scale, 1), max(width // scale, 1))
        small, small_other = (F.interpolate(one, size, mode="area") for one in (image, other))
        flow = _refined(small, small_other, _resized(flow, size), radius)
    return _resized(flow, (height, width))


def warp(image: Tensor, flow: Tensor, mode: str = "bilinear") -> Tensor:
    """Return the image (B, C, H, W) whose value at a pixel is that of ``image`` at the pixel plus ``flow``."""
    height, width = image.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(height, device=image.device), torch.arange(width, device=image.device), indexing="ij"
    )
    place = torch.stack([(x + flow[:, 0]) * 2 + 1, (y + flow[:, 1]) * 2 + 1], dim=-1)
    place = place / place.new_tensor([width, height]) - 1
    return F.grid_sample(image, place, mode=mode, padding_mode="border", align_corners=False)


def box_mean(image: Tensor, side: int) -> Tensor:
    """Return the mean over squares of an odd side, borders repeated; same shape."""
    return F.avg_pool2d(F.pad(image, [side // 2] * 4, mode="replicate"), side, stride=1)


def _resized(flow: Tensor, size: tuple[int, int]) -> Tensor:
    ratio = flow.new_tensor([size[1] / flow.size(3), size[0] / flow.size(2)]).view(1, 2, 1, 1)
    return F.interpolate(flow, size, mode="bilinear", align_corners=False) * ratio


def _refined(image: Tensor, other: Tensor, flow: Tensor, radius: int) -> Tensor:
    """Add to ``flow`` the best shift of up to ``radius`` pixels, to a part of a pixel by a parabola where that fits."""
    reach = range(-radius, radius + 1)
    side = len(reach)
    shifts = [flow.new_tensor([x, y]).view(1, 2, 1, 1) for y in reach for x in reach]
    costs = torch.cat([_cost(image, other, flow, shift) for shift in shifts], dim=1)
    least, best = costs.min(dim=1, keepdim=True)
    whole, parts = [], []
    for index, step in ((best % side, 1), (best // side, side)):
        inside = (index > 0) & (index < side - 1)
        before, after = (costs.gather(1, (best + way).clamp(0, side * side - 1)) for way in (-step, step))
        part = 0.5 * (before - after) / (before - 2 * least + after).clamp(min=1e-6)
        whole.append(index - radius)
        parts.append(part.clamp(-0.5, 0.5) * inside)
    shift = torch.cat(whole, dim=1).to(flow)
    finer = shift + torch.cat(parts, dim=1)
    # At an edge the costs to both sides differ even where nothing moves: a parabola alone would find motion there.
    fits = _cost(image, other, flow, finer) < least
    return box_mean(flow + torch.where(fits, finer, shift), 5)


def _cost(image: Tensor, other: Tensor, flow: Tensor, shift: Tensor) -> Tensor:
    unlike = box_mean((image - warp(other, flow + shift)).abs(), _WINDOW)
    far: Tensor = torch.linalg.vector_norm(shift, dim=1, keepdim=True)
    return unlike + _STILL * far
