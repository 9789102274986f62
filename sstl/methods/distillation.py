"""Distillation: a small network learns the pairs, and what a larger one makes of them and of unlabelled photos."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sstl.errors import SstlError
from sstl.methods.base import METHODS
from sstl.methods.exchange import as_pairs
from sstl.methods.supervised import Supervised
from sstl.networks import Network, load_weights
from sstl.networks.weights import DEFAULT
from sstl.types import PairedBatch, UnpairedBatch


@METHODS.register("distillation")
class Distillation(Supervised):
    """Learn the truth of pairs beside what a teacher restores (after Hinton et al., 2015: outputs, not features).

    A restoration of the teacher is taken for truth like that of a pair: background, the streaks that are gone, and
    their map. It is easier to reach than the truth, which no network of that size reaches; and photos have no other.

    Cheapest wrong solution: the teacher's faults; the supervised branch forbids those that pairs show.

    Args:
        network: any network; the student.
        teacher: weights that stay as they are, by name or path; of any network.
        supervised: weight of the supervised branch.
        distill: weight of the supervised loss towards the teacher's restorations of the labelled batch.
        photos: the same on unlabelled photos, which are needed unless it is 0.
        options: of ``Supervised``.

    Raises:
        SstlError: there are no such weights.
    """

    def __init__(
        self,
        network: Network,
        teacher: str = DEFAULT,
        supervised: float = 1.0,
        distill: float = 1.0,
        photos: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(network, **options)
        self.weight, self.distill, self.photos = supervised, distill, photos
        self.needs_unpaired = photos != 0
        # Named by the configuration and never changed: not in the state that checkpoints keep, hence no submodule.
        self._teacher = (load_weights(teacher).network.requires_grad_(False).eval(),)

    def forward(self, paired: PairedBatch, unpaired: UnpairedBatch | None = None) -> dict[str, Tensor]:
        """Both branches."""
        if self.photos and unpaired is None:
            raise SstlError("method 'distillation' needs unlabelled photos; give data.unpaired, or photos: 0.")
        restored = self.network(paired.rainy)
        parts = self.compared(restored, paired)
        parts["distill"] = self.compared(restored, self.taught(paired.rainy, paired.key))["loss"]
        loss = self.weight * parts["loss"] + self.distill * parts["distill"]
        if self.photos and unpaired is not None:
            parts["photos"] = self.supervised(self.taught(unpaired.rainy, unpaired.key))["loss"]
            loss = loss + self.photos * parts["photos"]
        return {**parts, "loss": loss}

    @torch.no_grad()
    def taught(self, rainy: Tensor, key: tuple[str, ...]) -> PairedBatch:
        """Return images, (B, 3, H, W), as pairs whose truth is what the teacher restores."""
        (teacher,) = self._teacher
        return as_pairs(rainy, teacher.to(rainy.device)(rainy).background.to(rainy).clamp(0, 1), key)
