"""joint: our own network that detects the rain map R, estimates the streaks S and restores the background B."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sstl.errors import SstlError
from sstl.networks.base import NETWORKS, Network, check_counts, pad_to_multiple
from sstl.networks.blocks import DilatedConv, ResidualBlock, conv, shrink
from sstl.networks.context import YU_KOLTUN, ContextModule
from sstl.ops.dilation import check_rates
from sstl.types import Restoration

Size = Literal["tiny", "small", "base"]
Bottleneck = Literal["contextual", "context_basic", "context_large"]
Head = Literal["duc", "bilinear"]


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
    subtraction O - S*R, whose error it corrects. Features lie at 1/2 of the resolution. With ``stages`` > 1 the same
    weights run again on (O, previous background), as in JORDER-R's progressive removal; every stage is returned.

    Args:
        size: ``tiny``, ``small`` or ``base``: about 0.3, 1.5 and 5 million parameters.
        stages: recurrences tau >= 1.
        rates: dilation rates of the bottleneck's parallel paths; must satisfy the HDC rule and leave no hole.
        bottleneck: ``contextual`` blocks of parallel dilated paths, or a context module of Yu and Koltun.
        head: from cells to pixels: ``duc`` predicts 2x2 pixels per cell (dense upsampling convolution, Wang et al.,
            WACV 2018), ``bilinear`` one value per cell, interpolated.
        detect: False leaves the map out (R = 1 everywhere), to see what it is good for.
        widths, blocks, contexts: in place of the size's: channels at 1/2, 1/4 and 1/8 of the resolution, residual
            blocks each way at 1/2 and 1/4, context blocks at 1/8.
    """

    stride = 8
    latent = "context"

    def __init__(
        self,
        size: Size = "small",
        stages: int = 1,
        rates: Sequence[int] = (1, 2, 5),
        bottleneck: Bottleneck = "contextual",
        head: Head = "duc",
        detect: bool = True,
        widths: tuple[int, int, int] | None = None,
        blocks: tuple[int, int] | None = None,
        contexts: int | None = None,
    ) -> None:
        super().__init__()
        _check_choice("size", size, get_args(Size))
        _check_choice("bottleneck", bottleneck, get_args(Bottleneck))
        _check_choice("head", head, get_args(Head))
        check_counts("joint", stages=stages)
        check_rates(rates)
        own = SHAPES[size]
        shape = _Shape(widths or own.widths, blocks or own.blocks, own.contexts if contexts is None else contexts)
        check_counts("joint", width=min(shape.widths), blocks=min(shape.blocks), contexts=shape.contexts)
        self.stages = stages
        half, quarter, eighth = shape.widths
        self.stem = conv(4 * 3 * (1 if stages == 1 else 2), half)
        self.encode_half = _blocks(half, shape.blocks[0])
        self.down_quarter = nn.Conv2d(half, quarter, 2, stride=2)
        self.encode_quarter = _blocks(quarter, shape.blocks[1])
        self.down_eighth = nn.Conv2d(quarter, eighth, 2, stride=2)
        self.context, reach = _bottleneck(bottleneck, eighth, rates, shape.contexts)
        self.up_quarter = nn.Sequential(nn.Conv2d(eighth, 4 * quarter, 1), nn.PixelShuffle(2))
        self.decode_quarter = _blocks(quarter, shape.blocks[1])
        self.up_half = nn.Sequential(nn.Conv2d(quarter, 4 * half, 1), nn.PixelShuffle(2))
        self.decode_half = _blocks(half, shape.blocks[0])
        seen = half + (4 if detect else 0)
        self.head_mask = _head(head, half, half, 4) if detect else None
        self.head_streak = _head(head, seen, half, 12)
        self.head_background = _head(head, seen + 12 + 12, half, 12)
        heads = (3 if detect else 2) * (2 if head == "duc" else 3)  # two convolutions each; interpolation sees one cell
        at_half = 1 + 4 * shape.blocks[0] + heads  # stem, residual blocks both ways, heads
        # 7: a cell of the coarsest grid spans 8 pixels
        self.receptive_radius = stages * (2 * at_half + 4 * 4 * shape.blocks[1] + 8 * reach + 7)

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
        seen, logits, share = features, None, torch.ones_like(features[:, :4])
        if self.head_mask is not None:
            logits = self.head_mask(features)  # (B, 4, H/2, W/2): R for each of the 2x2 pixels
            share = logits.sigmoid()
            seen = torch.cat([features, share], dim=1)
        streak = F.softplus(self.head_streak(seen) - 3)  # rain only adds light: S >= 0
        subtracted = F.pixel_unshuffle(rainy, 2) - streak * _repeat(share)
        # As exact as the features are: beside one float32 layer cat would make all of them float32.
        layers = [seen, *(layer.to(seen.dtype) for layer in (streak, subtracted))]
        correction = self.head_background(torch.cat(layers, dim=1))
        return Restoration(
            F.pixel_shuffle(subtracted + correction, 2),
            F.pixel_shuffle(streak, 2),
            None if logits is None else F.pixel_shuffle(logits, 2),
        )

    def _features(self, x: Tensor) -> Tensor:
        half = self.encode_half(F.relu(self.stem(x)))
        quarter = self.encode_quarter(self.down_quarter(half))
        eighth = self.context(self.down_eighth(quarter))
        quarter = self.decode_quarter(quarter + self.up_quarter(eighth))
        return self.decode_half(half + self.up_half(quarter))  # type: ignore[no-any-return]


