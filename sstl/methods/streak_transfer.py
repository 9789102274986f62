"""Streak transfer: streaks and veil that are found in real photos, laid over clean images as new labelled pairs."""

from __future__ import annotations

import copy
from typing import Any, Self

import torch
from torch import Tensor

from sstl.errors import SstlError
from sstl.losses import forgetting_loss
from sstl.methods.base import METHODS
from sstl.methods.exchange import darkness, lay_over, lay_veil, left_dry, moved, rain_found, veil_share
from sstl.methods.teacher import Taught
from sstl.networks import Network
from sstl.ops.processes import averaged, drawn
from sstl.types import PairedBatch, UnpairedBatch

_MOMENTUM = 0.95


@METHODS.register("streak_transfer")
class StreakTransfer(Taught):
    """Learn the rain of the photos from clean images that wear it (ours; after rain transfer by style).

    The teacher restores the photos of the batch. What it removed where its map says rain, light that all channels lost
    in common, is moved, turned, resized, made brighter or fainter, and laid over the clean images of the labelled
    batch; over that comes the photos' veil, because a network never takes away a veil that no pair shows it. The clean
    image is the truth. The teacher follows the student, so the layers are new at each step. A share of the labelled
    pairs is left dry: where all wear rain, the network takes light even from clear photographs.

    Cheapest wrong solutions: a teacher that finds nothing makes pairs without rain, which teach nothing; one that takes
    texture for rain makes the student remove such texture. The supervised branch forbids both; and no texture may go
    missing from the clean images, of which the dry ones are the strictest.

    Args:
        network: any network; where it does not detect, all that it removed counts as rain.
        supervised: weight of the supervised branch.
        transfer: weight of the supervised loss on the made pairs.
        brightness: range of the laid streaks' 98th percentile.
        turn, zoom: see ``sstl.methods.exchange.moved``.
        veil: how much of the photos' veil is laid, too, at most: the strength is drawn from 0 to that; 0 lays none.
        veiled: lay it over the labelled pairs, too, dry or not: without, they teach that a veil stays.
        dry: share of the labelled pairs that lose their rain, so that clear photographs stay as they are. (When made
            pairs were left dry instead, the rain of the photos was learned more slowly.)
        forgetting: weight of ``forgetting_loss`` against the start on the labelled pairs: none may become worse for the
            photos' sake. 0 leaves it out, and the start with it; else each step has one more forward pass, the start's.
        decay: see ``Taught``.
        options: of ``Supervised``.
    """

    name = "streak_transfer"
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
        veil: float = 1.0,
        veiled: bool = False,
        dry: float = 0.0,
        forgetting: float = 0.0,
        decay: float = 0.99,
        **options: Any,
    ) -> None:
        super().__init__(network, decay, **options)
        self.weight, self.transfer, self.dry = supervised, transfer, dry
        self.veil, self.veiled = veil, veiled
        self.forgetting = forgetting
        self.start = copy.deepcopy(network).requires_grad_(False).eval() if forgetting else None
        self.brightness, self.turn, self.zoom = brightness, turn, zoom
        for name in ("photos_dark", "clean_dark") if veil else ():  # running means; 0 before the first step
            self.register_buffer(name, torch.zeros(()))
        self._streakless: Tensor | None = None

    def forward(self, paired: PairedBatch, unpaired: UnpairedBatch | None = None) -> dict[str, Tensor]:
        """Both branches."""
        if unpaired is None:
            raise SstlError(f"method '{self.name}' needs unlabelled photos; give data.unpaired.")
        labelled = left_dry(paired, self.dry)
        pairs = self.made(paired, unpaired.rainy)
        if self.veiled:
            labelled = self.behind_veil(labelled)
        result = self.network(labelled.rainy)
        parts = self.compared(result, labelled)
        made = self.supervised(pairs)["loss"]
        loss = self.weight * parts["loss"] + self.transfer * made
        if self.start is not None:
            with torch.no_grad():
                before = self.start(labelled.rainy)
            parts["forgetting"] = forgetting_loss(result, before, labelled, self.balance, self.distance)
            loss = loss + self.forgetting * parts["forgetting"]
        return {**parts, "transfer": made, "loss": loss}

    def train(self, mode: bool = True) -> Self:
        """Keep the start in evaluation mode."""
        super().train(mode)
        if self.start is not None:
            self.start.eval()
        return self

    @torch.no_grad()
    def made(self, paired: PairedBatch, photos: Tensor) -> PairedBatch:
        """Return the clean images under the rain of as many photos."""
        found = rain_found(photos, self.teacher(photos))
        streak = moved(found, self.turn, self.zoom)
        pairs = lay_over(paired.clean, streak, self.brightness, paired.key)
        if self.veil:
            # Not the restored photos: a teacher that has learned to lift the veil would find none in them.
            self._streakless = (photos - found).clamp(0, 1)
            self.noted.append(torch.stack([darkness(self._streakless), darkness(paired.clean)]))
            pairs = self.behind_veil(pairs)
        return pairs

    @torch.no_grad()
    def behind_veil(self, pairs: PairedBatch) -> PairedBatch:
        """Return pairs behind the veils of the photos of ``made``, each behind a random part of one."""
        if self._streakless is None or not self.photos_dark:
            return pairs
        strength = self.veil * drawn(len(pairs.clean), torch.rand).to(pairs.clean)
        return lay_veil(pairs, self._streakless, strength * veil_share(self.photos_dark, self.clean_dark))

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move the teacher towards the student, and the means of the dark channels towards the batch's."""
        super().after_step(step)
        if not self.noted:
            return
        keep = _MOMENTUM if self.photos_dark else 0.0
        for mean, seen in zip(
            (self.photos_dark, self.clean_dark), averaged(torch.stack(self.noted).mean(dim=0)), strict=True
        ):
            mean.copy_(keep * mean + (1 - keep) * seen)
        self.noted.clear()
