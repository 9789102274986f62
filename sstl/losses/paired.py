"""The terms of the supervised branch: background, streak and map against the truth of a synthetic pair."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sstl.types import PairedBatch, Restoration


def background_loss(restored: Restoration, truth: PairedBatch, balance: float | None = None) -> Tensor:
    """Mean |B^ - B|: L1, which trains to a higher PSNR than MSE at short budgets and keeps edges.

    With ``balance`` c each image's error d counts as c log(1 + d / c): its gradient is weighted by c / (c + d), so that
    images of light rain, whose errors are small, are not drowned by a downpour in the same batch.

    Minimised only by the true background; it is the term that every other one leans on.
    """
    errors = (restored.background - truth.clean).abs().mean(dim=(1, 2, 3))
    return (errors if balance is None else balance * (errors / balance).log1p()).mean()


def streak_loss(restored: Restoration, truth: PairedBatch) -> Tensor:
    """Mean |S^ * R^ - S~|: the rain that the network says it removes is the rain of the pair.

    Cheapest solution alone: the true layer without restoring anything; ``background_loss`` forbids that.
    """
    return F.l1_loss(restored.removed, truth.streak)


def mask_loss(restored: Restoration, truth: PairedBatch) -> Tensor:
    """Cross-entropy between the detected and the true rain map; zero for a network that does not detect.

    Cheapest solution alone: detect and restore nothing; ``background_loss`` forbids that.
    """
    if restored.mask_logits is None:
        return restored.background.new_zeros(())
    return F.binary_cross_entropy_with_logits(restored.mask_logits, truth.mask)
