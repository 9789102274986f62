"""From an image file to arrays with Pillow: what may be opened, what its header says, and what its pixels are."""

from __future__ import annotations

import io
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from sstl.data import sixteen
from sstl.errors import InputError

Array = np.ndarray[Any, Any]

_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")

# What Pillow raises on files that are damaged in one way or another.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    LookupError,
    TypeError,
    ArithmeticError,
    RuntimeError,
)

_KEPT_TAGS = frozenset(  # the others describe how the old file was stored, or are a thumbnail with the rain in it
    ExifTags.Base[name].value
    for name in (
        *("ImageDescription", "Make", "Model", "Orientation", "Software", "DateTime", "Artist", "HostComputer"),
        *("Copyright", "Rating", "XPTitle", "XPComment", "XPAuthor", "XPKeywords", "XPSubject"),
    )
)
_DIRECTORIES = frozenset((ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo))

_STRIP = 1 << 22  # pixels that are converted at a time
_QUIET = threading.Lock()


class Planes(NamedTuple):
    """Decoded pixels (H, W, 3), RGB, uint8 or uint16; alpha (H, W) of the same dtype or None; whether it is grey."""

    pixels: Array
    alpha: Array | None
    grey: bool


class Header(NamedTuple):
    """What is known before decoding.

    Attributes:
        image: the opened image; its pixels are not decoded.
        format: Pillow's name; a camera's JPEG with a preview behind it (MPO) is a JPEG.
        wide_colour: whether the file has 16 bits per channel in more than one channel.
        notes: what cannot be kept, one phrase each.
    """

    image: Image.Image
    format: str
    wide_colour: bool
    notes: tuple[str, ...]


@contextmanager
def _quiet() -> Iterator[None]:
    # Pillow's size limit and Python's warning filters are global: only short work is done here, one thread at a time.
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def open_image(path: Path, max_pixels: int) -> Iterator[Header]:
    """Open an image file and read its header; errors within the block are told as an InputError that names the file."""
    with explained(str(path)):
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: not a file; give an image.")
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty; copy it again from where it came.")
        with _opened(path, str(path), max_pixels) as header:
            yield header


@contextmanager
def open_content(content: bytes, name: str, max_pixels: int) -> Iterator[Header]:
    """Do as ``open_image`` with what an image file holds; ``name`` is for errors."""
    with explained(name), _opened(io.BytesIO(content), name, max_pixels) as header:
        yield header


@contextmanager
def _opened(file: Path | io.BytesIO, name: str, max_pixels: int) -> Iterator[Header]:
    with _quiet():
        image = Image.open(file, formats=_known_formats())
    with image:
        megapixels = image.width * image.height / 1e6
        if megapixels * 1e6 > max_pixels:
            raise InputError(
                f"{name}: {image.width} x {image.height} is {megapixels:.1f} megapixels, more than the limit of "
                f"{max_pixels / 1e6:g}; make it smaller, or raise the limit (--max-pixels)."
            )
        with _quiet():
            header = _read_header(image)
        yield header


def _known_formats() -> list[str]:
    # No others are tried: some run programs (EPS), some have no signature (TGA). AVIF needs Pillow 11.3.
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _read_header(image: Image.Image) -> Header:
    if image.format == "TIFF":
        _tags(image)  # which decoding looks at again: what warnings they give, they give here
    wide = sixteen.is_wide(image)
    notes = {
        "it holds several images; only the first was used": getattr(image, "is_animated", False)
        and image.format != "MPO",
        "its 16 bits per channel were read as 8": wide and not sixteen.is_readable(image),
        "its CMYK colours were converted to RGB": image.mode == "CMYK",
    }
    name = "JPEG" if image.format == "MPO" else str(image.format)
    return Header(image, name, wide, tuple(note for note, applies in notes.items() if applies))


class Exif(NamedTuple):
    """The orientation still to be undone (1 to 8), and the data to keep, with the orientation reset, or None."""

    orientation: int = 1
    data: bytes | None = None


