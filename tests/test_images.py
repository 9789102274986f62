"""Image files: every kind is read as it looks, every unusable one is named, and what is written can be read back."""

import contextlib
import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms
from skimage import data

from sstl.data import decoding
from sstl.data.images import (
    IMAGE_SUFFIXES,
    Photo,
    content_rgb8,
    list_images,
    output_suffix,
    read_photo,
    read_rgb8,
    write_photo,
)
from sstl.errors import InputError, SstlError

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
COLOUR = np.ascontiguousarray(data.astronaut()[20:57, 180:233])  # 37 x 53
GREY = COLOUR[..., 1]
WIDE = (COLOUR.astype(np.uint16) << 8) + np.random.default_rng(0).integers(0, 256, COLOUR.shape).astype(np.uint16)


def save(path, array, **options):
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(path, **options)
    return path


def slow_png(samples, colour_type, interesting=b""):
    """A 16-bit PNG, written by hand without filters."""
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + samples[y].astype(">u2").tobytes() for y in range(height))

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", head) + interesting + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def slow_tiff(samples, order):
    """An uncompressed TIFF of 16-bit RGB or RGBA, written by hand."""
    height, width, channels = samples.shape
    pixels = samples.astype(f"{order}u2").tobytes()
    u2, u4 = f"{order}H", f"{order}I"
    tags = [
        *((256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, 8), (259, 3, 1, 1), (262, 3, 1, 2)),
        *((273, 4, 1, 16), (277, 3, 1, channels), (278, 3, 1, height), (279, 4, 1, len(pixels))),
        *(((338, 3, 1, 2),) if channels == 4 else ()),
    ]
    start = b"II" if order == "<" else b"MM"
    out = start + struct.pack(u2, 42) + struct.pack(u4, 16 + len(pixels)) + struct.pack(u2, 16) * 4 + pixels
    out += struct.pack(u2, len(tags))
    for tag, kind, count, value in tags:
        packed = struct.pack(u2, value) + b"\0\0" if kind == 3 and count == 1 else struct.pack(u4, value)
        out += struct.pack(u2, tag) + struct.pack(u2, kind) + struct.pack(u4, count) + packed
    return out + struct.pack(u4, 0)


# --- finding -------------------------------------------------------------------------------------------------------


