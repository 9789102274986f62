"""idcgan: the generator of ID-CGAN, and the conditional discriminator that it is trained against."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sstl.networks.base import NETWORKS, Network, check_counts, pad_to_multiple, undetected
from sstl.networks.blocks import conv
from sstl.types import Restoration

SCALES = (1, 2, 4, 8)  # cells to a side of the discriminator's pooled features; the first sees the whole image


class DenseBlock(nn.Module):
    """Layers that each append ``growth`` channels, computed from all channels before them.

    A layer is DenseNet's (Huang et al., CVPR 2017): a 1x1 convolution to four times the growth, then a 3x3 one.
    """

    def __init__(self, inputs: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                *_normalise(inputs + i * growth),
                nn.Conv2d(inputs + i * growth, 4 * growth, 1, bias=False),
                *_normalise(4 * growth),
                nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
            )
            for i in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, inputs + layers * growth, H, W)."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        return x


class IdcganGenerator(Network):
    """The generator of ID-CGAN (Zhang, Sindagi and Patel, TCSVT 2019): a U of densely connected blocks.

    The paper's layout at width 64: CBLP(64) D(256) Td(128) D(512) Td(256) D(1024) Tn(512) D(768) Tn(128) D(640) Tu(120)
    D(384) Tu(64) D(192) Tu(64) D(32) Tn(16) C(3) Tanh, with symmetric skips; D(n) is a dense block that ends with n
    channels; Td, Tn, Tu halve, keep and double the resolution. Images are in [-1, 1] inside. The rest we chose:

    - The widths add up if a skip is concatenated, 120 is read as 128 and D(32) appends 32 channels to its 64.
    - Growth is half the width, as DenseNet's: 6, 12 and 24 layers (DenseNet-121's) down, then 8, 8, 4, 2 and 1.
    - A transition is normalisation, activation and 1x1 convolution; pooling is a mean; upsampling repeats pixels.

    The released Lua code has a plain encoder and decoder of convolutions instead (64, 64, 64, 64, 32, 1). As in the
    paper the image itself is not added to the output, so a fresh network returns grey. It does not detect.

    Args:
        width: channels after the first convolution: 32 makes 1.8 million parameters, the paper's 64 makes 7.2.
    """

    stride = 8
    latent = "deepest"

    def __init__(self, width: int) -> None:
        super().__init__()
        check_counts("idcgan", width=width)
        growth = (width + 1) // 2
        down, up = nn.AvgPool2d(2), nn.Upsample(scale_factor=2)
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), *_normalise(width), down)
        self.half_to_quarter = _level(width, growth, 6, 2 * width, down)
        self.quarter_to_eighth = _level(2 * width, growth, 12, 4 * width, down)
        self.deepest = nn.Sequential(_level(4 * width, growth, 24, 8 * width), _level(8 * width, growth, 8, 2 * width))
        self.eighth_to_quarter = _level(6 * width, growth, 8, 2 * width, up)
        self.quarter_to_half = _level(4 * width, growth, 4, width, up)
        self.half_to_full = _level(2 * width, growth, 2, width, up)
        self.head = nn.Sequential(_level(width, growth, 1, (width + 3) // 4), conv((width + 3) // 4, 3))
        # Layers at 1/8, 1/4, 1/2 and 1, each with one 3x3 convolution; 7: a cell of the coarsest grid spans 8 pixels.
        self.receptive_radius = 8 * (24 + 8 + 8) + 4 * (12 + 4) + 2 * (6 + 2) + (1 + 1 + 1) + 7

    def forward(self, rainy: Tensor) -> Restoration:
        """(B, 3, H, W) in [0, 1], any H, W >= 1 -> Restoration."""
        # Twice the stride: statistics of a batch need more than one value of each channel, at 1/8 too.
        image = self._image(2 * pad_to_multiple(rainy, 2 * self.stride) - 1)
        background = (image[..., : rainy.shape[-2], : rainy.shape[-1]].to(rainy.dtype) + 1) / 2
        return undetected(rainy, background)

    def _image(self, x: Tensor) -> Tensor:
        half = self.stem(x)
        quarter = self.half_to_quarter(half)
        eighth = self.quarter_to_eighth(quarter)
        x = self.eighth_to_quarter(torch.cat([self.deepest(eighth), eighth], dim=1))
        x = self.quarter_to_half(torch.cat([x, quarter], dim=1))
        x = self.half_to_full(torch.cat([x, half], dim=1))
        return self.head(x).tanh()  # type: ignore[no-any-return]


class MultiScaleDiscriminator(nn.Module):
    """The discriminator of ID-CGAN: is the second image of a pair the clean one, or the generator's?

    Three 4x4 convolutions of stride 2 as in the released code, then the paper's multi-scale pooling: the features'
    means over a pyramid of grids, each through a 1x1 convolution, are enlarged and concatenated to the features, so
    that every logit judges its own place and the whole image. The paper is silent on the grids (ours: ``SCALES``); its
    sigmoid belongs to the loss.

    Args:
        width: channels after the first convolution; 48 in the released code.
    """

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        check_counts("idcgan's discriminator", width=width)
        self.features = nn.Sequential(
            nn.Conv2d(6, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1, bias=False),
            *_normalise(2 * width, tracked=False),
            nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1, bias=False),
            *_normalise(4 * width, tracked=False),
        )
        self.pyramid = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(cells), nn.Conv2d(4 * width, width, 1), nn.LeakyReLU(0.2))
            for cells in SCALES
        )
        self.head = nn.Conv2d((4 + len(SCALES)) * width, 1, 4, padding=1)

    def forward(self, pair: Tensor) -> Tensor:
        """cat(rainy, candidate), (B, 6, H, W) in [0, 1], H, W >= 32 -> logits (B, 1, H // 8 - 1, W // 8 - 1)."""
        features = self.features(2 * pair - 1)
        pooled = (F.interpolate(scale(features), size=features.shape[-2:]) for scale in self.pyramid)
        return self.head(torch.cat([features, *pooled], dim=1))  # type: ignore[no-any-return]


def _normalise(width: int, tracked: bool = True) -> tuple[nn.Module, nn.Module]:
    # The discriminator is used in training only: statistics of the batch at hand are all it needs.
    return nn.BatchNorm2d(width, track_running_stats=tracked), nn.LeakyReLU(0.2)


def _level(inputs: int, growth: int, layers: int, outputs: int, resample: nn.Module | None = None) -> nn.Sequential:
    """A dense block and its transition to ``outputs`` channels."""
    grown = inputs + layers * growth
    transition = [*_normalise(grown), nn.Conv2d(grown, outputs, 1, bias=False)]
    return nn.Sequential(DenseBlock(inputs, growth, layers), *transition, *([resample] if resample else []))


@NETWORKS.register("idcgan")
def idcgan(width: int = 32) -> IdcganGenerator:
    """ID-CGAN's generator: a U of densely connected blocks (Zhang et al., TCSVT 2019)."""
    return IdcganGenerator(width)
