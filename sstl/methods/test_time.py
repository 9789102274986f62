"""Test-time adaptation: the rain that the network finds in a photo, laid again on its own restoration of the photo."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sstl.errors import SstlError
from sstl.methods.base import METHODS
from sstl.methods.exchange import found_streaks, lay_over, moved
from sstl.methods.supervised import Supervised
from sstl.networks import Network
from sstl.ops.processes import averaged
from sstl.types import PairedBatch, UnpairedBatch


@METHODS.register("test_time")
class RainAgain(Supervised):
    """Learn from photos by raining on their own restorations, beside the supervised branch (ours).

    The network restores a photo; the rain that it found is laid again on that restoration at another place, direction
    and brightness, and under it the restoration is the truth. So it learns to remove at any brightness what it finds
    faintly, before this very scene. Elsewhere the restoration is no truth: it has the rain that was overlooked, which
    would be learned as something to keep. Cheapest wrong solutions: find nothing (there is then no error), or restore
    every photo to one flat image; the supervised branch forbids both. What nothing here forbids is that texture which
    the start takes for rain is learned as rain. ``sstl.adapt_to_photo`` runs it on one photo and checks the result.

    Args:
        network: any network.
        supervised: weight of the supervised branch.
        rerain: weight of the error on the photos rained on again; at 1 it takes more and more of the texture with it.
        brightness: range of the laid rain's 98th percentile.
        turn: its direction is changed by up to so many degrees.
        zoom: and its size by up to this factor.
        options: of ``Supervised``.
    """

    needs_unpaired = True

    def __init__(
        self,
        network: Network,
        supervised: float = 1.0,
        rerain: float = 0.2,
        brightness: tuple[float, float] = (0.1, 0.5),
        turn: float = 15.0,
        zoom: float = 1.3,
        **options: Any,
    ) -> None:
        super().__init__(network, **options)
        self.weight, self.rerain = supervised, rerain
        self.brightness, self.turn, self.zoom = brightness, turn, zoom

    def forward(self, paired: PairedBatch, unpaired: UnpairedBatch | None = None) -> dict[str, Tensor]:
        """Both branches."""
        if unpaired is None:
            raise SstlError("method 'test_time' needs unlabelled photos; give data.unpaired.")
        parts = self.supervised(paired)
        again = self.rained_again(unpaired)
        rerain = error_under_rain(self.network(again.rainy).background, again)
        return {**parts, "rerain": rerain, "loss": self.weight * parts["loss"] + self.rerain * rerain}

    @torch.no_grad()
    def rained_again(self, photos: UnpairedBatch) -> PairedBatch:
        """Return the photos' restorations under the rain that was found in them."""
        restored = self.network(photos.rainy).background.clamp(0, 1)
        streak = moved(found_streaks(photos.rainy - restored), self.turn, self.zoom)
        return lay_over(restored, streak, self.brightness, photos.key)


def error_under_rain(background: Tensor, pairs: PairedBatch) -> Tensor:
    """Mean |B^ - B| over the pixels of the rain map; 0 if there are none."""
    error = (background - pairs.clean).abs().mean(dim=1, keepdim=True)
    return averaged((error * pairs.mask).sum()) / averaged(pairs.mask.sum()).clamp(min=1)
