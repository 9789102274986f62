"""Mean teacher for rain: an averaged teacher cleans photos; the student agrees with it and learns the rain it found."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sstl.errors import SstlError
from sstl.losses import (
    agreement,
    consistency_loss,
    equivariance_loss,
    recomposition_loss,
    rerain_loss,
    stage_agreement_loss,
)
from sstl.methods.base import METHODS
from sstl.methods.exchange import found_streaks, lay_over
from sstl.methods.residuals import ResidualLikelihood
from sstl.methods.teacher import Taught
from sstl.networks import Network
from sstl.types import PairedBatch, Restoration, UnpairedBatch


@METHODS.register("mean_teacher")
class MeanTeacher(Taught):
    """Learn from unlabelled photos by an averaged teacher and the rain that it finds (mean teacher, NeurIPS 2017).

    The teacher, a moving average of the student, restores each photo and its mirror image (the weak views); their mean
    is the pseudo-label, their spread tells where to trust it. These terms use them:

    - *exchange*: the rain that the teacher found in the photos is laid over the labelled batch's clean images, with its
      brightness drawn anew; the clean image is the truth. What the teacher finds faintly, the student learns to remove
      at full strength, and becomes the next teacher. Cheapest wrong solution: a teacher that takes texture for rain
      makes the student remove it; the supervised branch and this term's own truth (no texture may go missing from a
      clean image) forbid it.
    - *consistency*: on a strong view (other exposure, noise) the student agrees with the teacher, weighted by trust.
      Cheapest wrong solution: "remove nothing" or any constant; the supervised branch forbids both.
    - *recomposition*: O = B^ + S^ * R^ on that view. Cheapest wrong solution: "remove nothing"; forbidden likewise.
    - *equivariance*, *stage agreement*, *re-rain* (off by default): see ``sstl.losses.consistency``. Each costs a
      forward pass of the student. Cheapest wrong solution of all: "remove nothing"; forbidden likewise.

    Args:
        network: any network.
        supervised: weight of the supervised branch.
        exchange: weight of the supervised loss under exchanged rain.
        consistency, recomposition, equivariance, stage_agreement, rerain: weights of these terms; 0 leaves one out.
            Stages agree only in a recurrent network; of another the term is 0.
        decay: see ``Taught``.
        tolerance: spread of the weak views at which trust has fallen to 1/e.
        brightness: range of the exchanged rain's 98th percentile.
        likelihood, kl, tv: weights of SIRR's terms, 0 by default; see ``ResidualLikelihood``.
        options: of ``Supervised``.
    """

    name = "mean_teacher"

    def __init__(
        self,
        network: Network,
        supervised: float = 1.0,
        exchange: float = 1.0,
        consistency: float = 0.1,
        recomposition: float = 0.1,
        decay: float = 0.99,
        tolerance: float = 0.05,
        brightness: tuple[float, float] = (0.1, 0.5),
        likelihood: float = 0.0,
        kl: float = 0.0,
        tv: float = 0.0,
        equivariance: float = 0.0,
        stage_agreement: float = 0.0,
        rerain: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(network, decay, **options)
        self.weight = supervised
        self.weights = {
            "exchange": exchange,
            "consistency": consistency,
            "recomposition": recomposition,
            "equivariance": equivariance,
            "rerain": rerain,
            "stage_agreement": stage_agreement,
            "likelihood": 1.0,  # its parts are weighted already
        }
        self.tolerance, self.brightness = tolerance, brightness
        self.residuals = ResidualLikelihood(likelihood, kl, tv) if likelihood or kl or tv else None

    def forward(self, paired: PairedBatch, unpaired: UnpairedBatch | None = None) -> dict[str, Tensor]:
        """Both branches."""
        if unpaired is None:
            raise SstlError(f"method '{self.name}' needs unlabelled photos; give data.unpaired.")
        parts = self.supervised(paired)
        target, trust = self.pseudo_label(unpaired.rainy)
        terms = self._terms(paired, unpaired.rainy, target, trust)
        loss = self.weight * parts["loss"]
        for name, weight in self.weights.items():
            loss = loss + weight * terms[name] if name in terms else loss
        return {**parts, **terms, "agreement": trust.mean(), "loss": loss}

    def _terms(self, paired: PairedBatch, rainy: Tensor, target: Tensor, trust: Tensor) -> dict[str, Tensor]:
        """The terms that are on, by name; what is off costs no forward pass."""
        weights = self.weights
        terms: dict[str, Tensor] = {}
        if weights["exchange"]:
            terms["exchange"] = self.supervised(self.exchanged(paired, rainy - target))["loss"]
        if weights["consistency"] or weights["recomposition"]:
            strong, expected = self.strong_view(rainy, target)
            restored = self.network(strong)
            terms["consistency"] = consistency_loss(restored.background, expected, trust)
            terms["recomposition"] = recomposition_loss(restored, strong)
        if weights["equivariance"]:
            terms["equivariance"] = equivariance_loss(self._restore, rainy, target, trust)
        if weights["rerain"]:
            terms["rerain"] = rerain_loss(self._restore, target, found_streaks(rainy - target), trust)
        if weights["stage_agreement"] or self.residuals is not None:
            restored = self.network(rainy)
            if weights["stage_agreement"]:
                terms["stage_agreement"] = stage_agreement_loss(restored)
            if self.residuals is not None:
                terms |= self.residuals(rainy, restored.background, paired)
        return terms

    def _restore(self, rainy: Tensor) -> Tensor:
        restored: Restoration = self.network(rainy)
        return restored.background

    @torch.no_grad()
    def pseudo_label(self, rainy: Tensor) -> tuple[Tensor, Tensor]:
        """Return the teacher's mean background over the weak views, in [0, 1], and the trust per pixel (B, 1, H, W)."""
        mirrored = self.teacher(rainy.flip(-1)).background.flip(-1)
        views = torch.stack([self.teacher(rainy).background, mirrored]).clamp(0, 1)
        return views.mean(dim=0), agreement(views, self.tolerance)

    @torch.no_grad()
    def exchanged(self, paired: PairedBatch, residual: Tensor) -> PairedBatch:
        """Return the labelled batch's clean images under the rain of ``residual`` = O - B^ of as many photos."""
        return lay_over(paired.clean, found_streaks(residual), self.brightness, paired.key)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move the teacher towards the student, and the mixture if there is one."""
        super().after_step(step)
        if self.residuals is not None:
            self.residuals.after_step()
