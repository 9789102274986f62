"""Leaks: images that were mirrored, turned, cropped, resized or compressed again are found, and no others."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from sstl.data import SourceConfig
from sstl.data.leaks import Check, backgrounds, find_leaks
from sstl.data.sketches import ORIENTATIONS, Sketch, orient, orient_place
from sstl.errors import ConfigError

Pixels = np.ndarray


class Images:
    """Images in memory."""

    def __init__(self, images: dict[str, Pixels]) -> None:
        self.names, self.images = list(images), list(images.values())

    def __len__(self) -> int:
        return len(self.names)

    def key(self, i: int) -> str:
        return self.names[i]

    def load(self, i: int) -> Pixels:
        return self.images[i]


def scene(seed: int) -> Pixels:
    """A made image of some 160 x 200: patches and discs of all sizes over a sky and a ground, both ways up."""
    rng = np.random.default_rng(seed)
    height, width = rng.permutation([160, 160 + int(rng.integers(0, 60))])
    rows, columns = np.mgrid[:height, :width]
    image = np.repeat((rows / height * 120 + 60)[..., None], 3, axis=2) + rng.uniform(-20, 20, 3)
    for size in np.geomspace(60, 4, 60):
        y, x = rng.uniform(0, height), rng.uniform(0, width)
        round_ = rng.random() < 0.5
        dy, dx = np.abs(rows - y), np.abs(columns - x) * rng.uniform(0.5, 2)
        inside = np.hypot(dy, dx) < size / 2 if round_ else np.maximum(dy, dx) < size / 2
        image[inside] += rng.uniform(-90, 90, 3)
    return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def jpeg(image: Pixels) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=50)
    return np.asarray(Image.open(buffer))


def crop(image: Pixels) -> Pixels:
    """A corner or another part, of 80 % of the sides."""
    rng = np.random.default_rng(image.sum() % 2**32)
    height, width = (round(0.8 * side) for side in image.shape[:2])
    y, x = (int(rng.integers(0, side - part + 1)) for side, part in zip(image.shape, (height, width), strict=False))
    return image[y : y + height, x : x + width]


def resized(factor: float) -> Callable[[Pixels], Pixels]:
    def resize(image: Pixels) -> Pixels:
        size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))

    return resize


CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "identical": lambda image: image,
    "mirrored": lambda image: image[:, ::-1],
    "upside down": lambda image: image[::-1],
    "turned by 90": lambda image: np.rot90(image, 1),
    "turned by 180": lambda image: np.rot90(image, 2),
    "turned by 270": lambda image: np.rot90(image, 3),
    "cropped": crop,
    "JPEG 50": jpeg,
    "half": resized(0.5),
    "double": resized(2),
    "all at once": lambda image: jpeg(resized(0.7)(np.rot90(crop(image)[:, ::-1]))),
}


@pytest.fixture(scope="module")
def found() -> tuple[dict[str, Pixels], Check]:
    """120 training images, each of which was changed in one of the ways, with 40 others among the test images."""
    train = {str(i): scene(i) for i in range(120)}
    changes = list(CHANGES.values())
    test = {name: np.ascontiguousarray(changes[int(name) % len(changes)](image)) for name, image in train.items()}
    return train, find_leaks(Images(train), Images(test | {f"other {i}": scene(1000 + i) for i in range(40)}))


def test_every_made_leak_is_found_and_nothing_else(found):
    train, check = found
    assert (check.train_images, check.test_images, check.unreadable) == (120, 160, ())
    assert sorted((leak.train, leak.test) for leak in check.leaks) == sorted((name, name) for name in train)


def test_it_says_what_was_done(found):
    names, leaks = list(CHANGES), {int(leak.train): leak for leak in found[1].leaks}
    for i, image in enumerate(found[0].values()):
        leak, change, (height, width) = leaks[i], names[i % len(names)], image.shape[:2]
        mirrored = change in ("mirrored", "upside down", "all at once")
        assert leak.mirrored == mirrored
        if change not in ("cropped", "all at once"):
            assert leak.train_box == pytest.approx((0, 0, width, height), abs=4)
        expected = {
            "identical": "identical",
            "mirrored": "mirrored",
            "upside down": "mirrored, turned by 180 degrees",
            "turned by 90": "turned by 90 degrees",
            "turned by 180": "turned by 180 degrees",
            "turned by 270": "turned by 270 degrees",
            "cropped": "only ",
            "JPEG 50": "the same but for its pixel values",
            "half": "resized by ",
            "double": "resized by ",
            "all at once": "mirrored, turned by 90 degrees, only ",
        }[change]
        assert leak.how.startswith(expected), change
        factor = {"half": 0.5, "double": 2, "all at once": 0.7}.get(change, 1)
        assert leak.scale == pytest.approx(factor, rel=0.03)
    left, top, right, bottom = leaks[6].train_box
    cropped = crop(found[0]["6"])
    assert (bottom - top, right - left) == pytest.approx(cropped.shape[:2], abs=4)
    part = found[0]["6"][top:bottom, left:right][:80, :80].astype(float)
    assert np.abs(part - cropped[:80, :80]).mean() < 20  # it is that part, to a pixel or two


def test_the_larger_image_may_be_the_one_that_is_tested():
    image = data.chelsea()
    check = find_leaks(Images({"crop": crop(image)}), Images({"whole": image}))
    assert [leak.how.startswith("only ") and leak.how.endswith("of test") for leak in check.leaks] == [True]


@pytest.mark.parametrize(("mirrored", "turns"), ORIENTATIONS)
def test_places_move_with_the_pixels(mirrored, turns):
    image = np.zeros((6, 9))
    image[1, 7] = 1
    turned = orient(image, mirrored, turns)
    y, x = orient_place((1.5, 7.5), (6, 9), mirrored, turns)
    assert turned[int(y), int(x)] == 1
    assert turned.sum() == 1


@pytest.mark.parametrize("shape", [(1, 1), (3, 400), (900, 30), (20, 20)])
def test_odd_shapes_are_no_error(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert Sketch(image).descriptors.shape[0] == len(ORIENTATIONS)
    assert find_leaks(Images({"a": image}), Images({"b": scene(1), "c": np.full((40, 40, 3), 7, np.uint8)})).leaks == ()


def horizon(seed: int) -> Pixels:
    """A bright sky over a dark ground, both with faint structure, 180 x 240."""
    rng = np.random.default_rng(seed)
    edge = int(rng.integers(70, 110))
    image = np.where(np.arange(180)[:, None] < edge, 200.0, 60.0) + resized(6)(
        rng.integers(0, 32, (30, 40), dtype=np.uint8)
    )
    return np.repeat(image[..., None], 3, axis=2).clip(0, 255).astype(np.uint8)


def test_one_edge_across_the_image_is_no_likeness_and_no_hindrance():
    train = {str(seed): horizon(seed) for seed in range(5)}
    check = find_leaks(Images(train), Images({name: crop(image) for name, image in train.items()}))
    assert [(leak.train, leak.test) for leak in check.leaks] == [(name, name) for name in train]


def test_a_set_is_compared_with_itself_but_no_image_with_itself():
    image = scene(1)
    images = Images(
        {"a": image, "same": image.copy(), "mirrored": np.ascontiguousarray(image[:, ::-1]), "other": scene(2)}
    )
    found = {(leak.train, leak.test) for leak in find_leaks(images, images).leaks}
    three = ("a", "same", "mirrored")
    assert found == {(one, other) for one in three for other in three if one != other}


def test_identical_images_need_no_structure():
    flat = np.full((50, 60, 3), 90, np.uint8)
    (leak,) = find_leaks(Images({"a": flat, "b": scene(1)}), Images({"c": flat})).leaks
    assert (leak.train, leak.test, leak.how, leak.train_box) == ("a", "c", "identical", (0, 0, 60, 50))


# --- what is compared, and the command -----------------------------------------------------------------------------


def put(path: Path, image: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def keys(config: SourceConfig) -> list[str]:
    source = backgrounds(config)
    return [source.key(i) for i in range(len(source))]


def test_backgrounds_are_the_clean_images(tmp_path):
    for name in ("a/rainy_image/1_1", "a/rainy_image/1_2", "a/ground_truth/1", "b/rain/2", "c/clean/3", "c/clean/4"):
        put(tmp_path / f"{name}.png", scene(1))
    assert keys(SourceConfig(str(tmp_path))) == ["a/ground_truth/1.png", "c/clean/3.png", "c/clean/4.png"]
    assert keys(SourceConfig(str(tmp_path), split="a")) == ["ground_truth/1.png"]
    assert keys(SourceConfig(str(tmp_path), split="b")) == ["rain/2.png"]
    assert keys(SourceConfig("bundled", split="dev")) == ["chelsea", "rocket"]


def test_backgrounds_of_a_manifest(tmp_path):
    for i in range(4):
        put(tmp_path / f"{i}.png", scene(i))
    rows = ["kind,key,split,rainy,clean", "pair,a-1,train,0.png,1.png", "clean,b-1,train,,2.png", "real,c-1,dev,3.png,"]
    (tmp_path / "m.csv").write_text("\n".join(rows) + "\n")
    path = str(tmp_path / "m.csv")
    assert keys(SourceConfig(path, "train")) == ["a-1", "b-1"]
    assert keys(SourceConfig(path, "train", "b")) == ["b-1"]
    assert keys(SourceConfig(path, "dev")) == ["c-1"]


def test_what_was_not_compared_is_not_passed_over(tmp_path):
    for name in ("clean/1", "rainy/1", "clean/2"):
        put(tmp_path / "odd" / f"{name}.png", scene(1))
    assert keys(SourceConfig(str(tmp_path / "odd"))) == ["clean/1.png", "clean/2.png"]  # what is trained on alone, too
    put(tmp_path / "odd" / "clean/1.jpg", scene(2))
    with pytest.raises(ConfigError, match=r"clean"):
        backgrounds(SourceConfig(str(tmp_path / "odd")))


def test_backgrounds_of_a_table_count_once(tmp_path):
    import datasets

    images = [Image.fromarray(scene(i)) for i in range(3)]
    datasets.Dataset.from_dict({"rainy": images, "clean": images}).to_parquet(tmp_path / "t.parquet")
    assert len(keys(SourceConfig(str(tmp_path / "t.parquet")))) == 3


def test_check(tmp_path, run_cli):
    for i in range(3):
        put(tmp_path / f"train/{i}.png", scene(i))
        put(tmp_path / f"test/{i + 2}.png", np.ascontiguousarray(scene(i + 2)[:, ::-1]))
    arguments = ("data", "check", tmp_path / "train", "--against", tmp_path / "test")
    outcome = run_cli(*arguments, "--json", tmp_path / "leaks.json")
    assert outcome.code == 1
    assert "compared 3 backgrounds with 3 of" in outcome.out
    assert "2.png  2.png" in outcome.out
    (leak,) = json.loads((tmp_path / "leaks.json").read_text())["leaks"]
    assert (leak["train"], leak["test"], leak["how"], leak["mirrored"]) == ("2.png", "2.png", "mirrored", True)
    (tmp_path / "test/2.png").unlink()
    assert run_cli(*arguments).code == 0
    (tmp_path / "test/3.png").write_text("not an image")
    outcome = run_cli(*arguments)
    assert (outcome.code, outcome.err.count("3.png: not an image")) == (1, 1)


def test_check_within_one_manifest(tmp_path, run_cli):
    for i, image in enumerate((scene(1), jpeg(scene(1)), scene(2))):
        put(tmp_path / f"{i}.png", image)
    rows = ["kind,key,split,clean", "clean,a-0,train,0.png", "clean,a-1,dev,1.png", "clean,b-2,dev,2.png"]
    path = tmp_path / "m.csv"
    path.write_text("\n".join(rows) + "\n")
    arguments = ("data", "check", path, "--split", "train", "--against", path, "--against-split", "dev")
    outcome = run_cli(*arguments)
    assert (outcome.code, "a-0    a-1" in outcome.out) == (1, True)
    assert run_cli(*arguments, "--against-set", "b").code == 0
