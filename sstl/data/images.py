"""Image files, through Pillow: find them, read them for training, and read and write photos with all they carry."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sstl.data import sixteen
from sstl.data.decoding import Array, Header, decode, decode_wide, open_content, open_image, read_exif
from sstl.errors import InputError, SstlError
from sstl.ops.files import write_atomic

MAX_PIXELS = 300_000_000
_WRITTEN = {  # format -> its suffixes, the usual one first
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
}
# HEIC is here so that such photos are reported with a remedy and not overlooked: Pillow alone cannot read them.
IMAGE_SUFFIXES = frozenset(
    [suffix for suffixes in _WRITTEN.values() for suffix in suffixes]
    + [".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif", ".heic", ".heif"]
)

_UPRIGHT: dict[int, Callable[[Array], Array]] = {  # EXIF orientation -> the view that undoes it
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


@dataclass(frozen=True)
class Photo:
    """A photo as it was in its file, upright.

    Attributes:
        pixels: (H, W, 3) RGB, uint8, or uint16 where the file has 16 bits per channel; grey is repeated.
        alpha: (H, W) of the same dtype, or None.
        grey: whether the file is grey; it is then written grey.
        format: Pillow's name of the file's format ("JPEG").
        suffix: the suffix to write it with: the file's own if that format is written and holds these pixels, else .png.
        icc: the colour profile, or None.
        exif: EXIF bytes with the orientation reset, without storage tags and thumbnail, or None.
        dpi: resolution, or None.
        notes: what was not kept on reading, one phrase each.
    """

    pixels: Array
    alpha: Array | None = None
    grey: bool = False
    format: str = "PNG"
    suffix: str = ".png"
    icc: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()


def _warn_of(error: InputError) -> None:
    warnings.warn(f"left out: {error}", stacklevel=2)


def list_images(folder: str | Path, left_out: Callable[[InputError], None] = _warn_of) -> list[Path]:
    """Return the image files below ``folder`` by suffix, sorted; no hidden ones; linked folders are followed once.

    Args:
        folder: where to search.
        left_out: called for each folder in it that cannot be listed; by default it warns.

    Raises:
        InputError: ``folder`` itself is not there or cannot be listed.
    """

    def refuse(error: OSError) -> None:
        refusal = InputError(
            f"{error.filename}: cannot be listed ({error.strerror}); give an existing, readable folder."
        )
        if os.fspath(error.filename) == os.fspath(folder):
            raise refusal
        left_out(refusal)

    found: list[str] = []  # paths as text, and made objects at the end: that halves the time for 100,000 files
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        real = os.path.realpath(place)
        if real in seen:  # a link back to a folder above, or a second link to the same one
            folders.clear()
            continue
        seen.add(real)
        names = (name for name in files if not name.startswith("."))
        found += [os.path.join(place, name) for name in names if _suffix_of(name) in IMAGE_SUFFIXES]  # noqa: PTH118
    return [Path(path) for path in sorted(found, key=lambda path: path.replace(os.sep, "\0"))]  # as paths are sorted


def _suffix_of(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  a Path for each name is what takes the time


def read_rgb8(path: str | Path) -> Array:
    """Return an image file as uint8 RGB (H, W, 3), upright by EXIF, whatever its kind; alpha is dropped.

    Raises:
        InputError: the file cannot be read; names it, the reason and the remedy.
    """
    return _to8(read_photo(path).pixels)


def content_rgb8(content: bytes, name: str) -> Array:
    """Return what an image file holds as ``read_rgb8`` does, 16-bit colour cut to 8 and not rounded.

    Raises:
        InputError: it cannot be read; the message begins with ``name``.
    """
    with open_content(content, name, MAX_PIXELS) as header:
        pixels = decode(header.image, name).pixels
        return _to8(_upright(pixels, read_exif(header.image).orientation))


def read_photo(path: str | Path, max_pixels: int = MAX_PIXELS) -> Photo:
    """Read a photo with all that is to be kept.

    16 bits per channel are kept from PNG and TIFF, and from grey JPEG 2000 and PGM; other files are read at 8. CMYK
    becomes RGB. Of an animation, or a file of several pages, only the first image is read, with a note.

    Args:
        path: the file; its content decides the format, not its name.
        max_pixels: larger photos are refused by their header, before anything is decoded.

    Raises:
        InputError: the file cannot be read; names it, the reason and the remedy.
    """
    path = Path(path)
    with open_image(path, max_pixels) as header:
        info, cmyk = header.image.info, header.image.mode == "CMYK"
        pixels, alpha, grey = decode_wide(header, path, max_pixels)
        exif = read_exif(header.image)
        return Photo(
            pixels=_upright(pixels, exif.orientation),
            alpha=None if alpha is None else _upright(alpha, exif.orientation),
            grey=grey,
            format=header.format,
            suffix=_suffix(header, path),
            icc=None if cmyk else info.get("icc_profile") or None,  # a CMYK profile does not fit the RGB result
            exif=exif.data,
            dpi=_sane_dpi(info.get("dpi")),
            notes=header.notes,
        )


def output_suffix(path: str | Path, max_pixels: int = MAX_PIXELS) -> str:
    """Return ``read_photo(path).suffix``, from the header alone; raises as ``read_photo``."""
    path = Path(path)
    with open_image(path, max_pixels) as header:
        return _suffix(header, path)


def _suffix(header: Header, path: Path) -> str:
    # Other formats cannot hold the result: GIF has 256 colours, and Pillow writes no TIFF with 16-bit colour.
    lost = header.format not in _WRITTEN or (header.format == "TIFF" and header.wide_colour)
    known = _WRITTEN["PNG" if lost else header.format]
    return path.suffix if path.suffix.lower() in known else known[0]


def _sane_dpi(dpi: Any) -> tuple[float, float] | None:
    if not isinstance(dpi, tuple) or len(dpi) != 2 or not all(0 < float(value) < 65536 for value in dpi):
        return None
    return float(dpi[0]), float(dpi[1])


def _upright(array: Array, orientation: int) -> Array:
    view = _UPRIGHT[orientation](array) if orientation in _UPRIGHT else array
    return np.ascontiguousarray(view)


def format_to_write(path: Path) -> str:
    """Return Pillow's name of the format that the suffix asks for; SstlError if it is not one that is written here."""
    for form, suffixes in _WRITTEN.items():
        if path.suffix.lower() in suffixes:
            return form
    raise SstlError(f"{path}: cannot write '{path.suffix}' files; use .png, .jpg, .tif, .webp or .bmp.")