def test_list_images_is_sorted_recursive_and_safe_from_loops(tmp_path):
    for name in ("b/2.PNG", "a.jpg", "b/1.tiff", ".hidden/x.png", "b/.y.png", "notes.txt", "c/deep/z.heic"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    (tmp_path / "broken.png").symlink_to(tmp_path / "gone.png")
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.mkdir()
    (elsewhere / "linked.webp").touch()
    (tmp_path / "link").symlink_to(elsewhere)
    found = [str(p.relative_to(tmp_path)) for p in list_images(tmp_path)]
    assert found == ["a.jpg", "b/1.tiff", "b/2.PNG", "broken.png", "c/deep/z.heic", "link/linked.webp"]


def test_list_images_of_no_folder(tmp_path):
    with pytest.raises(InputError, match="gone: cannot be listed"):
        list_images(tmp_path / "gone")
    file = save(tmp_path / "a.png", COLOUR)
    with pytest.raises(InputError, match=r"a\.png: cannot be listed"):
        list_images(file)
    assert all(suffix == suffix.lower() for suffix in IMAGE_SUFFIXES)


# --- kinds of pixels -----------------------------------------------------------------------------------------------


def test_eight_bit_kinds_are_read_as_they_look(tmp_path):
    rgba = np.dstack([COLOUR, np.arange(37 * 53, dtype=np.uint8).reshape(37, 53)])
    palette = Image.fromarray(COLOUR).quantize(64)
    kinds = {
        "rgb.png": (COLOUR, COLOUR, None, False),
        "rgb.bmp": (COLOUR, COLOUR, None, False),
        "rgb.ppm": (COLOUR, COLOUR, None, False),
        "rgb.tif": (COLOUR, COLOUR, None, False),
        "grey.png": (GREY, GREY, None, True),
        "rgba.png": (rgba, COLOUR, rgba[..., 3], False),
        "la.png": (rgba[..., [1, 3]], GREY, rgba[..., 3], True),
        "palette.png": (palette, np.asarray(palette.convert("RGB")), None, False),
        "bits.png": (Image.fromarray(GREY > 99), np.where(GREY > 99, 255, 0), None, True),
    }
    for name, (image, pixels, alpha, grey) in kinds.items():
        photo = read_photo(save(tmp_path / name, image))
        expected = np.dstack([pixels] * 3) if pixels.ndim == 2 else pixels
        assert photo.pixels.dtype == np.uint8, name
        np.testing.assert_array_equal(photo.pixels, expected, err_msg=name)
        np.testing.assert_array_equal(read_rgb8(tmp_path / name), expected, err_msg=name)
        assert photo.grey == grey, name
        if alpha is None:
            assert photo.alpha is None, name
        else:
            np.testing.assert_array_equal(photo.alpha, alpha, err_msg=name)


def test_palette_with_transparency(tmp_path):
    indices = np.arange(6, dtype=np.uint8).reshape(2, 3)
    image = Image.frombytes("P", (3, 2), indices.tobytes())
    image.putpalette([value for i in range(6) for value in (i, 2 * i, 3 * i)])
    for transparency, alpha in ((4, [255] * 4 + [0, 255]), (bytes([9, 8]), [9, 8] + [255] * 4)):
        photo = read_photo(save(tmp_path / "p.png", image, transparency=transparency))
        np.testing.assert_array_equal(photo.alpha.ravel(), alpha)
        np.testing.assert_array_equal(photo.pixels[..., 2].ravel(), 3 * indices.ravel())


def test_sixteen_bits_are_kept(tmp_path):
    alpha = WIDE[::-1, :, :1]
    cases = {
        "grey.png": (slow_png(WIDE[..., :1], 0), True, None),
        "rgb.png": (slow_png(WIDE, 2), False, None),
        "la.png": (slow_png(np.dstack([WIDE[..., :1], alpha]), 4), True, alpha),
        "rgba.png": (slow_png(np.dstack([WIDE, alpha]), 6), False, alpha),
        "little.tif": (slow_tiff(WIDE, "<"), False, None),
        "big.tif": (slow_tiff(WIDE, ">"), False, None),
        "rgba.tif": (slow_tiff(np.dstack([WIDE, alpha]), "<"), False, alpha),
    }
    for name, (content, grey, expected_alpha) in cases.items():
        (tmp_path / name).write_bytes(content)
        photo = read_photo(tmp_path / name)
        assert photo.pixels.dtype == np.uint16, name
        expected = np.repeat(WIDE[..., :1], 3, axis=-1) if grey else WIDE
        np.testing.assert_array_equal(photo.pixels, expected, err_msg=name)
        assert photo.grey == grey, name
        assert (photo.alpha is None) == (expected_alpha is None), name
        if expected_alpha is not None:
            np.testing.assert_array_equal(photo.alpha, expected_alpha[..., 0], err_msg=name)
        np.testing.assert_array_equal(read_rgb8(tmp_path / name), np.round(expected / 257), err_msg=name)
        assert photo.notes == ()


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bit_grey_tiff_of_either_byte_order(tmp_path, order):
    image = Image.frombytes("I;16" if order == "<" else "I;16B", (53, 37), WIDE[..., 0].astype(f"{order}u2").tobytes())
    photo = read_photo(save(tmp_path / "grey.tif", image))
    np.testing.assert_array_equal(photo.pixels[..., 0], WIDE[..., 0])
    assert photo.grey
    assert photo.suffix == ".tif"


def test_compressed_sixteen_bit_tiff(tmp_path):
    """Pillow reads these through libtiff, which gives another layout; none can be written with Pillow, so by hand."""
    plain = slow_tiff(WIDE, "<")
    pixels = WIDE.astype("<u2").tobytes()
    packed = zlib.compress(pixels)
    padded = packed + b"\0" * (len(pixels) - len(packed))
    deflated = plain.replace(pixels, padded).replace(
        struct.pack("<HHIHH", 259, 3, 1, 1, 0), struct.pack("<HHIHH", 259, 3, 1, 8, 0)
    )
    (tmp_path / "deflated.tif").write_bytes(deflated)
    np.testing.assert_array_equal(read_photo(tmp_path / "deflated.tif").pixels, WIDE)


def test_one_transparent_colour_in_sixteen_bits(tmp_path):
    def transparency(*values):
        content = struct.pack(f">{len(values)}H", *values)
        return struct.pack(">I", len(content)) + b"tRNS" + content + struct.pack(">I", zlib.crc32(b"tRNS" + content))

    (tmp_path / "rgb.png").write_bytes(slow_png(WIDE, 2, transparency(*map(int, WIDE[3, 4]))))
    (tmp_path / "grey.png").write_bytes(slow_png(WIDE[..., :1], 0, transparency(int(WIDE[3, 4, 0]))))
    for name in ("rgb.png", "grey.png"):
        photo = read_photo(tmp_path / name)
        key = (photo.pixels == photo.pixels[3, 4]).all(-1)
        np.testing.assert_array_equal(photo.alpha, np.where(key, 0, 65535))
        np.testing.assert_array_equal(photo.pixels, WIDE if name == "rgb.png" else np.repeat(WIDE[..., :1], 3, -1))


def test_cmyk_becomes_rgb_without_its_profile(tmp_path):
    path = save(
        tmp_path / "print.jpg", Image.fromarray(COLOUR).convert("CMYK"), quality=100, icc_profile=b"not a profile"
    )
    photo = read_photo(path)
    assert np.abs(photo.pixels.astype(int) - COLOUR).mean() < 6
    assert photo.icc is None
    assert photo.suffix == ".jpg"
    assert "CMYK" in photo.notes[0]


def test_pixels_without_a_range_are_refused(tmp_path):
    save(tmp_path / "float.tif", np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4))
    save(tmp_path / "int.tif", np.full((3, 4), 70000, np.int32))
    save(tmp_path / "lab.tif", Image.new("LAB", (3, 2)))
    for name, kind in (("float.tif", "floating-point"), ("int.tif", "32-bit"), ("lab.tif", "LAB")):
        with pytest.raises(InputError, match=rf"{name}: {kind} pixels .*; convert it"):
            read_photo(tmp_path / name)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif"])
