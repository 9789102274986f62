"""SIRR in its paper's form, made sound: the supervised branch and a residual streak likelihood on real photos."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sstl.errors import SstlError
from sstl.methods.base import METHODS
from sstl.methods.residuals import Density, ResidualLikelihood
from sstl.methods.supervised import Supervised
from sstl.networks import Network
from sstl.types import PairedBatch, UnpairedBatch


@METHODS.register("sirr")
class Sirr(Supervised):
    """Semi-supervised transfer by a mixture over real residuals (SIRR, Wei et al., CVPR 2019).

    One set of weights serves both branches. Departures from the released code, which collapsed: the mixture lives in
    buffers and is fitted by online EM, the likelihood is the full density, and the KL has a gradient.

    Args:
        network: any network.
        supervised: weight of the supervised branch; it forbids every collapse of the unsupervised terms.
        likelihood, kl, tv, components, density, per_photo: see ``ResidualLikelihood``. The likelihood's gradient is
            r / sigma^2, or 1 / b of ``oriented``, some hundred times an L1's for faint residuals; hence the small
            weight.
        options: of ``Supervised``.
    """

    needs_unpaired = True

    def __init__(
        self,
        network: Network,
        supervised: float = 1.0,
        likelihood: float = 1e-4,
        kl: float = 2e-3,
        tv: float = 1e-3,
        components: int = 3,
        density: Density = "gaussian",
        per_photo: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(network, **options)
        self.weight = supervised
        self.residuals = ResidualLikelihood(likelihood, kl, tv, components, density=density, per_photo=per_photo)

    def forward(self, paired: PairedBatch, unpaired: UnpairedBatch | None = None) -> dict[str, Tensor]:
        """Both branches."""
        if unpaired is None:
            raise SstlError("method 'sirr' needs unlabelled photos; give data.unpaired.")
        parts = self.supervised(paired)
        real = self.residuals(unpaired.rainy, self.network(unpaired.rainy).background, paired)
        return {**parts, **real, "loss": self.weight * parts["loss"] + real["likelihood"]}

    def after_step(self, step: int) -> None:  # noqa: ARG002 (of every method)
        """The M-step of the mixture."""
        self.residuals.after_step()
