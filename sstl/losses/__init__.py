"""Losses: one idea per file, plain functions of tensors; each says what minimises it and what forbids that."""

from sstl.losses.consistency import (
    agreement,
    consistency_loss,
    draw_transformation,
    equivariance_loss,
    recomposition_loss,
    rerain_loss,
    stage_agreement_loss,
)
from sstl.losses.distance import Distance, distance, edge_loss
from sstl.losses.entropy import map_entropy
from sstl.losses.gaussian_process import pseudo_latent_loss
from sstl.losses.likelihood import Mixture, gaussian_kl
from sstl.losses.oriented import OrientedMixture, exponential_kl
from sstl.losses.paired import background_loss, forgetting_loss, mask_loss, streak_loss
from sstl.losses.perceptual import Perceptual
from sstl.losses.smoothness import total_variation

__all__ = [
    "Distance",
    "Mixture",
    "OrientedMixture",
    "Perceptual",
    "agreement",
    "background_loss",
    "consistency_loss",
    "distance",
    "draw_transformation",
    "edge_loss",
    "equivariance_loss",
    "exponential_kl",
    "forgetting_loss",
    "gaussian_kl",
    "map_entropy",
    "mask_loss",
    "pseudo_latent_loss",
    "recomposition_loss",
    "rerain_loss",
    "stage_agreement_loss",
    "streak_loss",
    "total_variation",
]
