"""Matching: what appearance measures, how a recipe is narrowed, and that rain of a known recipe is found."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from sstl.config import load_config
from sstl.data.files import BundledImages
from sstl.data.matching import draw_crops, match_photos, recipe_yaml
from sstl.errors import InputError, SstlError
from sstl.rain import Recipe, load_recipe, match, matching, mean_streak, render, streaks_alone
from sstl.rain.appearance import appearance
from sstl.rain.camera import jpeg, sensor_noise
from sstl.rain.matching import as_strong, narrowed

SIDE = 96
STEEP = Recipe(
    angle=(24, 28), length=(25, 35), density=(4, 6), brightness=(0.25, 0.35), layers=(1, 2), width=(1.2, 1.6)
)  # fmt: skip
NONE = Recipe(angle=(0, 0), length=(1, 1), density=(0, 0), brightness=(0, 0), layers=(0, 0))


@pytest.fixture(scope="module")
def clean() -> torch.Tensor:
    return draw_crops(BundledImages(None), 40, SIDE, 1)


@pytest.fixture(scope="module")
def others() -> torch.Tensor:
    """Crops of photographs at another scale, which the clean ones do not hold."""
    images = [np.ascontiguousarray(image[::2, ::2]) for image in (data.astronaut(), data.coffee(), data.rocket())]
    rng = np.random.default_rng(5)
    crops = []
    for i in range(16):
        image = images[i % 3]
        top, left = (int(rng.integers(side - SIDE + 1)) for side in image.shape[:2])
        crops.append(
            torch.from_numpy(image[top : top + SIDE, left : left + SIDE].copy()).permute(2, 0, 1).float() / 255
        )
    return torch.stack(crops)


# Appearance


def test_appearance_is_finite_and_of_one_length_for_any_image(others):
    flat = torch.stack([torch.zeros(3, 64, 80), torch.ones(3, 64, 80)])
    noise = torch.rand(1, 3, 64, 80)
    found = [appearance(images) for images in (flat, noise)]
    assert all(np.isfinite(rows).all() for rows in found)
    assert found[0].shape[1] == found[1].shape[1] == appearance(others[:1]).shape[1]


def test_an_image_looks_the_same_in_any_batch(others):
    assert np.allclose(appearance(others)[3], appearance(others[3:4])[0])


def changed(before: torch.Tensor, after: torch.Tensor) -> np.ndarray:
    """Mean change of each number, in its deviations over images."""
    first = appearance(before)
    return np.abs(appearance(after) - first).mean(axis=0) / (first.std(axis=0) + 1e-3)


@pytest.mark.parametrize("effect", ["rain", "veil", "noise", "jpeg", "dark"])
def test_what_befalls_an_image_is_seen(effect, others):
    after = {
        "rain": lambda: render(others, STEEP, 0, range(len(others))).rainy,
        "veil": lambda: 0.6 * others + 0.3,
        "noise": lambda: torch.stack([sensor_noise(x, 0.004, np.random.default_rng(1)) for x in others]),
        "jpeg": lambda: torch.stack([jpeg(x, 40) for x in others]),
        "dark": lambda: 0.4 * others,
    }[effect]()
    assert changed(others, after).max() > 1


def test_a_mirrored_rain_looks_mirrored(others):
    steep = render(others, STEEP, 0, range(len(others))).rainy
    mirrored = appearance(steep.flip(-1))
    assert np.abs(appearance(steep) - mirrored).max() > 0.3
    assert np.allclose(appearance(steep)[:, 5], mirrored[:, 5])  # the mean strength has no direction


# Narrowing


def test_a_recipe_is_narrowed_to_the_middle_of_what_was_accepted():
    prior = load_recipe("any")
    drawn = render(torch.rand(64, 3, 8, 8), prior, 3, range(64)).parameters
    recipe = narrowed(prior, drawn)
    for name in ("angle", "length", "density", "brightness", "width", "airlight"):
        (low, high), (lowest, highest) = getattr(recipe, name), getattr(prior, name)
        assert lowest <= low < high <= highest
    one = narrowed(prior, drawn[:1])
    assert one.layers == (len(drawn[0]["layers"]),) * 2
    assert one.imaging == {drawn[0]["imaging"]: 1.0}
    assert asdict(one.camera)["gamma"] == (round(drawn[0]["camera"]["gamma"], 4),) * 2


@pytest.mark.parametrize("name", ["veil", "drawn"])
def test_what_scales_or_crosses_layers_is_narrowed_with_them(name):
    prior = load_recipe(name)
    assert prior.scale != (1.0, 1.0) or prior.crossing is not None

    def lengths(recipe):
        return [layer["length"] for p in render(blank, recipe, 3, range(64)).parameters for layer in p["layers"]]

    blank = torch.rand(64, 3, 8, 8)
    recipe = narrowed(prior, render(blank, prior, 3, range(64)).parameters)
    assert len(lengths(recipe)) == pytest.approx(len(lengths(prior)), rel=0.25)
    assert max(lengths(recipe)) <= max(lengths(prior))


def test_streaks_alone_change_nothing_between_them(clean):
    recipe = streaks_alone(load_recipe("any"))
    assert "heavy" not in recipe.imaging
    assert recipe.length == load_recipe("any").length
    sample = render(clean, recipe, 3, range(len(clean)))
    dry = sample.streak.amax(dim=1, keepdim=True) == 0
    assert 0.1 < dry.float().mean() < 1
    assert ((sample.rainy - clean).abs() * dry).max() < 1e-6
    assert streaks_alone(replace(recipe, imaging={"heavy": 1.0})).imaging == {"region": 1.0}


def test_draws_without_rain_narrow_to_no_layers():
    prior = load_recipe("any")
    dry = [p for p in render(torch.rand(64, 3, 8, 8), prior, 3, range(64)).parameters if not p["layers"]]
    assert narrowed(prior, dry).layers == (0, 0)


def light(recipe: Recipe, clean: torch.Tensor, seed: int) -> float:
    return float(render(clean, recipe, seed, range(len(clean))).streak.mean())


@pytest.mark.parametrize("factor", [0.2, 1.5])
def test_rain_is_made_as_strong_as_it_shall_be_by_all_that_makes_it_so(factor, clean):
    recipe = replace(STEEP, layers=(0, 2), imaging={"region": 0.5, "screen": 0.5})
    strong = as_strong(recipe, factor * light(recipe, clean, 0), clean, 0)
    # Of other draws, of which there are few.
    assert light(strong, clean, 1) == pytest.approx(factor * light(recipe, clean, 1), rel=0.2)
    ratios = [np.divide(getattr(strong, key), getattr(recipe, key)) for key in ("density", "length", "brightness")]
    assert np.allclose(ratios, factor ** (1 / 3), rtol=0.2)
    assert np.ptp(ratios) < 0.01
    same = replace(strong, density=recipe.density, length=recipe.length, brightness=recipe.brightness)
    assert same == recipe


def test_the_mean_streak_is_that_of_what_is_rendered(clean):
    assert mean_streak(STEEP, clean, 1) == pytest.approx(light(STEEP, clean, 2), rel=0.2)
    assert mean_streak(NONE, clean, 1) == 0


def test_what_holds_no_rain_is_not_made_stronger(clean):
    assert as_strong(NONE, 0.2, clean, 0) == NONE
    assert as_strong(STEEP, 0.0, clean, 0) == STEEP


# Matching


@pytest.fixture(scope="module")
def found(clean, others):
    rainy = render(others, STEEP, 7, range(len(others))).rainy
    return match(rainy, clean, draws=192, seed=2)


def test_rain_of_a_known_recipe_is_found(found):
    assert found.recipe.angle[0] > 5  # of a prior from -45 to 45
    assert 10 < found.estimates["angle"] < 40
    assert found.dry < 0.2
    assert found.explained["angle"] > 0.3


def test_matched_rain_is_as_strong_as_that_of_the_photos_which_its_ranges_alone_are_not(clean, others, monkeypatch):
    narrow = []
    monkeypatch.setattr(matching, "as_strong", lambda recipe, *how: narrow.append(recipe) or as_strong(recipe, *how))
    photos = render(others, STEEP, 7, range(len(others)))
    found, wanted = match(photos.rainy, clean, seed=2), float(photos.streak.mean())
    assert light(found.recipe, clean, 5) == pytest.approx(wanted, rel=0.4)
    assert light(narrow[0], clean, 5) > 2 * wanted


def test_the_rest_of_the_prior_that_cannot_be_seen_stays_wide(found):
    low, high = found.recipe.brightness_spread
    assert high - low > 0.1


def test_dry_photos_are_recognised(clean, others):
    dry = match(render(others, NONE, 7, range(len(others))).rainy, clean, draws=192, seed=2)
    wet = match(render(others, STEEP, 7, range(len(others))).rainy, clean, draws=192, seed=2)
    assert dry.dry > wet.dry + 0.2
    assert dry.estimates["amount"] < wet.estimates["amount"] - 0.5


def test_matching_is_a_function_of_its_seed(clean, others, found):
    rainy = render(others, STEEP, 7, range(len(others))).rainy
    assert match(rainy, clean, draws=192, seed=2) == found


@pytest.mark.parametrize(
    ("photos", "options", "message"),
    [
        (torch.rand(2, 3, 32, 32), {}, "64 pixels"),
        (torch.rand(2, 3, 96, 128), {}, "one size"),
        (torch.rand(2, 3, 96, 96), {"draws": 10}, "at least 96"),
    ],
)
def test_what_cannot_be_matched_is_refused(photos, options, message, clean):
    with pytest.raises(SstlError, match=message):
        match(photos, clean, **options)


# From folders


class Photos:
    """A source in memory; every second photo cannot be read."""

    def __init__(self, images, readable=True):
        self.images, self.readable = images, readable

    def __len__(self):
        return len(self.images)

    def key(self, i):
        return str(i)

    def load(self, i):
        if not self.readable or i % 2:
            raise InputError(f"photo {i} is broken")
        return self.images[i]


def test_crops_are_cut_at_the_grid_of_jpeg_and_leave_out_what_cannot_be_read():
    ramp = np.add.outer(np.arange(200), np.zeros(220)).astype(np.uint8)[..., None].repeat(3, 2)
    crops = draw_crops(Photos([ramp, ramp, ramp[:50, :60]]), 7, 96, 0)
    assert crops.shape == (7, 3, 96, 96)
    assert all(round(float(crop[0, 0, 0]) * 255) % 8 == 0 for crop in crops)
    with pytest.raises(InputError, match="is broken"):
        draw_crops(Photos([ramp], readable=False), 2, 96, 0)


def test_a_matched_recipe_is_an_ordinary_recipe_file(tmp_path, found):
    path = tmp_path / "mine.yaml"
    path.write_text(recipe_yaml(found.recipe, "Mine,\nall mine."))
    assert load_config(Recipe, path) == found.recipe == load_recipe(path)
    assert path.read_text().startswith("# Mine, all mine.\n")


def test_the_command_writes_a_recipe_and_says_what_it_saw(tmp_path, run_cli, others):
    photos = tmp_path / "photos"
    photos.mkdir()
    rainy = render(others[:4], STEEP, 7, range(4)).rainy
    for i, image in enumerate(rainy):
        big = image.repeat(1, 2, 2).permute(1, 2, 0)
        Image.fromarray((big * 255).round().to(torch.uint8).numpy()).save(photos / f"{i}.png")
    out = tmp_path / "rain.yaml"
    call = ["match", photos, "-o", out, "--draws", "96", "--json", tmp_path / "m.json"]
    done = run_cli(*call)
    assert done.code == 0, done.err
    assert "next:" in done.out
    assert load_recipe(out).layers[1] >= 1
    assert set(json.loads((tmp_path / "m.json").read_text())) == {"dry", "estimates", "explained", "environment"}
    again = run_cli(*call)
    assert (again.code, "--overwrite" in again.err) == (2, True)
    assert run_cli("match", photos, "-o", tmp_path / "rain.txt").code == 2


def test_photos_are_matched_from_a_source():
    images = BundledImages(None)
    result = match_photos(images, images, crops=4, draws=96, rounds=1)
    assert isinstance(result.recipe, Recipe)
