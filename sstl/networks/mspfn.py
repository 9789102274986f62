"""mspfn: the multi-scale progressive fusion network, which finds the rain on three scales, coarse to fine."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sstl.networks.base import NETWORKS, Network, check_counts, pad_to_multiple, undetected
from sstl.networks.blocks import conv, shrink
from sstl.networks.recurrent import ConvLSTM
from sstl.types import Restoration

Scales = tuple[Tensor, Tensor, Tensor]  # features (B, C, H, W) at 1, 1/2 and 1/4 of the resolution


class AttentionBlock(nn.Module):
    """RCAB: x + f * attention(f) with f = conv(prelu(conv(x))); one attention in (0, 1) per channel, from f's mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        squeezed = (width + 3) // 4
        self.branch = nn.Sequential(conv(width, width), _prelu(width), conv(width, width))
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, squeezed, 1),
            _prelu(squeezed),
            nn.Conv2d(squeezed, width, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        f = self.branch(x)
        return x + f * self.attention(f)  # type: ignore[no-any-return]


class AttentionUnit(nn.Module):
    """URAB: attention blocks at half the resolution, between a convolution down and a transposed one up."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.down = _conv(width, width, stride=2)
        self.blocks = nn.Sequential(*(AttentionBlock(width) for _ in range(blocks)))
        self.up = _up(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape; H and W even."""
        short = self.down(x)
        return self.up(torch.cat([short, self.blocks(short)], dim=1))  # type: ignore[no-any-return]


class MemoryUnit(nn.Module):
    """A ConvLSTM of ``units`` channels between two convolutions; one step from the zero state, as released."""

    def __init__(self, width: int, units: int) -> None:
        super().__init__()
        narrow = (width + 1) // 2
        self.before, self.memory, self.after = _conv(width, narrow), ConvLSTM(narrow, units), _conv(units, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        hidden, _ = self.memory(self.before(x))
        return self.after(hidden)  # type: ignore[no-any-return]


class Cascade(nn.Module):
    """One fusion, coarse to fine: each scale adds what its unit makes of its own features and the coarser results."""

    def __init__(self, width: int, full: nn.Module, half: nn.Module, quarter: nn.Module) -> None:
        super().__init__()
        self.at_full, self.at_half, self.at_quarter = full, half, quarter
        self.quarter_to_half, self.half_to_full = _up(width, width), _up(width, width)
        self.quarter_to_full = _up(width, width)  # what has come up to 1/2 already, once more

    def forward(self, full: Tensor, half: Tensor, quarter: Tensor) -> Scales:
        """The three scales' features -> the same shapes."""
        quarter = quarter + self.at_quarter(quarter)
        raised = self.quarter_to_half(quarter)
        half = half + self.at_half(half + raised)
        full = full + self.at_full(full + self.half_to_full(half) + self.quarter_to_full(raised))
        return full, half, quarter


class Mspfn(Network):
    """Multi-scale progressive fusion network (Jiang et al., CVPR 2020), laid out as in its released code.

    Features of the rainy image and of its means over 2x2 and 4x4 pixels go through one coarse fusion by recurrent
    units, then through many fine fusions by attention units; the reconstruction compares both, climbs from the coarsest
    scale and gives the residual rain, which is subtracted. As released, the recurrent units take one step from zero:
    their recurrent weights are counted but never used. We depart in two ways: convolutions start as torch's do, and
    the last one smaller, because from the released start (Xavier) the stack of additions removes a third of the range;
    a stride-2 convolution is centred on its pixel. It does not detect, and its attention sees all of the image.

    Args:
        width: channels of the features.
        units: fine fusions; each has 1, 3 and 3 attention blocks at 1/4, 1/2 and 1 of the resolution.
    """

    stride = 8  # 4 to the coarsest scale, 2 inside its attention units

    def __init__(self, width: int, units: int) -> None:
        super().__init__()
        check_counts("mspfn", width=width, units=units)
        narrow = (width + 1) // 2
        self.stems = nn.ModuleList(_conv(3, width) for _ in range(3))
        self.coarse = Cascade(width, *(MemoryUnit(width, scale * width) for scale in (4, 2, 1)))
        self.fine = nn.ModuleList(
            Cascade(width, *(AttentionUnit(width, blocks) for blocks in (3, 3, 1))) for _ in range(units)
        )
        self.compare = nn.ModuleList(_conv(2 * width, width) for _ in range(3))
        self.quarter_to_half, self.half_to_full = _up(width, width), _up(2 * width, width)
        last = nn.Conv2d(narrow, 3, 3, padding=1, bias=False)
        shrink(last)
        self.head = nn.Sequential(_conv(2 * width, narrow), last)

    def forward(self, rainy: Tensor) -> Restoration:
        """(B, 3, H, W) in [0, 1], any H, W >= 1 -> Restoration."""
        rain = self._rain(pad_to_multiple(rainy, self.stride))
        return undetected(rainy, rainy - rain[..., : rainy.shape[-2], : rainy.shape[-1]].to(rainy.dtype))

    def _rain(self, image: Tensor) -> Tensor:
        pyramid = (image, F.avg_pool2d(image, 2), F.avg_pool2d(image, 4))
        coarse: Scales = self.coarse(*(stem(scale) for stem, scale in zip(self.stems, pyramid, strict=True)))
        fine = coarse
        for fusion in self.fine:
            fine = fusion(*fine)
        both = (torch.cat(pair, dim=1) for pair in zip(fine, coarse, strict=True))
        full, half, quarter = (compare(pair) for compare, pair in zip(self.compare, both, strict=True))
        half = torch.cat([self.quarter_to_half(quarter), half], dim=1)
        return self.head(torch.cat([full, self.half_to_full(half)], dim=1))  # type: ignore[no-any-return]


def _prelu(width: int) -> nn.PReLU:
    return nn.PReLU(width, init=0.0)  # the released code starts from ReLU


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(layer, _prelu(outputs))


def _up(inputs: int, outputs: int) -> nn.Sequential:
    layer = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1, bias=False)
    return nn.Sequential(layer, _prelu(outputs))


@NETWORKS.register("mspfn")
def mspfn(width: int = 64, units: int = 17) -> Mspfn:
    """MSPFN: multi-scale progressive fusion network (Jiang et al., CVPR 2020)."""
    return Mspfn(width, units)
