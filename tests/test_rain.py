"""Rain: the imaging models in closed form, one streak as its docstring says, and what every recipe promises."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sstl.errors import ConfigError, SstlError
from sstl.rain import (
    RainSample,
    Recipe,
    StreakLayer,
    additive,
    compose,
    heavy,
    list_recipes,
    load_recipe,
    rain_map,
    region,
    render,
    render_layers,
    screen,
    streak_layer,
)

LEVEL = 1 / 255
# The light of a streak along its length, relative to its middle: it fades over the outer 30 % at each end.
TAPER = 0.73

# --- imaging models --------------------------------------------------------------------------------------------------


def random_layers(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Background, streak, map, transmission and airlight of two images, in float64."""
    random = np.random.default_rng(seed)
    shapes = [(2, 3, 5, 7), (2, 3, 5, 7), (2, 1, 5, 7), (2, 1, 5, 7), (2, 3, 1, 1)]
    background, streak, mask, transmission, airlight = (torch.from_numpy(random.random(shape)) for shape in shapes)
    return background, streak, mask.round(), transmission, airlight


def test_models_are_their_equations_pixel_by_pixel():
    background, streak, mask, transmission, airlight = random_layers()
    models = {
        "additive": additive(background, streak),
        "region": region(background, streak, mask),
        "heavy": heavy(background, streak, mask, transmission, airlight),
        "screen": screen(background, streak),
    }
    for n, c, y, x in np.ndindex(*background.shape):
        b, s, r = background[n, c, y, x], streak[n, c, y, x], mask[n, 0, y, x]
        t, a = transmission[n, 0, y, x], airlight[n, c, 0, 0]
        expected = {
            "additive": b + s,
            "region": b + s * r,
            "heavy": t * (b + s * r) + (1 - t) * a,
            "screen": 1 - (1 - b) * (1 - s),
        }
        for name, value in expected.items():
            assert float(models[name][n, c, y, x]) == pytest.approx(float(value), abs=1e-12), name


def test_special_cases():
    background, streak, mask, transmission, airlight = random_layers()
    none, everywhere = torch.zeros_like(streak), torch.ones_like(mask)
    assert torch.equal(region(background, streak, everywhere), additive(background, streak))
    assert torch.equal(region(background, streak, 0 * mask), background)
    assert torch.equal(heavy(background, streak, mask, 1.0, airlight), region(background, streak, mask))
    fog = heavy(background, streak, mask, 0.0, airlight)
    torch.testing.assert_close(fog, airlight.expand_as(background), rtol=0, atol=1e-12)
    veiled = heavy(background, none, mask, transmission, airlight)
    torch.testing.assert_close((veiled - airlight) / transmission + airlight, background)  # the veil can be undone
    torch.testing.assert_close(screen(background, none), background, rtol=0, atol=1e-12)
    assert torch.equal(screen(background, torch.ones_like(streak)), torch.ones_like(background))
    assert (screen(background, streak) <= additive(background, streak) + 1e-12).all()
    assert torch.equal(streak_layer(background + streak, background + streak), none)
    assert torch.equal(streak_layer(background, background + streak), none)  # what is darker is no rain


@given(*[st.floats(0, 1, width=32)] * 2)
def test_screen_commutes_and_stays_in_range(one, other):
    one, other = torch.tensor(one), torch.tensor(other)
    both = screen(one, other)
    assert both == screen(other, one)
    assert 0 <= both <= 1
    assert both >= max(one, other) - 1e-6


@pytest.mark.parametrize("channel", range(3))
def test_map_is_rain_from_six_grey_levels_on_in_any_channel(channel):
    # Every background level there is, because B + 5/255 - B is rounded differently for each.
    for step, rain in ((4, 0), (5, 0), (6, 1), (7, 1)):
        clean = torch.arange(256 - step)
        rainy = torch.stack([clean] * 3)
        rainy[channel] += step
        streak = streak_layer(rainy.float() / 255, torch.stack([clean] * 3).float() / 255)
        mask = rain_map(streak[None, :, None])
        assert mask.shape == (1, 1, 1, 256 - step)
        assert (mask == rain).all(), step


# --- the renderer ----------------------------------------------------------------------------------------------------

SIDE = 102
STREAK = StreakLayer(
    angle=0,
    angle_spread=0,
    length=40,
    length_spread=0,
    width=1,
    density=1,
    brightness=0.2,
    brightness_spread=0,
    blur=0,
)


class OneDrop:
    """Stands in for a random generator: one drop, in the middle of the picture, with the layer's mean properties."""

    def poisson(self, _: float) -> int:
        return 1

    def uniform(self, low: float, high: float, size: object) -> np.ndarray:
        return np.full(size, (low + high) / 2)

    def normal(self, mean: float, _: float, size: object) -> np.ndarray:
        return np.full(size, float(mean))


