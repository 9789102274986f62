"""Total variation of a restored background."""

from __future__ import annotations

from torch import Tensor


def total_variation(image: Tensor) -> Tensor:
    """Anisotropic total variation, mean over the pixels: mean |dx| + mean |dy|, as in SIRR (there summed).

    Cheapest solution: a constant image ("remove the texture"); only a small weight beside the supervised background
    term is safe, and the supervised term forbids the constant.
    """
    vertical = (image[..., 1:, :] - image[..., :-1, :]).abs()
    horizontal = (image[..., :, 1:] - image[..., :, :-1]).abs()
    zero = image.new_zeros(())
    return (vertical.mean() if vertical.numel() else zero) + (horizontal.mean() if horizontal.numel() else zero)
