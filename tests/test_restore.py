"""Restoring: every kind of image comes back as its kind, tiles leave no trace, and memory stays bounded."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import Outcome
from PIL import Image
from skimage import data
from torch import Tensor

import sstl
from sstl.data.images import Photo, read_photo, write_photo
from sstl.errors import InputError, SstlError
from sstl.networks import Network, create_network, list_networks, save_weights
from sstl.restore import Restorer, load, plan, restore_files
from sstl.restore.tiles import blended_bands, spans
from sstl.types import Restoration

COLOUR = np.ascontiguousarray(data.astronaut()[20:57, 180:233])  # 37 x 53
WIDE = (COLOUR.astype(np.uint16) << 8) + np.random.default_rng(0).integers(0, 256, COLOUR.shape).astype(np.uint16)


class Identity(Network):
    """Removes nothing; as a streak it gives the negative, as a map where the red is bright."""

    name = "identity"

    def __init__(self, stride: int = 8) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, rainy: Tensor) -> Restoration:
        return Restoration(rainy, 1 - rainy, (rainy[:, :1] - 0.5) * 100)


class Darker(Network):
    """Takes 0.25 away, without detecting anything; negative where the image is dark."""

    name = "darker"

    def forward(self, rainy: Tensor) -> Restoration:
        return Restoration(rainy - 0.25, torch.full_like(rainy, 0.25))


class Position(Network):
    """Answers with the distance to the border of what it is given: the worst case for tiles."""

    name = "position"

    def forward(self, rainy: Tensor) -> Restoration:
        inside = torch.zeros_like(rainy)
        inside[..., 1:-1, 1:-1] = 1
        return Restoration(inside, inside)


class Blur(Network):
    """Answers with the mean of what lies within 20 pixels, zeros beyond the border."""

    name = "blur"
    receptive_radius = 20

    def forward(self, rainy: Tensor) -> Restoration:
        blurred = F.avg_pool2d(rainy, 41, stride=1, padding=20)
        return Restoration(blurred, blurred)


@pytest.fixture
def identity() -> Restorer:
    return Restorer(Identity())


# --- tiles ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 7, 64, 65, 96, 97, 200, 1000, 4289])
@pytest.mark.parametrize(("tile", "overlap", "stride"), [(64, 32, 8), (96, 24, 8), (64, 0, 1), (128, 64, 64)])
def test_spans_cover_evenly(length: int, tile: int, overlap: int, stride: int) -> None:
    pieces = spans(length, tile, overlap, stride)
    assert pieces[0][0] == 0
    assert pieces[-1][1] == length
    for (start, end), (following, _) in pairwise(pieces):
        assert end - following == overlap
        assert start % stride == following % stride == 0
    assert all(0 < end - start <= tile for start, end in pieces)
    assert len(pieces) == 1 or pieces[-1][1] - pieces[-1][0] > overlap
    assert len(pieces) <= max(1, -(-(length - overlap) // (tile - overlap)))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (300, 1), (100, 211), (64, 64)])
def test_bands_follow_each_other_and_give_the_image_back(height: int, width: int) -> None:
    image = torch.rand(2, height, width)
    bands = list(blended_bands(lambda rows, columns: image[:, rows, columns], height, width, 64, 32, 8, 8))
    assert [top for top, _ in bands] == list(np.cumsum([0, *(band.size(1) for _, band in bands[:-1])]))
    assert torch.equal(torch.cat([band for _, band in bands], dim=1), image)


def test_tile_borders_are_not_used() -> None:
    restored = Restorer(Position(), tile=64).restore(torch.zeros(3, 150, 170))
    assert torch.equal(restored[:, 1:-1, 1:-1], torch.ones(3, 148, 168))


def test_transition_between_tiles_is_smooth() -> None:
    """Tiles that disagree by 1 are joined by a ramp, not a step."""
    tiles = iter([torch.zeros(1, 8, 64), torch.ones(1, 8, 64)])
    (_, band), *_ = blended_bands(lambda *_: next(tiles), 8, 96, 64, 32, 12, 8)
    row = band[0, 0]
    assert row[:44].max() == 0
    assert row[52:].min() == 1
    assert (row[1:] - row[:-1]).max() < 0.16


@pytest.mark.parametrize("tile", ["auto", 0, 64, 100])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (37, 53), (150, 131)])
def test_identity_gives_every_image_back_exactly(tile: int, height: int, width: int) -> None:
    restorer = Restorer(Identity(), tile=tile)
    rng = np.random.default_rng(1)
    for dtype, peak in ((np.uint8, 256), (np.uint16, 65536)):
        image = rng.integers(0, peak, (height, width, 3)).astype(dtype)
        restored = restorer.restore(image)
        assert restored.dtype == dtype
        np.testing.assert_array_equal(restored, image)
        np.testing.assert_array_equal(restorer.restore(image[..., 0]), image[..., 0])
    unit = rng.random((height, width, 3), dtype=np.float32)
    np.testing.assert_array_equal(restorer.restore(unit), unit)


def test_tiles_change_a_network_by_less_than_two_grey_levels() -> None:
    photo = np.tile(data.astronaut(), (1, 2, 1))[:400]
    network = create_network("joint", size="tiny")
    whole, tiled = (Restorer(network, tile=tile).restore(photo).astype(int) for tile in (0, 384))
    assert np.abs(whole - photo).max() > 2
    assert np.abs(whole - tiled).max() <= 2


def test_large_images_are_tiled_by_themselves() -> None:
    seen = []

    class Watching(Identity):
        receptive_radius = 5

        def forward(self, rainy: Tensor) -> Restoration:
            seen.append(rainy.shape[-2] * rainy.shape[-1])
            return super().forward(rainy)

    largest = 1024 + 2 * 8 + 32  # halos of the receptive radius, rounded up to the stride, and the transition
    Restorer(Watching()).restore(np.zeros((2 * largest, largest // 2), np.uint8))
    assert seen == [largest**2]
    Restorer(Watching()).restore(np.zeros((2 * largest, largest // 2 + 8), np.uint8))
    assert len(seen) == 4
    assert max(seen) == largest**2
    # The network pads a row to its stride: what it then computes on is what counts.
    Restorer(Watching()).restore(np.zeros((1, largest**2), np.uint8))
    assert max(seen[4:]) <= largest


# Normalises by the mean and variance of what it is given, a tile's as much as a photo's.
OF_ITS_INPUT = "sirr_released"


@pytest.mark.parametrize("name", sorted({*list_networks()} - {OF_ITS_INPUT}))
def test_tiles_are_equal_to_the_whole_where_the_network_sees_a_bounded_part(name: str) -> None:
    """Every network with fresh weights on a strip of photographs, tiles of 64 pixels."""
    network = create_network(name)
    strip = np.concatenate([image()[200:224, :430] for image in (data.astronaut, data.chelsea, data.coffee)], axis=1)
    photo = strip[:, : 64 + 2 * ((network.receptive_radius or 80) + 8) + 32 + 90]
    seen = []
    network.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[-1]))
    whole, tiled = (Restorer(network, tile=tile).restore(photo).astype(int) for tile in (0, 64))
    assert len(seen) > 2
    assert max(seen[1:]) < seen[0] == photo.shape[1]
    difference = np.abs(whole - tiled)
    assert (whole != photo).any()
    assert difference.mean() <= 2
    assert difference.max() <= 1 or network.receptive_radius is None


def test_a_halo_smaller_than_the_receptive_radius_would_be_seen(monkeypatch) -> None:
    network = Blur()
    photo = data.astronaut()[:160, :300]
    whole = Restorer(network, tile=0).restore(photo).astype(int)
    assert np.abs(Restorer(network, tile=64).restore(photo) - whole).max() <= 1
    monkeypatch.setattr(network, "receptive_radius", 4)
    assert np.abs(Restorer(network, tile=64).restore(photo) - whole).max() > 9


@pytest.mark.parametrize("tile", [-1, 1, 63])
def test_too_small_tiles_are_refused(tile: int) -> None:
    with pytest.raises(SstlError, match=f"tile is {tile}; it must be auto, 0"):
        Restorer(Identity(), tile=tile)


# --- kinds of images -----------------------------------------------------------------------------------------------


def test_tensors(identity: Restorer) -> None:
    batch = torch.rand(2, 3, 20, 30)
    assert torch.equal(identity.restore(batch), batch)
    assert torch.equal(identity.restore(batch[0]), batch[0])
    assert torch.equal(identity.restore(batch[:, :1]), batch[:, :1])
    eight = (batch * 255).to(torch.uint8)
    assert torch.equal(identity.restore(eight), eight)
    learnt = batch.clone().requires_grad_()
    assert not identity.restore(learnt).requires_grad
    layers = identity.layers(batch)
    assert {name: tuple(layer.shape) for name, layer in layers.items()} == {
        "background": (2, 3, 20, 30),
        "streak": (2, 3, 20, 30),
        "mask": (2, 1, 20, 30),
    }
    torch.testing.assert_close(layers["streak"], 1 - batch)
    torch.testing.assert_close(layers["mask"], ((batch[:, :1] - 0.5) * 100).sigmoid())


def test_arrays_of_any_memory_layout(identity: Restorer) -> None:
    frozen = COLOUR.copy()
    frozen.flags.writeable = False
    layouts = (
        frozen,
        COLOUR[::-1, ::2],
        COLOUR.transpose(1, 0, 2),
        COLOUR.astype(np.float64) / 255,
        COLOUR[:, :1][:, ::-1],
        WIDE.astype(">u2"),
    )
    for image in layouts:
        restored = identity.restore(image)
        assert restored.dtype == image.dtype.newbyteorder("=")
        np.testing.assert_allclose(restored, image, atol=1e-6)
    layers = identity.layers(COLOUR)
    assert layers["mask"].shape == COLOUR.shape[:2]
    assert layers["mask"].dtype == layers["streak"].dtype == np.uint8
    np.testing.assert_array_equal(layers["streak"], 255 - COLOUR)
    np.testing.assert_array_equal(layers["mask"] > 127, COLOUR[..., 0] > 127)


def test_pil_images_keep_mode_alpha_and_profile(identity: Restorer) -> None:
    rgba = Image.fromarray(np.dstack([COLOUR, COLOUR[..., 0]]))
    rgba.info["icc_profile"] = b"profile"
    for image in (rgba, rgba.convert("RGB"), rgba.convert("L"), rgba.convert("LA"), Image.fromarray(WIDE[..., 0])):
        restored = identity.restore(image)
        assert restored.mode == image.mode
        np.testing.assert_array_equal(np.asarray(restored), np.asarray(image))
    assert identity.restore(rgba).info["icc_profile"] == b"profile"
    cmyk = Image.new("CMYK", (40, 30))
    cmyk.info["icc_profile"] = b"profile of four inks"
    assert "icc_profile" not in identity.restore(cmyk).info
    with pytest.raises(SstlError, match="0 x 5 pixels"):
        identity.restore(Image.new("RGB", (0, 5)))
    assert identity.restore(rgba.convert("RGB").quantize(8)).mode == "RGB"
    layers = identity.layers(rgba)
    assert (layers["background"].mode, layers["streak"].mode, layers["mask"].mode) == ("RGBA", "RGB", "L")


def test_paths_give_upright_pil_images(identity: Restorer, tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOUR).save(tmp_path / "a.png", exif=exif)
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        np.testing.assert_array_equal(np.asarray(identity.restore(path)), np.rot90(COLOUR, -1))
    with pytest.raises(InputError, match=r"gone\.png"):
        identity.restore(tmp_path / "gone.png")


def test_rounding_and_clipping() -> None:
    restorer = Restorer(Darker())
    image = np.array([[0, 63, 64, 65, 255]], np.uint8)
    np.testing.assert_array_equal(restorer.restore(image), [[0, 0, 0, 1, 191]])  # round(255 (x - 0.25)), never negative
    assert restorer.restore(np.zeros((1, 1), np.float32)) == 0


def test_a_network_without_detection_has_no_mask() -> None:
    restorer = Restorer(Darker())
    assert set(restorer.layers(COLOUR)) == {"background", "streak"}
    with pytest.raises(SstlError, match="network 'darker' gives no mask; leave it out"):
        restorer.restore_photo(Photo(COLOUR), ["mask"])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(12, 9, 3), (12, 9)])
def test_doubt_of_every_kind_of_image(dtype, shape) -> None:
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    restorer = Restorer(create_network("joint", size="tiny"))
    photo = Photo(pixels) if pixels.ndim == 3 else Photo(np.dstack([pixels] * 3), grey=True)
    doubt = restorer.restore_photo(photo, ["doubt"])["doubt"].pixels
    assert (doubt.shape[:2], doubt.dtype) == (shape[:2], dtype)
    assert doubt.any()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 5, 4), np.uint8), r"ndarray of shape \(4, 5, 4\); give a path"),
        (np.zeros((5, 0), np.uint8), "5 x 0 pixels"),
        (np.zeros((4, 5), np.int64), "torch.int64; give uint8"),
        (np.full((4, 5), 200.0), r"between 200 and 200; they must be in \[0, 1\]"),
        (torch.full((3, 4, 5), float("nan")), "between nan and nan"),
        (torch.zeros(2, 4, 5), "2 channels"),
        (torch.zeros(0, 3, 4, 5), "of shape"),
        (b"photo", "cannot restore a bytes"),
    ],
)
def test_unusable_images_are_refused(identity: Restorer, image: object, message: str) -> None:
    with pytest.raises(SstlError, match=message):
        identity.restore(image)


def test_load(tmp_path) -> None:
    network = create_network("joint", size="tiny")
    save_weights(tmp_path / "w.safetensors", network)
    restorer = load(tmp_path / "w.safetensors", device="cpu", precision="fp32", tile=0)
    np.testing.assert_array_equal(restorer.restore(COLOUR), Restorer(network).restore(COLOUR))
    assert sstl.load is load
    coarse = load(tmp_path / "w.safetensors", device="cpu", precision="bf16").restore(COLOUR).astype(int)
    assert np.abs(coarse - restorer.restore(COLOUR)).max() <= 2
    with pytest.raises(SstlError, match="device 'gpu' is unknown; use auto, cpu or cuda"):
        load(tmp_path / "w.safetensors", device="gpu")
    with pytest.raises(SstlError, match="device 'meta' is not supported"):
        load(tmp_path / "w.safetensors", device="meta")
    with pytest.raises(SstlError, match="device 'cuda:99' is not there"):
        load(tmp_path / "w.safetensors", device="cuda:99")


# --- files and folders ---------------------------------------------------------------------------------------------


def names(folder) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def derain(restorer: Restorer, inputs, out, **options):
    jobs, failures = plan(inputs, out)
    return failures + list(restore_files(restorer, jobs, **options))


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    for name in ("a.jpg", "sub/a.jpg", "sub/deep/b.PNG", "c.gif"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(COLOUR).save(folder / name)
    return folder


def test_folders_keep_their_structure(identity: Restorer, photos, tmp_path) -> None:
    outcomes = derain(identity, [photos], tmp_path / "out")
    assert names(tmp_path / "out") == {"a.jpg", "sub/a.jpg", "sub/deep/b.PNG", "c.png"}
    assert [outcome.written for outcome in outcomes] == [
        (tmp_path / "out" / name,) for name in ("a.jpg", "c.png", "sub/a.jpg", "sub/deep/b.PNG")
    ]
    np.testing.assert_array_equal(read_photo(tmp_path / "out/sub/deep/b.PNG").pixels, COLOUR)


def test_existing_results_are_kept_unless_overwritten(identity: Restorer, photos, tmp_path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "c.png").write_text("mine")
    outcomes = {outcome.source.name: outcome for outcome in derain(identity, [photos], out)}
    assert outcomes["c.gif"].kept == (out / "c.png",)
    assert outcomes["c.gif"].written == ()
    assert (out / "c.png").read_text() == "mine"
    assert not any(outcome.written for outcome in derain(identity, [photos], out))
    # Only what is missing is made.
    again = {outcome.source.name: outcome for outcome in derain(identity, [photos], out, layers=["background", "mask"])}
    assert again["c.gif"].written == (out / "c.mask.png",)
    assert again["c.gif"].kept == (out / "c.png",)
    replaced = derain(identity, [photos / "c.gif"], out, overwrite=True)
    assert replaced[0].written == (out / "c.png",)
    assert read_photo(out / "c.png").pixels.shape == COLOUR.shape


def test_two_inputs_with_one_result_are_an_error_for_the_second(identity: Restorer, photos, tmp_path) -> None:
    Image.fromarray(COLOUR).save(photos / "c.png")
    outcomes = derain(identity, [photos, photos / "sub/a.jpg"], tmp_path / "out")
    failed = [(outcome.source, outcome.error) for outcome in outcomes if outcome.error]
    assert [source for source, _ in failed] == [photos / "c.png", photos / "sub/a.jpg"]
    assert "c.png is that of" in failed[0][1]
    assert "rename one of them" in failed[0][1]
    # Named twice is not two photos.
    twice = derain(identity, [photos / "a.jpg", photos / "a.jpg"], tmp_path / "twice")
    assert [outcome.error for outcome in twice] == [None]


def test_results_inside_the_input_are_not_read_again(identity: Restorer, photos) -> None:
    first = derain(identity, [photos], photos / "dry")
    second = derain(identity, [photos], photos / "dry", overwrite=True)
    assert [outcome.source for outcome in second] == [outcome.source for outcome in first]
    # While an output folder around the input hides nothing.
    assert len(derain(identity, [photos / "sub"], photos / "sub/..", overwrite=False)) == 2


def test_an_input_is_never_replaced(identity: Restorer, photos) -> None:
    before = (photos / "a.jpg").read_bytes()
    with pytest.raises(SstlError, match="is an input folder; give another"):
        plan([photos], photos)
    for out in (photos, photos / "a.jpg"):
        (outcome,) = derain(identity, [photos / "a.jpg"], out, overwrite=True)
        assert "would replace an input" in outcome.error
    assert (photos / "a.jpg").read_bytes() == before


def test_too_little_memory_is_an_error_of_its_photo(identity: Restorer, photos, tmp_path, monkeypatch) -> None:
    def too_much(*_):
        torch.empty(1 << 60, dtype=torch.uint8)

    monkeypatch.setattr(identity, "restore_photo", too_much)
    jobs, _ = plan([photos], tmp_path / "out")
    outcomes = [*restore_files(identity, jobs)]
    assert all("not enough memory; give a smaller --tile" in (outcome.error or "") for outcome in outcomes)

    def broken(*_):
        raise RuntimeError("something else")

    monkeypatch.setattr(identity, "restore_photo", broken)
    with pytest.raises(RuntimeError, match="something else"):
        [*restore_files(identity, jobs)]


def test_single_file_names(identity: Restorer, photos, tmp_path) -> None:
    (outcome,) = derain(identity, [photos / "a.jpg"], tmp_path / "new/dry.webp", layers=["background", "streak"])
    assert outcome.written == (tmp_path / "new/dry.webp", tmp_path / "new/dry.streak.png")
    with Image.open(tmp_path / "new/dry.webp") as image:
        assert image.format == "WEBP"
    for inputs, out, message in (
        ([photos], tmp_path / "x.png", "give a folder"),
        ([photos / "a.jpg", photos / "c.gif"], tmp_path / "x.png", "give a folder"),
        ([photos / "a.jpg"], tmp_path / "x.gif", r"cannot write '\.gif'"),
    ):
        with pytest.raises(SstlError, match=message):
            plan(inputs, out)
    (tmp_path / "file").write_text("")
    with pytest.raises(SstlError, match="is a file; give a folder"):
        plan([photos], tmp_path / "file")


def test_bad_photos_do_not_stop_the_others(identity: Restorer, photos, tmp_path) -> None:
    (photos / "b.jpg").write_bytes(b"")
    (photos / "notes.jpg").write_text("not a photo")
    (tmp_path / "nothing").mkdir()
    outcomes = derain(
        identity, [tmp_path / "nothing", photos, tmp_path / "gone.jpg"], tmp_path / "out", max_pixels=1961
    )
    errors = {outcome.source.name: outcome.error for outcome in outcomes if outcome.error}
    assert set(errors) == {"nothing", "b.jpg", "notes.jpg", "gone.jpg"}
    assert "holds no image; images are files named" in errors["nothing"]
    assert len(names(tmp_path / "out")) == 4
    assert all("\n" not in error for error in errors.values())
    (outcome,) = derain(identity, [photos / "a.jpg"], tmp_path / "out2", max_pixels=1960)
    assert "--max-pixels" in outcome.error


def test_photos_keep_what_they_carry(identity: Restorer, tmp_path) -> None:
    photo = Photo(WIDE, alpha=WIDE[..., 0], icc=b"profile" * 30, dpi=(300, 300))
    write_photo(tmp_path / "a.png", photo)
    write_photo(tmp_path / "g.tif", Photo(np.repeat(WIDE[..., :1], 3, -1), grey=True))
    derain(
        identity, [tmp_path / "a.png", tmp_path / "g.tif"], tmp_path / "out", layers=["background", "streak", "mask"]
    )
    restored = read_photo(tmp_path / "out/a.png")
    np.testing.assert_array_equal(restored.pixels, WIDE)
    np.testing.assert_array_equal(restored.alpha, WIDE[..., 0])
    assert restored.icc == photo.icc
    grey = read_photo(tmp_path / "out/g.tif")
    assert grey.grey
    np.testing.assert_array_equal(grey.pixels[..., 0], WIDE[..., 0])
    np.testing.assert_array_equal(read_photo(tmp_path / "out/g.streak.png").pixels[..., 0], 65535 - WIDE[..., 0])
    mask = read_photo(tmp_path / "out/a.mask.png")
    assert mask.grey
    assert mask.alpha is None
    assert read_photo(tmp_path / "out/a.streak.png").alpha is None


def test_memory_is_that_of_a_few_copies_of_the_photo(run_process: Callable[..., Outcome], tmp_path) -> None:
    """What a file of 12 megapixels adds to the peak, with a network that needs none, in its own process."""
    Image.new("RGB", (4288, 2848), (90, 120, 60)).save(tmp_path / "large.jpg")
    code = """
