"""Dilated bodies: the context modules of Yu and Koltun, hybrid dilated convolutions, and dense upsampling heads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sstl.errors import SstlError
from sstl.networks.base import NETWORKS, Network, check_counts, pad_to_multiple, undetected
from sstl.networks.blocks import DilatedConv, shrink
from sstl.ops.dilation import check_rates
from sstl.types import Restoration

YU_KOLTUN = (1, 1, 2, 4, 8, 16, 1)  # 3x3 layers with receptive fields 3, 5, 9, 17, 33, 65, 67; then 1x1
LARGE = (2, 2, 4, 8, 16, 32, 32, 1)  # the large module's channels, in units of C


class ContextModule(nn.Sequential):
    """The context module of Yu and Koltun (ICLR 2016): C channels in, C channels out, context of 67x67 pixels.

    It starts as the identity on non-negative features: each output channel copies its input channel at the centre tap;
    where layers widen or narrow (the large module), C / c_{i+1} of each channel of the matching group, and small noise
    elsewhere. Rectified after every layer but the last.

    Args:
        channels: C.
        large: the large module, 2C to 32C channels wide; else the basic one, C channels throughout.
    """

    def __init__(self, channels: int, large: bool = False) -> None:
        widths = [channels, *((channels * k for k in LARGE) if large else [channels] * len(LARGE))]
        layers: list[nn.Module] = []
        for (inputs, outputs), rate in zip(pairwise(widths), (*YU_KOLTUN, None), strict=True):
            layer = nn.Conv2d(inputs, outputs, 1) if rate is None else DilatedConv(inputs, outputs, rate)
            start_as_identity(layer, channels)
            layers += [layer, nn.ReLU()]
        super().__init__(*layers[:-1])


def start_as_identity(layer: nn.Conv2d, channels: int) -> None:
    """Set a convolution between multiples of ``channels`` to Yu and Koltun's identity initialisation."""
    inputs, outputs, centre = layer.in_channels, layer.out_channels, layer.kernel_size[0] // 2
    group_in, group_out = (torch.arange(n) * channels // n for n in (inputs, outputs))
    same = group_out[:, None] == group_in[None, :]
    share = channels / outputs
    with torch.no_grad():
        assert layer.bias is not None
        layer.bias.zero_()
        if inputs == outputs == channels:
            layer.weight.zero_()
        else:
            # Small beside the share, summed over all that a pixel of the layer sees.
            layer.weight.normal_(0, 0.05 * share / math.sqrt(layer.weight[0].numel()))
        layer.weight[:, :, centre, centre] = torch.where(same, share, layer.weight[:, :, centre, centre])


class DilatedStack(nn.Module):
    """x + a stack of rectified dilated convolutions, whose rates alone decide what it sees."""

    def __init__(self, width: int, rates: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for rate in rates:
            layers += [DilatedConv(width, width, rate), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])
        shrink(self.layers[-1])  # type: ignore[arg-type]  # a convolution: the last ReLU is left out

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return x + self.layers(x)  # type: ignore[no-any-return]


class Body(Network):
    """A body between two 1x1 layers, which see no neighbours: the body alone decides what is seen. B^ = O + residual.

    With ``factor`` d > 1 the body works at 1/d of the resolution, on d x d pixels per cell, and the head is a dense
    upsampling convolution (DUC, Wang et al., WACV 2018): it predicts d^2 x 3 channels, which become pixels.

    Args:
        body: (B, width, H, W) -> the same shape.
        width: channels.
        radius: the body's receptive radius, in cells.
        factor: d.
    """

    def __init__(self, body: nn.Module, width: int, radius: int, factor: int = 1) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3 * factor**2, width, 1)
        self.body = body
        self.head = nn.Conv2d(width, 3 * factor**2, 1)
        shrink(self.head)
        self.stride = factor
        self.receptive_radius = factor * radius + factor - 1

    def forward(self, rainy: Tensor) -> Restoration:
        """(B, 3, H, W) in [0, 1], any H, W >= 1 -> Restoration."""
        cells = F.pixel_unshuffle(pad_to_multiple(rainy, self.stride), self.stride)
        residual = F.pixel_shuffle(self.head(self.body(F.relu(self.stem(cells)))), self.stride)
        return undetected(rainy, rainy + residual[..., : rainy.size(2), : rainy.size(3)].to(rainy.dtype))


def _stacks(name: str, rates: Sequence[int], width: int, repeats: int, allow_holes: bool) -> tuple[nn.Module, int]:
    check_counts(name, width=width, repeats=repeats)
    try:
        check_rates(rates)
    except SstlError:
        if not (allow_holes and rates and min(rates) >= 1):
            raise
    return nn.Sequential(*(DilatedStack(width, rates) for _ in range(repeats))), repeats * sum(rates)


@NETWORKS.register("context_basic")
def context_basic(channels: int = 32) -> Body:
    """Yu and Koltun's basic context module as a network (ICLR 2016)."""
    check_counts("context_basic", channels=channels)
    return Body(ContextModule(channels), channels, sum(YU_KOLTUN))


@NETWORKS.register("context_large")
def context_large(channels: int = 4) -> Body:
    """Yu and Koltun's large context module as a network (ICLR 2016)."""
    check_counts("context_large", channels=channels)
    return Body(ContextModule(channels, large=True), channels, sum(YU_KOLTUN))


@NETWORKS.register("hdc")
def hdc(rates: Sequence[int] = (1, 2, 5), width: int = 32, repeats: int = 3, allow_holes: bool = False) -> Body:
    """Hybrid dilated convolutions at full resolution (HDC, Wang et al., WACV 2018); rates with holes are refused."""
    body, radius = _stacks("hdc", rates, width, repeats, allow_holes)
    return Body(body, width, radius)


@NETWORKS.register("duc")
def duc(
    rates: Sequence[int] = (1, 2, 5), width: int = 64, repeats: int = 3, factor: int = 2, allow_holes: bool = False
) -> Body:
    """The same at 1/factor of the resolution under a dense upsampling head (DUC, Wang et al., WACV 2018)."""
    check_counts("duc", factor=factor)
    body, radius = _stacks("duc", rates, width, repeats, allow_holes)
    return Body(body, width, radius, factor)
