"""JORDER-E: enhanced joint detection and removal with contextual blocks, two recurrences, and modulated features."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sstl.errors import SstlError
from sstl.networks.base import NETWORKS, Network, check_counts
from sstl.networks.blocks import DilatedConv, conv
from sstl.types import Restoration

HIDDEN_HEAD, HIDDEN_MODULATION = 8, 16


class ContextualBlock(nn.Module):
    """x + B(1, 1) + 0.1 B(2, 2) + 0.1 B(2, 4), B(d, e) two rectified convolutions of dilations d and e."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.paths = nn.ModuleList(
            nn.Sequential(DilatedConv(width, width, d), nn.ReLU(), DilatedConv(width, width, e), nn.ReLU())
            for d, e in ((1, 1), (2, 2), (2, 4))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        near, *far = (path(x) for path in self.paths)
        return x + near + 0.1 * sum(far)  # type: ignore[no-any-return]


class Modulation(nn.Module):
    """From a head's output to a factor and an offset for the features; the factor starts at 1."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.factor, self.offset = (
            nn.Sequential(conv(inputs, HIDDEN_MODULATION), nn.ReLU(), conv(HIDDEN_MODULATION, width)) for _ in range(2)
        )
        nn.init.zeros_(self.factor[2].weight)  # type: ignore[arg-type]
        nn.init.ones_(self.factor[2].bias)  # type: ignore[arg-type]


class Seen(NamedTuple):
    """What a recurrence hands on: background, two-class map logits, level (an estimate of B - O), block features."""

    background: Tensor
    mask: Tensor
    level: Tensor
    features: list[Tensor]


class Recurrence(nn.Module):
    """One recurrence: features of cat(O, last background), map and level heads, modulation, decoder, + O."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.encoder = conv(6, width)
        self.blocks = nn.ModuleList(ContextualBlock(width) for _ in range(blocks))
        # The released heads and decoder have no rectifier between their two convolutions.
        self.mask = nn.Sequential(conv(width, HIDDEN_HEAD), conv(HIDDEN_HEAD, 2))
        self.level = nn.Sequential(conv(width, HIDDEN_HEAD), conv(HIDDEN_HEAD, 3))
        self.by_mask, self.by_level = Modulation(2, width), Modulation(3, width)
        self.decoder = nn.Sequential(conv(width, width), conv(width, 3))

    def forward(self, rainy: Tensor, last: Seen | None) -> Seen:
        """(B, 3, H, W), in the range that the weights were trained in, and the recurrence before."""
        x = self.encoder(torch.cat([rainy, rainy if last is None else last.background], dim=1))
        features = []
        for i, block in enumerate(self.blocks):
            x = block(x) if last is None else block(x) + last.features[i]
            features.append(x)
        mask, level = self.mask(x), self.level(x)
        if last is not None:
            mask, level = mask + last.mask, level + last.level
        scaled = x * self.by_mask.factor(mask) * self.by_level.factor(level)
        shifted = x + self.by_mask.offset(mask) + self.by_level.offset(level)
        return Seen(rainy + self.decoder(scaled + shifted), mask, level, features)


class JorderE(Network):
    """JORDER-E as released (Yang et al., TPAMI 2019): two recurrences with weights of their own.

    The map has two classes there; the logit given here is their difference. The level head estimates B - O there; the
    streak given here is its negative.

    Args:
        width: channels.
        blocks: contextual blocks of a recurrence.
        peak: value of white inside the network: 1, or 255 for the released weights.
    """

    def __init__(self, width: int, blocks: int, peak: float) -> None:
        super().__init__()
        check_counts("jorder_e", width=width, blocks=blocks)
        if not isinstance(peak, int | float) or not peak > 0:
            raise SstlError(f"jorder_e: peak is {peak!r}; it must be a number above 0.")
        self.peak = peak
        self.recurrences = nn.ModuleList(Recurrence(width, blocks) for _ in range(2))
        # encoder, blocks of two convolutions of rates 2 and 4, head and modulation of two each, decoder
        self.receptive_radius = 2 * (1 + 6 * blocks + 4 + 2)

    def forward(self, rainy: Tensor) -> Restoration:
        """(B, 3, H, W) in [0, 1] -> Restoration with the first recurrence as its stage."""
        seen: Seen | None = None
        stages: list[Restoration] = []
        for recurrence in self.recurrences:
            seen = recurrence(self.peak * rainy, seen)
            stages.append(self._restoration(seen, rainy.dtype))
        first, last = stages
        return Restoration(last.background, last.streak, last.mask_logits, (first,))

    def _restoration(self, seen: Seen, dtype: torch.dtype) -> Restoration:
        logits = (seen.mask[:, 1:] - seen.mask[:, :1]).to(dtype)
        return Restoration(seen.background.to(dtype) / self.peak, -seen.level.to(dtype) / self.peak, logits)


@NETWORKS.register("jorder_e")
def jorder_e(width: int = 64, blocks: int = 9, peak: float = 1.0) -> JorderE:
    """JORDER-E: enhanced joint rain detection and removal (Yang et al., TPAMI 2019)."""
    return JorderE(width, blocks, peak)


@NETWORKS.register("jorder_e_practical")
def jorder_e_practical(width: int = 32, blocks: int = 3, peak: float = 1.0) -> JorderE:
    """JORDER-E in its practical size."""
    return JorderE(width, blocks, peak)