import resource, sys
import torch
from sstl.networks import Network
from sstl.restore import Restorer, plan, restore_files
from sstl.types import Restoration

class Identity(Network):
    stride = 8
    def forward(self, rainy):
        return Restoration(rainy, rainy)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "linux" else 2**30)

restorer, before = Restorer(Identity()), peak()
jobs, _ = plan(["large.jpg"], "out")
(outcome,) = restore_files(restorer, jobs)
assert outcome.written, outcome.error
print(peak() - before)
"""
    outcome = run_process("-c", code)
    assert outcome.code == 0, outcome.err
    assert float(outcome.out) < 0.7, f"{outcome.out} GB"


# --- numbers that go bad ---------------------------------------------------------------------------------------------


class Overflowing(Network):
    """Infinite in half precision, or always."""

    name = "overflowing"

    def __init__(self, always: bool) -> None:
        super().__init__()
        self.always, self.calls = always, 0
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, rainy: Tensor) -> Restoration:
        self.calls += 1
        bad = self.always or torch.is_autocast_enabled("cpu")
        return Restoration(rainy * (torch.inf if bad else 0.5), rainy)


def test_what_half_precision_spoils_is_computed_again():
    restorer = Restorer(Overflowing(always=False), dtype=torch.bfloat16)
    assert torch.equal(restorer.restore(torch.ones(3, 8, 8)), torch.full((3, 8, 8), 0.5))
    assert restorer.network.calls == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_that_are_not_finite_are_an_error_and_no_black_photo(dtype, tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    jobs, _ = plan([tmp_path / "a.png"], tmp_path / "out")
    (outcome,) = restore_files(Restorer(Overflowing(always=True), dtype=dtype), jobs)
    assert "network 'overflowing' gives values that are not finite" in outcome.error
    assert not (tmp_path / "out").exists()
