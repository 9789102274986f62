"""The recurrent cell that several networks are built of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
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
        self.gates = conv(inputs + width, 4 * width)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """(B, inputs, H, W), (hidden, cell) or None for zeros -> (hidden, cell), each (B, width, H, W)."""
        if state is None:
            # Zeros add nothing to the convolution, and would take nine tenths of its time in MSPFN's widest cell.
            cell = x.new_zeros(())
            gates = F.conv2d(x, self.gates.weight[:, : x.shape[1]], self.gates.bias, padding=1)
        else:
            hidden, cell = state
            gates = self.gates(torch.cat([x, hidden], dim=1))
        given, kept, candidate, shown = gates.chunk(4, dim=1)
        cell = kept.sigmoid() * cell + given.sigmoid() * candidate.tanh()
        return shown.sigmoid() * cell.tanh(), cell
