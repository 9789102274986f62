"""The supervised branch: background, streak and map terms on synthetic pairs; every other method contains it."""

from __future__ import annotations

from torch import Tensor

from sstl.losses import Distance, background_loss, edge_loss, mask_loss, streak_loss
from sstl.methods.base import METHODS, Method, every_stage
from sstl.networks import Network
from sstl.types import PairedBatch, Restoration, UnpairedBatch


@METHODS.register("supervised")
class Supervised(Method):
    """Train on synthetic pairs only: background, streak and map terms.

    Args:
        network: any network; the map term is zero for one that does not detect.
        streak: weight of the streak term. 0.1 keeps S*R meaningful while the background decides.
        mask: weight of the map's cross-entropy, about a hundred times an L1 at convergence; hence 0.01.
        early_stages: weight of the earlier stages' losses of a recurrent network, relative to the last's.
        balance: see ``background_loss``; None weights all pixels alike. 0.01 is the error of light rain.
        distance: of backgrounds and streaks, see ``sstl.losses.distance``; streaks are compared by L1 beside ``ssim``,
            which says nothing of sparse layers.
        edge: weight of ``edge_loss``; MSPFN has 0.05 beside ``charbonnier``.
        intensity: compare S^ instead of S^ * R^ with the streak layer, as JORDER does.
    """

    def __init__(
        self,
        network: Network,
        streak: float = 0.1,
        mask: float = 0.01,
        early_stages: float = 0.5,
        balance: float | None = 0.01,
        distance: Distance = "l1",
        edge: float = 0.0,
        intensity: bool = False,
    ) -> None:
        super().__init__(network)
        self.distance, self.edge, self.intensity = distance, edge, intensity
        self.streak, self.mask, self.early_stages, self.balance = streak, mask, early_stages, balance

    def supervised(self, paired: PairedBatch) -> dict[str, Tensor]:
        """Return ``loss`` and its parts on a labelled batch."""
        return self.compared(self.network(paired.rainy), paired)

    def compared(self, result: Restoration, paired: PairedBatch) -> dict[str, Tensor]:
        """Return ``loss`` and its parts of the network's restoration of a labelled batch."""
        parts: dict[str, Tensor] = {}
        stages = every_stage(result)
        for restored in stages:
            weight = 1.0 if restored is stages[-1] else self.early_stages
            terms = {
                "background": background_loss(restored, paired, self.balance, self.distance),
                "streak": streak_loss(restored, paired, self._streak_distance, self.intensity),
                "mask": mask_loss(restored, paired),
            }
            if self.edge:
                terms["edge"] = edge_loss(restored.background, paired.clean)
            parts = {name: parts.get(name, 0) + weight * term for name, term in terms.items()}
        loss = parts["background"] + self.streak * parts["streak"] + self.mask * parts["mask"]
        return {"loss": loss + self.edge * parts["edge"] if self.edge else loss, **parts}

    @property
    def _streak_distance(self) -> Distance:
        return "l1" if self.distance == "ssim" else self.distance

    def forward(
        self,
        paired: PairedBatch,
        unpaired: UnpairedBatch | None = None,  # noqa: ARG002 (of every method)
    ) -> dict[str, Tensor]:
        """Ignore ``unpaired``."""
        return self.supervised(paired)
