"""The terms of the supervised branch: background, streak and map against the truth of a synthetic pair."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sstl.losses.distance import Distance, distance
from sstl.types import PairedBatch, Restoration


def background_loss(
    restored: Restoration, truth: PairedBatch, balance: float | None = None, kind: Distance = "l1"
) -> Tensor:
    """Distance of B^ and B; L1 trains to a higher PSNR than MSE at short budgets and keeps edges.

    With ``balance`` c each image's error d counts as c log(1 + d / c): its gradient is weighted by c / (c + d), so that
    images of light rain, whose errors are small, are not drowned by a downpour in the same batch.

    Minimised only by the true background; it is the term that every other one leans on.
    """
    return _errors(restored, truth, balance, kind).mean()


def forgetting_loss(
    restored: Restoration,
    before: Restoration,
    truth: PairedBatch,
    balance: float | None = None,
    kind: Distance = "l1",
) -> Tensor:
    """How much farther from B than another network's B^ (``before``, without a gradient) are the images that are.

    The mean over all images of what each lost, in the units of ``background_loss`` with that ``balance`` and ``kind``;
    an image that is restored as well as before, or better, counts nothing and gets no gradient. So it pulls where a
    network forgets, and leaves what it learns alone, which a distance to ``before`` itself does not.

    Cheapest solution alone: restore as before. ``background_loss`` on what is new forbids that.
    """
    now, then = (_errors(result, truth, balance, kind) for result in (restored, before))
    return (now - then.detach()).relu().mean()


def _errors(restored: Restoration, truth: PairedBatch, balance: float | None, kind: Distance) -> Tensor:
    """The weighted error of each image, (B,)."""
    errors = distance(restored.background, truth.clean, kind)
    return errors if balance is None else balance * (errors / balance).log1p()


def streak_loss(restored: Restoration, truth: PairedBatch, kind: Distance = "l1", intensity: bool = False) -> Tensor:
    """Distance of S^ * R^ and S~: the rain that the network says it removes is the rain of the pair.

    With ``intensity`` S^ alone is compared, as JORDER does. Cheapest solution alone: the true layer without restoring
    anything; ``background_loss`` forbids that.
    """
    return distance(restored.streak if intensity else restored.removed, truth.streak, kind).mean()


def mask_loss(restored: Restoration, truth: PairedBatch) -> Tensor:
    """Cross-entropy between the detected and the true rain map; zero for a network that does not detect.

    Cheapest solution alone: detect and restore nothing; ``background_loss`` forbids that.
    """
    if restored.mask_logits is None:
        return restored.background.new_zeros(())
    return F.binary_cross_entropy_with_logits(restored.mask_logits, truth.mask)
