"""The recurrent cell that several networks are built of."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sstl.networks.blocks import conv


class ConvLSTM(nn.Module):
    """One step of a convolutional LSTM (Shi et al., NeurIPS 2015) without peepholes, from one 3x3 convolution.

    The convolution's outputs are the gates in the order input, forget, cell, output, ``width`` channels each. No gate
    starts with a bias of its own.

    Args:
        inputs: channels of the input.
        width: channels of the hidden state and of the cell.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.gates = conv(inputs + width, 4 * width)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """(B, inputs, H, W), (hidden, cell) or None for zeros -> (hidden, cell), each (B, width, H, W)."""
        if state is None:
            zero = x.new_zeros(len(x), self.width, *x.shape[-2:])
            state = zero, zero
        hidden, cell = state
        given, kept, candidate, shown = self.gates(torch.cat([x, hidden], dim=1)).chunk(4, dim=1)
        cell = kept.sigmoid() * cell + given.sigmoid() * candidate.tanh()
        return shown.sigmoid() * cell.tanh(), cell
