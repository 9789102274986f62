"""Routed: a network beside what an adaptation made of it; each image goes to the one that knows its rain."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sstl.errors import SstlError
from sstl.networks.base import NETWORKS, Network, create_network
from sstl.rain.appearance import FEATURES, LEAST_SIDE, appearance
from sstl.types import Restoration

VIEW = 192  # side of what is looked at, in pixels; an image is seen in up to four views
_BATCH = 16  # images whose appearance is computed at once, which takes many times their memory
# There are about as many features as samples: a class's covariance is moved towards that of both, and both towards
# uncorrelated features.
_SHARED, _SHRINKAGE = 0.6, 0.1
_MARGIN = 0.1  # of the log odds by which what is spared is spared: those of one image vary a little with its batch


class Routed(Network):
    """Two sets of weights: ``adapted`` restores images that look like the photos of the adaptation, ``known`` the rest.

    A network that learns new rain forgets other rain, and takes light from clear photographs; one that never sees them
    cannot. Hence an expert for each task, and a gate that chooses by the look of the image (Expert Gate, Aljundi et
    al., CVPR 2017). Here the gate is regularised discriminant analysis of ``sstl.rain.appearance``, in closed form, in
    the place of their autoencoders; see ``discriminant``. Images below 64 pixels, which show too little, are restored
    by ``known``.

    Only one of the two runs, so an image takes the time of one network and a look at it. What is learned when this is
    trained further is ``adapted``; see ``latest``.

    Args:
        known: where the adaptation started; may be routed itself.

    Attributes:
        fixed: what was decided for a picture of which only a tile is given; None decides for each image.
    """

    centre: Tensor
    curvature: Tensor
    direction: Tensor
    offset: Tensor

    def __init__(self, known: Network) -> None:
        super().__init__()
        self.known, self.adapted = known, copy.deepcopy(latest(known))
        self.name, self.config = "routed", {"network": known.name, "options": known.config}
        self.stride, self.receptive_radius = self.adapted.stride, self.adapted.receptive_radius
        self.latent = f"known.{known.latent}" if known.latent else None
        for name, shape in zip(Discriminant._fields, ((FEATURES,), (FEATURES, FEATURES), (FEATURES,), ()), strict=True):
            self.register_buffer(name, torch.zeros(shape))
        self.fixed: bool | None = None

    def learn(
        self, photos: NDArray[np.float64], others: NDArray[np.float64], spared: NDArray[np.float64] | None = None
    ) -> None:
        """Learn to tell the photos of an adaptation from other images by their ``looks``, (N, F) and (M, F).

        Args:
            photos, others: what is learned from.
            spared: looks of images none of which may be taken for photos; see ``Discriminant.sparing``.
        """
        learned = discriminant(photos, others)
        for name, values in (learned if spared is None else learned.sparing(spared))._asdict().items():
            getattr(self, name).copy_(torch.as_tensor(values))

    def recognised(self, images: Tensor) -> Tensor:
        """Whether images, (B, 3, H, W) in [0, 1], look like the photos: bool (B,), on the processor."""
        return self.recognised_in(views(images))

    def recognised_in(self, seen: Sequence[Tensor]) -> Tensor:
        """The same of images of which only these views are given, each (B, 3, S, S)."""
        # Who counts operations gives images without values.
        if seen[0].size(-1) < LEAST_SIDE or self.direction.is_meta or not bool(self.direction.any()):
            return torch.zeros(len(seen[0]), dtype=torch.bool)
        learned = Discriminant(*(getattr(self, name).double().cpu().numpy() for name in Discriminant._fields))
        return torch.from_numpy(learned(np.mean([looks(view) for view in seen], axis=0)) > 0)

    def forward(self, rainy: Tensor) -> Restoration:
        """(B, 3, H, W) in [0, 1] -> Restoration by one network or the other."""
        new = self.recognised(rainy.detach()) if self.fixed is None else torch.tensor([self.fixed] * len(rainy))
        if bool(new.all()):
            return self.adapted(rainy)  # type: ignore[no-any-return]
        if not bool(new.any()):
            return self.known(rainy)  # type: ignore[no-any-return]
        new = new.to(rainy.device)
        return _merged(new, self.adapted(rainy[new]), self.known(rainy[~new]))


def latest(network: Network) -> Network:
    """Return what is trained when a network is trained further: of a routed one what was adapted last, else itself."""
    return latest(network.adapted) if isinstance(network, Routed) else network


def views(images: Tensor) -> list[Tensor]:
    """Return up to four square crops of images, (B, 3, H, W), near their corners; of a JPEG, cut at multiples of 8."""
    height, width = images.shape[-2:]
    side = min(VIEW, height, width)
    places = [sorted({0, (length - side) // 8 * 8}) for length in (height, width)]
    return [images[..., top : top + side, left : left + side] for top in places[0] for left in places[1]]


def looks(images: Tensor) -> NDArray[np.float64]:
    """The appearance of images, (B, 3, S, S) in [0, 1] -> (B, F), whatever their device, layout and arithmetic."""
    with torch.autocast(images.device.type, enabled=False):
        parts = [appearance(part.to("cpu", torch.float32).contiguous()) for part in torch.split(images, _BATCH)]
    return np.concatenate(parts).astype(np.float64)


class Discriminant(NamedTuple):
    """What tells two classes apart.

    A sample x is of the first where z' curvature z + direction' z + offset > 0, with z = x - centre.

    Attributes:
        centre: (F,), halfway between the classes, so that single precision is enough.
        curvature: (F, F); 0 where both have the same covariance.
        direction: (F,).
        offset: a number.
    """

    centre: NDArray[np.float64]
    curvature: NDArray[np.float64]
    direction: NDArray[np.float64]
    offset: NDArray[np.float64]

    def __call__(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, F) -> (N,), the logarithm of how much likelier the first class is."""
        z = x - self.centre
        return np.asarray(((z @ self.curvature) * z).sum(axis=1) + z @ self.direction + self.offset)

    def sparing(self, others: NDArray[np.float64]) -> Discriminant:
        """Return the same with its border moved just far enough that none of ``others``, (M, F), is of the first class.

        A photo that is not recognised is restored as before; a clear photograph that is taken for one loses light.
        """
        excess = float(self(others).max(initial=-np.inf)) + _MARGIN
        return self._replace(offset=self.offset - excess) if excess > 0 else self


