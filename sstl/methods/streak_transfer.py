"""Streak transfer: streaks and veil that are found in real photos, laid over clean images as new labelled pairs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sstl.errors import SstlError
from sstl.methods.base import METHODS
from sstl.methods.exchange import found_streaks, lay_over, moved
from sstl.methods.teacher import Taught
from sstl.networks import Network
from sstl.ops.processes import averaged
from sstl.ops.veil import LEAST_TRANSMISSION, dark_channel, estimate_airlight
from sstl.rain import rain_map, streak_layer
from sstl.types import PairedBatch, UnpairedBatch

_GRID = 4  # a veil is smooth: its transmission is kept at so many places along each side of a crop
_MOMENTUM = 0.95


@METHODS.register("streak_transfer")
class StreakTransfer(Taught):
    """Learn the rain of the photos from clean images that wear it (ours; after rain transfer by style).

    The teacher restores the photos of the batch. What it removed where its map says rain, light that all channels lost
    in common, is moved, turned, resized, made brighter or fainter, and laid over the clean images of the labelled
    batch; over that comes the photos' veil. The clean image is the truth. The teacher follows the student, so the
    layers are new at each step. A network never takes away a veil that no pair shows it, hence the veil: its
    transmission is what the dark channel of the restored photo says (He et al., CVPR 2009), times the share of the
    photos' dark channel that clear photographs do not have, so that clear photos lend no veil.

    Cheapest wrong solutions: a teacher that finds nothing makes pairs without rain, which teach nothing; one that takes
    texture for rain makes the student remove such texture. The supervised branch forbids both; and no texture may go
    missing from the clean images.

    Args:
        network: any network; where it does not detect, all that it removed counts as rain.
        supervised: weight of the supervised branch.
        transfer: weight of the supervised loss on the made pairs.
        brightness: range of the laid streaks' 98th percentile.
        turn, zoom: see ``sstl.methods.exchange.moved``.
        veil: lay the photos' veil, too.
        decay: see ``Taught``.
        options: of ``Supervised``.
    """

    photos_dark: Tensor
    clean_dark: Tensor

    def __init__(
        self,
        network: Network,
        supervised: float = 1.0,
        transfer: float = 1.0,
        brightness: tuple[float, float] = (0.1, 0.5),
        turn: float = 10.0,
        zoom: float = 1.2,
        veil: bool = True,
        decay: float = 0.99,
        **options: Any,
    ) -> None:
        super().__init__(network, decay, **options)
        self.weight, self.transfer, self.veil = supervised, transfer, veil
        self.brightness, self.turn, self.zoom = brightness, turn, zoom
        for name in ("photos_dark", "clean_dark"):  # running means of the dark channel; 0 before the first step
            self.register_buffer(name, torch.zeros(()))
        self._seen: Tensor | None = None

    def forward(self, paired: PairedBatch, unpaired: UnpairedBatch | None = None) -> dict[str, Tensor]:
        """Both branches."""
        if unpaired is None:
            raise SstlError("method 'streak_transfer' needs unlabelled photos; give data.unpaired.")
        parts = self.supervised(paired)
        made = self.supervised(self.made(paired, unpaired.rainy))["loss"]
        return {**parts, "transfer": made, "loss": self.weight * parts["loss"] + self.transfer * made}

    @torch.no_grad()
    def made(self, paired: PairedBatch, photos: Tensor) -> PairedBatch:
        """Return the clean images under the rain of as many photos."""
        restored = self.teacher(photos)
        removed = photos - restored.background
        if restored.mask is not None:
            removed = removed * (restored.mask > 0.5)
        streak = moved(found_streaks(removed), self.turn, self.zoom)
        pairs = lay_over(paired.clean, streak, self.brightness, paired.key)
        return self.veiled(pairs, restored.background.clamp(0, 1)) if self.veil else pairs

    @torch.no_grad()
    def veiled(self, pairs: PairedBatch, restored: Tensor) -> PairedBatch:
        """Return pairs behind the veils of as many restored photos, by O' = t O + (1 - t) A."""
        dark = dark_channel(restored)
        self._seen = torch.stack([dark.mean(), dark_channel(pairs.clean).mean()])
        if not self.photos_dark:
            return pairs
        share = (1 - self.clean_dark / self.photos_dark).clamp(min=0)
        airlight = estimate_airlight(restored)
        coarse = F.adaptive_avg_pool2d(dark / airlight.mean(dim=1, keepdim=True).clamp(min=1e-3), _GRID)
        haze = F.interpolate(coarse, pairs.rainy.shape[-2:], mode="bilinear", align_corners=False)
        transmission = (1 - share * haze).clamp(LEAST_TRANSMISSION, 1)
        rainy = transmission * pairs.rainy + (1 - transmission) * airlight
        layer = streak_layer(rainy, pairs.clean)
        return PairedBatch(rainy, pairs.clean, layer, rain_map(layer), pairs.key)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move the teacher towards the student, and the means of the dark channels towards the batch's."""
        super().after_step(step)
        if self._seen is None:
            return
        keep = _MOMENTUM if self.photos_dark else 0.0
        for mean, seen in zip((self.photos_dark, self.clean_dark), averaged(self._seen), strict=True):
            mean.copy_(keep * mean + (1 - keep) * seen)
        self._seen = None
