"""Each metric against a closed form, or against another's code, or the same said slowly."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from sstl.compat import import_torchvision_user
from sstl.errors import InputError
from sstl.metrics import (
    detection,
    f1_of_all_ones,
    matlab_luma,
    psnr,
    rain_map,
    score,
    ssim,
    summarize,
)
from sstl.rain import rain_map as rain_map_of_tensor

Image = NDArray[np.uint8]


def crop(image: Image, height: int = 60, width: int = 75) -> Image:
    return np.ascontiguousarray(image[100 : 100 + height, 100 : 100 + width])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def pair(rng: np.random.Generator) -> tuple[Image, Image]:
    """A photograph with noise on it, and without."""
    clean = crop(data.astronaut())
    noisy = np.clip(clean + rng.normal(0, 12, clean.shape), 0, 255).astype(np.uint8)
    return noisy, clean


def exact_luma(red: int, green: int, blue: int) -> int:
    """The definition, in fractions; all values are positive, so away from zero is up."""
    value = 16 + (Fraction("65.481") * red + Fraction("128.553") * green + Fraction("24.966") * blue) / 255
    return math.floor(value + Fraction(1, 2))


def luma_of(*rgb: int) -> int:
    return int(matlab_luma(np.array(rgb, np.uint8)))


level = st.integers(0, 255)


@given(level, level, level)
def test_luma_equals_the_definition_in_fractions(red: int, green: int, blue: int) -> None:
    assert luma_of(red, green, blue) == exact_luma(red, green, blue)


def test_luma_of_every_grey_and_of_known_colours() -> None:
    greys = np.arange(256, dtype=np.uint8)
    expected = [exact_luma(g, g, g) for g in range(256)]
    assert matlab_luma(np.stack([greys] * 3, axis=-1)).tolist() == expected
    assert (luma_of(0, 0, 0), luma_of(255, 255, 255)) == (16, 235)
    assert (luma_of(255, 0, 0), luma_of(0, 255, 0), luma_of(0, 0, 255)) == (81, 145, 41)


def test_luma_rounds_every_exact_half_up() -> None:
    # The three weights are 219 * (299, 587, 114) / 1000, so the halves are where the weighted sum is 42500 (mod 85000).
    red, green, blue = np.ogrid[:256, :256, :256]
    total = 299 * red + 587 * green + 114 * blue
    for half, rounded in ((42_500, 53), (127_500, 126), (212_500, 199)):
        colours = np.argwhere(total == half).astype(np.uint8)
        assert len(colours) > 10
        assert set(matlab_luma(colours).tolist()) == {rounded}
        assert exact_luma(*map(int, colours[0])) == rounded


@pytest.mark.parametrize("difference", [1, 7, 100])
def test_psnr_of_a_constant_difference(difference: int) -> None:
    dark = np.full((5, 6, 3), 20, np.uint8)
    bright = dark + np.uint8(difference)
    assert psnr(dark, bright) == pytest.approx(20 * math.log10(255 / difference), abs=1e-12)
    assert psnr(dark / 255, bright / 255, peak=1) == pytest.approx(psnr(dark, bright), abs=1e-9)


def test_psnr_equals_scikit_image_and_is_symmetric(pair: tuple[Image, Image]) -> None:
    noisy, clean = pair
    assert psnr(noisy, clean) == pytest.approx(peak_signal_noise_ratio(clean, noisy, data_range=255), abs=1e-9)
    assert psnr(noisy, clean) == psnr(clean, noisy)
    assert psnr(clean, clean) == math.inf


@st.composite
def pairs_of_images(draw: st.DrawFn, smallest: int = 1) -> tuple[Image, Image]:
    """Two noisy images of one size, grey or RGB, of any type that holds 0 to 255."""
    height, width = draw(st.integers(smallest, 30)), draw(st.integers(smallest, 30))
    shape = (height, width, 3) if draw(st.booleans()) else (height, width)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from((np.uint8, np.uint16, np.int16, np.float32, np.float64)))
    x = rng.integers(0, 256, shape)
    return x.astype(kind), np.clip(x + rng.normal(0, draw(st.sampled_from((0.6, 10, 90))), shape), 0, 255).astype(kind)


@given(pairs_of_images())
def test_psnr_equals_a_sum_over_values(pair: tuple[Image, Image]) -> None:
    x, y = pair
    squares = [(Fraction(float(a)) - Fraction(float(b))) ** 2 for a, b in zip(x.ravel(), y.ravel(), strict=True)]
    mse = float(sum(squares) / len(squares))
    assert psnr(x, y) == (pytest.approx(10 * math.log10(255**2 / mse), abs=1e-9) if mse else math.inf)


@given(pairs_of_images(smallest=11))
@settings(max_examples=25)
def test_ssim_of_any_size_and_type_equals_the_definition(pair: tuple[Image, Image]) -> None:
    channels = [(z[..., None] if z.ndim == 2 else z) for z in pair]
    expected = [ssim_by_windows(channels[0][..., c], channels[1][..., c]) for c in range(channels[0].shape[2])]
    assert ssim(*pair) == pytest.approx(np.mean(expected), abs=1e-9)


@given(pairs_of_images(smallest=11))
@settings(max_examples=25)
def test_psnr_and_ssim_equal_torchmetrics(pair: tuple[Image, Image]) -> None:
    functional = import_torchvision_user("torchmetrics.functional.image")
    x, y = (torch.from_numpy(z.astype(np.float64).reshape(*z.shape[:2], -1)).movedim(-1, 0)[None] for z in pair)
    if not torch.equal(x, y):
        theirs = float(functional.peak_signal_noise_ratio(x, y, data_range=255.0))
        assert psnr(*pair) == pytest.approx(theirs, abs=1e-4)  # it takes the logarithm in float32
    # Its own mean takes in the windows beyond the border, over reflected pixels; Wang's does not.
    _, full = functional.structural_similarity_index_measure(x, y, sigma=1.5, data_range=255.0, return_full_image=True)
    assert ssim(*pair) == pytest.approx(float(full[..., 5:-5, 5:-5].mean()), abs=1e-9)


@given(st.lists(st.integers(1, 6), min_size=0, max_size=3), st.integers(0, 2**32 - 1))
def test_luma_of_any_shape_equals_the_definition_in_fractions(shape: list[int], seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    luma = matlab_luma(image)
    assert luma.shape == tuple(shape)
    assert luma.ravel().tolist() == [exact_luma(*map(int, pixel)) for pixel in image.reshape(-1, 3)]


def test_psnr_refuses_shapes_that_would_broadcast() -> None:
    with pytest.raises(ValueError, match="shapes"):
        psnr(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 1), np.uint8))


def ssim_by_windows(x: Image, y: Image) -> float:
    """Wang et al., one 11x11 window after the other, with centred moments instead of E[x^2] - E[x]^2."""
    weights = np.array([[math.exp(-(i * i + j * j) / 4.5) for j in range(-5, 6)] for i in range(-5, 6)])
    weights /= weights.sum()
    c1, c2 = 2.55**2, 7.65**2
    values = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            a, b = (z[i : i + 11, j : j + 11].astype(float) for z in (x, y))
            ma, mb = (weights * a).sum(), (weights * b).sum()
            va, vb = (weights * (a - ma) ** 2).sum(), (weights * (b - mb) ** 2).sum()
            cov = (weights * (a - ma) * (b - mb)).sum()
            luminance = (2 * ma * mb + c1) / (ma**2 + mb**2 + c1)
            values.append(luminance * (2 * cov + c2) / (va + vb + c2))
    return float(np.mean(values))


def test_ssim_equals_the_definition_window_by_window(pair: tuple[Image, Image]) -> None:
    noisy, clean = (matlab_luma(image)[:31, :24] for image in pair)
    assert ssim(noisy, clean) == pytest.approx(ssim_by_windows(noisy, clean), abs=1e-10)


def test_ssim_equals_scikit_image_on_the_valid_region(pair: tuple[Image, Image]) -> None:
    noisy, clean = pair
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    _, full = structural_similarity(clean, noisy, channel_axis=-1, full=True, **settings)
    assert ssim(noisy, clean) == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-6)
    grey = structural_similarity(matlab_luma(clean), matlab_luma(noisy), full=True, **settings)[1]
    assert ssim(matlab_luma(noisy), matlab_luma(clean)) == pytest.approx(grey[5:-5, 5:-5].mean(), abs=1e-6)


def test_ssim_is_symmetric_one_for_identical_images_and_a_ratio_for_flat_ones(pair: tuple[Image, Image]) -> None:
    noisy, clean = pair
    assert ssim(noisy, clean) == pytest.approx(ssim(clean, noisy), abs=1e-12)
    assert ssim(clean, clean) == pytest.approx(1, abs=1e-12)
    dark, bright = np.full((11, 11), 10, np.uint8), np.full((11, 11), 30, np.uint8)
    c1 = 2.55**2
    assert ssim(dark, bright) == pytest.approx((2 * 10 * 30 + c1) / (10**2 + 30**2 + c1), abs=1e-9)


def test_ssim_needs_one_whole_window() -> None:
    with pytest.raises(InputError, match="40x10"):
        ssim(np.zeros((10, 40), np.uint8), np.zeros((10, 40), np.uint8))


def test_a_score_is_the_protocol_s_psnr_and_ssim(pair: tuple[Image, Image]) -> None:
    noisy, clean = pair
    rgb, luma = score(noisy, clean, "rgb"), score(noisy, clean, "y-matlab")
    assert (rgb.psnr, rgb.ssim) == (psnr(noisy, clean), ssim(noisy, clean))
    y, y_clean = matlab_luma(noisy), matlab_luma(clean)
    assert (luma.psnr, luma.ssim) == (psnr(y, y_clean), ssim(y, y_clean))
    assert luma.psnr > rgb.psnr + 1  # luma averages the channels' noise and spans 219 levels: never mix the two
    assert rgb.psnr_rain is None
    assert rgb.psnr_free is None


@pytest.mark.parametrize("protocol", ["rgb", "y-matlab"])
def test_rainy_and_rain_free_errors_add_up_to_the_whole(pair: tuple[Image, Image], protocol: str) -> None:
    noisy, clean = pair
    rain = rain_map(noisy, clean)
    parts = score(noisy, clean, protocol, rain)
    share = rain.mean()
    mse = [255**2 / 10 ** (value / 10) for value in (parts.psnr, parts.psnr_rain, parts.psnr_free)]
    assert 0.2 < share < 0.8
    assert mse[0] == pytest.approx(share * mse[1] + (1 - share) * mse[2])


def test_no_rainy_pixel_means_no_score_for_them(pair: tuple[Image, Image]) -> None:
    _, clean = pair
    result = score(clean, clean, "rgb", rain_map(clean, clean))
    assert result.psnr_rain is None
    assert result.psnr_free == math.inf


def test_a_score_refuses_what_the_protocol_does_not_define(pair: tuple[Image, Image]) -> None:
    noisy, clean = pair
    with pytest.raises(InputError, match=r"74x60 .* 75x60"):
        score(noisy[:, :-1], clean, "rgb")
    with pytest.raises(ValueError, match="uint8"):
        score(noisy / np.float32(255), clean, "rgb")
    with pytest.raises(ValueError, match="y-matlab"):
        score(noisy, clean, "luma")


def test_the_map_is_rain_above_five_levels_in_any_channel() -> None:
    clean = np.full((1, 5, 3), 100, np.uint8)
    rainy = clean.copy()
    rainy[0, 1:, 1] = (105, 106, 94, 255)  # at the threshold, above it, darker, far above it
    assert rain_map(rainy, clean).tolist() == [[False, False, True, False, True]]


def test_the_map_equals_that_of_the_tensors(pair: tuple[Image, Image]) -> None:
    noisy, clean = (torch.from_numpy(image).movedim(-1, 0)[None].float() / 255 for image in pair)
    assert np.array_equal(rain_map(*pair), rain_map_of_tensor(noisy - clean)[0, 0].bool().numpy())


def test_detection_equals_sets_of_pixels(rng: np.random.Generator) -> None:
    found, truth = rng.random((9, 13)) < 0.4, rng.random((9, 13)) < 0.3
    a, b = ({tuple(p) for p in np.argwhere(m).tolist()} for m in (found, truth))
    result = detection(found, truth)
    assert result.precision == pytest.approx(len(a & b) / len(a))
    assert result.recall == pytest.approx(len(a & b) / len(b))
    assert result.iou == pytest.approx(len(a & b) / len(a | b))
    assert result.f1 == pytest.approx(2 / (1 / result.precision + 1 / result.recall))
    assert result.f1 == pytest.approx(2 * result.iou / (1 + result.iou))


@pytest.mark.parametrize("share", [0.0, 0.21, 1.0])
def test_f1_of_all_ones_in_closed_form(share: float) -> None:
    truth = (np.arange(100) < 100 * share).reshape(10, 10)
    assert f1_of_all_ones(truth) == pytest.approx(2 * share / (1 + share))


def test_detection_where_there_is_nothing_to_find() -> None:
    nothing, everything = np.zeros((3, 3), bool), np.ones((3, 3), bool)
    assert detection(nothing, nothing).f1 == 1
    assert detection(everything, nothing).f1 == 0
    assert detection(nothing, everything).recall == 0


def test_infinite_values_are_counted_and_capped_in_the_mean() -> None:
    summary = summarize([20.0, 30.0, 103.0, math.inf], cap=100)
    assert summary.mean == pytest.approx((20 + 30 + 100 + 100) / 4)
    assert (summary.count, summary.infinite, summary.capped) == (4, 1, 2)
    assert math.isfinite(sum(summary.interval))


def test_the_interval_is_seeded_and_near_the_normal_one(rng: np.random.Generator) -> None:
    values = rng.normal(30, 2, 200).tolist()
    summary = summarize(values)
    assert summary.interval == summarize(values).interval != summarize(values, seed=1).interval
    half = 1.96 * np.std(values) / math.sqrt(len(values))
    assert summary.interval == pytest.approx((summary.mean - half, summary.mean + half), abs=0.15 * half)


def test_a_single_value_has_no_interval_and_no_value_no_mean() -> None:
    assert summarize([3.0]).interval is None
    with pytest.raises(ValueError, match="no values"):
        summarize([])