def test_of_several_images_the_first_is_read_with_a_note(tmp_path, suffix):
    frames = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (10, 200)]
    options = {"lossless": True} if suffix == ".webp" else {}
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:], **options)
    photo = read_photo(tmp_path / f"a{suffix}")
    assert photo.pixels.max() == photo.pixels.min() == 10
    assert "only the first" in photo.notes[0]
    assert photo.suffix == (".png" if suffix == ".gif" else suffix)


# --- what a photo carries ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_orientation_is_applied_once(tmp_path, orientation, suffix):
    inverse = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: np.swapaxes(a, 0, 1),
        6: lambda a: np.rot90(a, 1),  # shown by turning it 90 degrees clockwise, so it is stored turned back
        7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Camera maker"
    path = save(tmp_path / f"photo{suffix}", np.ascontiguousarray(inverse(COLOUR)), exif=exif)
    photo = read_photo(path)
    np.testing.assert_array_equal(photo.pixels, COLOUR)
    write_photo(tmp_path / f"out{suffix}", photo)
    np.testing.assert_array_equal(read_rgb8(tmp_path / f"out{suffix}"), COLOUR)
    with Image.open(tmp_path / f"out{suffix}") as written:
        assert written.getexif().get(0x0112, 1) == 1
        assert written.getexif()[0x010F] == "Camera maker"
    np.testing.assert_array_equal(content_rgb8(path.read_bytes(), "content"), COLOUR)


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png", ".tif", ".webp"])
def test_profile_exif_resolution_and_name_survive(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0132] = "2024:05:01 12:00:00"
    exif.get_ifd(0x8769)[0x829A] = 0.01  # exposure time
    exif.get_ifd(0x8825)[1] = "N"
    path = save(tmp_path / f"photo{suffix}", COLOUR, exif=exif.tobytes(), icc_profile=SRGB, dpi=(300, 300))
    photo = read_photo(path)
    assert photo.suffix == output_suffix(path) == suffix
    assert write_photo(tmp_path / f"out{suffix}", photo) == ()
    again = read_photo(tmp_path / f"out{suffix}")
    assert again.icc == SRGB
    assert again.dpi == photo.dpi
    if suffix != ".webp":  # which has no field for it
        assert np.allclose(again.dpi, 300, atol=0.1)
    with Image.open(tmp_path / f"out{suffix}") as written:
        assert written.getexif()[0x0132] == "2024:05:01 12:00:00"
        assert float(written.getexif().get_ifd(0x8769)[0x829A]) == pytest.approx(0.01)
        assert written.getexif().get_ifd(0x8825)[1] == "N"
    tolerance = 0 if suffix in (".png", ".tif") else 4
    assert np.abs(again.pixels.astype(int) - photo.pixels).mean() <= tolerance


