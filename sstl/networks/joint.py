"""joint: our own network that detects the rain map R, estimates the streaks S and restores the background B."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sstl.errors import SstlError
from sstl.networks.base import NETWORKS, Network, check_counts, pad_to_multiple
from sstl.networks.blocks import DilatedConv, ResidualBlock, conv, shrink
from sstl.ops.dilation import check_rates
from sstl.types import Restoration

Size = Literal["tiny", "small", "base"]


@dataclass(frozen=True)
class _Shape:
    widths: tuple[int, int, int]  # channels at 1/2, 1/4 and 1/8 of the resolution
    blocks: tuple[int, int]  # residual blocks each way at 1/2 and 1/4
    contexts: int  # context blocks at 1/8


# Dense 3x3 convolutions at 48-96 channels reach the highest share of a processor's bf16 rate; hence no layer at full
# resolution, where as many operations would have to be spread over few channels.
SHAPES: dict[str, _Shape] = {
    "tiny": _Shape((24, 40, 56), (2, 2), 1),
    "small": _Shape((48, 64, 112), (3, 3), 2),
    "base": _Shape((80, 112, 160), (4, 4), 3),
}


class ContextBlock(nn.Module):
    """A contextualized dilated block: parallel paths of different dilation, summed with the identity.

    After JORDER (Yang et al., CVPR 2017), with two departures: each path's first convolution has rate 1, so that no
    path leaves holes by itself (JORDER's rate-2 and rate-3 paths do), and paths are half as wide as the features.
    """

    def __init__(self, width: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.paths = nn.ModuleList(
            nn.Sequential(conv(width, width // 2), nn.ReLU(), DilatedConv(width // 2, width, rate)) for rate in rates
        )
        for path in self.paths:
            shrink(path[2])  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return x + sum((path(x) for path in self.paths), start=torch.zeros_like(x))


class Joint(Network):
    """A U of dense convolutions from 1/2 to 1/8 of the resolution, with a dilated bottleneck and three heads.

    The heads follow JORDER's order: R from the features; S from the features and R; B from the features, R, S and the
    subtraction O - S*R, whose error it corrects. Each predicts 2x2 pixels per feature cell (sub-pixel convolution, the
    DUC of Wang et al., WACV 2018). With ``stages`` > 1 the same weights run again on (O, previous background), as in
    JORDER-R's progressive removal; every stage's result is returned.

    Args:
        size: ``tiny``, ``small`` or ``base``: about 0.3, 1.5 and 5 million parameters.
        stages: recurrences tau >= 1.
        rates: dilation rates of the bottleneck's parallel paths; must satisfy the HDC rule and leave no hole.
    """

    stride = 8

    def __init__(self, size: Size = "small", stages: int = 1, rates: Sequence[int] = (1, 2, 5)) -> None:
        super().__init__()
        if size not in SHAPES:
            raise SstlError(f"joint: size is '{size}'; it must be one of {', '.join(SHAPES)}.")
        check_counts("joint", stages=stages)
        check_rates(rates)
        shape = SHAPES[size]
        self.stages = stages
        half, quarter, eighth = shape.widths
        self.stem = conv(4 * 3 * (1 if stages == 1 else 2), half)
        self.encode_half = _blocks(half, shape.blocks[0])
        self.down_quarter = nn.Conv2d(half, quarter, 2, stride=2)
        self.encode_quarter = _blocks(quarter, shape.blocks[1])
        self.down_eighth = nn.Conv2d(quarter, eighth, 2, stride=2)
        self.context = nn.Sequential(*(ContextBlock(eighth, rates) for _ in range(shape.contexts)))
        self.up_quarter = nn.Sequential(nn.Conv2d(eighth, 4 * quarter, 1), nn.PixelShuffle(2))
        self.decode_quarter = _blocks(quarter, shape.blocks[1])
        self.up_half = nn.Sequential(nn.Conv2d(quarter, 4 * half, 1), nn.PixelShuffle(2))
        self.decode_half = _blocks(half, shape.blocks[0])
        self.head_mask = _head(half, half, 4)
        self.head_streak = _head(half + 4, half, 12)
        self.head_background = _head(half + 4 + 12 + 12, half, 12)
        self.receptive_radius = self._radius(shape, rates) * stages

    @staticmethod
    def _radius(shape: _Shape, rates: Sequence[int]) -> int:
        at_half = 1 + 4 * shape.blocks[0] + 6  # stem, residual blocks both ways, three heads of two convolutions
        at_quarter = 4 * shape.blocks[1]
        at_eighth = shape.contexts * (1 + max(rates))
        return 2 * at_half + 4 * at_quarter + 8 * at_eighth + 7  # 7: a cell of the coarsest grid spans 8 pixels

    def forward(self, rainy: Tensor) -> Restoration:
        """(B, 3, H, W) in [0, 1], any H, W >= 1 -> Restoration of the same size."""
        height, width = rainy.shape[-2:]
        padded = pad_to_multiple(rainy, self.stride)
        background, earlier = padded, []
        for _ in range(self.stages):
            result = self._stage(padded, background)
            background = result.background
            earlier.append(_crop(result, height, width, rainy.dtype))
        *stages, last = earlier
        return Restoration(last.background, last.streak, last.mask_logits, tuple(stages))

    def _stage(self, rainy: Tensor, background: Tensor) -> Restoration:
        given = rainy if self.stages == 1 else torch.cat([rainy, background], dim=1)
        features = self._features(F.pixel_unshuffle(given, 2))
        logits = self.head_mask(features)  # (B, 4, H/2, W/2): R for each of the 2x2 pixels
        mask = logits.sigmoid()
        streak = F.softplus(self.head_streak(torch.cat([features, mask], dim=1)) - 3)  # rain only adds light: S >= 0
        subtracted = F.pixel_unshuffle(rainy, 2) - streak * _repeat(mask)
        correction = self.head_background(torch.cat([features, mask, streak, subtracted], dim=1))
        return Restoration(
            F.pixel_shuffle(subtracted + correction, 2), F.pixel_shuffle(streak, 2), F.pixel_shuffle(logits, 2)
        )

    def _features(self, x: Tensor) -> Tensor:
        half = self.encode_half(F.relu(self.stem(x)))
        quarter = self.encode_quarter(self.down_quarter(half))
        eighth = self.context(self.down_eighth(quarter))
        quarter = self.decode_quarter(quarter + self.up_quarter(eighth))
        return self.decode_half(half + self.up_half(quarter))  # type: ignore[no-any-return]


def _blocks(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width) for _ in range(count)))


def _head(inputs: int, width: int, outputs: int) -> nn.Sequential:
    last = conv(width, outputs)
    shrink(last)
    return nn.Sequential(conv(inputs, width), nn.ReLU(), last)


def _repeat(mask: Tensor) -> Tensor:
    # pixel_unshuffle lays channels out as (colour, 2x2): the map's four pixels repeat once per colour.
    return mask.repeat(1, 3, 1, 1)


def _crop(result: Restoration, height: int, width: int, dtype: torch.dtype) -> Restoration:
    assert result.mask_logits is not None
    layers = (result.background, result.streak, result.mask_logits)
    background, streak, logits = (layer[..., :height, :width].to(dtype) for layer in layers)
    return Restoration(background, streak, logits)


@NETWORKS.register("joint")
def joint(size: Size = "small", stages: int = 1, rates: Sequence[int] = (1, 2, 5)) -> Joint:
    """Joint rain detection, streak estimation and background restoration (ours)."""
    return Joint(size, stages, rates)
