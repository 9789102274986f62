"""Measures without a reference: closed forms, monotonicity, NIQE's features against the same said slowly."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage import data
from skimage.transform import resize

from sstl.data import SourceConfig, open_images
from sstl.errors import InputError
from sstl.metrics import directionality, fit_niqe, leakage, leftover, niqe
from sstl.metrics.grey import gradient, grey, residual
from sstl.metrics.niqe import FEATURES, _asymmetric_gaussian, _halve, _normalise, patch_features, shipped_statistics
from sstl.report.evaluation import RenderedPairs, evaluate, evaluate_unpaired
from sstl.report.noreference import naturalness, without_reference

Image = NDArray[np.uint8]
SIDE = 128


def to8(plane: NDArray[np.float64]) -> Image:
    """Round a plane to uint8 and make it grey RGB."""
    levels = np.clip(np.round(plane), 0, 255).astype(np.uint8)
    return np.repeat(levels[..., None], 3, axis=-1)


def wave(period: float, degrees: float = 0, amplitude: float = 1.0) -> NDArray[np.float64]:
    """A plane wave; 0 degrees varies along x: its stripes stand upright."""
    rows, columns = np.indices((SIDE, SIDE))
    angle = math.radians(degrees)
    return amplitude * np.sin(2 * math.pi * (columns * math.cos(angle) + rows * math.sin(angle)) / period)


@pytest.fixture(scope="module")
def photo() -> NDArray[np.float64]:
    return data.camera()[100 : 100 + SIDE, 180 : 180 + SIDE].astype(float)


@pytest.fixture(scope="module")
def rain() -> NDArray[np.float64]:
    """Broken slanted streaks, 0 to 60 grey levels."""
    rows, columns = np.indices((SIDE, SIDE))
    broken = np.random.default_rng(0).random((16, SIDE))[rows // 8, (3 * columns + rows) // 3 % SIDE] < 0.25
    return 60.0 * broken


def test_grey_is_weighted_and_refuses_floats() -> None:
    assert grey(np.array([[[100, 50, 200]]], np.uint8))[0, 0] == pytest.approx(0.299 * 100 + 0.587 * 50 + 0.114 * 200)
    assert grey(np.array([[7]], np.uint8)).tolist() == [[7]]
    with pytest.raises(ValueError, match="uint8"):
        grey(np.zeros((4, 4, 3)))
    with pytest.raises(ValueError, match="shapes"):
        residual(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8))


def test_the_gradient_of_a_plane_is_its_slope_and_stripes_of_two_pixels_are_seen() -> None:
    rows, columns = np.indices((5, 7))
    along_x, along_y = gradient(2.0 * columns - 3.0 * rows)
    assert along_x.shape == along_y.shape == (4, 6)
    assert np.allclose(along_x, 2)
    assert np.allclose(along_y, -3)
    along_x, along_y = gradient(columns % 2 * 1.0)
    assert np.allclose(np.abs(along_x), 1)
    assert np.allclose(along_y, 0)


@pytest.mark.parametrize("degrees", [0, 30, 90, 135])
def test_stripes_of_one_direction_are_wholly_oriented(degrees: float) -> None:
    flat = np.full((SIDE, SIDE), 120.0)
    assert directionality(to8(flat + wave(8, degrees, 40)), to8(flat)) > 0.99


@pytest.mark.parametrize(("p", "q"), [(40, 40), (40, 20), (10, 50)])
def test_two_perpendicular_sets_of_stripes_in_closed_form(p: float, q: float) -> None:
    flat = np.full((SIDE, SIDE), 120.0)
    found = directionality(to8(flat + wave(8, 0, p) + wave(8, 90, q)), to8(flat))
    assert found == pytest.approx(abs(p * p - q * q) / (p * p + q * q), abs=0.04)


def test_noise_and_nothing_are_not_oriented() -> None:
    noise = np.random.default_rng(0).normal(120, 20, (SIDE, SIDE))
    assert directionality(to8(noise), to8(np.full((SIDE, SIDE), 120.0))) < 0.1
    assert directionality(to8(noise), to8(noise)) == 0


def test_rain_is_more_oriented_than_texture(photo: NDArray[np.float64], rain: NDArray[np.float64]) -> None:
    blurred = photo.copy()
    blurred[1:-1, 1:-1] = sum(photo[i : SIDE - 2 + i, j : SIDE - 2 + j] for i in range(3) for j in range(3)) / 9
    assert directionality(to8(photo / 2 + rain), to8(photo / 2)) > directionality(to8(photo), to8(blurred)) + 0.1


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("degrees", [0, 70, 90])
def test_what_is_left_of_stripes_on_flat_ground_in_closed_form(share: float, degrees: float) -> None:
    stripes, flat = wave(8, degrees, 100), np.full((SIDE, SIDE), 125.0)
    found = leftover(to8(flat + stripes), to8(flat + (1 - share) * stripes))
    assert found == pytest.approx((1 - share) ** 2, abs=0.005)


def test_stripes_across_the_removed_ones_and_coarse_ones_do_not_count() -> None:
    flat = 125 + wave(8, 90, 50) + wave(64, 0, 40)
    assert leftover(to8(flat + wave(6, 0, 30)), to8(flat)) < 0.002
    assert leftover(to8(flat + wave(6, 0, 30)), to8(flat + wave(6, 0, 15))) == pytest.approx(0.25, abs=0.01)


def test_nothing_removed_is_all_left_and_added_stripes_are_more() -> None:
    stripes = to8(125 + wave(8, 0, 40))
    assert leftover(stripes, stripes) == 1
    assert leftover(stripes, to8(125 + wave(8, 0, 80))) == pytest.approx(4, abs=0.1)
    flat = to8(np.full((SIDE, SIDE), 125.0))
    assert leftover(flat, stripes) == math.inf
    assert leftover(flat, flat + np.uint8(1)) == 1
    assert "leftover" not in without_reference(flat, stripes)


def test_the_more_rain_is_removed_the_less_is_left(photo: NDArray[np.float64], rain: NDArray[np.float64]) -> None:
    shares = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    clean = photo / 2
    found = [leftover(to8(clean + rain), to8(clean + (1 - share) * rain)) for share in shares]
    assert found[0] == 1
    assert all(more > less for more, less in pairwise(found))


def test_a_copy_of_the_texture_leaks_wholly(photo: NDArray[np.float64]) -> None:
    half = np.floor(photo / 2)
    assert leakage(to8(2 * half), to8(half)) == pytest.approx(1, abs=1e-9)
    assert leakage(to8(photo), to8(photo)) == 0
    assert leakage(to8(photo), to8(np.zeros_like(photo))) == 0


def test_an_independent_residual_does_not_leak_and_more_texture_leaks_more(
    photo: NDArray[np.float64], rain: NDArray[np.float64]
) -> None:
    clean = 40 + photo / 3
    shuffled = np.random.default_rng(1).permutation(rain.ravel()).reshape(rain.shape)
    assert abs(leakage(to8(clean + shuffled), to8(clean))) < 0.03
    taken = [leakage(to8(clean + rain), to8(clean - share * photo / 3)) for share in (0, 0.2, 0.4, 0.6)]
    assert all(less < more for less, more in pairwise(taken))
    assert taken[0] < 0.1


def test_leakage_sees_what_a_low_pass_filter_takes(photo: NDArray[np.float64]) -> None:
    frequencies = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE)[None])
    low = np.fft.ifft2(np.fft.fft2(photo) * (frequencies < 0.15)).real
    assert leakage(to8(photo), to8(low)) > 0.3


@given(st.integers(12, 40), st.integers(12, 40), st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_ranges_hold_for_any_pair(height: int, width: int, seed: int) -> None:
    rainy, restored = np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    assert 0 <= directionality(rainy, restored) <= 1
    assert leftover(rainy, restored) >= 0
    assert -1 <= leakage(rainy, restored) <= 1


def slow_shape(values: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """The asymmetric generalised Gaussian's moments estimator as in the paper, by search in its table."""
    left, right = (math.sqrt(np.mean(side**2)) for side in (values[values < 0], values[values > 0]))
    ratio = left / right
    wanted = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
    wanted *= (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2

    def misfit(g: float) -> float:
        return abs(math.gamma(2 / g) ** 2 / (math.gamma(1 / g) * math.gamma(3 / g)) - wanted)

    shape = min((i / 1000 for i in range(200, 10_001)), key=misfit)
    scale = math.sqrt(math.gamma(1 / shape) / math.gamma(3 / shape))
    mean = (right - left) * scale * math.gamma(2 / shape) / math.gamma(1 / shape)
    return shape, left * scale, right * scale, mean


@pytest.mark.parametrize("shape", [0.5, 1.0, 2.0])
def test_the_shape_of_a_generalised_gaussian_is_found(shape: float) -> None:
    rng = np.random.default_rng(0)
    drawn = rng.gamma(1 / shape, 1, (1, 200, 200)) ** (1 / shape)  # |x| of density exp(-|x|^shape), of scale 1
    values = np.where(rng.random(drawn.shape) < 0.5, -drawn, 2 * drawn)
    found = [float(part[0]) for part in _asymmetric_gaussian(values)]
    assert found == pytest.approx(slow_shape(values[0]), rel=1e-2)
    symmetric = _asymmetric_gaussian(np.where(rng.random(drawn.shape) < 0.5, -drawn, drawn))
    assert [float(part[0]) for part in symmetric] == pytest.approx([shape, 1, 1, 0], abs=0.1)


def test_normalising_equals_the_definition_pixel_by_pixel() -> None:
    plane = np.random.default_rng(0).uniform(0, 255, (9, 11))
    weights = np.array([[math.exp(-(i * i + j * j) * 18 / 49) for j in range(-3, 4)] for i in range(-3, 4)])
    weights /= weights.sum()
    padded = np.pad(plane, 3, mode="edge")
    normalised, deviation = _normalise(plane)
    for i, j in ((0, 0), (4, 5), (8, 2)):
        window = padded[i : i + 7, j : j + 7]
        mean = (weights * window).sum()
        sigma = math.sqrt((weights * (window - mean) ** 2).sum())
        assert deviation[i, j] == pytest.approx(sigma)
        assert normalised[i, j] == pytest.approx((plane[i, j] - mean) / (sigma + 1))


def test_halving_keeps_slopes_and_removes_the_finest_stripes() -> None:
    rows = np.arange(40.0)[:, None] * np.ones((1, 3))
    assert np.allclose(_halve(rows)[3:-3, 0], 2 * np.arange(3, 17) + 0.5)
    assert np.allclose(_halve(np.arange(40.0)[:, None] % 2)[3:-3], 0.5, atol=0.02)
    ours = _halve(_halve(data.camera()[:64, :64].astype(float)).T).T
    theirs = resize(data.camera()[:64, :64].astype(float), (32, 32), order=3, anti_aliasing=True)
    assert np.abs(ours - theirs)[2:-2, 2:-2].mean() < 3


def test_patches_are_counted_and_flat_ones_left_out() -> None:
    image = data.astronaut()[:200, :300].copy()
    found, sharpness = patch_features(image)
    assert (found.shape, sharpness.shape) == ((6, FEATURES), (6,))
    image[:110, :110] = 50  # beyond the reach of the windows from its first patch
    assert len(patch_features(image)[0]) == 5
    with pytest.raises(InputError, match="flat"):
        niqe(np.zeros((96, 96, 3), np.uint8))
    with pytest.raises(InputError, match="80x96"):
        niqe(image[:96, :80])
    assert naturalness(image[:50]) == {}


def test_the_shipped_statistics_are_a_gaussian() -> None:
    shipped = shipped_statistics()
    assert shipped.mean.shape == (FEATURES,)
    assert np.allclose(shipped.covariance, shipped.covariance.T)
    assert np.linalg.eigvalsh(shipped.covariance).min() > -1e-10


def test_fitting_needs_patches_and_tells_a_photograph_from_noise() -> None:
    image = data.chelsea()
    with pytest.raises(ValueError, match="patches cannot"):
        fit_niqe([image])
    photographs = [getattr(data, name)() for name in ("astronaut", "coffee", "rocket", "chelsea", "camera")]
    fitted = fit_niqe([p[shift:, shift:] for p in photographs for shift in (0, 20, 50)])
    assert niqe(image, fitted) < niqe(np.random.default_rng(0).integers(0, 256, image.shape, dtype=np.uint8), fitted)


@pytest.mark.parametrize("recipe", ["light", "heavy"])
def test_clean_photographs_score_better_than_rainy_ones(recipe: str) -> None:
    images = open_images(SourceConfig("bundled"), "clean")
    pairs = RenderedPairs(images, recipe, seed=0)
    better = [niqe(clean) < niqe(rainy) for rainy, clean in (pairs.load(i) for i in range(len(pairs)))]
    assert sum(better) >= len(better) - 1, better


class Half:
    """A restorer that halves the contrast to the mean."""

    device, dtype = "cpu", "torch.float32"

    def layers(self, image: Image) -> dict[str, Image]:
        return {"background": ((image.astype(int) + 120) // 2).astype(np.uint8)}


class One:
    """A single pair, or its rainy image alone."""

    def __init__(self, *images: Image) -> None:
        self.images = images

    def __len__(self) -> int:
        return 1

    def key(self, i: int) -> str:  # noqa: ARG002
        return "one"

    def load(self, i: int) -> tuple[Image, ...] | Image:  # noqa: ARG002
        return self.images if len(self.images) > 1 else self.images[0]


def test_evaluation_adds_them_with_and_without_clean_images() -> None:
    clean = np.ascontiguousarray(data.coffee()[:100, :110])
    rainy = np.clip(clean.astype(int) + 40 * (np.arange(110) % 9 < 2)[None, :, None], 0, 255).astype(np.uint8)
    expected = without_reference(rainy, Half().layers(rainy)["background"])
    assert set(expected) == {"niqe", "directionality", "leftover", "leakage"}
    paired = evaluate(One(rainy, clean), {"half": Half()}, no_reference=True)
    assert expected.items() <= paired.rows[0].scores["half"].items()
    assert paired.rows[0].scores["input"]["niqe"] == niqe(rainy)
    assert "left over" in paired.table()
    assert "NIQE alone misleads" in paired.table()
    alone = evaluate_unpaired(One(rainy), {"half": Half()})
    assert alone.protocol is None
    assert set(alone.rows[0].scores["half"]) == {*expected, "seconds"}
    assert "PSNR" not in alone.table()
    assert "niqe" not in evaluate(One(rainy, clean), {"half": Half()}).results["half"]
