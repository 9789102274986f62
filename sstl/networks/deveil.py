"""Derain, remove the veil, derain again: JORDER's remedy for the accumulation of heavy rain, around any network."""

from __future__ import annotations

from torch import Tensor

from sstl.networks.base import Network
from sstl.ops.veil import estimate_airlight, remove_veil
from sstl.types import Restoration


class Deveil(Network):
    """A network, a de-veiling by the dark channel prior, and the same network again (JORDER-R-DEVEIL).

    Streaks hide the veil and a veil hides faint streaks, hence both orders. The streaks and map returned are those that
    the first pass found. The prior takes any grey for a veil: a clear photo is made darker and more saturated, so this
    is asked for, never the default. What is learned is the network; gradients pass through the de-veiling.

    Args:
        network: any network.

    Attributes:
        airlight: (1, 3, 1, 1), of a picture of which only a tile is given; None estimates it from each image.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.stride = network.stride
        self.airlight: Tensor | None = None

    def airlight_of(self, rainy: Tensor) -> Tensor:
        """The airlight of whole images, (B, 3, H, W) -> (B, 3, 1, 1), estimated after a first pass."""
        return estimate_airlight(self.network(rainy).background.clamp(0, 1))

    def forward(self, rainy: Tensor) -> Restoration:
        """(B, 3, H, W) in [0, 1] -> Restoration with the first pass as its stage."""
        first: Restoration = self.network(rainy)
        veiled = first.background.clamp(0, 1)
        airlight = estimate_airlight(veiled) if self.airlight is None else self.airlight
        second = self.network(remove_veil(veiled, airlight))
        return Restoration(second.background, first.streak, first.mask_logits, (first,))