def read_exif(image: Image.Image) -> Exif:
    """Return the EXIF data of a decoded image; none if they are damaged.

    To be called after decoding: a PNG may have them at its end, and a TIFF is turned upright by Pillow.
    """
    with _quiet():
        tags = _tags(image)
        orientation = tags.get(ExifTags.Base.Orientation, 1)
        if ExifTags.Base.Orientation in tags:
            tags[ExifTags.Base.Orientation] = 1
        try:
            return Exif(orientation, tags.tobytes() if len(tags) else None)
        except _DAMAGE:
            return Exif(orientation)


def _tags(image: Image.Image) -> Image.Exif:
    """Return a copy of the tags that are kept."""
    kept = Image.Exif()
    try:
        tags = image.getexif()
        for tag in (_KEPT_TAGS | _DIRECTORIES) & set(tags):
            kept[tag] = tags.get_ifd(tag) if tag in _DIRECTORIES else tags[tag]
    except _DAMAGE:
        pass  # damaged data are no reason to lose the photo
    return kept


def decode(image: Image.Image, name: str) -> Planes:
    """Return the pixels of an image as Pillow holds them; ``name`` is for errors.

    Raises:
        InputError: the pixels are numbers without a fixed range (floating-point, 32-bit), or not in RGB, grey or CMYK.
    """
    if image.mode.startswith("I"):
        planes = np.asarray(image.convert("I"))[..., None]
        if planes.min() < 0 or planes.max() > 65535:
            raise InputError(f"{name}: 32-bit pixels have no fixed range; convert it to 8 or 16 bits.")
        return _split(planes.astype(np.uint16), image.info.get("transparency"))
    if image.mode in ("F", "LAB", "HSV"):
        kind = "floating-point" if image.mode == "F" else image.mode
        raise InputError(f"{name}: {kind} pixels are not supported; convert it to 8- or 16-bit grey or RGB.")
    if image.mode == "CMYK":
        return _split(_in_strips(_cmyk_to_rgb(image), "RGB"))
    colour = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    return _split(_in_strips(image, colour + "A" if image.has_transparency_data else colour))


def _in_strips(image: Image.Image, mode: str) -> Array:
    """Return the pixels (H, W, C) in another mode; strip by strip, as Pillow makes two more copies on the way."""
    image.load()
    planes = np.empty((image.height, image.width, len(mode)), np.uint8)
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        planes[top : top + rows] = np.asarray(strip.convert(mode)).reshape(-1, image.width, len(mode))
    return planes


def decode_wide(header: Header, path: Path, max_pixels: int) -> Planes:
    """Return the pixels of an opened file with all 16 bits where it has them."""
    if not sixteen.is_readable(header.image):
        return decode(header.image, str(path))
    with open_image(path, max_pixels) as again:
        return _split(sixteen.read(header.image, again.image), header.image.info.get("transparency"))


def _split(planes: Array, transparent: Any = None) -> Planes:
    """Split (H, W, C) into pixels and alpha; ``transparent`` is a 16-bit PNG's one colour that is not opaque."""
    has_alpha = planes.shape[-1] in (2, 4)
    pixels, alpha = (planes[..., :-1], planes[..., -1]) if has_alpha else (planes, None)
    if transparent is not None:
        alpha = np.where((pixels == transparent).all(axis=-1), 0, 65535).astype(np.uint16)
    grey = pixels.shape[-1] == 1
    return Planes(np.repeat(pixels, 3, axis=-1) if grey else pixels, alpha, grey)


def _cmyk_to_rgb(image: Image.Image) -> Image.Image:
    if profile := image.info.get("icc_profile"):
        from PIL import ImageCms

        try:
            source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
            assert converted is not None  # it is None only when converting in place
            return converted
        except (ImageCms.PyCMSError, OSError):
            pass  # a damaged profile: the plain formula is nearer to the photo than nothing
    return image.convert("RGB")


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn what Pillow raises on a file that cannot be read into an InputError that begins with ``name``."""
    try:
        yield
    except UnidentifiedImageError:
        kind = "a HEIC photo" if name.lower().endswith((".heic", ".heif")) else "not an image that can be read"
        raise InputError(f"{name}: {kind}; convert it to JPEG or PNG.") from None
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.strerror:
            raise InputError(f"{name}: cannot be read ({error.strerror}); check the path and permissions.") from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name}: damaged or cut short ({reason}); copy it again from where it came.") from None
    except MemoryError:
        raise InputError(f"{name}: there is not enough memory to decode it; make it smaller.") from None
