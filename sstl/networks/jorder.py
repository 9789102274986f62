"""JORDER: joint rain detection and removal on contextualized dilated features; once, progressively, with a de-veil."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sstl.networks.base import NETWORKS, Network, check_counts
from sstl.networks.blocks import DilatedConv, conv, shrink
from sstl.networks.deveil import Deveil
from sstl.types import Restoration

RATES = (1, 2, 3)


class ContextualizedBlock(nn.Module):
    """x + the sum of three paths of two convolutions each, of dilations 1, 2 and 3 (receptive fields 5, 9, 13).

    The paths of dilation 2 and 3 grid by themselves; the one of dilation 1 fills the inner 5x5. Further out holes stay
    in a single block; the network's other convolutions fill them.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.paths = nn.ModuleList(
            nn.Sequential(DilatedConv(width, width, rate), nn.ReLU(), DilatedConv(width, width, rate)) for rate in RATES
        )
        for path in self.paths:
            shrink(path[2])  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return x + sum(path(x) for path in self.paths)  # type: ignore[no-any-return]


class Jorder(Network):
    """JORDER's network (Yang et al., CVPR 2017): features, then R^, then S^ that sees R^, then B^ that sees both.

    F comes from a contextualized dilated block that is applied ``recurrences`` times with one set of weights, so that
    its context grows; R^ = two convolutions on F; S^ = a convolution on [F, R^]; B^ = a convolution on
    [F, R^, S^, O - R^ S^]. Sources state neither widths nor recurrences nor how R^ enters the next heads: here it is
    the probability of rain, and the last convolution starts as the identity of O - R^ S^. (The *released* JORDER is
    another network: twelve plain convolutions on luma, without dilation or heads.)

    Args:
        width: channels.
        recurrences: applications of the block.
    """

    def __init__(self, width: int, recurrences: int) -> None:
        super().__init__()
        check_counts("jorder", width=width, recurrences=recurrences)
        self.recurrences = recurrences
        self.encoder = conv(3, width)
        self.block = ContextualizedBlock(width)
        self.mask = nn.Sequential(conv(width, width), nn.ReLU(), conv(width, 1))
        self.streak = conv(width + 1, 3)
        self.background = conv(width + 1 + 3 + 3, 3)
        with torch.no_grad():
            shrink(self.background)
            self.background.weight[:, -3:, 1, 1] += torch.eye(3)
        self.receptive_radius = 1 + 2 * max(RATES) * recurrences + 2 + 1 + 1

    def forward(self, rainy: Tensor) -> Restoration:
        """(B, 3, H, W) in [0, 1] -> Restoration."""
        features = F.relu(self.encoder(rainy))
        for _ in range(self.recurrences):
            features = F.relu(self.block(features))
        logits = self.mask(features).to(rainy.dtype)
        mask = logits.sigmoid()
        streak = self.streak(torch.cat([features, mask], dim=1)).to(rainy.dtype)
        seen = [features, mask, streak, rainy - mask * streak]
        return Restoration(self.background(torch.cat(seen, dim=1)).to(rainy.dtype), streak, logits)


class ProgressiveJorder(Network):
    """JORDER-R: the same network takes rain away ``stages`` times, O_{t+1} = O_t - (O_t - B^_t) (progressive removal).

    Stage t sees only the rain that is left. What a stage returns is about O: its map is where any stage up to it found
    rain, and S^ R^ is the sum of what they found. Every stage is returned, so that each can be supervised.

    Args:
        width, recurrences: as for ``Jorder``.
        stages: tau of the paper.
    """

    def __init__(self, width: int, recurrences: int, stages: int) -> None:
        super().__init__()
        check_counts("jorder_r", stages=stages)
        self.stages = stages
        self.remove = Jorder(width, recurrences)
        assert self.remove.receptive_radius is not None
        self.receptive_radius = stages * self.remove.receptive_radius

    def forward(self, rainy: Tensor) -> Restoration:
        """(B, 3, H, W) in [0, 1] -> Restoration."""
        total = self.remove(rainy)
        stages: list[Restoration] = []
        for _ in range(self.stages - 1):
            stages.append(total)
            total = _accumulate(total, self.remove(total.background))
        return Restoration(total.background, total.streak, total.mask_logits, tuple(stages))


def _accumulate(before: Restoration, now: Restoration) -> Restoration:
    """Put a further stage's rain to what was found before."""
    assert before.mask_logits is not None
    assert now.mask_logits is not None
    logits = torch.maximum(before.mask_logits, now.mask_logits)
    # S is the sum of S_t R_t over the common map: bounded by the sum of S_t, since no R_t exceeds the map.
    streak = (before.removed + now.removed) / logits.sigmoid().clamp(min=1e-6)
    return Restoration(now.background, streak, logits)


@NETWORKS.register("jorder")
def jorder(width: int = 32, recurrences: int = 4) -> Jorder:
    """JORDER: joint detection and removal on contextualized dilated features (Yang et al., CVPR 2017)."""
    return Jorder(width, recurrences)


@NETWORKS.register("jorder_r")
def jorder_r(width: int = 32, recurrences: int = 2, stages: int = 3) -> ProgressiveJorder:
    """JORDER-R: JORDER applied progressively, each stage on what the last one left."""
    return ProgressiveJorder(width, recurrences, stages)


@NETWORKS.register("jorder_r_deveil")
def jorder_r_deveil(width: int = 32, recurrences: int = 2, stages: int = 3) -> Deveil:
    """JORDER-R-DEVEIL: derain, remove the veil, derain again."""
    return Deveil(ProgressiveJorder(width, recurrences, stages))
