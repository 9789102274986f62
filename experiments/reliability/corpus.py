"""Make a folder of broken, odd and good image files, from a seed; what each is, is known."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image, PngImagePlugin

Pixels = np.ndarray[Any, Any]

GOOD, REFUSED, EITHER = "good", "refused", "either"


@dataclass(frozen=True)
class Item:
    """A file of the corpus: its name, what kind of damage it is, and what must become of it.

    Attributes:
        name: as bytes, because not every file's name is text.
        kind: for the counts of a report.
        fate: ``good`` must be done, ``refused`` must be named as unusable, ``either`` one of the two.
        content: the bytes; None if ``make`` makes it.
        make: makes a link or a pipe at a path.
        mode: permissions, if not the usual ones.
    """

    name: bytes
    kind: str
    fate: str
    content: bytes | None = None
    make: Callable[[bytes], None] | None = None
    mode: int | None = None


FORMATS = {
    "jpg": ("JPEG", {"quality": 90}),
    "png": ("PNG", {}),
    "tif": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "webp": ("WEBP", {}),
    "bmp": ("BMP", {}),
    "gif": ("GIF", {}),
    "ppm": ("PPM", {}),
    "jp2": ("JPEG2000", {}),
    "avif": ("AVIF", {}),
}
NAMES = (
    *(
        "new\nline",
        "two  spaces",
        " begins with one",
        "-rf",
        "--help",
        "-o",
        "*",
        "?",
        "a&b",
        "quote'\"",
        "<b>bold</b>",
    ),
    *("%s %d", "{name}", "$(touch evil)", "`touch evil`", ";ls", "|", "~", "#", "\t", "\r", "\x1b[31m", "\x07", "\\n"),
    *("žluťoučký kůň", "雨", "🌧", "ẽ̵̛̗", "\u202egpj.exe", "\ufeff", "\u2028", "con", "nul", "a" * 180, "雨" * 60),
)
BYTES = (b"latin-\xe9", b"\xff\xfe", b"half \xe9\x9b", b"\xed\xa0\x80")  # names that are no UTF-8


def corpus(seed: int, copies: int = 8) -> Iterator[Item]:
    """Yield the files; ``copies`` scales how many there are (8: more than a thousand). No two share a stem."""
    rng = np.random.default_rng(seed)
    number = 0
    for kind, fate, suffix, content in _contents(rng, copies):
        number += 1
        yield Item(f"{number:04d} {kind}.{suffix}".encode(), kind, fate, content)
    good = encode(photo(rng), "png")
    for name in [*(text.encode() for text in NAMES), *BYTES]:
        number += 1
        yield Item(name + f" {number:04d}.png".encode(), "name", GOOD, good)
    yield from _special(good)


def write(items: list[Item], folder: Path) -> dict[bytes, Item]:
    """Write the files into a folder and return them by name; those that this system cannot hold are left out."""
    folder.mkdir(parents=True)
    written = {}
    for item in items:
        path = os.fsencode(folder) + b"/" + item.name
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120  its name is bytes
            if item.make:
                item.make(path)
            else:
                with open(path, "wb") as file:  # noqa: PTH123
                    file.write(item.content or b"")
            if item.mode is not None:
                os.chmod(path, item.mode)  # noqa: PTH101
        except (OSError, ValueError):
            continue
        written[item.name] = item
    return written


def photo(rng: np.random.Generator, height: int = 40, width: int = 56, channels: int = 3) -> Pixels:
    """Return smooth random colours."""
    small = rng.integers(0, 256, (height // 8, width // 8, channels), dtype=np.uint8)
    planes = [Image.fromarray(small[..., i]).resize((width, height), Image.Resampling.BICUBIC) for i in range(channels)]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def encode(image: Pixels | Image.Image, suffix: str, **options: Any) -> bytes:
    """Return an image as a file of the format that a suffix stands for."""
    form, usual = FORMATS[suffix]
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, form, **{**usual, **options})
    return buffer.getvalue()


_Content = tuple[str, str, str, bytes]  # kind, fate, suffix, content


def _contents(rng: np.random.Generator, copies: int) -> Iterator[_Content]:
    for suffix in FORMATS:
        whole = encode(photo(rng), suffix)
        for _ in range(copies):
            yield "good", GOOD, suffix, encode(photo(rng), suffix)
            for share in (0.02, 0.3, 0.9):
                cut = max(1, int((share + 0.09 * rng.random()) * len(whole)))
                yield "truncated", EITHER, suffix, whole[:cut]
            for where in (64, 600, len(whole)):
                yield "bit-flipped", EITHER, suffix, _flipped(whole, rng, where)
            yield "shuffled", EITHER, suffix, _shuffled(whole, rng)
            yield "padded", EITHER, suffix, whole + rng.bytes(50)
            other = rng.choice([name for name in FORMATS if name != suffix])
            yield "wrong extension", GOOD, suffix, encode(photo(rng), str(other))
            yield "not an image", REFUSED, suffix, _junk(rng)
        yield "empty", REFUSED, suffix, b""
        yield "zeros", REFUSED, suffix, bytes(2000)
    yield from _odd(rng)
    for _ in range(copies):
        yield from _metadata(rng)
    yield from _bombs()


def _flipped(whole: bytes, rng: np.random.Generator, end: int) -> bytes:
    broken = np.frombuffer(whole, np.uint8).copy()
    for where in rng.integers(0, min(end, len(whole)), 4):
        broken[where] ^= 1 << rng.integers(8)
    return broken.tobytes()


def _shuffled(whole: bytes, rng: np.random.Generator) -> bytes:
    cuts = sorted(rng.integers(12, len(whole), 3).tolist())
    parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    return b"".join([parts[0], *(parts[i] for i in 1 + rng.permutation(len(parts) - 1))])


def _junk(rng: np.random.Generator) -> bytes:
    return (
        rng.bytes(300),
        b"<html><body>404 Not Found</body></html>\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(evil) (w) file closefile\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        pickle.dumps({"a": _Exploit()}),
        b"PK\x03\x04" + rng.bytes(60),
        b"\x7fELF\x02\x01\x01" + bytes(60),
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
        b"#!/bin/sh\ntouch evil\n",
    )[rng.integers(9)]


class _Exploit:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("evil",)


def _odd(rng: np.random.Generator) -> Iterator[_Content]:
    """Images that are as their format allows, and unusual."""
    for suffix in ("png", "tif", "bmp", "webp", "jpg"):
        yield "1x1", GOOD, suffix, encode(photo(rng, 8, 8)[:1, :1], suffix)
        for shape in ((1, 16_000), (16_000, 1), (3, 5)):
            yield f"{shape[1]}x{shape[0]}", GOOD, suffix, encode(_field(rng, *shape), suffix)
    for suffix in ("png", "tif", "ppm"):
        for shape in ((1, 100_000), (100_000, 1)):
            yield f"{shape[1]}x{shape[0]}", GOOD, suffix, encode(_field(rng, *shape), suffix)
    colour = Image.fromarray(photo(rng))
    wide = photo(rng)[..., 0].astype(np.uint16) << 8
    kinds: tuple[tuple[str, str, str, Image.Image, dict[str, Any]], ...] = (
        ("CMYK", GOOD, "jpg", colour.convert("CMYK"), {}),
        ("CMYK", GOOD, "tif", colour.convert("CMYK"), {"icc_profile": b"no profile" * 9}),
        ("16-bit", GOOD, "png", Image.fromarray(wide), {}),
        ("16-bit", GOOD, "tif", Image.fromarray(wide), {"compression": None}),
        ("float", REFUSED, "tif", Image.fromarray(rng.random((9, 9), dtype=np.float32)), {"compression": None}),
        ("float", REFUSED, "tif", Image.fromarray(np.full((9, 9), np.nan, np.float32)), {"compression": None}),
        ("32-bit", REFUSED, "tif", Image.fromarray(np.full((9, 9), 70_000, np.int32)), {"compression": None}),
        ("LAB", REFUSED, "tif", Image.new("LAB", (9, 9)), {"compression": None}),
        ("one bit", GOOD, "png", colour.convert("1"), {}),
        ("one bit", GOOD, "tif", colour.convert("1"), {"compression": "group4"}),
        ("palette", GOOD, "png", colour.quantize(16), {"transparency": 3}),
        ("alpha", GOOD, "png", colour.convert("RGBA"), {}),
        ("alpha", GOOD, "webp", colour.convert("RGBA"), {}),
        ("grey, alpha", GOOD, "png", colour.convert("LA"), {}),
        ("progressive", GOOD, "jpg", colour, {"progressive": True}),
        # Pillow reads what it writes there from its release 13 on.
        (
            "YCbCr",
            GOOD if int(PIL.__version__.split(".")[0]) >= 13 else REFUSED,
            "tif",
            colour.convert("YCbCr"),
            {"compression": None},
        ),
    )
    for kind, fate, suffix, image, options in kinds:
        yield kind, fate, suffix, encode(image, suffix, **options)
    frames = [Image.fromarray(photo(rng)) for _ in range(3)]
    for suffix in ("gif", "webp", "png", "tif", "avif"):
        yield "animated", GOOD, suffix, encode(frames[0], suffix, save_all=True, append_images=frames[1:])


def _field(rng: np.random.Generator, height: int, width: int) -> Pixels:
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def _metadata(rng: np.random.Generator) -> Iterator[_Content]:
    """Good pixels with damaged data about them."""
    pixels = photo(rng)
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "maker", int(rng.integers(1, 9))
    exif.get_ifd(0x8769)[0x829A] = 0.01
    whole = exif.tobytes()
    for suffix in ("jpg", "png", "webp", "tif"):
        options = {"compression": None} if suffix == "tif" else {}  # Pillow writes none into a compressed one
        yield "EXIF", GOOD, suffix, encode(pixels, suffix, exif=whole, **options)
        if suffix != "tif":  # whose EXIF data are its own structure
            yield "EXIF garbage", GOOD, suffix, encode(pixels, suffix, exif=b"Exif\0\0MM\0*" + rng.bytes(80))
            yield "EXIF garbage", GOOD, suffix, encode(pixels, suffix, exif=b"Exif\0\0" + _flipped(whole[6:], rng, 60))
            yield "profile garbage", GOOD, suffix, encode(pixels, suffix, icc_profile=rng.bytes(200))
    for orientation in (0, 9, 65535):
        exif[0x0112] = orientation
        yield "orientation garbage", GOOD, "jpg", encode(pixels, "jpg", exif=exif.tobytes())


def _bombs() -> Iterator[_Content]:
    """Small files that claim, or are, huge images."""
    text = PngImagePlugin.PngInfo()
    text.add_text("a", "x" * 70_000_000, zip=True)
    yield "text bomb", EITHER, "png", encode(np.zeros((9, 9, 3), np.uint8), "png", pnginfo=text)
    black = zlib.compress(bytes(2**26), 9)
    yield "profile bomb", EITHER, "png", _png(9, 9, zlib.compress(bytes(28 * 9)), _chunk(b"iCCP", b"a\0\0" + black))
    for side in (20_000, 60_000, 2**31 - 1):
        yield "absurd dimensions", REFUSED, "png", _png(side, side, zlib.compress(b""))
    yield "bomb", REFUSED, "png", _png(30_000, 30_000, black)
    yield "cut short within the limit", REFUSED, "png", _png(17_000, 17_000, zlib.compress(bytes(9)))
    yield "0x0", REFUSED, "png", _png(0, 0, zlib.compress(b""))
    small = {
        suffix: bytearray(encode(np.zeros((8, 8, 3), np.uint8), suffix)) for suffix in ("bmp", "gif", "jpg", "ppm")
    }
    small["bmp"][18:26] = struct.pack("<ii", 2**31 - 1, 2**31 - 1)
    small["gif"][6:10] = struct.pack("<HH", 65535, 65535)
    at = small["jpg"].index(b"\xff\xc0") + 5
    small["jpg"][at : at + 4] = struct.pack(">HH", 65500, 65500)
    small["ppm"][:11] = b"P6\n99999 99999\n255\n"
    for suffix, content in small.items():
        yield "absurd dimensions", REFUSED, suffix, bytes(content)
    yield "absurd dimensions", REFUSED, "ppm", b"P6\n" + b"9" * 5000 + b" 3\n255\n"
    yield "absurd dimensions", REFUSED, "tif", _tiff([(256, 4, 1, 2**31), (257, 4, 1, 2**31)])
    yield "endless directory", REFUSED, "tif", b"II*\0\x08\0\0\0" + b"\0\0" + struct.pack("<I", 8)
    yield "absurd count", REFUSED, "tif", _tiff([(256, 4, 1, 9), (257, 4, 1, 9), (273, 4, 2**32 - 1, 8)])


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int, packed: bytes, more: bytes = b"") -> bytes:
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + more + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


def _tiff(tags: list[tuple[int, int, int, int]]) -> bytes:
    more = [(258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (279, 4, 1, 81)]
    entries = sorted([*tags, *more])
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries)


def _special(good: bytes) -> Iterator[Item]:
    """Names that are no plain files, and files that may not be read."""

    def link(target: bytes) -> Callable[[bytes], None]:
        return lambda path: os.symlink(target, path)  # noqa: PTH211

    yield Item(b"link to itself.png", "symlink loop", REFUSED, make=link(b"link to itself.png"))
    yield Item(b"loop a.png", "symlink loop", REFUSED, make=link(b"loop b.png"))
    yield Item(b"loop b.png", "symlink loop", REFUSED, make=link(b"loop a.png"))
    yield Item(b"dangling.png", "dangling link", REFUSED, make=link(b"gone.png"))
    yield Item(b"sub/good.png", "good", GOOD, good)
    yield Item(b"sub/up", "folder loop", EITHER, make=link(b".."))
    yield Item(b"sub/into itself", "folder loop", EITHER, make=link(b"into itself"))
    yield Item(b"folder.png/inside.png", "folder with a suffix", GOOD, good)
    yield Item(b"zero.png", "device", REFUSED, make=link(b"/dev/zero"))
    yield Item(b"pipe.png", "pipe", REFUSED, make=lambda path: os.mkfifo(path))
    yield Item(b"memory.png", "system file", REFUSED, make=link(b"/proc/self/mem"))
    yield Item(b"forbidden.png", "unreadable", REFUSED, good, mode=0)
    yield Item(b"closed/unseen.png", "in an unreadable folder", EITHER, good)
    yield Item(b"closed/.mode", "unreadable folder", EITHER, make=lambda path: os.chmod(os.path.dirname(path), 0))  # noqa: PTH101, PTH120
    yield Item(b"." + b"h" * 9 + b".png", "hidden", EITHER, b"")
