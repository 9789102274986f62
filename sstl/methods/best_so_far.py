"""Best so far: for each photo the restoration that was judged best up to now is kept, and taught."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sstl.errors import SstlError
from sstl.losses import consistency_loss
from sstl.methods.base import METHODS
from sstl.methods.teacher import Taught
from sstl.methods.trust import look, quality
from sstl.networks import Network
from sstl.ops.processes import drawn, gathered
from sstl.types import PairedBatch, UnpairedBatch

STORES = ("photos", "best", "judged")


@METHODS.register("best_so_far")
class BestSoFar(Taught):
    """Learn the best restoration of each photo that the teacher has come upon, as a judge without truth sees it (ours).

    The first crops of photos are kept, each with its best restoration up to now. At every step the teacher restores
    some of them anew; where the judge (``sstl.methods.trust.quality``) prefers the new restoration, it takes the old
    one's place. The student learns the kept ones at another exposure and with noise. A teacher that gets worse thus
    teaches nothing new, and what was once found is not lost. After the reliable bank of Semi-UIR
    (Huang et al., CVPR 2023).

    Cheapest wrong solutions: remove nothing, which the start's restorations forbid, since a worse one is never kept;
    or whatever fools the judge, texture removed for example, which the supervised branch forbids.

    Args:
        network: any network.
        supervised: weight of the supervised branch.
        best: weight of the mean absolute error against the kept restorations.
        kept: how many crops of photos to keep; each takes twice its size in memory and in the checkpoints.
        decay: see ``Taught``.
        options: of ``Supervised``.
    """

    photos: Tensor
    best: Tensor
    judged: Tensor
    seen: Tensor

    def __init__(
        self,
        network: Network,
        supervised: float = 1.0,
        best: float = 0.5,
        kept: int = 64,
        decay: float = 0.99,
        **options: Any,
    ) -> None:
        super().__init__(network, decay, **options)
        if kept < 1:
            raise SstlError(f"'kept' is {kept}; best_so_far needs at least 1.")
        self.weight, self.taught, self.kept = supervised, best, kept
        for name in STORES:  # empty until the first step tells the size of the crops
            self.register_buffer(name, torch.zeros(0))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))  # crops; the kept are judged in turn

    def forward(self, paired: PairedBatch, unpaired: UnpairedBatch | None = None) -> dict[str, Tensor]:
        """Both branches."""
        if unpaired is None:
            raise SstlError("method 'best_so_far' needs unlabelled photos; give data.unpaired.")
        self.noted.append(gathered(unpaired.rainy))
        parts = self.supervised(paired)
        photos, kept = self._drawn(unpaired.rainy)
        strong, expected = self.strong_view(photos, kept)
        best = consistency_loss(self.network(strong).background, expected, torch.ones_like(strong[:, :1]))
        return {**parts, "best": best, "loss": self.weight * parts["loss"] + self.taught * best}

    @torch.no_grad()
    def _drawn(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        """As many kept photos with their best restorations; before the first step, these with the start's."""
        if not len(self.photos):
            return photos, self.teacher(photos).background.clamp(0, 1)
        chosen = drawn(len(photos), lambda n: torch.randint(len(self.photos), (n,))).to(photos.device)
        return self.photos[chosen], self.best[chosen]

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move the teacher towards the student; keep new photos, or judge the teacher's view of some that are kept."""
        super().after_step(step)
        if not self.noted:
            return
        new = torch.cat(self.noted)
        if len(self.photos) < self.kept:
            self._keep(new[: self.kept - len(self.photos)])
        else:
            self._improve(len(new))
        self.seen.add_(len(new))
        self.noted.clear()

    def _keep(self, photos: Tensor) -> None:
        best = self.teacher(photos).background.clamp(0, 1)
        new = {"photos": photos, "best": best, "judged": quality(look(photos, best))}
        for name, value in new.items():
            store = getattr(self, name)
            setattr(self, name, torch.cat([store, value]) if len(store) else value.clone())

    def _improve(self, count: int) -> None:
        chosen = (int(self.seen) + torch.arange(min(count, len(self.photos)))) % len(self.photos)
        photos = self.photos[chosen]
        restored = self.teacher(photos).background.clamp(0, 1)
        judged = quality(look(photos, restored))
        better = chosen[(judged > self.judged[chosen]).cpu()]
        where = torch.isin(chosen, better)
        self.best[better], self.judged[better] = restored[where], judged[where]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in STORES:  # a checkpoint's stores are as large as its run had filled them
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name]))
        super()._load_from_state_dict(state_dict, prefix, *args)
