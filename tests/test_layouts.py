"""Layouts: every way in which published sets lie in folders, told by names and pixels; and broken ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from sstl.data import SourceConfig, open_pairs
from sstl.data.halves import rainy_side
from sstl.data.layouts import LAYOUTS, Part, find_parts
from sstl.errors import ConfigError, InputError


def put(path: Path, image: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 6, 3), np.uint8) if image is None else image).save(path)
    return path


def lay(root: Path, *names: str) -> None:
    for name in names:
        put(root / name)


def named(root: Path, part: Part) -> dict[str, str]:
    """Return rainy -> clean, as paths below the root."""
    return {p.rainy.relative_to(root).as_posix(): p.clean.relative_to(root).as_posix() for p in part.pairs}


# What lies in a set -> its layout and its pairs, rainy -> clean.
SETS = {
    "Rain100L": (
        "folders",
        {"rain/rain-001.png": "norain/norain-001.png", "rain/rain-002.png": "norain/norain-002.png"},
    ),
    "Rain100H, authors'": ("folders", {"rain/norain-1.png": "norain/norain-1.png"}),
    "Rain200H": ("folders", {"rain/X2/norain-1x2.png": "norain/norain-1.png", "rain/X2/2x2.png": "norain/2.png"}),
    "plain": ("folders", {"input/1.png": "target/1.png"}),
    "Rain1400": ("folders", {f"rainy_image/12_{i}.jpg": "ground_truth/12.jpg" for i in (1, 2, 14)}),
    "raindrops": ("folders", {"data/0_rain.png": "gt/0_clean.png"}),
    "LHP-Rain, simple": ("folders", {"input/a/1.png": "target/a/1.png", "input/b/1.png": "target/b/1.png"}),
    "numbers": ("names", {"input1.png": "norain1.png", "input12.png": "norain12.png"}),
    "RainTrainH": ("names", {"rain-1.png": "norain-1.png", "rain-11.png": "norain-11.png"}),
    "Rain12": ("names", {"001_in.png": "001_GT.png", "012_in.png": "012_GT.png"}),
    "GT-RAIN": (
        "scenes",
        {
            "S_0-0/S_0-0-Webcam-R-000.png": "S_0-0/S_0-0-Webcam-C-000.png",
            "S_0-0/S_0-0-Webcam-R-017.png": "S_0-0/S_0-0-Webcam-C-000.png",
            "G_1-2/G_1-2-Webcam-R-000.png": "G_1-2/G_1-2-Webcam-C-000.png",
            "G_1-2/G_1-2-Webcam-R-001.png": "G_1-2/G_1-2-Webcam-C-001.png",
        },
    ),
}


@pytest.mark.parametrize(("layout", "expected"), SETS.values(), ids=SETS)
def test_published_sets(tmp_path, layout, expected):
    lay(tmp_path, *expected, *expected.values())
    (part,) = find_parts(tmp_path)
    assert (part.name, part.layout, part.problem) == (".", layout, "")
    assert named(tmp_path, part) == expected
    assert (part.unpaired, part.images) == ((), ())
    assert len(open_pairs(SourceConfig(str(tmp_path)))) == len(expected)


def test_rainds_has_three_kinds_of_rain_beside_one_clean_folder(tmp_path):
    kinds = ("raindrop", "rainstreak", "rainstreak_raindrop")
    lay(tmp_path, *(f"train_set/{folder}/1.png" for folder in (*kinds, "gt")))
    parts = find_parts(tmp_path)
    assert [part.name for part in parts] == [f"train_set/{kind}" for kind in kinds]
    assert named(tmp_path, parts[1]) == {"train_set/rainstreak/1.png": "train_set/gt/1.png"}
    with pytest.raises(ConfigError, match="set 'rainy' to one of its sub-folders"):
        open_pairs(SourceConfig(str(tmp_path), split="train_set"))
    assert len(open_pairs(SourceConfig(str(tmp_path), split="train_set", rainy="rainstreak"))) == 1


@pytest.mark.parametrize(
    "names",
    [
        ["train/Rain13K", "test/Rain100L", "test/Test100"],
        ["RealRain-1k-H/train", "RealRain-1k-H/validation", "RealRain-1k-L/test"],
        ["rain_data_train_Light", "rain_data_test_Light"],
    ],
)
def test_trees_of_splits(tmp_path, names):
    lay(tmp_path, *(f"{name}/{layer}/1.png" for name in names for layer in ("input", "target")))
    assert [(part.name, len(part.pairs)) for part in find_parts(tmp_path)] == [(name, 1) for name in sorted(names)]
    with pytest.raises(ConfigError, match=f"holds several sets of pairs; set 'split' .*{sorted(names)[0]}, "):
        open_pairs(SourceConfig(str(tmp_path)))
    assert len(open_pairs(SourceConfig(str(tmp_path), split=names[0]))) == 1


def test_spa_data_lists_its_pairs(tmp_path):
    lay(tmp_path, "real_test_1000/rain/000.png", "real_test_1000/gt/000gt.png", "Real_Internet/1.png")
    lines = ["/real_test_1000/rain/000.png /real_test_1000/gt/000gt.png", "./rain/lost.png ./gt/lost.png"]
    (tmp_path / "real_test_1000.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "readme.txt").write_text("two words\n")
    listed, folders, internet = sorted(find_parts(tmp_path), key=lambda part: (part.layout != "list", part.layout))
    assert (listed.name, listed.layout) == ("real_test_1000", "list")
    assert named(tmp_path, listed) == {"real_test_1000/rain/000.png": "real_test_1000/gt/000gt.png"}
    assert [path.name for path in listed.unpaired] == ["lost.png", "lost.png"]
    assert (folders.layout, internet.layout) == ("folders", "images")


def test_a_list_does_not_lead_out_of_its_folder(tmp_path):
    lay(tmp_path, "a.png", "set/b.png")
    (tmp_path / "set" / "pairs.txt").write_text("../a.png b.png\n")
    assert [part.layout for part in find_parts(tmp_path / "set")] == ["images"]


def test_streaks_and_photos_beside_pairs_are_parts_of_their_own(tmp_path):
    lay(tmp_path, "rain/1.png", "norain/1.png", "streak/1.png", "photos/a.png", "b.png")
    found = {part.name: (part.layout, part.layer, len(part.images)) for part in find_parts(tmp_path)}
    assert found["."][0] in ("folders", "images")
    assert found["streak"] == ("images", "streak", 1)
    assert found["photos"] == ("images", None, 1)


# --- side by side --------------------------------------------------------------------------------------------------

PHOTOS = [data.astronaut(), data.chelsea(), data.coffee()]


def pair_of(i: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a clean crop (240, 160, 3), portrait, and the same with bright streaks."""
    rng = np.random.default_rng(i)
    clean = PHOTOS[i % len(PHOTOS)][20:260, 40 + 20 * i : 200 + 20 * i]
    streaks = np.zeros(clean.shape[:2])
    for x in rng.integers(0, clean.shape[1], 40):
        top = rng.integers(0, 200)
        streaks[top : top + 30, x] = 90
    return clean, np.clip(clean + streaks[..., None], 0, 255).astype(np.uint8)


