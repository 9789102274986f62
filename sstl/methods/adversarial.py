"""Adversarial training: a conditional discriminator with an optimiser of its own judges what the network restores."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from sstl.losses import Perceptual
from sstl.methods.base import METHODS, Method
from sstl.networks import Network
from sstl.networks.idcgan import MultiScaleDiscriminator
from sstl.types import PairedBatch, UnpairedBatch

PERCEPTUAL = {"paper": 1.0, "released": 150.0}  # lambda_p, as sources recall it


@METHODS.register("adversarial")
class Adversarial(Method):
    """ID-CGAN's loss: pixel MSE + lambda_p * perceptual + 6.6e-3 * adversarial (Zhang et al., TCSVT 2019).

    The discriminator sees the rainy image beside the clean or the restored one. Both players are trained in one
    forward: the network's loss passes through the discriminator with its parameters held fixed, and the
    discriminator's through a detached restoration. Cheapest wrong solution of the adversarial term: any sharp image
    without streaks, whatever it shows; the condition and the pixel term forbid it.

    Args:
        network: any network.
        pixel, adversarial: weights of these terms.
        perceptual: lambda_p, or ``paper`` (1) or ``released`` (150); 0 leaves the term out.
        width: channels of the discriminator's first layer.
        backbone, backbone_weights: see ``Perceptual``; needed if ``perceptual`` is not 0.
    """

    def __init__(
        self,
        network: Network,
        pixel: float = 1.0,
        adversarial: float = 6.6e-3,
        perceptual: float | Literal["paper", "released"] = 0.0,
        width: int = 48,
        backbone: str = "vgg16",
        backbone_weights: str | None = None,
    ) -> None:
        super().__init__(network)
        self.pixel, self.adversarial = pixel, adversarial
        self.weight = PERCEPTUAL[perceptual] if isinstance(perceptual, str) else perceptual
        self.perceptual = Perceptual(backbone, backbone_weights) if self.weight else None
        self.discriminator = MultiScaleDiscriminator(width)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The two players."""
        return {"network": list(self.network.parameters()), "discriminator": list(self.discriminator.parameters())}

    def forward(
        self,
        paired: PairedBatch,
        unpaired: UnpairedBatch | None = None,  # noqa: ARG002 (of every method)
    ) -> dict[str, Tensor]:
        """Ignore ``unpaired``."""
        clean, background = paired.clean, self.network(paired.rainy).background
        real, made = (torch.cat([paired.rainy, image], dim=1) for image in (clean, background))
        fixed = {name: parameter.detach() for name, parameter in self.discriminator.named_parameters()}
        parts = {
            "pixel": F.mse_loss(background, clean),
            "adversarial": F.softplus(-functional_call(self.discriminator, fixed, (made,))).mean(),
            "discriminator": 0.5 * F.softplus(-self.discriminator(real)).mean()
            + 0.5 * F.softplus(self.discriminator(made.detach())).mean(),
        }
        loss = self.pixel * parts["pixel"] + self.adversarial * parts["adversarial"] + parts["discriminator"]
        if self.perceptual is not None:
            parts["perceptual"] = self.perceptual(background, clean)
            loss = loss + self.weight * parts["perceptual"]
        return {"loss": loss, **parts}
