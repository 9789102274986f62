"""Perceptual distance: images compared by the features of a network that was trained to recognise things."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sstl.compat import import_torchvision_user
from sstl.errors import SstlError

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, on which torchvision trains


class Perceptual(nn.Module):
    """Mean squared difference of the first layers' features (Johnson et al., ECCV 2016); the backbone is frozen.

    Cheapest solution alone: any image with the same features, off in colour or with a checkerboard; a pixel distance
    beside it forbids that.

    Args:
        backbone: a torchvision classifier with a ``features`` part (vgg16, alexnet, mobilenet_v2, ...).
        weights: a file with its state dict, as torchvision publishes it. Nothing is ever downloaded.
        layers: how many of the layers to use; 9 of vgg16 end with relu2_2, as in ID-CGAN.

    Raises:
        SstlError: there is no such backbone, or the file is not its state dict.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, backbone: str, weights: str | Path | None, layers: int = 9) -> None:
        super().__init__()
        if weights is None:
            raise SstlError(
                f"the perceptual term needs weights of '{backbone}'; give backbone_weights, a file from torchvision."
            )
        models = import_torchvision_user("torchvision.models")
        try:
            network = models.get_model(backbone, weights=None)
            network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
            self.features = network.features[:layers].eval().requires_grad_(False)
        except Exception as error:  # torch.load raises whatever a damaged file leads it to
            reason = " ".join(str(error).split())[:120]
            raise SstlError(f"{weights}: not the state dict of torchvision's '{backbone}' ({reason}).") from None
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(1, 3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> Perceptual:  # noqa: ARG002 (of every module)
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """Two batches (B, 3, H, W) in [0, 1] -> their mean squared distance in features."""
        ours, theirs = (self.features((x - self.mean) / self.deviation) for x in (image, target))
        return F.mse_loss(ours, theirs)
