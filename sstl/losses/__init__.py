"""Losses: one idea per file, plain functions of tensors; each says what minimises it and what forbids that."""

from sstl.losses.consistency import agreement, consistency_loss, recomposition_loss
from sstl.losses.distance import Distance, distance, edge_loss
from sstl.losses.entropy import map_entropy
from sstl.losses.gaussian_process import pseudo_latent_loss
from sstl.losses.likelihood import Mixture, gaussian_kl, mixture_nll
from sstl.losses.paired import background_loss, mask_loss, streak_loss
from sstl.losses.perceptual import Perceptual
from sstl.losses.smoothness import total_variation

__all__ = [
    "Distance",
    "Mixture",
    "Perceptual",
    "agreement",
    "background_loss",
    "consistency_loss",
    "distance",
    "edge_loss",
    "gaussian_kl",
    "map_entropy",
    "mask_loss",
    "mixture_nll",
    "pseudo_latent_loss",
    "recomposition_loss",
    "streak_loss",
    "total_variation",
]