def one_streak(**changes: float) -> np.ndarray:
    layer = replace(STREAK, **changes)
    return render_layers([[layer]], SIDE, SIDE, [OneDrop()])[0, 0].double().numpy()


def coordinates(angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Each pixel's place along and across a streak through the picture's middle."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    sine, cosine = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    return x * sine + y * cosine, x * cosine - y * sine


def spread(values: np.ndarray, light: np.ndarray) -> float:
    mean = (values * light).sum() / light.sum()
    return float(np.sqrt(((values - mean) ** 2 * light).sum() / light.sum()))


@pytest.mark.parametrize("angle", [-60, -20, 0, 35, 90])
def test_direction_of_a_streak(angle):
    light = one_streak(angle=angle)
    y, x = np.mgrid[:SIDE, :SIDE]
    covariance = np.cov(np.stack([x.ravel(), y.ravel()]), aweights=light.ravel())
    right, down = np.linalg.eigh(covariance)[1][:, -1]
    found = math.degrees(math.atan2(right, down))
    assert (found - angle + 90) % 180 - 90 == pytest.approx(0, abs=0.5)  # a line has no front
    assert (x * light).sum() / light.sum() == pytest.approx(SIDE / 2, abs=0.6)
    assert (y * light).sum() / light.sum() == pytest.approx(SIDE / 2, abs=0.6)


@pytest.mark.parametrize("length", [8, 20, 55])
def test_length_of_a_streak(length):
    light = one_streak(angle=25, length=length)
    along, across = coordinates(25)
    lit = along[light > 0.02 * light.max()]
    assert lit.max() - lit.min() == pytest.approx(length, abs=2.5)
    assert np.abs(across[light > 0]).max() < 1.5


@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_cross_section_of_a_streak(width):
    light = one_streak(angle=25, width=width)
    full_width = 2.355 * spread(coordinates(25)[1], light)
    assert full_width == pytest.approx(width, rel=0.08)
    assert light.max() == pytest.approx(STREAK.brightness, rel=0.15)
    # A Gaussian of peak p and full width w holds p w sqrt(pi / 4 log 2) = 1.064 p w of light per pixel of length.
    assert light.sum() == pytest.approx(TAPER * STREAK.length * 1.064 * width * STREAK.brightness, rel=0.12)


def test_blur_widens_a_streak_and_keeps_its_peak():
    sharp, soft = one_streak(angle=25, width=2), one_streak(angle=25, width=2, blur=2)
    across = coordinates(25)[1]
    assert spread(across, soft) ** 2 - spread(across, sharp) ** 2 == pytest.approx(2**2, rel=0.05)
    assert soft.max() == pytest.approx(STREAK.brightness, rel=0.1)


def test_a_streak_without_taper_is_as_bright_from_end_to_end():
    light = one_streak(tapered=False)
    along = light.sum(axis=1)  # straight down: a row each pixel of length
    lit = along[along > 0]
    assert len(lit) == pytest.approx(STREAK.length, abs=2)
    np.testing.assert_allclose(lit[2:-2], STREAK.brightness, rtol=0.15)
    assert light.sum() * TAPER == pytest.approx(one_streak().sum(), rel=0.02)


def test_brightness_is_linear():
    np.testing.assert_allclose(one_streak(brightness=0.6), 3 * one_streak(brightness=0.2), rtol=1e-5)


def many(layer: StreakLayer, count: int, side: int) -> Tensor:
    """Independent draws of a layer, (count, side, side)."""
    return render_layers([[layer]] * count, side, side, [np.random.default_rng([7, i]) for i in range(count)])[:, 0]


@pytest.mark.parametrize("density", [1.0, 4.0, 16.0])
def test_light_is_proportional_to_density(density):
    layer = replace(STREAK, angle=10, length=15, density=density)
    found = many(layer, count=int(512 / density), side=64).mean()
    assert float(found) == pytest.approx(density / 1000 * TAPER * layer.length * layer.brightness, rel=0.06)


def test_layers_add_up():
    one, other = replace(STREAK, width=2), replace(STREAK, angle=30, brightness=0.1)
    both = render_layers([[one, other]], SIDE, SIDE, [OneDrop()])[0, 0].double().numpy()
    np.testing.assert_allclose(both, one_streak(width=2) + one_streak(angle=30, brightness=0.1), atol=1e-6)


def test_an_image_without_layers_is_dark():
    rendered = render_layers([[], [STREAK]], SIDE, SIDE, [OneDrop(), OneDrop()])
    assert rendered[0].max() == 0 < rendered[1].max()


def test_rain_is_as_bright_at_the_border_as_in_the_middle():
    rain = many(replace(STREAK, angle=20, length=12, length_spread=0.2, density=20), count=300, side=40)
    frame = torch.ones(40, 40, dtype=torch.bool)
    frame[1:-1, 1:-1] = False
    assert float(rain[:, frame].mean()) == pytest.approx(float(rain[:, ~frame].mean()), rel=0.04)
    sides = [rain[:, 0], rain[:, -1], rain[:, :, 0], rain[:, :, -1]]
    for side in sides:
        assert float(side.mean()) == pytest.approx(float(rain.mean()), rel=0.08)


# --- recipes ---------------------------------------------------------------------------------------------------------


def rained(recipe: str | Recipe, photo: Tensor, count: int = 12, seed: int = 0) -> RainSample:
    return render(photo.expand(count, -1, -1, -1), recipe, seed, range(count))


def test_the_recipes_of_the_package():
    names = "across any camera ddn_like drawn dry garg heavy laid light mist mixed night real_mix streaks veil"
    assert list_recipes() == sorted([*names.split(), "rain100h_like", "rain100l_like"])


@pytest.mark.parametrize("name", ["dry", "heavy", "light", "mixed", "streaks"])
def test_every_recipe_renders_what_its_layers_say(name, photo):
    sample = rained(name, photo[..., :48, :48], count=32)
    assert set(sample.imaging) == set(load_recipe(name).imaging)
    for layer in (sample.clean, sample.rainy, sample.streak, sample.mask, sample.transmission, sample.airlight):
        assert layer.dtype == torch.float32
        assert 0 <= layer.min() <= layer.max() <= 1
    assert sample.streak.shape == sample.rainy.shape == sample.clean.shape == (32, 3, 48, 48)
    assert sample.mask.shape == sample.transmission.shape == (32, 1, 48, 48)
    assert torch.equal(sample.mask, rain_map(sample.streak))
    assert (sample.streak * (1 - sample.mask) == 0).all()
    for i, model in enumerate(sample.imaging):
        clean, streak, mask = sample.clean[i], sample.streak[i], sample.mask[i]
        expected = {
            "region": region(clean, streak, mask),
            "screen": screen(clean, streak),
            "heavy": heavy(clean, streak, mask, sample.transmission[i], sample.airlight[i]),
        }[model]
        torch.testing.assert_close(sample.rainy[i], expected.clamp(0, 1), rtol=0, atol=1e-6)
        if model != "heavy":
            assert (sample.transmission[i] == 1).all()


def test_crossing_layers_are_laid_over_in_the_same_wind(photo):
    plain = replace(load_recipe("drawn"), layers=(1, 1), layer_angle=(0, 0), crossing=None)
    crossed = replace(plain, crossing="across")
    across = load_recipe("across")
    for one, other in zip(rained(plain, photo, 24).parameters, rained(crossed, photo, 24).parameters, strict=True):
        main, *crossing = other["layers"]
        assert not main["tapered"]
        assert len(crossing) <= across.layers[1]
        for layer in crossing:
            assert layer["tapered"]
            assert abs(layer["angle"] - one["layers"][0]["angle"]) <= across.layer_angle[1]
            assert layer["brightness"] <= across.brightness[1]
    assert rained(crossed, photo, 24).streak.mean() > rained(plain, photo, 24).streak.mean()


def test_dry_leaves_the_image_as_it_is(photo):
    sample = rained("dry", photo, count=2)
    assert torch.equal(sample.rainy, sample.clean)
    assert sample.streak.count_nonzero() == sample.mask.count_nonzero() == 0


def test_light_is_sparse_and_heavy_is_not(photo):
    light, downpour = (rained(name, photo, count=24) for name in ("light", "heavy"))
    shares = [sample.mask.mean(dim=(1, 2, 3)) for sample in (light, downpour)]
    assert 0.05 < shares[0].mean() < 0.45
    assert shares[0].max() < 0.8
    assert shares[1].mean() > 1.5 * shares[0].mean()
    assert downpour.streak.mean() > 2 * light.streak.mean()


def test_a_veil_is_grey_smooth_and_in_its_range(photo):
    recipe = replace(load_recipe("mixed"), imaging={"heavy": 1.0}, transmission=(0.5, 0.7), airlight=(0.8, 0.9))
    sample = rained(recipe, photo, count=4)
    assert 0.5 <= sample.transmission.min() < sample.transmission.max() <= 0.7
    assert sample.transmission.diff(dim=-1).abs().max() < 0.2 / 127 + 1e-6  # linear from side to side
    assert 0.8 <= sample.airlight.min() < sample.airlight.max() <= 0.9
    assert torch.equal(sample.airlight[:, :1].expand(-1, 3, -1, -1), sample.airlight)


def test_rain_is_a_function_of_seed_and_index(photo):
    first, again = rained("mixed", photo), rained("mixed", photo)
    assert torch.equal(first.rainy, again.rainy)
    assert torch.equal(first.streak, again.streak)
    assert first.imaging == again.imaging
    other_photo = rained("mixed", 1 - photo)
    assert torch.equal(first.streak, other_photo.streak)  # the rain does not look at the image
    for i in range(12):
        for j in range(i):
            assert not torch.equal(first.streak[i], first.streak[j])
    other_seed = rained("mixed", photo, seed=1)
    assert not any(torch.equal(a, b) for a, b in zip(first.streak, other_seed.streak, strict=True))


@pytest.mark.parametrize("name", ["heavy", "light", "mixed", "thin"])
def test_rain_does_not_depend_on_the_batch(name, photo):
    thin = replace(load_recipe("mixed"), width=(1.0, 1.0), blur=(0.0, 0.0))  # drawn without a blur
    recipe = thin if name == "thin" else load_recipe(name)
    whole = rained(recipe, photo)
    for indices in ([5], [11, 0, 3]):
        part = render(photo.expand(len(indices), -1, -1, -1), recipe, 0, indices)
        for own, index in enumerate(indices):
            assert part.imaging[own] == whole.imaging[index]
            assert torch.equal(part.transmission[own], whole.transmission[index])
            if name == "thin":
                assert torch.equal(part.streak[own], whole.streak[index])
                assert torch.equal(part.rainy[own], whole.rainy[index])
            else:  # a convolution of another size may round otherwise; at the map's threshold this may decide
                torch.testing.assert_close(part.streak[own], whole.streak[index], rtol=1e-5, atol=1e-6)
                differ = (part.rainy[own] - whole.rainy[index]).abs() > 1e-5
                assert differ.float().mean() < 1e-3


def test_rain_keeps_the_size_of_any_image():
    for shape in [(1, 1), (1, 40), (37, 3)]:
        sample = render(torch.rand(2, 3, *shape), "mixed", 0, [0, 1])
        assert sample.rainy.shape == (2, 3, *shape)


def test_compose_takes_streaks_of_any_source(photo):
    clean = photo.expand(2, -1, -1, -1)
    streak = torch.rand(2, 3, 96, 128) * torch.tensor([0.3, 0.5, 1.0]).view(1, 3, 1, 1)
    veil = torch.ones(2, 1, 96, 128), torch.full((2, 3, 1, 1), 0.7)
    sample = compose(clean, streak, *veil, ["region", "screen"])
    torch.testing.assert_close(sample.rainy[0], (clean[0] + sample.streak[0]).clamp(max=1), rtol=0, atol=1e-6)
    torch.testing.assert_close(sample.rainy[1], screen(clean, sample.streak)[1], rtol=0, atol=1e-6)
    kept = sample.mask.bool().expand_as(streak)
    assert torch.equal(sample.streak[kept], streak[kept])
    assert streak[~kept].max() <= 5.5 * LEVEL


# --- mistakes --------------------------------------------------------------------------------------------------------

GOOD = "angle: [0, 0]\nlength: [8, 20]\ndensity: [1, 2]\nbrightness: [0.1, 0.2]\n"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (GOOD.replace("[8, 20]", "[20, 8]"), ["'length' is [20", "comes first"]),
        (GOOD.replace("[1, 2]", "[-1, 2]"), ["'density' is [-1", "negative"]),
        (GOOD.replace("[8, 20]", "[8]"), ["length"]),
        (GOOD.replace("length: [8, 20]\n", ""), ["'length'", "missing"]),
        (GOOD + "imaging: {fog: 1.0}\n", ["imaging", "fog", "region, screen or heavy"]),
        (GOOD + "imaging: {region: 0}\n", ["imaging", "region, screen or heavy"]),
        (GOOD + "imaging: {region: 2.0, screen: -1.0}\n", ["imaging", "region, screen or heavy"]),
        (GOOD + "imaging: {}\n", ["imaging", "region, screen or heavy"]),
        (GOOD + "crossing: acros\n", ["crossing", "acros", "Did you mean 'across'"]),
        (GOOD + "lenght_spread: [0, 1]\n", ["lenght_spread", "Did you mean 'length_spread'"]),
        (GOOD.replace("0.1", "some"), ["brightness", "some"]),
    ],
)
def test_a_bad_recipe_is_named_with_its_key(tmp_path, text, named):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    for word in (str(path), *named):
        assert word in str(caught.value)


def test_a_recipe_of_ones_own(tmp_path, photo):
    path = tmp_path / "own.yaml"
    path.write_text(GOOD)
    assert rained(load_recipe(path), photo, count=1).streak.max() > 0.1


def test_an_unknown_recipe_suggests_the_nearest():
    with pytest.raises(SstlError, match=r"unknown recipe 'hevy'.*Did you mean 'heavy'"):
        load_recipe("hevy")


def test_a_missing_recipe_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.yaml: cannot be read"):
        load_recipe(tmp_path / "gone.yaml")
