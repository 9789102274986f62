"""How undecided a rain map is."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def map_entropy(logits: Tensor) -> Tensor:
    """Mean binary entropy of sigmoid(logits), in nats: log 2 where every probability is 1/2, 0 where it is 0 or 1.

    Cheapest solution alone: one large logit of either sign everywhere; the supervised map term forbids it.
    """
    return F.binary_cross_entropy_with_logits(logits, logits.sigmoid())
