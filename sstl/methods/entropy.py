"""Entropy minimisation: the rain map is made to decide on photos, through one number per channel (Tent)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sstl.errors import SstlError
from sstl.losses import map_entropy
from sstl.methods.base import METHODS, train_channels_only, trial
from sstl.methods.supervised import Supervised
from sstl.networks import Network
from sstl.types import PairedBatch, UnpairedBatch


@METHODS.register("entropy")
class Entropy(Supervised):
    """Minimise the binary entropy of the rain map on photos (after Tent, Wang et al., ICLR 2021); a baseline.

    Only parameters of one number per channel are trained: the affine parameters of normalisations, as in Tent, and
    biases, because the networks that detect rain have no normalisation. Cheapest wrong solution: a map that is 0
    everywhere, or 1 everywhere, on photos; the supervised branch forbids it, whose map has both on the pairs. Tent has
    no such branch, ``supervised: 0``, and collapses here.

    Args:
        network: one that detects rain.
        supervised: weight of the supervised branch.
        entropy: weight of the entropy, in nats per pixel.
        options: of ``Supervised``.

    Raises:
        SstlError: the network does not detect rain.
    """

    needs_unpaired = True

    def __init__(self, network: Network, supervised: float = 1.0, entropy: float = 0.01, **options: Any) -> None:
        super().__init__(network, **options)
        if trial(network).mask_logits is None:
            name = getattr(network, "name", type(network).__name__)
            raise SstlError(
                f"method 'entropy' sharpens the rain map, but network '{name}' does not detect rain; use one that does "
                "(joint, jorder), or method mean_teacher."
            )
        self.weight, self.entropy = supervised, entropy
        train_channels_only(network)

    def forward(self, paired: PairedBatch, unpaired: UnpairedBatch | None = None) -> dict[str, Tensor]:
        """Both branches."""
        if unpaired is None:
            raise SstlError("method 'entropy' needs unlabelled photos; give data.unpaired.")
        parts = self.supervised(paired)
        logits = self.network(unpaired.rainy).mask_logits
        assert logits is not None
        entropy = map_entropy(logits)
        return {**parts, "entropy": entropy, "loss": self.weight * parts["loss"] + self.entropy * entropy}