def test_lossless_formats_give_back_every_kind(tmp_path):
    alpha = GREY[::-1]
    for wide in (False, True):
        pixels = WIDE if wide else COLOUR
        grey = np.repeat(pixels[..., :1], 3, axis=-1)
        see_through = (alpha.astype(np.uint16) * 257) if wide else alpha
        for photo in (
            Photo(pixels),
            Photo(pixels, see_through, icc=SRGB, dpi=(72, 72)),
            Photo(grey, grey=True),
            Photo(grey, see_through, grey=True),
        ):
            for suffix in (".png", ".tif"):
                notes = write_photo(tmp_path / f"x{suffix}", photo)
                again = read_photo(tmp_path / f"x{suffix}")
                narrowed = wide and suffix == ".tif" and not (photo.grey and photo.alpha is None)
                assert bool(notes) == narrowed
                expected = np.round(photo.pixels / 257) if narrowed else photo.pixels
                np.testing.assert_array_equal(again.pixels, expected)
                assert again.grey == photo.grey
                assert (again.alpha is None) == (photo.alpha is None)
                if photo.alpha is not None and not narrowed:
                    np.testing.assert_array_equal(again.alpha, photo.alpha)
                assert again.icc == photo.icc
                assert photo.dpi is None or np.allclose(again.dpi, photo.dpi, atol=0.1)


def test_what_a_format_cannot_keep_is_told(tmp_path):
    photo = Photo(WIDE, alpha=WIDE[..., 0], icc=SRGB)
    assert write_photo(tmp_path / "a.png", photo) == ()
    assert write_photo(tmp_path / "a.jpg", photo) == (
        "JPEG has no transparency",
        "this JPEG is written with 8 bits per channel; a name ending in .png keeps 16",
    )
    assert "BMP has no colour profile" in write_photo(tmp_path / "a.bmp", photo)
    with pytest.raises(SstlError, match=r"a\.gif: cannot write '\.gif' files; use \.png"):
        write_photo(tmp_path / "a.gif", photo)
    with pytest.raises(InputError, match=r"long\.webp: cannot be written as WEBP .*\.png"):
        write_photo(tmp_path / "long.webp", Photo(np.zeros((1, 20_000, 3), np.uint8)))
    assert not (tmp_path / "long.webp").exists()


def test_jpeg_is_written_with_full_chroma(tmp_path):
    write_photo(tmp_path / "a.jpg", Photo(COLOUR))
    with Image.open(tmp_path / "a.jpg") as written:
        assert [component[1:3] for component in written.layer] == [(1, 1)] * 3
        assert max(written.quantization[0]) < 16


def test_suffix_of_formats_that_cannot_hold_the_result(tmp_path):
    (tmp_path / "wide.tif").write_bytes(slow_tiff(WIDE, "<"))
    save(tmp_path / "a.gif", COLOUR)
    save(tmp_path / "a.jp2", COLOUR)
    save(tmp_path / "really.jpg", COLOUR, format="PNG")
    save(tmp_path / "none", COLOUR, format="WEBP")
    suffixes = {name: output_suffix(tmp_path / name) for name in ("wide.tif", "a.gif", "a.jp2", "really.jpg", "none")}
    assert suffixes == {
        "wide.tif": ".png",
        "a.gif": ".png",
        "a.jp2": ".png",
        "really.jpg": ".png",  # the content decides
        "none": ".webp",
    }