def discriminant(
    photos: NDArray[np.float64],
    others: NDArray[np.float64],
    shared: float = _SHARED,
    shrinkage: float = _SHRINKAGE,
) -> Discriminant:
    """Return what tells photos from others by regularised discriminant analysis (Friedman, JASA 1989).

    Each class is a Gaussian, and both count alike. Photos of several kinds of rain spread more widely than others,
    which a plane (all ``shared``: Fisher's linear discriminant) cannot say.

    Args:
        photos, others: features, (N, F) and (M, F); N and M at least 2.
        shared: how far a class's covariance is moved towards that of both, from 0 to 1.
        shrinkage: how far that is moved towards uncorrelated features.
    """
    if min(len(photos), len(others)) < 2:
        raise SstlError(f"a router learns from 2 images of each kind, not {len(photos)} and {len(others)}.")
    means = np.stack([photos.mean(axis=0), others.mean(axis=0)])
    centre = means.mean(axis=0)
    apart = [photos - means[0], others - means[1]]
    scale = np.concatenate(apart).std(axis=0) + 1e-6
    own = [np.cov(rows / scale, rowvar=False, bias=True) for rows in apart]
    pooled = np.cov(np.concatenate(apart) / scale, rowvar=False, bias=True)
    curvature, direction, offset = np.zeros_like(pooled), np.zeros_like(centre), 0.0
    for sign, mean, covariance in zip((1, -1), (means - centre) / scale, own, strict=True):
        moved = (1 - shared) * covariance + shared * pooled
        moved = (1 - shrinkage) * moved + shrinkage * np.eye(len(scale))
        precision = np.linalg.inv(moved)
        curvature -= sign * precision / 2
        direction += sign * precision @ mean
        offset -= sign * (mean @ precision @ mean + np.linalg.slogdet(moved).logabsdet) / 2
    return Discriminant(centre, curvature / np.outer(scale, scale), direction / scale, np.array(offset))


Named = tuple[NDArray[np.float64], Sequence[str]]
"""The looks of images, (N, F), and the name of each; one name may stand for several."""


def reliability(photos: Named, others: Named, spared: NDArray[np.float64] | None = None) -> tuple[float, float]:
    """Return the shares of the photos and of the others that are taken for photos by a router that saw other ones.

    Each half of the images, by their names, is judged by what was learned from the other half; ``spared`` is as in
    ``Routed.learn``.
    """
    features = [photos[0], others[0]]
    second = [_second_half(names) for _, names in (photos, others)]
    taken = [np.zeros(len(half), dtype=bool) for half in second]
    for held in (False, True):
        shown = [x[half != held] for x, half in zip(features, second, strict=True)]
        learned = discriminant(*shown)
        learned = learned if spared is None else learned.sparing(spared)
        for said, x, half in zip(taken, features, second, strict=True):
            said[half == held] = learned(x[half == held]) > 0
    return float(taken[0].mean()), float(taken[1].mean())


def _second_half(names: Sequence[str]) -> NDArray[np.bool_]:
    """Which of the images are in the second half; the crops of a single one are shared out between both."""
    order = {name: number for number, name in enumerate(sorted(set(names)))}
    places = range(len(names)) if len(order) == 1 else [order[name] for name in names]
    return np.array([place % 2 == 1 for place in places])


def _merged(new: Tensor, adapted: Restoration, known: Restoration) -> Restoration:
    """One restoration of a batch of two parts; ``new`` says which images are in the first."""

    def merge(ours: Tensor, theirs: Tensor) -> Tensor:
        both = ours.new_empty(len(new), *ours.shape[1:])
        both[new], both[~new] = ours, theirs
        return both

    logits = adapted.mask_logits, known.mask_logits
    return Restoration(
        merge(adapted.background, known.background),
        merge(adapted.streak, known.streak),
        None if logits[0] is None or logits[1] is None else merge(logits[0], logits[1]),
        tuple(_merged(new, *stages) for stages in zip(adapted.stages, known.stages, strict=True)),
    )


@NETWORKS.register("routed")
def routed(network: str = "joint", options: dict[str, Any] | None = None) -> Routed:
    """Two sets of weights of one network, of which each image gets its own: what an adaptation keeps apart."""
    if "pretrained" in (options or {}):
        raise SstlError("routed: 'pretrained' is no option of the network; its file brings the weights.")
    return Routed(create_network(network, **(options or {})))
