"""Syn2Real: the latent of a photo is drawn to what a Gaussian process over labelled images' latents expects."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sstl.errors import SstlError
from sstl.losses import pseudo_latent_loss
from sstl.methods.base import METHODS, trial
from sstl.methods.supervised import Supervised
from sstl.networks import Network
from sstl.networks.latent import watch_latent
from sstl.ops.processes import gathered
from sstl.types import PairedBatch, UnpairedBatch

LEAST_KNOWN = 4  # labelled latents; of fewer there is no deviation to standardise by, and the photos' term waits


@METHODS.register("syn2real")
class Syn2Real(Supervised):
    """Gaussian-process pseudo-latents for photos beside the supervised branch (Syn2Real, Yasarla et al., CVPR 2020).

    The loss and its cheapest wrong solution: ``sstl.losses.pseudo_latent_loss``; the supervised branch forbids it.

    Departures: the latent is a vector of channel statistics of any network (``sstl.networks.latent``), there the
    32x32x32 features of one network, compared place by place. The memory holds the latest labelled images as they were
    when seen, there all training images, computed anew each epoch. Latents are standardised by the memory, so that one
    weight suits networks whose features are of different sizes. The pseudo-latent is a fixed target; there the gradient
    passes through it.

    Args:
        network: any network.
        supervised: weight of the supervised branch.
        pseudo: weight of the photos' term; the paper's.
        neighbours: nearest labelled latents that the process is given.
        memory: how many labelled latents are kept.
        noise, spread: see ``pseudo_latent_loss``; those of the released code.
        options: of ``Supervised``.
    """

    needs_unpaired = True
    latents: Tensor
    count: Tensor

    def __init__(
        self,
        network: Network,
        supervised: float = 1.0,
        pseudo: float = 0.0015,
        neighbours: int = 16,
        memory: int = 256,
        noise: float = 0.1,
        spread: float = 0.33,
        **options: Any,
    ) -> None:
        super().__init__(network, **options)
        if neighbours < 1 or memory < 1 or noise <= 0:
            raise SstlError("method 'syn2real': neighbours and memory must be at least 1, and noise above 0.")
        self.weight, self.pseudo = supervised, pseudo
        self.neighbours, self.noise, self.spread = neighbours, noise, spread
        with watch_latent(network) as latent:
            trial(network)
            length = latent().size(1)
        self.register_buffer("latents", torch.zeros(memory, length))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, paired: PairedBatch, unpaired: UnpairedBatch | None = None) -> dict[str, Tensor]:
        """Both branches."""
        if unpaired is None:
            raise SstlError("method 'syn2real' needs unlabelled photos; give data.unpaired.")
        with watch_latent(self.network) as latent:
            parts = self.supervised(paired)
            seen = gathered(latent())
            self.network(unpaired.rainy)
            photos = latent()
        # The batch at hand belongs to what is known: the memory is empty at first.
        self.noted.append(seen)
        known = torch.cat([self.latents[: int(self.count)], *self.noted])
        with torch.autocast(photos.device.type, enabled=False):
            if len(known) < LEAST_KNOWN:
                pseudo = 0 * photos.float().sum()
            else:
                photos, known = _standardised(photos, known)
                pseudo = pseudo_latent_loss(photos, known, self.neighbours, self.noise, self.spread)
        return {**parts, "pseudo": pseudo, "loss": self.weight * parts["loss"] + self.pseudo * pseudo}

    @torch.no_grad()
    def after_step(self, step: int) -> None:  # noqa: ARG002 (of every method)
        """Put the step's labelled latents in the place of the oldest."""
        if not self.noted:
            return
        seen = torch.cat(self.noted)[-len(self.latents) :]
        places = (int(self.count) + torch.arange(len(seen), device=seen.device)) % len(self.latents)
        self.latents[places] = seen
        self.count += len(seen)
        self.noted.clear()


def _standardised(photos: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Both by the mean and deviation of the known latents, (N, D)."""
    deviation, mean = torch.std_mean(known, dim=0, correction=0)
    # A channel that hardly varies among the labelled images must not outweigh all others.
    scale = deviation.clamp(min=0.1 * float(deviation.mean()) + 1e-6)
    return (photos - mean) / scale, (known - mean) / scale
