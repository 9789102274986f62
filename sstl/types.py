"""The records that flow between the layers: batches in, restorations out.

Convention: float32 in [0, 1], RGB, shape (batch, channel, height, width), everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Self

    import torch
    from torch import Tensor


class _Tensors:
    """Mixin for dataclasses of tensors: move or transform every tensor field at once."""

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return a copy with ``change`` applied to every field that is a tensor."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return type(self)(**{k: change(v) if hasattr(v, "movedim") else v for k, v in values.items()})

    def to(self, device: torch.device | str) -> Self:
        """Return a copy on ``device``."""
        return self.map(lambda t: t.to(device, non_blocking=True))


@dataclass(frozen=True)
class PairedBatch(_Tensors):
    """A labelled batch: rainy images with their clean backgrounds.

    Attributes:
        rainy: O, shape (B, 3, H, W).
        clean: the background B, same shape.
        streak: the full streak layer S~ = max(O - B, 0), same shape.
        mask: the binary rain map R, shape (B, 1, H, W), 1 where the streak is above 5/255 in any channel.
        key: one name per image.
    """

    rainy: Tensor
    clean: Tensor
    streak: Tensor
    mask: Tensor
    key: tuple[str, ...]


@dataclass(frozen=True)
class UnpairedBatch(_Tensors):
    """An unlabelled batch of real rainy images, shape (B, 3, H, W), with one name per image."""

    rainy: Tensor
    key: tuple[str, ...]


@dataclass(frozen=True)
class Restoration:
    """What every network returns for a rainy image.

    Attributes:
        background: the restored image, shape (B, 3, H, W); not clipped, so that gradients survive.
        streak: the estimated streak intensity S, same shape; for a network that does not detect, O - background.
        mask_logits: logits of the rain map R, shape (B, 1, H, W), or None if the network does not detect.
        stages: the earlier stages' restorations of a recurrent network, first to last, without this one.
    """

    background: Tensor
    streak: Tensor
    mask_logits: Tensor | None = None
    stages: tuple[Restoration, ...] = ()

    @property
    def mask(self) -> Tensor | None:
        """The probability of rain per pixel, shape (B, 1, H, W), or None."""
        return None if self.mask_logits is None else self.mask_logits.sigmoid()

    @property
    def removed(self) -> Tensor:
        """The rain that the imaging model explains: S * R (S alone without a map)."""
        mask = self.mask
        return self.streak if mask is None else self.streak * mask
