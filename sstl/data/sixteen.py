"""Colour images of 16 bits per channel, which Pillow cannot hold: read from PNG and TIFF, written as PNG."""

from __future__ import annotations

import re
import struct
import sys
import zlib
from typing import Any

import numpy as np
from PIL import Image, ImageFile

# Pillow's name of a pixel layout in a file, such as "RGB;16B": two bytes per channel, of which it keeps the upper one.
_LAYOUT = re.compile(r"(RGB[AX]?);16([BLN])")
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


def is_wide(image: Image.Image) -> bool:
    """Say whether the file of this image, not decoded yet, has 16 bits per channel where Pillow gives 8."""
    return ";16" in _layout(image) and image.mode in ("RGB", "RGBA")


def is_readable(image: Image.Image) -> bool:
    """Say whether ``read`` gives all 16 bits of this image, not decoded yet."""
    return is_wide(image) and (_layout(image) == "LA;16B" or _LAYOUT.fullmatch(_layout(image)) is not None)


def read(image: Image.Image, again: Image.Image) -> np.ndarray[Any, Any]:
    """Return uint16 pixels (H, W, C), C being 2 (grey, alpha), 3 or 4, from two openings of the same file.

    Pillow decodes such files to their upper bytes. Asked for the opposite byte order it gives the lower ones.
    """
    name = _layout(image)
    if name == "LA;16B":  # four bytes per pixel, as many as in four channels of eight bits
        _set_layout(image, "RGBA")
        pairs = np.asarray(image).view(np.dtype(">u2"))
        return pairs.astype(np.uint16)
    match = _LAYOUT.fullmatch(name)
    assert match is not None
    _set_layout(again, f"{match[1]};16{_OTHER_ORDER[match[2]]}")
    pixels: np.ndarray[Any, Any] = np.asarray(image).astype(np.uint16) << 8 | np.asarray(again)
    return pixels


def _layout(image: Image.Image) -> str:
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else ()
    arguments = tiles[0].args if tiles else ""
    name = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return name if isinstance(name, str) else ""


def _set_layout(image: Image.Image, name: str) -> None:
    assert isinstance(image, ImageFile.ImageFile)
    image.tile = [
        tile._replace(args=(name, *tile.args[1:]) if isinstance(tile.args, tuple) else name) for tile in image.tile
    ]


def encode_png(
    pixels: np.ndarray[Any, Any], icc: bytes | None, exif: bytes | None, dpi: tuple[float, float] | None
) -> bytes:
    """Return a 16-bit PNG file (ISO/IEC 15948) of uint16 pixels (H, W, C): grey, grey + alpha, RGB or RGBA."""
    height, width, channels = pixels.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))]
    if icc:
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc)))
    if dpi:
        chunks.append((b"pHYs", struct.pack(">IIB", *(round(value / 0.0254) for value in dpi), 1)))
    if exif:
        chunks.append((b"eXIf", exif.removeprefix(b"Exif\0\0")))
    rows = pixels.astype(np.dtype(">u2")).reshape(height, -1).view(np.uint8)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = 2  # filter "up": each byte minus the one above it, which compresses photographs well
    filtered[:, 1:] = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))
    chunks += [(b"IDAT", zlib.compress(filtered.data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
