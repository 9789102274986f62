"""A loaded network that restores images of every kind: files, PIL images, numpy arrays and torch tensors."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sstl.data.decoding import Array, decode
from sstl.data.images import Photo, read_photo, to_pil
from sstl.errors import InputError, SstlError
from sstl.networks import Network, load_weights
from sstl.networks.deveil import Deveil
from sstl.networks.routed import Routed, views
from sstl.networks.weights import DEFAULT
from sstl.ops.precision import Precision, resolve_precision
from sstl.restore.tiles import blended_bands
from sstl.types import Restoration

Kind = TypeVar("Kind", Image.Image, Array, Tensor)
Layer = Literal["background", "streak", "mask", "doubt"]

_PEAK = {torch.uint8: 255, torch.uint16: 65535}

_TILE = 1024  # side of what is used of a tile; with the halos of joint small a forward pass takes about 0.8 GB
# Where it has a neighbour, a tile is shown as much beyond its border as an output pixel can see. A network that sees
# all of an image gets this much: beside a border that is not the photo's a trained network answers differently, and on
# real photos that fades within about 80 pixels.
_HALO = 80
_TRANSITION = 32  # from one tile to the next
_SMALLEST_TILE = 64
_FLIPS = ((), (-1,), (-2,), (-2, -1))  # the views whose restorations are compared
_DOUBT = 8  # times the deviation, so that it can be seen
_SLACK = 1e-3  # by which resizing and colour conversion overshoot


def load(
    name_or_path: str | Path = DEFAULT,
    device: str = "auto",
    precision: Precision = "auto",
    tile: int | Literal["auto"] = "auto",
    deveil: bool = False,
) -> Restorer:
    """Load weights to restore images with.

    Args:
        name_or_path: shipped weights by name, or a weights file.
        device: ``auto`` (cuda if there is one), ``cpu``, ``cuda`` or ``cuda:1``.
        precision: see ``sstl.ops.precision``.
        tile: see ``Restorer``.
        deveil: derain, remove the veil of distant rain by the dark channel prior, and derain again.

    Raises:
        WeightsError: the weights cannot be used.
        SstlError: there is no such device, or the tile is too small.
    """
    place = _device(device)
    network = load_weights(name_or_path).network
    if deveil and not isinstance(network, Deveil):
        inner, network = network, Deveil(network)
        network.name, network.config = f"{inner.name} --deveil", inner.config
    return Restorer(network, place, resolve_precision(precision, place), tile)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SstlError(f"device '{name}' is unknown; use auto, cpu or cuda.") from None
    if device.type not in ("cpu", "cuda"):
        raise SstlError(f"device '{name}' is not supported; use auto, cpu or cuda.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SstlError(f"device '{name}' is not there, or this torch cannot use it; use auto or cpu.")
    return device


class Restorer:
    """Restores images with a network.

    An image is a file's path, a PIL image, a numpy array (H, W, 3) or (H, W), or a tensor (C, H, W) or (B, C, H, W) of
    three channels or one; arrays and tensors are uint8, uint16 or floating-point in [0, 1]. The result is of the same
    kind, size and dtype; a path gives a PIL image, upright by EXIF. Grey stays grey, alpha is passed through. Results
    are clipped to [0, 1]; in 8 bits they are round(255 x).

    Args:
        network: put into evaluation mode and moved to ``device`` here.
        device: where to compute.
        dtype: ``torch.float32``, or ``torch.bfloat16`` for autocast.
        tile: side of the tiles that large images are cut into, in pixels, without the surroundings that the network is
            shown of each; 0 for none; "auto" for tiles of about a megapixel if the image is larger than one with them.
    """

    def __init__(
        self,
        network: Network,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        tile: int | Literal["auto"] = "auto",
    ) -> None:
        if tile != "auto" and tile != 0 and tile < _SMALLEST_TILE:
            raise SstlError(f"tile is {tile}; it must be auto, 0 (no tiles) or at least {_SMALLEST_TILE} pixels.")
        self.device, self.dtype, self.tile = torch.device(device), dtype, tile
        # Channels last is the layout in which oneDNN and cuDNN convolve fastest.
        self.network = network.eval().to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def routed(self) -> bool:
        """Whether the network chooses by the look of an image which of two restores it."""
        return bool(self._routers())

    @contextmanager
    def settled(self, images: Sequence[Any]) -> Iterator[None]:
        """Let one of two networks restore all that comes meanwhile: that which most of these images would get.

        So it is for the frames of a clip, and for the tiles and mirror images of a photo. Within another, it changes
        nothing; nor for a network that is not routed.
        """
        routers = [router for router in self._routers() if router.fixed is None]
        for router in routers:
            votes = [bool(router.recognised_in(_seen(as_planes(image)))[0]) for image in images]
            router.fixed = 2 * sum(votes) > len(votes)
        try:
            yield
        finally:
            for router in routers:
                router.fixed = None

    def _routers(self) -> list[Routed]:
        return [part for part in self.network.modules() if isinstance(part, Routed)]

    @functools.cached_property
    def names(self) -> tuple[Layer, ...]:
        """The layers that this network gives: background, streak and, if it detects, mask."""
        detects = self._forward(torch.zeros(1, 3, 8, 8)).mask_logits is not None
        return ("background", "streak", "mask") if detects else ("background", "streak")

    @overload
    def restore(self, image: str | Path) -> Image.Image: ...
    @overload
    def restore(self, image: Kind) -> Kind: ...
    def restore(self, image: Any) -> Any:
        """Return the image without rain, of the same kind.

        Raises:
            InputError: a file cannot be read.
            SstlError: an array or tensor is of another shape, dtype or range.
        """
        return self._by_kind(image, ("background",))["background"]

    @overload
    def layers(self, image: str | Path) -> dict[Layer, Image.Image]: ...
    @overload
    def layers(self, image: Kind) -> dict[Layer, Kind]: ...
    def layers(self, image: Any) -> dict[Layer, Any]:
        """Return the layers that the network sees in an image, each of the image's kind and dtype; raises as `restore`.

        ``background`` is the restored image, ``streak`` the intensity S of the streaks, and ``mask`` the probability R
        of rain, one channel ((H, W) as an array); S * R is what the imaging model subtracts. A network that does not
        detect gives no mask, and max(O - background, 0) for the streaks.

        ``restore_photo`` also knows ``doubt``, one channel: eight times the standard deviation of the restorations of
        the image and its mirror images, which the network ought to treat alike, averaged over the channels.
        """
        return self._by_kind(image, self.names)

    def restore_photo(self, photo: Photo, names: Sequence[Layer] = ("background",)) -> dict[Layer, Photo]:
        """Return layers of a photo as photos; only the background carries alpha, profile and EXIF data.

        Raises:
            SstlError: the network does not give such a layer.
        """
        result = self._run(as_planes(photo), names)
        photos: dict[Layer, Photo] = {}
        for name, layer in result.items():
            grey = layer.size(0) == 1
            pixels = _array(layer.expand(3, -1, -1))
            photos[name] = replace(photo, pixels=pixels) if name == "background" else Photo(pixels, grey=grey)
        return photos

    def _by_kind(self, image: Any, names: Sequence[Layer]) -> dict[Layer, Any]:
        match image:
            case str() | Path():
                photos = self.restore_photo(read_photo(image), names)
                return {name: to_pil(photo) for name, photo in photos.items()}
            case Image.Image():
                if not image.width * image.height:
                    raise SstlError(f"the image is {image.width} x {image.height} pixels; give one that has some.")
                pixels, alpha, grey = decode(image, "the image")
                icc = None if image.mode == "CMYK" else image.info.get("icc_profile")
                photo = Photo(pixels, alpha, grey, icc=icc, exif=image.info.get("exif"))
                return {name: to_pil(layer) for name, layer in self.restore_photo(photo, names).items()}
            case np.ndarray() if _is_image(image):
                arrays = {name: _array(layer) for name, layer in self._run(as_planes(image), names).items()}
                return {name: array[..., 0] if array.shape[2] == 1 else array for name, array in arrays.items()}
            case Tensor() if image.ndim == 3:
                return {name: layer.contiguous() for name, layer in self._run(image.detach(), names).items()}
            case Tensor() if image.ndim == 4 and len(image):
                each = [self._run(one, names) for one in image.detach()]
                return {name: torch.stack([layers[name] for layers in each]) for name in names}
        raise _refusal(image)

    def _run(self, image: Tensor, names: Sequence[Layer]) -> dict[Layer, Tensor]:
        """(C, H, W), C = 1 or 3 -> each layer (C, H, W), the mask (1, H, W), of the same dtype and device."""
        with self.settled([image]):
            return self._layers_of(image, names)

    def _layers_of(self, image: Tensor, names: Sequence[Layer]) -> dict[Layer, Tensor]:
        channels, height, width = image.shape
        _check(image)
        if "mask" in names and "mask" not in self.names:
            raise SstlError(f"network '{self.network.name}' gives no mask; leave it out.")
        if "doubt" in names:
            others = tuple(name for name in names if name != "doubt")
            return {**(self._run(image, others) if others else {}), "doubt": self._doubt(image)}
        peak = scale_of(image)
        depths = [1 if name == "mask" else channels for name in names]
        # Laid out as files and arrays are, so that none of them needs a copy.
        shapes = [(height, width, depth) for depth in depths]
        results = [torch.empty(shape, dtype=image.dtype, device=image.device).movedim(-1, 0) for shape in shapes]

        def restore(rows: slice, columns: slice) -> Tensor:
            rainy = image[:, rows, columns].to(torch.float32)[None] / peak
            found = self._forward(rainy.expand(-1, 3, -1, -1))
            layers = [_layer(found, name) for name in names]
            if channels == 1:
                layers = [_grey(layer) for layer in layers]
            return torch.cat(layers, dim=1)[0].clamp(0, 1).mul_(peak).to(image.device)

        side, overlap, halo = self._tiling(height, width)
        if isinstance(self.network, Deveil):  # one airlight for all tiles
            tiled = max(height, width) > side
            self.network.airlight = self._airlight(image, peak) if tiled else None
        for top, band in blended_bands(restore, height, width, side, overlap, halo, self.network.stride):
            values = band.round_() if peak > 1 else band
            for result, layer in zip(results, torch.split(values, depths), strict=True):
                result[:, top : top + band.size(1)] = layer
        return dict(zip(names, results, strict=True))

    def _doubt(self, image: Tensor) -> Tensor:
        """(C, H, W) -> (1, H, W) of its dtype; see ``layers``."""
        views = [_flip(self._run(_flip(image, axes), ("background",))["background"], axes) for axes in _FLIPS]
        deviation = torch.stack([view.to(torch.float32) for view in views]).std(dim=0, correction=0)
        doubt = (_DOUBT * deviation.mean(dim=0, keepdim=True)).clamp(max=scale_of(image))
        return (doubt if image.is_floating_point() else doubt.round()).to(image.dtype)

    def _forward(self, rainy: Tensor) -> Restoration:
        """Restore; what bfloat16 spoils is computed again in float32, and what that spoils is an error."""
        for fast in dict.fromkeys((self.dtype == torch.bfloat16, False)):
            found: Restoration = self._compute(self.network, rainy, fast)
            if bool(found.background.sum().isfinite()):
                return found
        raise InputError(
            f"network '{self.network.name}' gives values that are not finite for this image; its weights are damaged: "
            "give others."
        )

    def _airlight(self, image: Tensor, peak: int) -> Tensor:
        """The airlight of a large image (C, H, W), from a copy that is small enough to be restored as a whole."""
        assert isinstance(self.network, Deveil)
        step = math.ceil(math.sqrt(image[0].numel()) / _TILE)
        small = image[:, ::step, ::step].to(torch.float32)[None] / peak
        fast = self.dtype == torch.bfloat16
        return self._compute(self.network.airlight_of, small.expand(-1, 3, -1, -1), fast)  # type: ignore[no-any-return]

    def _compute(self, function: Callable[[Tensor], Any], rainy: Tensor, fast: bool) -> Any:
        rainy = rainy.to(self.device).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=fast):
            return function(rainy)

    def _tiling(self, height: int, width: int) -> tuple[int, int, int]:
        """Return the side of the tiles, their overlap and its halo, multiples of the network's stride."""
        stride, radius = self.network.stride, self.network.receptive_radius
        halo = _up(_HALO if radius is None else radius, stride)
        overlap = 2 * halo + _up(_TRANSITION, stride)
        side = _up(_TILE if self.tile == "auto" else self.tile, stride) + overlap
        if self.tile == 0 or (self.tile == "auto" and _up(height, stride) * _up(width, stride) <= side**2):
            side = _up(max(height, width), stride)
        return side, overlap, halo


