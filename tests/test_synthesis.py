"""Scene and camera effects as their equations, recipes that recompose, and data sets of synthetic pairs."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from conftest import Outcome
from PIL import Image
from torch import Tensor

from sstl.data import SourceConfig, open_images, open_pairs
from sstl.data.stream import GlobalBatches, PairedPart, PairedStream, endless
from sstl.errors import ConfigError, SstlError
from sstl.rain import Recipe, heavy, list_recipes, load_recipe, rain_map, render, screen
from sstl.rain.camera import Camera, develop, jpeg, resample, sensor_noise
from sstl.rain.recipes import about_recipe
from sstl.rain.scene import attenuation, depth_field, lamps, mist, occlusion, splash_points


class Drops:
    """Three made streak images."""

    def __len__(self) -> int:
        return 3

    def load(self, i: int) -> np.ndarray:
        image = np.zeros((120, 90, 3), np.uint8)
        image[:, 10 * (i + 1) :: 30] = 60 * (i + 1)
        return image


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# Camera


def test_development_is_a_gain_and_a_power(photo):
    assert torch.equal(develop(photo, 1, 1), photo)
    torch.testing.assert_close(develop(photo, 0.5, 2.0), (0.5 * photo) ** 2)
    assert develop(photo, 3.0, 1.0).max() == 1


def test_noise_has_the_variance_of_its_equation():
    for level in (0.1, 0.5):
        image = torch.full((3, 300, 300), level)
        noisy = sensor_noise(image, 0.01, rng())
        assert float((noisy - image).mean()) == pytest.approx(0, abs=1e-3)
        assert float((noisy - image).var()) == pytest.approx(0.01 * level + 0.01 / 100, rel=0.02)
    assert torch.equal(sensor_noise(image, 0.0, rng()), image)


def test_resampling_keeps_what_is_smooth_and_loses_what_is_fine():
    ramp = torch.linspace(0.2, 0.8, 64).expand(3, 64, 64)
    assert (resample(ramp, 0.5) - ramp)[..., 4:-4].abs().max() < 0.01
    stripes = (torch.arange(64) % 2).float().expand(3, 64, 64)
    assert resample(stripes, 0.4).std() < 0.2 * stripes.std()
    assert torch.equal(resample(stripes, 1.0), stripes)


def test_jpeg_of_lower_quality_is_farther_and_chroma_goes_first(photo):
    image = photo[0]
    errors = [float((jpeg(image, quality) - image).abs().mean()) for quality in (20, 50, 95)]
    assert errors == sorted(errors, reverse=True)
    assert torch.equal(jpeg(image, 0), image)
    red_stripes = torch.zeros(3, 32, 32)
    red_stripes[0, :, ::2] = 1
    kept, lost = (jpeg(red_stripes, 95, subsampled)[0].std() for subsampled in (False, True))
    assert lost < 0.8 * kept


# Scene


def test_depth_recedes_from_the_ground_to_the_horizon():
    depth = torch.stack([depth_field(60, 80, rng(seed)) for seed in range(20)])
    assert 0 <= depth.min() <= depth.max() <= 1
    rows = depth.mean(dim=(0, 2))
    assert rows[:5].mean() > rows[30] > rows[-5:].mean()


def test_transmissions_are_their_equations():
    depth = torch.tensor([0.0, 0.3, 1.0])
    torch.testing.assert_close(attenuation(depth, 0.0), torch.ones(3))
    torch.testing.assert_close(
        attenuation(depth, 2.0), torch.tensor([1, np.exp(-0.6), np.exp(-2)], dtype=torch.float32)
    )
    torch.testing.assert_close(
        mist(depth, 1.0)[:2], torch.tensor([np.exp(-1), np.exp(-np.exp(-1))], dtype=torch.float32)
    )
    assert mist(depth, 1.0)[2] > 0.99
    assert occlusion(torch.tensor([0.1, 0.4, 0.5, 0.9]), 0.5).tolist() == pytest.approx([0.0, 0.5, 1.0, 1.0])


def test_lamps_light_some_places_and_none_is_even_light():
    assert torch.equal(lamps(20, 30, 0, (0, 1), rng()), torch.ones(3, 20, 30))
    light = lamps(60, 80, 2, (0, 0), rng())
    assert 0.1 <= light.min() < 0.4
    assert 0.9 < light.max() <= 1
    assert torch.equal(light[0], light[2])


def test_tinted_lamps_have_colours():
    light = lamps(60, 80, 3, (0.8, 0.8), rng())
    assert (light.amax(dim=0) - light.amin(dim=0)).max() > 0.2
    assert light.min() >= 0.1


def test_splashes_lie_on_near_ground():
    depth = torch.ones(100, 100)
    depth[70:] = 0.0
    points = splash_points(depth, 20.0, 0.5, rng())
    assert len(points) > 100
    assert points[:, 1].min() >= 70 - 0.7 * 6
    assert points[:, 2].min() > 0
    assert points[:, 2].max() <= 0.5
    assert len(splash_points(torch.ones(100, 100), 20.0, 0.5, rng())) == 0


# Recipes


def rained(name: str, photo: Tensor, count: int = 6, seed: int = 3):
    return render(photo.expand(count, -1, -1, -1), name, seed, range(count), Drops())


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_recomposes_before_the_camera(name, photo):
    sample = rained(name, photo)
    for i, model in enumerate(sample.imaging):
        b, s, r = sample.clean[i], sample.streak[i], sample.mask[i]
        composed = screen(b, s) if model == "screen" else heavy(b, s, r, sample.transmission[i], sample.airlight[i])
        assert (composed.clamp(0, 1) - sample.scene[i]).abs().max() <= 1 / 255
    assert torch.equal(sample.mask, rain_map(sample.streak))
    assert (sample.streak * (1 - sample.mask) == 0).all()
    has_camera = load_recipe(name).camera is not None
    assert torch.equal(sample.rainy, sample.scene) is not has_camera
    assert 0 <= sample.rainy.min() <= sample.rainy.max() <= 1


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_says_what_it_drew(name, photo):
    sample = rained(name, photo)
    json.dumps(sample.parameters)
    for model, drawn in zip(sample.imaging, sample.parameters, strict=True):
        assert drawn["imaging"] == model
        assert (drawn["camera"] is None) is (load_recipe(name).camera is None)
    assert about_recipe(name).endswith(".")


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_is_a_function_of_seed_and_index(name, photo):
    whole = rained(name, photo)
    part = render(photo.expand(2, -1, -1, -1), name, 3, [4, 1], Drops())
    for field in ("rainy", "clean", "streak", "mask", "transmission"):
        # Not to the bit: the widest blur of a batch decides how far all of its kernels are summed.
        # JPEG can make a level of what the last bit differs in.
        assert (getattr(part, field) - getattr(whole, field)[[4, 1]]).abs().mean() < 1e-3
    assert part.parameters == (whole.parameters[4], whole.parameters[1])
    if name != "dry":
        assert not torch.equal(rained(name, photo, seed=4).rainy, whole.rainy)


def test_near_layers_are_long_wide_blurred_and_of_few_streaks(photo):
    recipe = Recipe(
        angle=(0, 0),
        length=(10, 10),
        density=(9, 9),
        brightness=(0.2, 0.2),
        width=(1, 1),
        blur=(0.5, 0.5),
        scale=(3, 3),
    )
    (layer,) = render(photo, recipe, 0, [0]).parameters[0]["layers"]
    assert (layer["length"], layer["width"], layer["blur"], layer["density"]) == pytest.approx((30, 3, 1.5, 1))


def test_things_hide_the_layers_behind_them(photo):
    recipe = Recipe(angle=(0, 0), length=(10, 10), density=(40, 40), brightness=(0.3, 0.3), occlusion=True)
    hidden = render(photo, recipe, 0, [0]).streak
    shown = render(photo, dataclasses.replace(recipe, occlusion=False), 0, [0]).streak
    near_ground, horizon = (slice(-12, None), slice(0, 12))
    assert (hidden <= shown + 1e-6).all()
    assert hidden[..., near_ground, :].sum() < 0.2 * shown[..., near_ground, :].sum()
    assert hidden[..., horizon, :].sum() > 0.3 * shown[..., horizon, :].sum()


def test_the_veil_grows_with_depth(photo):
    sample = render(photo.expand(20, -1, -1, -1), "veil", 0, range(20))
    rows = sample.transmission.mean(dim=(0, 1, 3))
    assert rows[:10].mean() < rows[40:60].mean()
    assert sample.transmission.min() > 0


def test_the_clean_image_is_developed_as_the_rainy_one(photo):
    dark = Camera(exposure=(0.5, 0.5))
    recipe = dataclasses.replace(load_recipe("dry"), camera=dark)
    sample = render(photo, recipe, 0, [0])
    torch.testing.assert_close(sample.clean, 0.5 * photo)
    torch.testing.assert_close(sample.rainy, sample.clean)


def test_photographed_streaks_are_asked_for(photo):
    with pytest.raises(SstlError, match="lays photographed streaks; give a folder of them"):
        render(photo, "garg", 0, [0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"exposure": (0.0, 1.0)}, "must be positive"),
        ({"resize": (0.5, 1.5)}, r"'resize' in \(0, 1\]"),
        ({"quality": (50, 100)}, "at most 95"),
        ({"noise": (0.2, 0.1)}, "the smaller value comes first"),
    ],
)
def test_a_camera_out_of_bounds_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Camera(**change)


# In training


@pytest.mark.parametrize("name", ["real_mix", "night", "garg"])
def test_streams_are_the_same_with_and_without_workers(name, tmp_path):
    folder = tmp_path / "streaks"
    folder.mkdir()
    for i in range(2):
        Image.fromarray(Drops().load(i)).save(folder / f"{i}.png")
    streaks = SourceConfig(str(folder)) if name == "garg" else None
    part = PairedPart("bundled", split="dev", recipe=name, streaks=streaks)
    runs = []
    for workers in (0, 2):
        batches = endless(PairedStream([part], 48, 5, None, 10**8), GlobalBatches(3), workers)
        runs.append([next(batches) for _ in range(3)])
        del batches
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one.rainy, other.rainy)
        assert torch.equal(one.clean, other.clean)
        assert one.key == other.key


# Data sets


def test_a_data_set_is_written_with_all_layers(run_cli, tmp_path):
    out = tmp_path / "made"
    done: Outcome = run_cli("synthesize", "bundled", "-o", out, "--recipe", "veil", "--count", 3, "--split", "dev")
    assert done.code == 0, done.err
    assert "made 3 of 3 pairs" in done.out
    assert {path.name for path in out.iterdir()} == {
        *("rainy", "clean", "streak", "map", "transmission"),
        *("parameters.jsonl", "manifest.csv"),
    }
    lines = [json.loads(line) for line in (out / "parameters.jsonl").read_text().splitlines()]
    pairs = open_pairs(SourceConfig(str(out / "manifest.csv"), split="train"))
    assert [line["key"] for line in lines] == [pairs.key(i) for i in range(3)]
    images = open_images(SourceConfig("bundled", split="dev"), "clean")
    for i in range(3):
        clean = torch.tensor(images.load(i % 2)).permute(2, 0, 1)[None] / 255
        expected = (render(clean, "veil", 0, [i]).rainy[0].permute(1, 2, 0) * 255).round().byte().numpy()
        assert np.array_equal(pairs.load(i)[0], expected)
        assert np.array_equal(pairs.load(i)[1], images.load(i % 2))


def test_the_same_command_gives_the_same_files(run_cli, tmp_path):
    for name in ("one", "two"):
        assert run_cli("synthesize", "bundled", "-o", tmp_path / name, "--recipe", "camera", "--count", 1).code == 0
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*")]
    assert len(files) == 7
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)


def test_a_data_set_is_not_replaced_unasked(run_cli, tmp_path):
    arguments = ("synthesize", "bundled", "-o", tmp_path / "made", "--recipe", "dry", "--count", 1)
    assert run_cli(*arguments).code == 0
    again = run_cli(*arguments)
    assert again.code == ConfigError.exit_code
    assert "already holds a manifest.csv; give --overwrite" in again.err
    (tmp_path / "made" / "rainy" / "mine.png").write_bytes(b"")
    more = ("synthesize", "bundled", "-o", tmp_path / "made", "--recipe", "dry", "--count", 3, "--overwrite")
    assert run_cli(*more).code == 0
    (tmp_path / "made" / "manifest.csv").unlink()  # as after an interruption
    (tmp_path / "mine.png").write_bytes(b"")
    with (tmp_path / "made" / "parameters.jsonl").open("a") as file:
        file.write('{"key": "../../mine"}\n{"other": 1}\n[2]\n')
    assert "already holds a parameters.jsonl; give --overwrite" in run_cli(*arguments).err
    assert run_cli(*arguments, "--overwrite").code == 0
    for layer, count in (("rainy", 2), ("clean", 1), ("map", 1)):
        assert len([*(tmp_path / "made" / layer).iterdir()]) == count
    assert (tmp_path / "mine.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bundled", "--recipe", "garg"), "give a folder of them"),
        (("made/clean", "--recipe", "light"), "whose pairs are removed first"),
        (("bundled", "--recipe", "laid", "--streaks", "made", "--streaks-of", "pairs"), "whose pairs are removed"),
    ],
)
def test_a_data_set_is_not_removed_for_one_that_cannot_be_made(run_cli, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert run_cli("synthesize", "bundled", "-o", "made", "--recipe", "dry", "--count", 1).code == 0
    before = sorted((tmp_path / "made").rglob("*"))
    done = run_cli("synthesize", *arguments, "-o", "made", "--overwrite")
    assert done.code == 2
    assert message in done.err
    assert sorted((tmp_path / "made").rglob("*")) == before


def test_the_rain_of_pairs_on_other_backgrounds(run_cli, tmp_path):
    assert run_cli("synthesize", "bundled", "-o", tmp_path / "few", "--recipe", "heavy", "--count", 1).code == 0
    arguments = ("--recipe", "laid", "--streaks", tmp_path / "few", "--streaks-of", "pairs", "--count", 2)
    assert run_cli("synthesize", "bundled", "-o", tmp_path / "made", *arguments).code == 0
    pairs = open_pairs(SourceConfig(str(tmp_path / "made")))
    assert len(pairs) == 2
    for i in range(2):
        rainy, clean = pairs.load(i)
        assert (rainy >= clean).all()
        assert (rainy > clean).any()


def test_what_cannot_be_read_is_told_and_the_rest_is_made(run_cli, tmp_path):
    folder = tmp_path / "clean"
    folder.mkdir()
    Image.new("RGB", (40, 30), "grey").save(folder / "a.png")
    (folder / "b.png").write_bytes(b"not an image")
    done = run_cli("synthesize", folder, "-o", tmp_path / "made", "--recipe", "light")
    assert done.code == 1
    assert "made 1 of 2 pairs" in done.out
    assert "b.png" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "needs CLEAN"),
        (("bundled",), "needs -o OUT"),
        (("bundled", "-o", "x"), "needs --recipe NAME"),
        (("bundled", "-o", "x", "--recipe", "lihgt"), "Did you mean 'light'?"),
        (("bundled", "-o", "x", "--recipe", "light", "--count", "0"), "'0' is not a whole number from 1 up"),
        (("bundled", "-o", "x", "--recipe", "garg"), "give a folder of them"),
    ],
)
def test_what_is_missing_is_told(run_cli, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    done = run_cli("synthesize", *arguments)
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "x").exists()


def test_recipes_are_listed(run_cli):
    done = run_cli("synthesize", "--list")
    assert done.code == 0
    assert all(name in done.out for name in list_recipes())


def test_photographs_in_deep_folders_make_pairs(run_cli, tmp_path):
    deep = tmp_path.joinpath("photos", *(letter * 90 for letter in "abc"))
    deep.mkdir(parents=True)
    for name in ("x.png", "y.png"):
        Image.new("RGB", (40, 40), (90, 90, 90)).save(deep / name)
    assert run_cli("synthesize", tmp_path / "photos", "-o", tmp_path / "made", "--recipe", "light").code == 0
    assert len(list((tmp_path / "made" / "rainy").iterdir())) == 2
    assert len(open_pairs(SourceConfig(str(tmp_path / "made" / "manifest.csv")))) == 2