def write_photo(path: str | Path, photo: Photo) -> tuple[str, ...]:
    """Write a photo whole or not at all, in the format of the suffix, with its profile, EXIF data and resolution.

    JPEG is written at quality 95 without chroma subsampling: the photo is compressed for the second time here, which
    must not add artefacts as strong as the faint streaks that were removed. WebP is lossy too, at quality 95. TIFF is
    not compressed: Pillow cannot write EXIF data into a compressed one.

    Returns:
        What this format could not keep, one phrase each.

    Raises:
        SstlError: the suffix is none of a format that is written here.
        InputError: the format cannot hold this photo (WebP ends at 16383 pixels a side).
    """
    path, notes = Path(path), []
    data: bytes | memoryview
    form = format_to_write(path)
    if photo.alpha is not None and form == "JPEG":
        photo = replace(photo, alpha=None)
        notes.append("JPEG has no transparency")
    if photo.icc and form == "BMP":
        notes.append("BMP has no colour profile")
    wide = photo.pixels.dtype == np.uint16
    if wide and form == "PNG":
        data = sixteen.encode_png(_planes(photo), photo.icc, photo.exif, photo.dpi)
    else:
        image = to_pil(photo, keep_wide=form == "TIFF")
        if wide and image.mode != "I;16":
            notes.append(f"this {form} is written with 8 bits per channel; a name ending in .png keeps 16")
        data = _encode(image, form, _carried(photo), path)
    write_atomic(path, data)
    return tuple(notes)


_OPTIONS: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95, "subsampling": "4:4:4"}, "WEBP": {"quality": 95}}


def _encode(image: Image.Image, form: str, carried: dict[str, Any], path: Path) -> memoryview:
    buffer = io.BytesIO()
    try:
        image.save(buffer, form, **_OPTIONS.get(form, {}), **carried)
    except (OSError, ValueError) as error:  # nothing is on disk yet: these come from the encoder
        raise InputError(f"{path}: cannot be written as {form} ({error}); choose a name ending in .png.") from None
    return buffer.getbuffer()  # not another copy of it


def to_pil(photo: Photo, keep_wide: bool = True) -> Image.Image:
    """Return a photo as a PIL image that carries profile, EXIF data and resolution.

    16 bits are kept only in grey without alpha, which is all that Pillow holds, and only if ``keep_wide``.
    """
    planes = _planes(photo)
    if planes.shape[-1] > 1 or not keep_wide:
        planes = _to8(planes)
    image = Image.fromarray(planes[..., 0] if planes.shape[-1] == 1 else planes)
    image.info.update(_carried(photo))
    return image


def _carried(photo: Photo) -> dict[str, Any]:
    """Return what Pillow's writers take beside the pixels."""
    carried = {"icc_profile": photo.icc, "exif": photo.exif, "dpi": photo.dpi}
    return {key: value for key, value in carried.items() if value}


def _planes(photo: Photo) -> Array:
    pixels = photo.pixels[..., :1] if photo.grey else photo.pixels
    return pixels if photo.alpha is None else np.concatenate([pixels, photo.alpha[..., None]], axis=-1)


def _to8(values: Array) -> Array:
    if values.dtype == np.uint8:
        return values
    narrowed: Array = (values.astype(np.uint32) + 128) // 257
    return narrowed.astype(np.uint8)