@pytest.mark.parametrize("side", ["left", "right"])
def test_side_by_side_is_told_by_pixels(tmp_path, side):
    for i in range(5):
        clean, rainy = pair_of(i)
        put(tmp_path / f"{i}.png", np.concatenate([rainy, clean] if side == "left" else [clean, rainy], axis=1))
    (part,) = find_parts(tmp_path)
    assert (part.layout, len(part.pairs), part.pairs[0].rainy_side) == (side, 5, side)
    with pytest.warns(UserWarning, match=rf"seems to hold .* side by side .*set rainy: {side}, clean: "):
        pairs = open_pairs(SourceConfig(str(tmp_path)))
    np.testing.assert_array_equal(pairs.load(1)[0], pair_of(1)[1])
    np.testing.assert_array_equal(pairs.load(1)[1], pair_of(1)[0])


def test_photographs_are_not_side_by_side(tmp_path):
    for i, photo in enumerate(PHOTOS):
        put(tmp_path / f"{i}.png", photo[: photo.shape[0] // 2])
    (part,) = find_parts(tmp_path)
    assert (part.layout, len(part.images), part.layer) == ("images", 3, None)
    with pytest.raises(ConfigError, match="set 'rainy' to one of its sub-folders"):
        open_pairs(SourceConfig(str(tmp_path)))


def test_some_that_are_not_side_by_side_are_too_many(tmp_path):
    files = []
    for i in range(4):
        clean, rainy = pair_of(i)
        files.append(put(tmp_path / f"{i}.png", np.concatenate([clean, rainy if i else rainy[::-1]], axis=1)))
    assert rainy_side(files) is None
    assert rainy_side(files[1:]) == "right"
    assert rainy_side([]) is None
    for path in files:
        path.write_text("not an image")
    assert rainy_side(files) is None


# --- broken --------------------------------------------------------------------------------------------------------


def test_broken_sets(tmp_path):
    lay(
        tmp_path,
        "train/rain/1.png",
        "train/norain/1.png",
        "train/rain/2.png",
        "train/norain/x.png",
        "train/norain/a.png",
    )
    lay(tmp_path, "test/rain/1.png", "test/rain/1.jpg", "test/norain/1.png")
    (tmp_path / "train" / "rain" / "notes.txt").write_text("no image")
    test, train = find_parts(tmp_path)
    assert sorted(path.name for path in train.unpaired) == ["2.png", "a.png", "x.png"]
    assert len(train.pairs) == 1
    assert "have the same name" in test.problem
    assert (test.pairs, test.images) == ((), ())


def test_names_that_fit_twice_and_frames_without_their_scene(tmp_path):
    lay(tmp_path / "a", "rain-1.png", "norain-1.png", "norain-01.png", "gt-1.png")
    lay(tmp_path / "b", "S-R-000.png", "T-R-000.png", "S-C-000.png", "map.png")
    (twice,) = find_parts(tmp_path / "a")
    assert "fits several clean images" in twice.problem
    (scenes,) = find_parts(tmp_path / "b")
    assert [path.name for path in scenes.unpaired] == ["T-R-000.png", "map.png"]


def test_nothing_and_nowhere(tmp_path):
    assert find_parts(tmp_path) == []
    with pytest.raises(InputError, match="nowhere"):
        find_parts(tmp_path / "nowhere")


def test_every_layout_is_tested():
    told = {layout for layout, _ in SETS.values()} | {"list", "left", "right", "images"}
    assert told == LAYOUTS.keys()