def as_planes(image: Any) -> Tensor:
    """Return one image of any kind as a tensor (C, H, W) of its dtype, C = 1 or 3; a path is read.

    Raises:
        InputError: a file cannot be read.
        SstlError: it is no image, or an array or tensor of another shape, dtype or range.
    """
    match image:
        case str() | Path():
            return as_planes(read_photo(image))
        case Photo():
            return _tensor(image.pixels[..., :1] if image.grey else image.pixels)
        case Image.Image():
            pixels, _, grey = decode(image, "the image")
            return as_planes(Photo(pixels, grey=grey))
        case np.ndarray() if _is_image(image):
            return as_planes(_tensor(image if image.ndim == 3 else image[..., None]))
        case Tensor() if image.ndim == 3:
            _check(image)
            return image.detach()
    raise _refusal(image)


def _seen(image: Tensor) -> list[Tensor]:
    """What a router looks at of (C, H, W); of a large image nothing else is converted."""
    return [view.to(torch.float32)[None].expand(-1, 3, -1, -1) / scale_of(image) for view in views(image)]


def scale_of(image: Tensor) -> int:
    """Return the value of white in an image of this dtype."""
    return _PEAK.get(image.dtype, 1)


def _up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def _is_image(array: np.ndarray) -> bool:
    return array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)


