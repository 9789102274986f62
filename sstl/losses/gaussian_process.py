"""Pseudo-latents: what a Gaussian process over labelled images' latents expects the latent of a photo to be."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def posterior(points: Tensor, known: Tensor, neighbours: int, noise: float) -> tuple[Tensor, Tensor]:
    """Posterior of the latent at each point, given the ``neighbours`` known latents nearest to it.

    The kernel is the cosine of two latents, and the nearest are those of the largest kernel; observation noise of
    variance ``noise^2`` is on the diagonal.

    Args:
        points: (B, D).
        known: (N, D), N >= 1.
        neighbours: at least 1; all N are used if there are fewer.
        noise: above 0.

    Returns:
        The mean, (B, D), and the variance, (B,), from ``noise^2`` to 1 + ``noise^2``.
    """
    here, there = F.normalize(points, dim=1), F.normalize(known, dim=1)
    nearest = (here @ there.T).topk(min(neighbours, len(known)), dim=1).indices
    units = there[nearest]  # (B, K, D)
    gram = units @ units.mT + noise**2 * torch.eye(units.size(1), device=units.device, dtype=units.dtype)
    cross = units @ here[:, :, None]  # (B, K, 1)
    share = torch.linalg.solve(gram, cross)
    mean = (share.mT @ known[nearest])[:, 0]
    explained = (share.mT @ cross)[:, 0, 0]
    return mean, (1 - explained).clamp(min=0) + noise**2


def pseudo_latent_loss(
    points: Tensor, known: Tensor, neighbours: int = 16, noise: float = 0.1, spread: float = 0.33
) -> Tensor:
    """Mean of |z - mu|^2 / D / sigma^2 + spread * log(sigma^2 / noise^2), mu the pseudo-latent (detached); at least 0.

    Cheapest solution alone: every photo gets the latent of some labelled image, whatever it shows; the supervised term
    forbids it as far as photos and pairs go through one encoder, which must tell the pairs apart. That a photo's rain
    is hidden from the latent, because the pairs have no such rain, nothing here forbids.
    """
    mean, variance = posterior(points, known, neighbours, noise)
    distance = (points - mean.detach()).square().mean(dim=1)
    return (distance / variance + spread * (variance / noise**2).log()).mean()
