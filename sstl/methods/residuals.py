"""The residual streak likelihood as a part of a method: mixture, KL anchor and total variation on real photos."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sstl.losses import Mixture, OrientedMixture, total_variation
from sstl.losses.likelihood import Statistics
from sstl.methods.base import Noting
from sstl.ops.processes import averaged
from sstl.types import PairedBatch

Density = Literal["gaussian", "oriented"]
DENSITIES: dict[Density, type[Mixture]] = {"gaussian": Mixture, "oriented": OrientedMixture}


class ResidualLikelihood(Noting):
    """SIRR's unsupervised terms (Wei et al., CVPR 2019, the paper's form) on the residuals O - B^ of real photos.

    ``likelihood * NLL + kl * KL(synthetic || found) + tv * TV(B^)``, the KL from the nearest Gaussian, or from all that
    the oriented density calls rain. Any of these likelihoods alone is minimised by "remove nothing"; the KL has a
    gradient to the network here, through the parameters that the next M-step would give, and grows without bound as the
    residuals vanish. But a Gaussian of a few percent of the pixels satisfies it: it keeps a little light and no more.
    It assumes that real and synthetic rain carry similar energy: where the photos are much drier or wetter than the
    training pairs, lower ``kl``. TV alone is minimised by a flat image; the supervised branch, which a method always
    adds, forbids it.

    Args:
        likelihood, kl, tv: the weights; 0 switches a term off.
        components: K of the mixture.
        momentum: of the running sufficient statistics.
        density: ``gaussian``, the paper's, or ``oriented``: see ``OrientedMixture``.
        per_photo: weigh each photo's residuals by a mixture of its own, since photos differ in rain; its prior is the
            shared one, which alone is kept. See ``Mixture.of_photos``.
    """

    def __init__(
        self,
        likelihood: float,
        kl: float,
        tv: float,
        components: int = 3,
        momentum: float = 0.9,
        density: Density = "gaussian",
        per_photo: bool = False,
    ) -> None:
        super().__init__()
        self.likelihood, self.kl, self.tv, self.per_photo = likelihood, kl, tv, per_photo
        self.mixture = DENSITIES[density](components, momentum)

    def forward(self, rainy: Tensor, background: Tensor, paired: PairedBatch) -> dict[str, Tensor]:
        """Return ``nll``, ``kl``, ``tv`` and their weighted sum ``likelihood``; changes no buffer."""
        residual = rainy - background
        self.noted.append(self.mixture.statistics(residual.detach()))
        synthetic = averaged(self.mixture.moment(paired.rainy - paired.clean).mean()).clamp(min=self.mixture.floor)
        terms = {
            "nll": self.mixture.nll(residual, self.per_photo),
            "kl": self.mixture.kl(residual, synthetic),
            "tv": total_variation(background),
        }
        total = self.likelihood * terms["nll"] + self.kl * terms["kl"] + self.tv * terms["tv"]
        return {"likelihood": total, **terms}

    def after_step(self) -> None:
        """The M-step, with the statistics of the step."""
        if self.noted:
            self.mixture.update(
                Statistics(*(torch.stack(values).mean(dim=0) for values in zip(*self.noted, strict=True)))
            )
            self.noted.clear()