# --- what cannot be read -------------------------------------------------------------------------------------------


def test_unusable_files_are_named_with_a_remedy(tmp_path):
    whole = save(tmp_path / "whole.png", COLOUR).read_bytes()
    jpeg = save(tmp_path / "whole.jpg", COLOUR).read_bytes()
    tiff = save(tmp_path / "whole.tif", COLOUR, compression="tiff_lzw").read_bytes()
    files = {
        "empty.png": (b"", "the file is empty; copy it again"),
        "cut.png": (whole[: len(whole) // 2], "damaged or cut short .*; copy it again"),
        "cut.jpg": (jpeg[: len(jpeg) // 2], "damaged or cut short .*; copy it again"),
        "cut.tif": (tiff[: len(tiff) // 2], ".*(copy it again|convert it)"),
        "flipped.png": (whole[:60] + bytes([whole[60] ^ 255]) + whole[61:], "damaged or cut short"),
        "text.jpg": (b"hello, I am not a photo", "not an image that can be read; convert it to JPEG or PNG"),
        "script.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image that can be read"),
        "phone.HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC photo; convert it to JPEG or PNG"),
    }
    for name, (content, reason) in files.items():
        (tmp_path / name).write_bytes(content)
        for read in (read_photo, read_rgb8):
            with pytest.raises(InputError, match=rf"{name}: ({reason})") as caught:
                read(tmp_path / name)
            assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"gone\.png: cannot be read \(No such file"):
        read_photo(tmp_path / "gone.png")
    with pytest.raises(InputError, match="not a file"):
        read_photo(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="not a file"):
        read_photo(tmp_path / "pipe.png")


def test_no_permission(tmp_path, monkeypatch):
    path = save(tmp_path / "mine.png", COLOUR)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(InputError, match=r"mine\.png: cannot be read \(Permission denied\); check"):
        read_photo(path)


def test_size_limit_is_ours_and_checked_before_decoding(tmp_path):
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    bomb += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    (tmp_path / "bomb.png").write_bytes(bomb)
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(InputError, match=r"bomb\.png: 60000 x 60000 is 3600.0 megapixels, more than the limit of 300;"):
        read_photo(tmp_path / "bomb.png")
    assert before == Image.MAX_IMAGE_PIXELS
    path = save(tmp_path / "small.png", COLOUR)
    assert read_photo(path, max_pixels=37 * 53).pixels.shape == (37, 53, 3)
    with pytest.raises(InputError, match="--max-pixels"):
        read_photo(path, max_pixels=37 * 53 - 1)


def test_above_pillows_own_limit_without_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    monkeypatch.setattr(decoding, "_STRIP", 60)  # as a real strip, within the limit, which older Pillows mind in a crop
    assert read_photo(save(tmp_path / "a.png", COLOUR)).pixels.shape == (37, 53, 3)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_damaged_exif_does_not_lose_the_photo(tmp_path):
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x05" + bytes(range(1, 61))
    path = save(tmp_path / "a.jpg", COLOUR, exif=exif)
    photo = read_photo(path)
    assert photo.pixels.shape == (37, 53, 3)
    write_photo(tmp_path / "b.jpg", photo)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".gif", ".bmp"])
def test_random_damage_is_either_read_or_named(tmp_path, suffix):
    rng = np.random.default_rng(7)
    exif = Image.Exif()
    exif[0x010F] = "maker"
    buffer = io.BytesIO()
    options = {".tif": {"compression": "tiff_adobe_deflate"}}.get(suffix, {})
    Image.fromarray(COLOUR).save(buffer, Image.registered_extensions()[suffix], exif=exif, **options)
    whole = np.frombuffer(buffer.getvalue(), np.uint8)
    path = tmp_path / f"x{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(60):
            broken = whole.copy()
            where = rng.integers(0, min(len(whole), 400), 3)
            broken[where] = rng.integers(0, 256, 3)
            path.write_bytes(broken.tobytes()[: rng.integers(20, len(whole) + 1)])
            with contextlib.suppress(InputError):
                write_photo(tmp_path / "out.png", read_photo(path, max_pixels=10**6))