def _refusal(image: Any) -> SstlError:
    shape = f" of shape {tuple(image.shape)}" if isinstance(image, np.ndarray | Tensor) else ""
    return SstlError(
        f"cannot restore a {type(image).__name__}{shape}; give a path, a PIL image, an array (H, W, 3) or (H, W), "
        "or a tensor (3, H, W) or (B, 3, H, W)."
    )


def _layer(found: Restoration, name: Layer) -> Tensor:
    layer = {"background": found.background, "streak": found.streak, "mask": found.mask}[name]
    assert layer is not None
    return layer.to(torch.float32)


def _flip(image: Tensor, axes: tuple[int, ...]) -> Tensor:
    if image.dtype == torch.uint16:  # which torch does not flip on a processor
        return image.view(torch.int16).flip(axes).view(torch.uint16)
    return image.flip(axes)


def _grey(layer: Tensor) -> Tensor:
    # In float64 the mean of three equal float32 values is that value.
    return layer.mean(1, keepdim=True, dtype=torch.float64).to(torch.float32)


def _check(image: Tensor) -> None:
    if image.size(0) not in (1, 3) or 0 in image.shape:
        raise SstlError(
            f"an image of {image.size(0)} channels, {image.size(1)} x {image.size(2)} pixels; give grey or RGB."
        )
    if image.dtype in _PEAK:
        return
    if not image.is_floating_point():
        raise SstlError(f"pixels of {image.dtype}; give uint8, uint16 or floating-point in [0, 1].")
    low, high = (float(value) for value in image.aminmax())
    if not (low >= -_SLACK and high <= 1 + _SLACK):  # also if they are NaN
        raise SstlError(f"floating-point pixels between {low:.4g} and {high:.4g}; they must be in [0, 1].")


def _tensor(array: Array) -> Tensor:
    # A copy where torch would take none: it knows no read-only arrays, negative strides or foreign byte orders.
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    usable = native.flags.writeable and min(native.strides) > 0  # sides of one pixel keep any stride
    return torch.from_numpy(native if usable else native.copy()).movedim(-1, 0)


def _array(layer: Tensor) -> Array:
    return np.ascontiguousarray(layer.movedim(0, -1).numpy())
