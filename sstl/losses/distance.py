"""How far a restored image is from the true one: the distances that deraining networks are trained by, per image."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Distance = Literal["l1", "mse", "charbonnier", "ssim"]

CHARBONNIER = 1e-3  # epsilon, of MSPFN
SSIM_WINDOW = 11


def distance(image: Tensor, target: Tensor, kind: Distance = "l1") -> Tensor:
    """Distance of each image of a batch, (B, C, H, W) -> (B,); 0 (Charbonnier: 1e-3) for equal images, else more.

    ``l1``: mean |d|. ``mse``: mean d^2 (DDN, SIRR, JORDER). ``charbonnier``: mean sqrt(d^2 + 1e-6) (MSPFN). ``ssim``:
    1 - SSIM with the window of Wang et al. on [0, 1], of at least 11x11 pixels (PReNet's negative SSIM, up to the
    constant 1; borders are left out here, padded with zeros there).
    """
    if kind == "ssim":
        return _dissimilarity(image, target)
    difference = image - target
    if kind == "l1":
        values = difference.abs()
    else:
        values = difference.square()
        if kind == "charbonnier":
            values = (values + CHARBONNIER**2).sqrt()
    return values.mean(dim=(1, 2, 3))


def edge_loss(image: Tensor, target: Tensor) -> Tensor:
    """Mean Charbonnier distance of the Laplacians (8 neighbours, zeros beyond the border), as in MSPFN.

    It forbids blurred edges. Cheapest solution alone: the true image up to a linear ramp; a distance forbids that.
    """
    from kornia.filters import laplacian

    with torch.autocast(image.device.type, enabled=False):  # half precision rounds what the Laplacian subtracts
        wide = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (image, target))
        ours, theirs = (laplacian(x, 3, border_type="constant", normalized=False) for x in wide)
    return distance(ours, theirs, "charbonnier").mean()


def _dissimilarity(image: Tensor, target: Tensor) -> Tensor:
    from kornia.metrics import ssim

    # kornia multiplies in half precision under autocast, where E[x^2] - E[x]^2 cancels.
    with torch.autocast(image.device.type, enabled=False):
        similarity: Tensor = ssim(image.float(), target.float(), SSIM_WINDOW, padding="valid")
    return 1 - similarity.mean(dim=(1, 2, 3))
