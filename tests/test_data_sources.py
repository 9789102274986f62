"""Sources: pairing by name, the manifest, tables, side-by-side files, start-up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sstl.config import from_tree
from sstl.data import (
    KINDS,
    SourceConfig,
    cached,
    groups_across_splits,
    open_images,
    open_pairs,
    pair_folders,
    read_manifest,
)
from sstl.errors import ConfigError, InputError, SstlError


def picture(seed: int = 0, height: int = 4, width: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def put(path: Path, image: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture() if image is None else image).save(path)
    return path


def one_line(error: pytest.ExceptionInfo[SstlError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


# --- pairing -------------------------------------------------------------------------------------------------------

# Rainy names with the clean names that they belong to.
CONVENTIONS = {
    "same name": {"1.png": "1.png", "10.png": "10.png", "2.png": "2.png"},
    "rain and norain": {"rain-001.png": "norain-001.png", "rain-002.png": "norain-002.png"},
    "norain on both sides": {"norain-1.png": "norain-1.png", "norain-11.png": "norain-11.png"},
    "words without a dash": {"input1.png": "norain1.png", "input12.png": "norain12.png"},
    "words at the end": {"7_rain.png": "7_clean.png", "8_rain.png": "8_clean.png"},
    "renderings": {"12_1.jpg": "12.jpg", "12_3.jpg": "12.jpg", "1_3.jpg": "1.jpg"},
    "rainx2": {"1x2.png": "1.png", "12x2.png": "12.png"},
    "rainx2 with words": {"norain-001x2.png": "norain-001.png"},
    "leading zeros": {"rain-001.png": "norain-1.png", "rain-010.png": "norain-10.png"},
    "renderings with zeros": {"007_2.jpg": "7.png"},
    "other suffix": {"a b.JPG": "a b.png"},
    "zeros that matter": {"1.png": "1.png", "01.png": "01.png"},
    "an underscore of the name": {"img_1.png": "img_1.png", "img_2.png": "img_2.png"},
    "words inside names": {"rainbow.png": "rainbow.png", "train1.png": "train1.png"},
    "folders inside": {"a/1.png": "a/1.png", "b/1.png": "b/1.png"},
    "dots in names": {"1.5.png": "1.5.png", "1.6.png": "1.6.png"},
}


@pytest.mark.parametrize("expected", CONVENTIONS.values(), ids=CONVENTIONS)
def test_pairs_by_name(tmp_path: Path, expected: dict[str, str]):
    for name in expected:
        put(tmp_path / "r" / name)
    for name in set(expected.values()):
        put(tmp_path / "c" / name)
    pairs, unpaired = pair_folders(tmp_path / "r", tmp_path / "c")
    found = {str(p.rainy.relative_to(tmp_path / "r")): str(p.clean.relative_to(tmp_path / "c")) for p in pairs}
    assert found == expected
    assert unpaired == []
    assert len({p.key for p in pairs}) == len(pairs)


def test_order_would_pair_wrongly_and_the_unpaired_are_listed(tmp_path: Path):
    rainy = [put(tmp_path / "r" / f"rain-{i}.png") for i in (1, 2, 10)]
    clean = [put(tmp_path / "c" / f"norain-{i}.png") for i in (2, 3, 10)]
    (tmp_path / "c" / "notes.txt").write_text("not an image")
    pairs, unpaired = pair_folders(tmp_path / "r", tmp_path / "c")
    assert {(p.rainy, p.clean) for p in pairs} == {(rainy[1], clean[0]), (rainy[2], clean[2])}
    assert unpaired == [rainy[0], clean[1]]


NAMINGS = st.sampled_from(["{}", "{:03}", "rain-{:02}", "norain-{}", "input{}", "{:04}_gt", "{}x2", "target_{:03}"])


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.integers(0, 400), max_size=8), st.sets(st.integers(0, 400), max_size=8), NAMINGS, NAMINGS)
def test_numbers_pair_in_whatever_way_they_are_named(
    tmp_path_factory: pytest.TempPathFactory, rainy: set[int], clean: set[int], name: str, other: str
):
    folder = tmp_path_factory.mktemp("pairs")
    for layer, numbers, naming in (("r", rainy, name), ("c", clean, other)):
        (folder / layer).mkdir()
        for number in numbers:
            (folder / layer / f"{naming.format(number)}.png").touch()
    pairs, unpaired = pair_folders(folder / "r", folder / "c")
    expected = {(f"{name.format(n)}.png", f"{other.format(n)}.png") for n in rainy & clean}
    assert {(pair.rainy.name, pair.clean.name) for pair in pairs} == expected
    assert len(unpaired) == len(rainy ^ clean)


def test_names_without_anything_in_common_do_not_pair(tmp_path: Path):
    put(tmp_path / "r" / "img_2.png")
    put(tmp_path / "c" / "img_1.png")
    pairs, unpaired = pair_folders(tmp_path / "r", tmp_path / "c")
    assert (pairs, len(unpaired)) == ([], 2)


@pytest.mark.parametrize(
    ("rainy", "clean"),
    [("1.png", ["1.png", "1.jpg"]), ("001.png", ["1.png", "01.png"]), ("rain-1.png", ["norain-1.png", "1.png"])],
    ids=["two suffixes", "zeros", "words"],
)
def test_two_clean_files_that_fit_are_an_error(tmp_path: Path, rainy: str, clean: list[str]):
    put(tmp_path / "r" / rainy)
    for name in clean:
        put(tmp_path / "c" / name)
    with pytest.raises(InputError) as error:
        pair_folders(tmp_path / "r", tmp_path / "c")
    assert all(name in one_line(error) for name in clean)


def test_a_missing_folder_is_named(tmp_path: Path):
    put(tmp_path / "r" / "1.png")
    with pytest.raises(InputError, match="nowhere"):
        pair_folders(tmp_path / "r", tmp_path / "nowhere")


# --- folders -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names", ["rain norain", "input target", "rainy_image ground_truth", "data gt", "rainy clean", "Rain GT"]
)
def test_finds_the_layers_of_a_folder(tmp_path: Path, names: str):
    rainy, clean = names.split()
    put(tmp_path / "set" / rainy / "1.png", picture(1))
    put(tmp_path / "set" / clean / "1.png", picture(2))
    config = SourceConfig("set")
    pairs = open_pairs(config, tmp_path)
    assert (len(pairs), pairs.key(0)) == (1, "1")
    np.testing.assert_array_equal(pairs.load(0)[0], picture(1))
    np.testing.assert_array_equal(pairs.load(0)[1], picture(2))
    np.testing.assert_array_equal(open_images(config, "rainy", tmp_path).load(0), picture(1))
    np.testing.assert_array_equal(open_images(config, "clean", tmp_path).load(0), picture(2))


def test_named_layers_and_splits_of_a_folder(tmp_path: Path):
    put(tmp_path / "set/dev/wet/1.png", picture(1))
    put(tmp_path / "set/dev/dry/1.png", picture(2))
    put(tmp_path / "set/dev/other/1.png", picture(3))
    config = SourceConfig("set", split="dev", rainy="wet", clean="dry")
    np.testing.assert_array_equal(open_pairs(config, tmp_path).load(0)[1], picture(2))
    for broken, names in [
        (SourceConfig("set", split="test"), "dev"),
        (SourceConfig("set", split="dev", rainy="damp", clean="dry"), "dry, other, wet"),
        (SourceConfig("set", split="dev"), r"set 'rainy' to one of its sub-folders \(dry, other, wet\)"),
        (SourceConfig("set", set="rain12"), "manifest"),
    ]:
        with pytest.raises(ConfigError, match=names):
            open_pairs(broken, tmp_path)


def test_two_usual_names_are_asked_about(tmp_path: Path):
    for name in ("rain", "rainy", "clean"):
        put(tmp_path / name / "1.png")
    with pytest.raises(ConfigError, match="rain, rainy"):
        open_pairs(SourceConfig(str(tmp_path)))
    assert len(open_pairs(SourceConfig(str(tmp_path), rainy="rain"))) == 1


def test_unpaired_files_are_warned_of_and_none_paired_is_an_error(tmp_path: Path):
    put(tmp_path / "rain/1.png")
    put(tmp_path / "rain/2.png")
    put(tmp_path / "norain/1.png")
    with pytest.warns(UserWarning, match=r"1 images have no partner.*2\.png"):
        assert len(open_pairs(SourceConfig(str(tmp_path)))) == 1
    (tmp_path / "norain/1.png").unlink()
    with pytest.raises(ConfigError, match="no rainy image that has its clean one"):
        open_pairs(SourceConfig(str(tmp_path)))


@pytest.mark.parametrize(("rainy", "clean"), [("right", "left"), ("left", "right")])
def test_side_by_side(tmp_path: Path, rainy: str, clean: str):
    halves = {"left": picture(1), "right": picture(2)}
    put(tmp_path / "1.png", np.concatenate([halves["left"], halves["right"]], axis=1))
    config = SourceConfig(str(tmp_path), rainy=rainy, clean=clean)
    pair = open_pairs(config).load(0)
    np.testing.assert_array_equal(pair[0], halves[rainy])
    np.testing.assert_array_equal(pair[1], halves[clean])
    np.testing.assert_array_equal(open_images(config, "clean").load(0), halves[clean])


def test_side_by_side_needs_both_sides(tmp_path: Path):
    put(tmp_path / "1.png")
    for sides in ({"rainy": "right"}, {"rainy": "left", "clean": "left"}, {"clean": "left", "rainy": "wet"}):
        with pytest.raises(ConfigError, match="set one of 'rainy' and 'clean' to left, the other to right"):
            open_pairs(SourceConfig(str(tmp_path), **sides))


def test_side_by_side_needs_an_even_width(tmp_path: Path):
    put(tmp_path / "1.png", picture(width=7))
    with pytest.raises(InputError, match=r"1\.png is 7 pixels wide"):
        open_pairs(SourceConfig(str(tmp_path), rainy="right", clean="left")).load(0)


def test_plain_folder_of_images(tmp_path: Path):
    for name in ("b.png", "sub/a.jpg", "a.png", "a.jpg", ".hidden.png"):
        put(tmp_path / name)
    images = open_images(SourceConfig("."), "rainy", tmp_path)
    assert sorted(images.key(i) for i in range(len(images))) == ["a.jpg", "a.png", "b", "sub/a"]
    put(tmp_path / "rain/c.png")  # a folder of photos like any other, as there is no "norain"
    assert len(open_images(SourceConfig("."), "rainy", tmp_path)) == 5
    (tmp_path / "metadata.csv").write_text("photo,camera\na.png,mine\n")  # not the hub's
    assert len(open_images(SourceConfig("."), "rainy", tmp_path)) == 5
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="empty holds no images"):
        open_images(SourceConfig("empty"), "rainy", tmp_path)


def test_sizes_of_a_pair_must_agree(tmp_path: Path):
    put(tmp_path / "rain/1.png", picture(height=4, width=6))
    put(tmp_path / "norain/1.png", picture(height=5, width=6))
    with pytest.raises(InputError) as error:
        open_pairs(SourceConfig(str(tmp_path))).load(0)
    for part in ("rain/1.png is 6x4", "norain/1.png is 6x5"):
        assert part in one_line(error)


def test_a_broken_file_is_an_error_of_its_item_only(tmp_path: Path):
    put(tmp_path / "rain/1.png")
    put(tmp_path / "rain/2.png")
    put(tmp_path / "norain/1.png")
    (tmp_path / "norain/2.png").write_text("not a picture")
    pairs = cached(open_pairs(SourceConfig(str(tmp_path))), 10**6)
    assert len(pairs.load(0)) == 2
    with pytest.raises(InputError, match=r"norain/2\.png"):
        pairs.load(1)


# --- where paths start ---------------------------------------------------------------------------------------------


def test_data_root_then_environment_then_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for i, name in enumerate(("root", "env", "here")):
        put(tmp_path / name / "photos/1.png", picture(i))
    config = SourceConfig("photos")

    def first(data_root: Path | None = None) -> np.ndarray:
        return open_images(config, "rainy", data_root).load(0)

    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("SSTL_DATA", raising=False)
    np.testing.assert_array_equal(first(), picture(2))
    monkeypatch.setenv("SSTL_DATA", str(tmp_path / "env"))
    np.testing.assert_array_equal(first(), picture(1))
    np.testing.assert_array_equal(first(tmp_path / "root"), picture(0))
    with pytest.raises(ConfigError, match=r"env/nowhere does not exist.*data_root.*SSTL_DATA"):
        open_pairs(SourceConfig("nowhere"))
    with pytest.raises(ConfigError, match=r"1\.png is neither"):
        open_images(SourceConfig("photos/1.png"), "rainy")


def test_source_config_is_strict_yaml():
    tree = {"path": "manifest.csv", "split": "dev", "set": "rain100l"}
    assert from_tree(SourceConfig, tree) == SourceConfig("manifest.csv", "dev", "rain100l")
    with pytest.raises(ConfigError, match="unknown key 'splt'"):
        from_tree(SourceConfig, {"path": "x", "splt": "dev"})


def test_bundled_photographs():
    images = open_images(SourceConfig("bundled"), "clean")
    assert [images.key(i) for i in range(len(images))] == [
        "astronaut",
        "coffee",
        "motorcycle-left",
        "chelsea",
        "rocket",
    ]
    parts = [open_images(SourceConfig("bundled", split=split), "clean") for split in ("train", "dev")]
    assert [len(part) for part in parts] == [3, 2]
    with pytest.raises(ConfigError, match="no split 'test'"):
        open_images(SourceConfig("bundled", split="test"), "clean")
    for i in range(len(images)):
        image = images.load(i)
        assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 3)
    with pytest.raises(ConfigError, match="clean photographs only"):
        open_pairs(SourceConfig("bundled"))
    with pytest.raises(ConfigError, match="no streak images"):
        open_images(SourceConfig("bundled"), "streak")


# --- manifest ------------------------------------------------------------------------------------------------------

HEADER = "kind,key,split,group,rainy,clean,streak,source,sha256\n"
ROWS = (
    "pair,one-1,train,b1,rain/1.png,norain/1.png,,ours,\n"
    "pair,one-2,dev,b2,rain/2.png,norain/2.png,,ours,\n"
    'pair-side-by-side,two-1,train,b3,two/1.png,,,"left, clean",\n'
    "clean,photo-1,train,b1,,norain/1.png,,,\n"
    "streak,grey-1,train,s1,,,streaks/1.png,,\n"
    "real,real-1,dev,r1,real/1.png,,,,\n"
)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    for i, name in enumerate(("rain/1", "rain/2", "norain/1", "norain/2", "streaks/1", "real/1")):
        put(tmp_path / f"{name}.png", picture(i))
    put(tmp_path / "two/1.png", np.concatenate([picture(10), picture(11)], axis=1))
    path = tmp_path / "manifest.csv"
    path.write_text(HEADER + ROWS, encoding="utf-8")
    return path


def test_reads_every_kind(manifest: Path):
    rows = read_manifest(manifest)
    assert {row.kind for row in rows} == set(KINDS)
    assert (rows[0].set, rows[0].group, rows[2].source) == ("one", "b1", "left, clean")
    pairs = open_pairs(SourceConfig("manifest.csv"), manifest.parent)
    assert [pairs.key(i) for i in range(len(pairs))] == ["one-1", "one-2", "two-1"]
    np.testing.assert_array_equal(pairs.load(1)[1], picture(3))
    np.testing.assert_array_equal(pairs.load(2)[0], picture(11))  # the right half is rainy
    np.testing.assert_array_equal(pairs.load(2)[1], picture(10))
    for layer, seed in (("rainy", 5), ("clean", 2), ("streak", 4)):
        images = open_images(SourceConfig("manifest.csv"), layer, manifest.parent)
        assert len(images) == 1
        np.testing.assert_array_equal(images.load(0), picture(seed))


def test_chooses_split_and_set(manifest: Path):
    def keys(**choice: str) -> list[str]:
        pairs = open_pairs(SourceConfig(str(manifest), **choice))
        return [pairs.key(i) for i in range(len(pairs))]

    assert keys(split="train") == ["one-1", "two-1"]
    assert keys(set="one") == ["one-1", "one-2"]
    assert keys(split="dev", set="one") == ["one-2"]
    for choice in ({"split": "test"}, {"set": "on"}, {"split": "dev", "set": "two"}):
        with pytest.raises(ConfigError, match="Its splits: dev, train; its sets: one, two"):
            keys(**choice)


def test_the_least_manifest(tmp_path: Path):
    put(tmp_path / "a.png")
    (tmp_path / "m.csv").write_text("\ufeffkey,kind,rainy\nx,real,a.png\n\n", encoding="utf-8")
    assert open_images(SourceConfig("m.csv"), "rainy", tmp_path).load(0).shape == (4, 6, 3)


BROKEN = {
    "empty": ("", "line 1: the column 'kind' is missing"),
    "no key column": ("kind,rainy\nreal,a.png\n", "line 1: the column 'key' is missing"),
    "unknown kind": (HEADER + ROWS + "pear,x-1,,,a.png,b.png,,,\n", "line 8: unknown kind 'pear'. Did you mean 'pair'"),
    "empty key": (HEADER + "real,,,,a.png,,,,\n", "line 2: the key is empty"),
    "duplicate key": (HEADER + ROWS + "real,one-2,,,a.png,,,,\n", "line 8: the key 'one-2' was used in line 3"),
    "missing path": (HEADER + "pair,x-1,,,a.png,,,,\n", "line 2: a row of kind 'pair' needs a path in the column"),
    "missing path column": ("kind,key,rainy\npair,x,a.png\n", "needs a path in the column 'clean'"),
    "absolute": (HEADER + "real,x-1,,,/etc/a.png,,,,\n", "line 2: 'rainy' is '/etc/a.png'; it must be a path relative"),
    "windows": (HEADER + "real,x-1,,,C:\\a.png,,,,\n", "it must be a path relative"),
    "leaves": (HEADER + "real,x-1,,,../a.png,,,,\n", "line 2: 'rainy' is '../a.png', which leaves"),
    "leaves inside": (HEADER + "real,x-1,,,a/../../a.png,,,,\n", "which leaves"),
    "leaves on windows": (HEADER + "real,x-1,,,..\\a.png,,,,\n", "which leaves"),
    "unneeded path leaves": (HEADER + "real,x-1,,,a.png,,../b.png,,\n", "line 2: 'streak' is '../b.png', which leaves"),
    "cells missing": (HEADER + "real,x-1\n", "line 2: the row does not have 9 cells"),
    "cells too many": ("kind,key,rainy\nreal,x,a.png,b.png\n", "line 2: the row does not have 3 cells"),
}


@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_manifests(tmp_path: Path, text: str, message: str):
    path = tmp_path / "manifest.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        read_manifest(path)
    assert one_line(error).startswith(f"{path}, line ")
    assert message in one_line(error)


def test_unreadable_manifests(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_manifest(tmp_path / "nowhere.csv")
    (tmp_path / "m.csv").write_bytes(b"kind,key\n\xff\xfe,x\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_manifest(tmp_path / "m.csv")


CELLS = st.one_of(st.sampled_from([*KINDS, "kind", "key", "rainy", "clean", "a.png", "../a", '"', "", "\0"]), st.text())


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(st.lists(CELLS, max_size=5).map(",".join)), header=st.sampled_from(["", "kind,key,rainy\n", HEADER])
)
def test_garbage_raises_only_our_errors(tmp_path: Path, lines: list[str], header: str):
    path = tmp_path / "garbage.csv"
    path.write_bytes((header + "\n".join(lines)).encode("utf-8", "surrogatepass"))
    try:
        rows = read_manifest(path)
    except SstlError:
        return
    assert len({row.key for row in rows}) == len(rows)
    assert all(row.kind in KINDS for row in rows)


def test_leaks_between_splits_are_found(manifest: Path):
    assert groups_across_splits(read_manifest(manifest)) == []
    leak = "clean,photo-2,dev,b1,,norain/2.png,,,\n"
    no_group = "clean,photo-3,dev,,,norain/2.png,,,\nclean,photo-4,train,,,norain/2.png,,,\n"
    manifest.write_text(HEADER + ROWS + leak + no_group, encoding="utf-8")
    with pytest.warns(UserWarning, match="of the group 'b1' rows are in more than one split"):
        rows = read_manifest(manifest)
    assert groups_across_splits(rows) == ["b1"]  # rows without a group say nothing


# --- tables --------------------------------------------------------------------------------------------------------


@pytest.fixture
def hf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-cache")
    return datasets


def write_parquet(hf, path: Path, **columns: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = {name: hf.Image() for name, values in columns.items() if isinstance(values[0], Image.Image)}
    table = hf.Dataset.from_dict(columns)
    for name, feature in images.items():
        table = table.cast_column(name, feature)
    table.to_parquet(path)


def pil(seed: int, **size: int) -> Image.Image:
    return Image.fromarray(picture(seed, **size))


def test_parquet_round_trip(hf, tmp_path: Path):
    write_parquet(
        hf, tmp_path / "t.parquet", key=["a", "b"], input=[pil(0), pil(1)], gt=[pil(2), pil(3)], note=["", ""]
    )
    config = SourceConfig("t.parquet")
    pairs = open_pairs(config, tmp_path)
    assert [pairs.key(i) for i in range(len(pairs))] == ["a", "b"]
    np.testing.assert_array_equal(pairs.load(1)[0], picture(1))
    np.testing.assert_array_equal(pairs.load(1)[1], picture(3))
    np.testing.assert_array_equal(open_images(config, "clean", tmp_path).load(0), picture(2))
    swapped = open_pairs(SourceConfig("t.parquet", split="train", rainy="gt", clean="input"), tmp_path)
    np.testing.assert_array_equal(swapped.load(1)[0], picture(3))
    for broken, message in [
        (SourceConfig("t.parquet", rainy="wet"), "no column 'wet'; set 'rainy' to one of key, input, gt, note"),
        (SourceConfig("t.parquet", rainy="note"), "the column 'note' does not hold images"),
        (SourceConfig("t.parquet", split="dev"), "'split' is dev; it must be one of train"),
        (SourceConfig("t.parquet", set="one"), "'set' selects from a .csv manifest"),
    ]:
        with pytest.raises(ConfigError, match=message):
            open_pairs(broken, tmp_path).load(0)
    with pytest.raises(ConfigError, match="no one column for streak images; rename to 'streak' one of"):
        open_images(config, "streak", tmp_path)


def test_a_table_with_one_column_of_images(hf, tmp_path: Path):
    write_parquet(hf, tmp_path / "t.parquet", photo=[pil(0), pil(1)], key=["same", "same"])
    images = open_images(SourceConfig("t.parquet"), "rainy", tmp_path)
    assert [images.key(i) for i in range(len(images))] == ["000000", "000001"]
    np.testing.assert_array_equal(images.load(1), picture(1))
    with pytest.raises(ConfigError, match="no two columns of images; set 'rainy' and 'clean' to one of photo, key"):
        open_pairs(SourceConfig("t.parquet"), tmp_path)


def test_folder_of_parquet_with_splits(hf, tmp_path: Path):
    for split, seed in (("train", 0), ("test", 5)):
        write_parquet(hf, tmp_path / f"data/{split}-00000-of-00001.parquet", rainy=[pil(seed)], clean=[pil(seed + 1)])
    np.testing.assert_array_equal(open_pairs(SourceConfig("data", split="test"), tmp_path).load(0)[1], picture(6))
    with pytest.raises(ConfigError, match="'split' is not given; it must be one of train, test"):
        open_pairs(SourceConfig("data"), tmp_path)


def test_parquet_with_bad_items(hf, tmp_path: Path):
    table = hf.Dataset.from_dict(
        {
            "rainy": [{"bytes": b"not an image", "path": None}, {"bytes": None, "path": None}, None],
            "clean": [pil(0), pil(0), pil(0)],
        }
    )
    table.cast_column("rainy", hf.Image()).cast_column("clean", hf.Image()).to_parquet(tmp_path / "t.parquet")
    write_parquet(hf, tmp_path / "s.parquet", rainy=[pil(0, width=6)], clean=[pil(0, width=8)])
    pairs = open_pairs(SourceConfig("t.parquet"), tmp_path)
    for i in range(3):
        with pytest.raises(InputError, match=rf"t\.parquet.* row {i} column 'rainy'"):
            pairs.load(i)
    with pytest.raises(InputError, match=r"row 0 column 'rainy' is 6x4 but .* column 'clean' is 8x4"):
        open_pairs(SourceConfig("s.parquet"), tmp_path).load(0)
    (tmp_path / "broken.parquet").write_text("no parquet")
    with pytest.raises(ConfigError, match=r"broken\.parquet cannot be opened"):
        open_pairs(SourceConfig("broken.parquet"), tmp_path)


def test_image_folder_with_metadata(hf, tmp_path: Path):  # noqa: ARG001  the fixture keeps the cache in tmp_path
    rows = []
    for i in range(2):
        put(tmp_path / f"set/train/r{i}.png", picture(i))
        put(tmp_path / f"set/train/c{i}.png", picture(10 + i))
        rows.append({"rainy_file_name": f"r{i}.png", "clean_file_name": f"c{i}.png", "key": f"k{i}"})
    (tmp_path / "set/train/metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = open_pairs(SourceConfig("set", split="train"), tmp_path)
    assert pairs.key(1) == "k1"
    np.testing.assert_array_equal(pairs.load(1)[0], picture(1))
    np.testing.assert_array_equal(pairs.load(1)[1], picture(11))


def test_hub_names_go_to_datasets(hf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    table = hf.Dataset.from_dict(
        {"rainy": [pil(0)], "clean": [pil(1)]}, features=hf.Features(rainy=hf.Image(), clean=hf.Image())
    )
    asked = []

    def load_dataset(name: str) -> dict:
        asked.append(name)
        if name == "org/none":
            raise hf.exceptions.DatasetNotFoundError("no such\ndata set")
        return {"train": table}

    monkeypatch.setattr(hf, "load_dataset", load_dataset)
    np.testing.assert_array_equal(open_pairs(SourceConfig("hub:org/name"), tmp_path).load(0)[1], picture(1))
    with pytest.raises(ConfigError, match="hub:org/none cannot be opened as a table of images: no such data set"):
        open_images(SourceConfig("hub:org/none"), "clean")
    with pytest.raises(ConfigError, match="'set' selects from a manifest"):
        open_pairs(SourceConfig("hub:org/name", set="one"))
    for path in ("hub:", "hub:../data", "hub:/data"):
        with pytest.raises(ConfigError, match="is not of the form hub:org/name"):
            open_pairs(SourceConfig(path))
    assert asked == ["org/name", "org/none"]


# --- start-up ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["{}.png", "rain/{}.png norain/{}.png", "{}_rain.png {}_clean.png"])
def test_opening_asks_the_disk_per_folder_and_not_per_file(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    calls: Counter[str] = Counter()

    def count(name: str) -> None:
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, **more: calls.update([name]) or call(*args, **more))

    for name in layout.split():
        for i in range(500):
            path = tmp_path / name.format(i)
            path.parent.mkdir(exist_ok=True)
            path.touch()
    for name in ("stat", "lstat", "scandir", "listdir", "open"):
        count(name)
    config = SourceConfig(str(tmp_path))
    source = open_pairs(config) if " " in layout else open_images(config, "rainy")
    assert len(source) == 500
    assert calls["scandir"]
    assert calls.total() < 100


def test_importing_and_opening_files_is_light(manifest: Path):
    code = (
        "import sys, sstl.data as d\n"
        f"d.open_pairs(d.SourceConfig({str(manifest)!r})).load(0)\n"
        "print([m for m in ('torch', 'datasets', 'skimage', 'pandas') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
