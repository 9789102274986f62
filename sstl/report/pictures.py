"""Pictures for people: thumbnails, data URIs, and contact sheets of input, output, streak and map (Pillow only)."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]

_GAP = 4  # pixels between neighbouring pictures: enough to part them, too little to be seen as a frame
_BAND = 26  # height of a line of caption
_FONT_SIZE = 15


def to_image(pixels: Pixels | Image.Image) -> Image.Image:
    """Return uint8 pixels, (H, W), (H, W, 1) or (H, W, 3), as a Pillow image in mode L or RGB.

    Raises:
        ValueError: the array has another type or shape.
    """
    if isinstance(pixels, Image.Image):
        return pixels if pixels.mode in ("L", "RGB") else pixels.convert("RGB")
    flat = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    if flat.dtype != np.uint8 or not (flat.ndim == 2 or (flat.ndim == 3 and flat.shape[2] == 3)) or flat.size == 0:
        raise ValueError(f"a picture must be uint8 of shape (H, W) or (H, W, 3), not {pixels.dtype} {pixels.shape}")
    return Image.fromarray(np.ascontiguousarray(flat))


def thumbnail(image: Pixels | Image.Image, longest: int = 900) -> Image.Image:
    """Return the picture with its longest side at most ``longest`` pixels; a smaller one keeps its size."""
    small = to_image(image).copy()
    small.thumbnail((longest, longest), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return small


def jpeg_data_uri(image: Pixels | Image.Image, quality: int = 85) -> str:
    """Return the picture as a ``data:image/jpeg;base64,...`` address, for a page that needs no other file."""
    buffer = io.BytesIO()
    to_image(image).save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def grid(
    rows: Sequence[Sequence[Pixels | Image.Image]],
    captions: Sequence[str] = (),
    row_captions: Sequence[str] = (),
    height: int = 240,
) -> Image.Image:
    """Return a contact sheet: one row per photo, one column per kind of picture, all pictures equally high.

    Args:
        rows: the pictures; a row may be shorter than the others.
        captions: one line above each column; cut with an ellipsis if too long.
        row_captions: one line above each row, the photo's name for example.
        height: the height of every picture in pixels; widths follow.

    Raises:
        ValueError: there is no picture, or the captions do not match the rows or columns.
    """
    columns = max((len(row) for row in rows), default=0)
    if columns == 0:
        raise ValueError("a grid needs at least one picture")
    if len(captions) not in (0, columns) or len(row_captions) not in (0, len(rows)):
        raise ValueError(f"{len(captions)} and {len(row_captions)} captions for {columns} columns and {len(rows)} rows")
    cells = [[_to_height(to_image(picture), height) for picture in row] for row in rows]
    widths = [max(row[c].width for row in cells if c < len(row)) for c in range(columns)]
    lefts = [_GAP + sum(widths[:c]) + _GAP * c for c in range(columns)]
    top = _BAND if captions else _GAP
    step = height + _GAP + (_BAND if row_captions else 0)
    sheet = Image.new("RGB", (lefts[-1] + widths[-1] + _GAP, top + step * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for caption, left, width in zip(captions, lefts, widths, strict=False):
        _write(draw, caption, left, 0, width, "black")
    for index, row in enumerate(cells):
        y = top + step * index
        if row_captions:
            _write(draw, row_captions[index], _GAP, y, sheet.width - 2 * _GAP, "#444444")
            y += _BAND
        for picture, left in zip(row, lefts, strict=False):
            sheet.paste(picture, (left, y))
    return sheet


def _to_height(picture: Image.Image, height: int) -> Image.Image:
    width = max(1, round(picture.width * height / picture.height))
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _write(draw: ImageDraw.ImageDraw, text: str, left: int, top: int, width: int, colour: str) -> None:
    """Write one line, centred in the caption band at ``top`` and cut to ``width`` with an ellipsis."""
    font = _font()
    text = line = " ".join(text.split())
    while line and font.getlength(line) > width:
        text = text[:-1]
        line = f"{text.rstrip()}…" if text else ""
    draw.text((left, top + _BAND // 2), line, fill=colour, font=font, anchor="lm")


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the system's DejaVu Sans, which knows most alphabets, or Pillow's own font, which knows only ASCII."""
    try:
        return ImageFont.truetype("DejaVuSans.ttf", _FONT_SIZE)
    except OSError:
        return ImageFont.load_default(_FONT_SIZE)