def _blocks(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width) for _ in range(count)))


def _bottleneck(kind: Bottleneck, width: int, rates: Sequence[int], contexts: int) -> tuple[nn.Sequential, int]:
    """Return the layers at 1/8 of the resolution and how many cells they see to each side."""
    if kind == "contextual":
        return nn.Sequential(*(ContextBlock(width, rates) for _ in range(contexts))), contexts * (1 + max(rates))
    return nn.Sequential(nn.ReLU(), ContextModule(width, large=kind == "context_large")), sum(YU_KOLTUN)


def _head(kind: Head, inputs: int, width: int, outputs: int) -> nn.Sequential:
    """(B, inputs, h, w) -> (B, outputs, h, w), the outputs being 2x2 pixels of each cell."""
    last = conv(width, outputs if kind == "duc" else outputs // 4)
    shrink(last)
    return nn.Sequential(conv(inputs, width), nn.ReLU(), last, *([] if kind == "duc" else [_Interpolation()]))


class _Interpolation(nn.Module):
    """One value per cell -> 2x2 pixels per cell, bilinearly."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False), 2)


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise SstlError(f"joint: {name} is '{value}'; it must be one of {', '.join(choices)}.")


def _repeat(mask: Tensor) -> Tensor:
    # pixel_unshuffle lays channels out as (colour, 2x2): the map's four pixels repeat once per colour.
    return mask.repeat(1, 3, 1, 1)


def _crop(result: Restoration, height: int, width: int, dtype: torch.dtype) -> Restoration:
    background, streak, logits = (
        None if layer is None else layer[..., :height, :width].to(dtype)
        for layer in (result.background, result.streak, result.mask_logits)
    )
    assert background is not None
    assert streak is not None
    return Restoration(background, streak, logits)


@NETWORKS.register("joint")
def joint(
    size: Size = "small",
    stages: int = 1,
    rates: Sequence[int] = (1, 2, 5),
    bottleneck: Bottleneck = "contextual",
    head: Head = "duc",
    detect: bool = True,
    widths: tuple[int, int, int] | None = None,
    blocks: tuple[int, int] | None = None,
    contexts: int | None = None,
) -> Joint:
    """Joint rain detection, streak estimation and background restoration (ours)."""
    return Joint(size, stages, rates, bottleneck, head, detect, widths, blocks, contexts)
