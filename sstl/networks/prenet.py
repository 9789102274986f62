"""PReNet and PRN: one small residual network, unfolded over stages that see the rainy image and the last result."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sstl.networks.base import NETWORKS, Network, check_counts, undetected
from sstl.networks.blocks import conv
from sstl.networks.recurrent import ConvLSTM
from sstl.types import Restoration


class RectifiedBlock(nn.Module):
    """relu(x + relu(conv(relu(conv(x))))): PReNet rectifies the branch and the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = conv(width, width), conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return F.relu(x + F.relu(self.second(F.relu(self.first(x)))))


class Progressive(Network):
    """Progressive recurrent deraining (Ren et al., CVPR 2019, and its released code).

    Each stage sees cat(O, B^ of the stage before): convolution, ConvLSTM, residual blocks, convolution, + O. All stages
    share their weights; every stage's result is returned. It does not detect.

    Args:
        stages: unfolded stages.
        width: channels.
        blocks: residual blocks of a stage.
        recurrent: with the ConvLSTM between stages (PReNet) or without (PRN).
        shared: whether the blocks share one block's weights (the ``_r`` variants).
    """

    def __init__(self, stages: int, width: int, blocks: int, recurrent: bool, shared: bool) -> None:
        super().__init__()
        check_counts("prenet", stages=stages, width=width, blocks=blocks)
        self.stages, self.repeats = stages, blocks if shared else 1
        self.stem = conv(6, width)
        self.memory = ConvLSTM(width, width) if recurrent else None
        self.blocks = nn.Sequential(*(RectifiedBlock(width) for _ in range(1 if shared else blocks)))
        self.head = conv(width, 3)
        self.receptive_radius = stages * (2 + 2 * blocks + (1 if recurrent else 0))

    def forward(self, rainy: Tensor) -> Restoration:
        """(B, 3, H, W) in [0, 1] -> Restoration."""
        background, state = rainy, None
        stages: list[Restoration] = []
        for _ in range(self.stages):
            x = F.relu(self.stem(torch.cat([rainy, background], dim=1)))
            if self.memory is not None:
                state = self.memory(x, state)
                x = state[0]
            for _ in range(self.repeats):
                x = self.blocks(x)
            background = rainy + self.head(x).to(rainy.dtype)
            stages.append(undetected(rainy, background))
        return undetected(rainy, background, tuple(stages[:-1]))


@NETWORKS.register("prenet")
def prenet(stages: int = 6, width: int = 32, blocks: int = 5) -> Progressive:
    """PReNet: progressive recurrent network with a ConvLSTM (Ren et al., CVPR 2019)."""
    return Progressive(stages, width, blocks, recurrent=True, shared=False)


@NETWORKS.register("prenet_r")
def prenet_r(stages: int = 6, width: int = 32, blocks: int = 5) -> Progressive:
    """PReNet whose residual blocks share one block's weights."""
    return Progressive(stages, width, blocks, recurrent=True, shared=True)


@NETWORKS.register("prn")
def prn(stages: int = 6, width: int = 32, blocks: int = 5) -> Progressive:
    """PRN: PReNet without the recurrent layer."""
    return Progressive(stages, width, blocks, recurrent=False, shared=False)


@NETWORKS.register("prn_r")
def prn_r(stages: int = 6, width: int = 32, blocks: int = 5) -> Progressive:
    """PRN whose residual blocks share one block's weights."""
    return Progressive(stages, width, blocks, recurrent=False, shared=True)
