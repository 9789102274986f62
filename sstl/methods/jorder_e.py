"""JORDER-E's own loss: L1 of both recurrences' backgrounds, cross-entropy of the map, L1 of the level."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sstl.losses import distance, mask_loss
from sstl.methods.base import METHODS, Method, every_stage
from sstl.networks import Network
from sstl.types import PairedBatch, UnpairedBatch


@METHODS.register("jorder_e")
class JorderE(Method):
    """The multi-task loss of JORDER-E's released code (Yang et al., TPAMI 2019), its map target put right.

    L1 of every stage's background, and of the last stage the streak's L1 and the map's cross-entropy. There the map's
    target is ``clean - rainy > 0`` of one channel, a sign error: almost no pixel of a pair is darker with rain, so the
    map learns "no rain anywhere". Ours is the rain map R of the pair.

    Args:
        network: any network.
        streak: weight of the streak's L1.
        mask: weight of the mean cross-entropy. There it is a sum over the pixels of a batch of 8 crops of 64x64, times
            1e-3, beside an L1 on [0, 255]: 1e-3 * 8 * 64 * 64 / 255 of a mean beside an L1 on [0, 1].
        released: reproduce the released targets: the wrong map, and the signed level O - B as the streak.
    """

    def __init__(self, network: Network, streak: float = 0.01, mask: float = 0.1285, released: bool = False) -> None:
        super().__init__(network)
        self.streak, self.mask, self.released = streak, mask, released

    def forward(
        self,
        paired: PairedBatch,
        unpaired: UnpairedBatch | None = None,  # noqa: ARG002 (of every method)
    ) -> dict[str, Tensor]:
        """Ignore ``unpaired``."""
        stages = every_stage(self.network(paired.rainy))
        level = paired.rainy - paired.clean
        parts = {
            "background": sum((distance(stage.background, paired.clean).mean() for stage in stages[:-1]), start=0)
            + distance(stages[-1].background, paired.clean).mean(),
            "streak": F.l1_loss(stages[-1].streak, level if self.released else paired.streak),
            "mask": mask_loss(stages[-1], paired if not self.released else _with_wrong_map(paired, level)),
        }
        loss = parts["background"] + self.streak * parts["streak"] + self.mask * parts["mask"]
        return {"loss": loss, **parts}


def _with_wrong_map(paired: PairedBatch, level: Tensor) -> PairedBatch:
    wrong = (level[:, :1] < 0).to(paired.mask.dtype)
    return PairedBatch(paired.rainy, paired.clean, paired.streak, wrong, paired.key)
