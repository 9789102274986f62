"""Training batches: a pure function of seed and index, cut alike through all layers of a pair."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sstl.config import from_tree
from sstl.data import SourceConfig, StreaksOf
from sstl.data.stream import GlobalBatches, PairedPart, PairedStream, UnpairedStream, endless
from sstl.errors import ConfigError, InputError, SstlError
from sstl.rain import rain_map
from sstl.types import PairedBatch, UnpairedBatch

CROP = 16
HEIGHT, WIDTH = 40, 56


def coded(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """An image whose red tells the row, green the column and blue which image it is."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full_like(rows, number)], axis=-1).astype(np.uint8)


def put(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder: pairs (blue is 10 to 12 clean, 110 to 112 rainy), clean (20 to 23), streak and real (30 to 32)."""
    folder = tmp_path_factory.mktemp("data")
    rows = ["kind,key,split,rainy,clean,streak"]
    for i in range(3):
        put(folder / f"pairs/rainy-{i}.png", coded(110 + i))
        put(folder / f"pairs/clean-{i}.png", coded(10 + i))
        rows.append(f"pair,two-{i},train,pairs/rainy-{i}.png,pairs/clean-{i}.png,")
    for i in range(4):
        put(folder / f"clean/{i}.png", coded(20 + i))
        rows.append(f"clean,sky-{i},train,,clean/{i}.png,")
    for i in range(2):
        drops = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        drops[:, 5 * i :: 10] = 200
        put(folder / f"streaks/{i}.png", drops)
        rows.append(f"streak,drop-{i},train,,,streaks/{i}.png")
    for i in range(3):
        put(folder / f"real/{i}.png", coded(30 + i))
        rows.append(f"real,street-{i},train,real/{i}.png,,")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


PAIRS = PairedPart("manifest.csv", set="two")
LAID = PairedPart("manifest.csv", streaks=SourceConfig("manifest.csv"))
REAL = SourceConfig("manifest.csv")


@pytest.fixture(scope="module")
def rendered(root: Path) -> PairedPart:
    """Rain as thin as a pixel, which is drawn without a blur."""
    ranges = "angle: [-30, 30]\nlength: [5, 20]\nwidth: [1, 1]\ndensity: [5, 20]\nbrightness: [0.1, 0.4]\n"
    (root / "thin.yaml").write_text(
        ranges + "imaging: {region: 1.0, screen: 1.0, heavy: 1.0}\ntransmission: [0.5, 1]\n"
    )
    return PairedPart("manifest.csv", recipe=str(root / "thin.yaml"))


@pytest.fixture(params=["pairs", "rendered", "laid"])
def part(request: pytest.FixtureRequest, rendered: PairedPart) -> PairedPart:
    return {"pairs": PAIRS, "rendered": rendered, "laid": LAID}[request.param]


@pytest.fixture
def paired(root: Path) -> Callable[..., PairedStream]:
    def make(*parts: PairedPart, crop: int = CROP, seed: int = 0, folder: Path = root) -> PairedStream:
        return PairedStream(parts, crop, seed, folder, 10**7)

    return make


@pytest.fixture
def unpaired(root: Path) -> Callable[..., UnpairedStream]:
    def make(*sources: SourceConfig, crop: int = CROP, seed: int = 0, folder: Path = root) -> UnpairedStream:
        return UnpairedStream(sources, crop, seed, folder, 10**7)

    return make


def same(one: PairedBatch | UnpairedBatch, other: PairedBatch | UnpairedBatch) -> bool:
    names = [name for name in vars(one) if name != "key"]
    return one.key == other.key and all(torch.equal(getattr(one, n), getattr(other, n)) for n in names)


def pick(batch: PairedBatch | UnpairedBatch, i: int) -> PairedBatch | UnpairedBatch:
    layers = {name: layer[i : i + 1] for name, layer in vars(batch).items()}
    return type(batch)(**layers)


def levels(layer: torch.Tensor) -> np.ndarray:
    """(B, 3, H, W) in [0, 1] -> (B, H, W, 3) whole numbers."""
    return (layer * 255).round().to(torch.int64).permute(0, 2, 3, 1).numpy()


# --- a pure function -------------------------------------------------------------------------------------------------


def test_a_sample_depends_on_seed_and_index_only(paired, part):
    indices = [3, 0, 7, 12, 5, 1]
    whole = paired(part)[indices]
    assert same(whole, paired(part)[indices])  # opened anew
    stream = paired(part)
    for i, index in enumerate(indices):  # alone, and in an order in which the memory of images fills otherwise
        assert same(pick(whole, i), stream[[index]])
    assert not torch.equal(whole.rainy, paired(part, seed=1)[indices].rainy)


def test_a_sample_of_mixed_parts_depends_on_seed_and_index_only(paired, rendered):
    stream = paired(PAIRS, rendered, LAID)
    whole = stream[range(24)]
    for first in range(0, 24, 4):
        group = stream[range(first, first + 4)]
        for i in range(4):
            assert same(pick(group, i), pick(whole, first + i))


def test_unpaired_samples_depend_on_seed_and_index_only(unpaired):
    whole = unpaired(REAL)[range(8)]
    stream = unpaired(REAL)
    assert all(same(pick(whole, i), stream[[i]]) for i in reversed(range(8)))
    assert not torch.equal(whole.rainy, unpaired(REAL, seed=1)[range(8)].rainy)


@pytest.mark.parametrize("size", [4, 5])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_the_global_batches(size, world):
    one = list(islice(GlobalBatches(size), 4))
    shares = [list(islice(GlobalBatches(size, rank=rank, world=world), 4)) for rank in range(world)]
    for step, batch in enumerate(one):
        assert batch == list(range(step * size, (step + 1) * size))
        assert sorted(index for share in shares for index in share[step]) == batch
    resumed = [list(islice(GlobalBatches(size, start=2, rank=r, world=world), 2)) for r in range(world)]
    assert resumed == [share[2:] for share in shares]


@pytest.mark.parametrize("workers", [0, 1])
def test_endless_yields_the_samples_of_the_batches(paired, unpaired, rendered, workers):
    for stream in (paired(PAIRS, rendered), unpaired(REAL)):
        before = torch.get_rng_state()
        batches = endless(stream, GlobalBatches(3, start=2), workers)
        found = list(islice(batches, 3))
        assert torch.equal(torch.get_rng_state(), before)  # else a resumed run would not go on as it was
        for step, batch in enumerate(found, start=2):
            assert same(batch, stream[range(3 * step, 3 * step + 3)])


# --- crops -----------------------------------------------------------------------------------------------------------


def test_crop_and_flip_are_those_of_both_layers(paired):
    batch = paired(PAIRS)[range(60)]
    assert batch.rainy.shape == batch.clean.shape == (60, 3, CROP, CROP)
    rainy, clean = levels(batch.rainy), levels(batch.clean)
    np.testing.assert_array_equal(rainy[..., :2], clean[..., :2])  # the same rows and columns of both
    np.testing.assert_array_equal(rainy[..., 2], clean[..., 2] + 100)  # of a pair
    corners, flips = set(), set()
    for image, key in zip(clean, batch.key, strict=True):
        rows, columns, number = image[..., 0], image[..., 1], image[..., 2]
        assert (np.diff(rows, axis=0) == 1).all()
        assert (np.diff(rows, axis=1) == 0).all()
        step = columns[0, 1] - columns[0, 0]
        assert step in (-1, 1)
        assert (np.diff(columns, axis=1) == step).all()
        assert key == f"two-{number[0, 0] - 10}"
        corners.add((rows.min(), columns.min()))
        flips.add(step)
    assert flips == {-1, 1}
    assert len(corners) > 50


def test_crops_reach_every_border(paired):
    clean = levels(paired(PAIRS, crop=38)[range(200)].clean)
    assert {image[..., 0].min() for image in clean} == set(range(HEIGHT - 38 + 1))
    assert {image[..., 1].min() for image in clean} == set(range(WIDTH - 38 + 1))


def test_an_image_smaller_than_the_crop_is_continued_by_reflection(paired):
    crop = 100  # more than twice as high as the images
    batch = paired(PAIRS, crop=crop)[range(6)]
    rows = np.pad(np.arange(HEIGHT), (0, crop - HEIGHT), mode="symmetric")
    columns = np.pad(np.arange(WIDTH), (0, crop - WIDTH), mode="symmetric")
    for layer in (levels(batch.rainy), levels(batch.clean)):
        for image in layer:
            np.testing.assert_array_equal(image[..., 0], np.tile(rows[:, None], (1, crop)))
            flipped = columns[::-1] if image[0, 0, 1] != 0 else columns
            np.testing.assert_array_equal(image[..., 1], np.tile(flipped, (crop, 1)))


# --- the kinds of parts ----------------------------------------------------------------------------------------------


def test_layers_follow_the_convention(paired, part):
    batch = paired(part)[range(20)]
    for layer in (batch.rainy, batch.clean, batch.streak, batch.mask):
        assert layer.dtype == torch.float32
        assert 0 <= layer.min() <= layer.max() <= 1
    rainy, clean, streak = levels(batch.rainy), levels(batch.clean), levels(batch.streak)
    np.testing.assert_allclose(rainy / 255, batch.rainy.permute(0, 2, 3, 1), atol=1e-6)  # as of an 8-bit file
    np.testing.assert_array_equal(streak, (rainy - clean).clip(min=0))
    assert batch.mask.shape == (20, 1, CROP, CROP)
    np.testing.assert_array_equal(batch.mask[:, 0].bool(), (rainy - clean).max(axis=-1) > 5)
    assert torch.equal(batch.mask, rain_map(batch.streak))
    assert batch.mask.any()
    assert len(batch.key) == 20


def test_where_the_clean_images_come_from(paired, rendered):
    on_clean = paired(rendered)[range(40)]
    assert set(on_clean.key) == {f"sky-{i}" for i in range(4)}
    on_pairs = paired(PairedPart("manifest.csv", recipe="light", rain_on="pairs"))[range(40)]
    assert set(on_pairs.key) == {f"two-{i}" for i in range(3)}
    assert set(levels(on_pairs.clean)[..., 2].ravel()) == {10, 11, 12}  # never the rainy side
    assert set(levels(paired(LAID)[range(40)].clean)[..., 2].ravel()) == {20, 21, 22, 23}


def test_laid_streaks_are_those_of_the_photographs(paired):
    batch = paired(LAID)[range(40)]
    streak = batch.streak[:, 0]
    columns = streak.amax(dim=1)  # the streak images are straight vertical lines, ten pixels apart
    dark = columns.eq(0).float().mean()
    assert 0.7 < dark < 0.95
    assert (streak[:, 0] > 0.1).any()
    gains = streak.amax(dim=(1, 2)).unique()
    assert len(gains) > 10


class OnePair:
    """One pair as a source."""

    def __init__(self, rainy: np.ndarray, clean: np.ndarray) -> None:
        self.pair = rainy.astype(np.uint8), clean.astype(np.uint8)

    def __len__(self) -> int:
        return 1

    def key(self, i: int) -> str:
        return f"one-{i}"

    def load(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        return (self.pair,)[i]


def test_the_streaks_of_a_pair_are_told_by_any_channel_that_is_not_saturated():
    rng = np.random.default_rng(0)
    streak = rng.integers(0, 120, (20, 30, 1)) * (rng.random((20, 30, 1)) < 0.5)
    clean = rng.integers(0, 256, (20, 30, 3))
    clean[..., 1] = rng.integers(0, 100, (20, 30))  # green never saturates, the others often do
    source = StreaksOf(OnePair((clean + streak).clip(max=255), clean))
    assert len(source) == 1
    assert source.key(0) == "one-0"
    np.testing.assert_array_equal(source.load(0), np.repeat(streak, 3, axis=2))


def test_where_all_is_saturated_streaks_are_at_least_of_the_usual_brightness():
    clean = np.full((10, 20, 3), 240)
    clean[:, :10] = 50
    streak = np.zeros((10, 20, 1), dtype=int)
    streak[:, ::2] = 100
    found = StreaksOf(OnePair((clean + streak).clip(max=255), clean)).load(0)
    np.testing.assert_array_equal(found, np.repeat(streak, 3, axis=2))  # and not 15 over the bright half
    darker = StreaksOf(OnePair(clean - 1, clean)).load(0)
    assert not darker.any()


def test_the_rain_of_pairs_is_laid_over_other_images(paired, root):
    clean, streak = coded(50), np.zeros((HEIGHT, WIDTH, 1), dtype=np.uint8)
    streak[3:30, ::7] = 90
    put(root / "one/clean/a.png", clean)
    put(root / "one/rainy/a.png", clean + streak)
    batch = paired(PairedPart("manifest.csv", streaks=SourceConfig("one"), streaks_of="pairs"))[range(40)]
    rainy, below = levels(batch.rainy), levels(batch.clean)
    assert set(below[..., 2].ravel()) == {20, 21, 22, 23}
    assert set((rainy - below).ravel()) == {0, 90}
    columns = np.flatnonzero((rainy - below)[0, ..., 0].any(axis=0))
    assert set(np.diff(columns)) == {7}


def test_weights_are_frequencies(paired):
    parts = (PairedPart("manifest.csv", set="two", weight=3), PairedPart("manifest.csv", recipe="dry", weight=1))
    unused = PairedPart("manifest.csv", recipe="dry", rain_on="pairs", weight=0)
    keys = Counter(key.split("-")[0] for key in paired(*parts, crop=4)[range(800)].key)
    assert keys["two"] / 800 == pytest.approx(0.75, abs=0.05)
    assert keys["two"] + keys["sky"] == 800
    never = paired(PairedPart("manifest.csv", recipe="dry"), unused, crop=4)[range(100)]
    assert not any(key.startswith("two") for key in never.key)


def test_unpaired_images_of_all_sources_are_equally_likely(unpaired):
    photos = SourceConfig("clean")  # four images, beside the three real ones of the manifest
    batch = unpaired(REAL, photos, crop=4)[range(700)]
    assert batch.rainy.shape == (700, 3, 4, 4)
    counts = Counter(levels(batch.rainy)[:, 0, 0, 2].tolist())
    assert set(counts) == {20, 21, 22, 23, 30, 31, 32}
    assert all(count / 700 == pytest.approx(1 / 7, abs=0.045) for count in counts.values())


def test_the_two_branches_draw_apart(paired, unpaired):
    clean = paired(PairedPart("real", recipe="dry"))[range(20)]
    real = unpaired(SourceConfig("real"))[range(20)]
    assert not torch.equal(clean.rainy, real.rainy)


# --- images that cannot be read --------------------------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    for i in range(3):
        put(tmp_path / f"some/{i}.png", coded(i))
    (tmp_path / "some/bad.png").write_bytes((tmp_path / "some/0.png").read_bytes()[:60])
    for i in range(2):
        (tmp_path / "none").mkdir(exist_ok=True)
        (tmp_path / f"none/{i}.png").write_text("not an image")
    return tmp_path


def test_an_unreadable_image_is_left_out_with_a_warning(unpaired, paired, damaged):
    with pytest.warns(UserWarning, match=r"left out: .*bad\.png") as caught:
        batch = unpaired(SourceConfig("some"), folder=damaged)[range(60)]
    assert set(batch.key) == {"0", "1", "2"}
    assert 5 < len(caught) < 40  # about every fourth draw
    with pytest.warns(UserWarning, match=r"left out: .*bad\.png"):
        batch = paired(PairedPart("some", recipe="dry"), folder=damaged)[range(60)]
    assert set(batch.key) == {"0", "1", "2"}


def test_leaving_out_does_not_change_the_other_samples(unpaired, damaged):
    stream = unpaired(SourceConfig("some"), folder=damaged)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        whole = stream[range(20)]
        assert all(same(pick(whole, i), stream[[i]]) for i in range(20))


def test_nothing_readable_is_an_error(unpaired, damaged):
    stream = unpaired(SourceConfig("none"), folder=damaged)
    with pytest.warns(UserWarning, match="left out"), pytest.raises(InputError, match="20 images in a row"):
        stream[[0]]


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "named"),
    [
        ({"path": "x", "weight": -0.5}, "'weight' is -0.5"),
        ({"path": "x", "recipe": "light", "streaks": {"path": "y"}}, "the recipe 'light' lays no photographed streaks"),
        ({"path": "x", "rain_on": "photos"}, "rain_on"),
        ({"path": "x", "streaks_of": "pairs"}, "'streaks_of: pairs' needs 'streaks'"),
        ({"recipe": "light"}, "'path' is missing"),
        ({"path": "x", "receipe": "light"}, "Did you mean 'recipe'"),
        ({"path": "x", "weight": "1e-1"}, "weight"),
    ],
)
def test_a_bad_part_is_named(tree, named):
    with pytest.raises(ConfigError, match=named):
        from_tree(PairedPart, tree, where="run.yaml")


def test_a_missing_recipe_or_folder_is_named_when_opened(paired):
    with pytest.raises(SstlError, match="Did you mean 'light'"):
        paired(PairedPart("manifest.csv", recipe="ligth"))
    with pytest.raises(ConfigError, match="gone"):
        paired(PairedPart("gone"))
    with pytest.raises(ConfigError, match="weights of all labelled parts are 0"):
        paired(PairedPart("bundled", recipe="light", weight=0.0))
