"""Consistency terms for unlabelled images: a student against a teacher, and a restoration against its own input."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sstl.types import Restoration


def agreement(views: Tensor, tolerance: float) -> Tensor:
    """How far a pixel's pseudo-label can be trusted: exp(-(spread / tolerance)^2), the spread over several views.

    Args:
        views: the teacher's restorations of the same pixels, (V, B, C, H, W).
        tolerance: spread (standard deviation, largest over channels) at which the weight has fallen to 1/e.

    Returns:
        Weights in (0, 1], shape (B, 1, H, W).
    """
    spread = views.var(dim=0, unbiased=False).amax(dim=1, keepdim=True)
    return torch.exp(-spread / tolerance**2)


def consistency_loss(student: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean of weight * |student - target|; the target is detached.

    Cheapest solution alone: any constant that student and teacher share; the supervised term forbids it.
    """
    return (weight * (student - target.detach()).abs()).mean()


def recomposition_loss(restored: Restoration, rainy: Tensor) -> Tensor:
    """Mean |O - clip(B^ + S^ * R^)|: what was removed must have been in the image (region model).

    Cheapest solution alone: S = 0 and B^ = O ("remove nothing"); the supervised and consistency terms forbid it. What
    it forbids is colour or texture that goes missing from B^ without being called rain.
    """
    return F.l1_loss((restored.background + restored.removed).clamp(0, 1), rainy)
