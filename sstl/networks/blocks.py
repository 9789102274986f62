"""The layers that several networks are built of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class DilatedConv(nn.Conv2d):
    """A dilated 3x3 convolution that keeps the size and computes in float32 while training on a CPU.

    oneDNN's bfloat16 gradient of dilated weights in channels_last is wrong there from 32x32 features on: a relative
    error of one half, sometimes NaN (torch 2.13; ``tests/test_networks.py`` measures ours).
    """

    def __init__(self, inputs: int, outputs: int, rate: int) -> None:
        super().__init__(inputs, outputs, 3, padding=rate, dilation=rate)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        if self.dilation == (1, 1) or not (self.training and x.device.type == "cpu"):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.to(self.weight.dtype))


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = conv(width, width), conv(width, width)
        shrink(self.second)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        # In place, because these passes wait for memory; but not under gradients, where a hook may hold what a
        # convolution gave (``adabn`` does).
        alone = not torch.is_grad_enabled()
        change: Tensor = self.second(F.relu(self.first(x), inplace=alone))
        return change.add_(x) if alone else x + change


def shrink(layer: nn.Conv2d) -> None:
    """Let a residual branch start small, so that a deep stack without normalisation starts near the identity."""
    with torch.no_grad():
        layer.weight.mul_(0.1)
        if layer.bias is not None:
            layer.bias.zero_()
