"""SIRR as its released code trains it, with its faults, to compare with: do not use it to adapt."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sstl.errors import SstlError
from sstl.losses.likelihood import log_joint
from sstl.methods.base import METHODS
from sstl.methods.supervised import Supervised
from sstl.networks import Network
from sstl.networks.ddn import DetailNetwork
from sstl.ops.processes import averaged
from sstl.types import PairedBatch, Restoration, UnpairedBatch

TINY = 1e-6  # added to each variance there


@METHODS.register("sirr_released")
class SirrReleased(Supervised):
    """MSE + 0.5 * responsibility-weighted r^2 / 2 sigma^2 + 1e-5 * summed TV + 1e-9 * KL, as released.

    What is wrong with it, and is reproduced here: the mixture is fitted by one E-M-E on the very batch whose residuals
    it then weighs, so the likelihood pulls every residual to 0 ("remove nothing"); the KL is computed from the inputs
    alone and takes a variance for a standard deviation: it has no gradient; in the first epoch the mixture is drawn
    anew each batch and fitted to the raw photo. On the network ``sirr_released`` the photos pass through biases and
    normalisations of their own, which the supervised branch does not restrain.

    Args:
        network: any network; on ``sirr_released`` photos take its branch for real images.
        likelihood, tv, kl: lambda_2, lambda_3, lambda_4 of the code.
        components: of the mixture.
        first_epoch: steps of the first epoch; a million patches in batches of 20 there.
    """

    needs_unpaired = True
    weights: Tensor
    variances: Tensor
    steps: Tensor

    def __init__(
        self,
        network: Network,
        likelihood: float = 0.5,
        tv: float = 1e-5,
        kl: float = 1e-9,
        components: int = 3,
        first_epoch: int = 50_000,
    ) -> None:
        super().__init__(network, streak=0.0, mask=0.0, balance=None, distance="mse")
        self.likelihood, self.tv, self.kl, self.first_epoch = likelihood, tv, kl, first_epoch
        self.register_buffer("weights", torch.full((components,), 1 / components))
        self.register_buffer("variances", torch.rand(components) + TINY)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, paired: PairedBatch, unpaired: UnpairedBatch | None = None) -> dict[str, Tensor]:
        """Both branches."""
        if unpaired is None:
            raise SstlError("method 'sirr_released' needs unlabelled photos; give data.unpaired.")
        parts = self.supervised(paired)
        background = self._restore_real(unpaired.rainy)
        square = (unpaired.rainy - background).reshape(-1, 1).square()
        share, variances = self._fit(unpaired.rainy, square.detach())
        difference = paired.rainy - paired.clean
        terms = {
            "nll": (share * square / (2 * variances)).sum(dim=1).mean(),
            "tv": _summed_variation(background),
            "kl": _kl_of_inputs(difference, variances),
        }
        loss = parts["loss"] + self.likelihood * terms["nll"] + self.tv * terms["tv"] + self.kl * terms["kl"]
        return {**parts, **terms, "loss": loss}

    def _restore_real(self, rainy: Tensor) -> Tensor:
        network: Any = self.network
        if isinstance(network, DetailNetwork) and network.branches > 1:
            return network.restore(rainy, 1).background
        restored: Restoration = network(rainy)
        return restored.background

    @torch.no_grad()
    def _fit(self, rainy: Tensor, square: Tensor) -> tuple[Tensor, Tensor]:
        """One E-M-E; return the responsibilities (N, K) and the variances (K,)."""
        weights, variances = self.weights, self.variances
        fitted = square
        if int(self.steps) < self.first_epoch:  # a new mixture, and the photo for its residual
            weights = torch.rand(len(weights), device=weights.device)
            weights, variances = weights / weights.sum(), torch.rand_like(weights) + TINY
            fitted = rainy.reshape(-1, 1).square()
        share = log_joint(fitted, weights, variances).softmax(dim=1)
        total, moment = averaged(share.sum(dim=0)), averaged((share * fitted).sum(dim=0))
        weights, variances = total / len(fitted), moment / total + TINY
        self.noted.append((weights, variances))
        return log_joint(fitted, weights, variances).softmax(dim=1), variances

    @torch.no_grad()
    def after_step(self, step: int) -> None:  # noqa: ARG002 (of every method)
        """Keep the last batch's mixture."""
        if self.noted:
            weights, variances = self.noted[-1]
            self.weights.copy_(weights)
            self.variances.copy_(variances)
            self.noted.clear()
        self.steps += 1


def _summed_variation(image: Tensor) -> Tensor:
    """Anisotropic total variation summed over pixels and channels, mean over the batch."""
    vertical, horizontal = (image.diff(dim=dim).abs().sum(dim=(1, 2, 3)) for dim in (2, 3))
    return (vertical + horizontal).mean()


def _kl_of_inputs(difference: Tensor, variances: Tensor) -> Tensor:
    """Smallest KL(N(mean, var of O - B) || N(0, sd = variance)): the variance stands where the deviation should."""
    variance, mean = torch.var_mean(difference, correction=0)
    # Floored: of a batch without rain it would be infinite, and the step lost, for a term without any gradient.
    own = variance.clamp(min=TINY**2).log()
    kl = variances.log() - 0.5 * own + (variance + mean.square()) / (2 * variances.square()) - 0.5
    return kl.amin()
