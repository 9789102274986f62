"""``sstl data``: what show and list print and write, and wrong usage."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sstl.config import from_tree
from sstl.data.catalogue import Catalogue, known_sets
from sstl.data.survey import survey
from sstl.errors import ConfigError
from sstl.report.contact import SHOWN, contact_sheet


def put(path: Path, height: int = 4, width: int = 6) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A set with a split in order, and one with everything wrong that can be."""
    for i in range(9):
        put(tmp_path / f"set/train/rain/rain-{i}.png", 4 + i % 2)
        put(tmp_path / f"set/train/norain/norain-{i}.png", 4 + i % 2)
    for layer in ("rain", "norain"):
        put(tmp_path / f"set/test/{layer}/1.png")
        put(tmp_path / f"set/test/{layer}/size.png", 4 if layer == "rain" else 5)
        put(tmp_path / f"set/test/{layer}/text.png")
    (tmp_path / "set/test/norain/text.png").write_text("not an image")
    for i in range(7):
        put(tmp_path / f"set/test/rain/alone{i}.png")
    put(tmp_path / "set/photos/a.png", 30, 20)
    return tmp_path / "set"


def test_show(tree, tmp_path, run_cli):
    outcome = run_cli("data", "show", tree, "--json", tmp_path / "show.json")
    assert outcome.code == 1
    lines = {line.split()[0]: line.split() for line in outcome.out.splitlines()}
    assert lines["train"][1:9] == ["9", "9", "-", "-", "-", "6x4", "6x5", "6x4"]
    assert lines["photos"][1:7] == ["-", "-", "-", "-", "1", "20x30"]
    assert "unpaired 7, unreadable 2" in outcome.out
    assert outcome.err.count("has no partner") == 5
    assert "... and 2 more; --json FILE lists all" in outcome.err
    assert "text.png: not an image that can be read" in outcome.err
    assert "size.png is 6x4 but" in outcome.err
    parts = {part["name"]: part for part in json.loads((tmp_path / "show.json").read_text())["parts"]}
    assert parts["test"]["pairs"] == 3
    assert parts["test"]["unpaired"] == [f"test/rain/alone{i}.png" for i in range(7)]
    assert parts["train"]["sizes"] == [
        {"width": 6, "height": 4, "count": 5},
        {"width": 6, "height": 5, "count": 4},
    ]


def test_show_of_what_is_in_order_ends_with_0(tree, run_cli):
    outcome = run_cli("data", "show", tree / "train")
    assert outcome.code == 0
    assert "unpaired 0, unreadable 0" in outcome.out
    assert "a folder of rainy and a folder of clean images" in outcome.out


def test_the_sheet(tree, tmp_path, run_cli):
    assert run_cli("data", "show", tree, "--sheet", tmp_path / "sheet.png").code == 1
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"
        pixels = np.asarray(sheet.convert("RGB"))
    assert (pixels != 255).any(axis=2).mean() > 0.5
    sources = {part.name: part.source for part in survey(tree)}
    assert contact_sheet([]) is None
    assert contact_sheet([sources["photos"]]) is not None


def test_the_sheet_takes_a_dozen_from_everywhere(tmp_path, run_cli, monkeypatch):
    for i in range(40):
        put(tmp_path / f"{i:02}.png")
    shown = []

    def grid(_, captions, row_captions, height):
        shown.extend(" | ".join(row_captions).split(" | "))
        assert (len(captions), height) == (0, 200)
        return Image.new("L", (1, 1))

    monkeypatch.setattr("sstl.report.contact.grid", grid)
    assert run_cli("data", "show", tmp_path, "--sheet", tmp_path / "sheet.jpg.png").code == 0
    assert (len(shown), shown[0], shown[-1]) == (SHOWN, "00.png", "39.png")


def test_nothing_to_draw(tmp_path, run_cli):
    (tmp_path / "a.png").write_text("not an image")
    outcome = run_cli("data", "show", tmp_path, "--sheet", tmp_path / "sheet.png")
    assert (outcome.code, (tmp_path / "sheet.png").exists()) == (2, False)
    assert "no image could be read" in outcome.err


def test_a_manifest_and_a_table(tmp_path, run_cli, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for i in range(3):
        put(tmp_path / f"{i}.png")
    rows = ["kind,key,split,rainy,clean", "pair,a-1,train,0.png,1.png", "real,c-1,dev,2.png,", "clean,b-1,dev,,9.png"]
    (tmp_path / "m.csv").write_text("\n".join(rows) + "\n")
    pair, clean, real = sorted(survey(tmp_path / "m.csv"), key=lambda part: part.layout[::-1], reverse=True)[:3]
    found = {part.name: (part.layout, part.counts, len(part.unreadable)) for part in (pair, clean, real)}
    assert found["train a"] == ("manifest: pair", {"pairs": 1, "clean": 1}, 0)
    assert found["dev c"] == ("manifest: real", {"rainy": 1}, 0)
    assert found["dev b"] == ("manifest: clean", {"clean": 1}, 1)
    assert run_cli("data", "show", tmp_path / "m.csv").code == 1

    picture = Image.new("RGB", (6, 4))
    table = datasets.Dataset.from_dict({"input": [picture], "gt": [picture]})
    table.cast_column("input", datasets.Image()).cast_column("gt", datasets.Image()).to_parquet(tmp_path / "t.parquet")
    (part,) = survey(tmp_path / "t.parquet")
    monkeypatch.setattr(datasets, "load_dataset", lambda _: {"dev": table})
    assert survey("hub:org/name")[0].name == "dev"
    assert (part.name, part.layout, part.counts, part.sizes) == (
        "train",
        "table",
        {"pairs": 1, "clean": 1},
        {(6, 4): 1},
    )


def test_nothing_there(tmp_path, run_cli):
    (tmp_path / "notes.txt").write_text("no image")
    for path, words in ((tmp_path, "holds no images"), (tmp_path / "nowhere", "does not exist")):
        outcome = run_cli("data", "show", path)
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
        assert words in outcome.err


# --- list ----------------------------------------------------------------------------------------------------------

ASKED_FOR = ("rain100l", "rain100h", "rain200l", "rain200h", "rain800", "rain1200", "rain1400", "rain13k", "rain12")
ASKED_FOR += ("spa-data", "gt-rain", "rainds", "realrain-1k", "lhp-rain", "sirr", "bsds500", "garg-nayar")


def test_list(tmp_path, run_cli):
    outcome = run_cli("data", "--json", tmp_path / "sets.json")
    assert outcome.code == 0
    sets = json.loads((tmp_path / "sets.json").read_text())["sets"]
    assert tuple(known["name"] for known in sets) == ASKED_FOR
    assert all(known["name"] in outcome.out for known in sets)
    assert outcome.out.partition("next:")[0] == run_cli("data", "list").out.partition("next:")[0]


def test_list_one(run_cli):
    outcome = run_cli("data", "list", "Rain100H")
    assert outcome.code == 0
    assert "licence: none stated; research use" in outcome.out
    assert "beware: the backgrounds of 546 of the 1,800 training pairs are in its test set" in outcome.out
    assert "get: by hand" in outcome.out
    assert "get: sstl data get rain12" in run_cli("data", "list", "rain12").out
    wrong = run_cli("data", "list", "rain-100h")
    assert (wrong.code, "Did you mean 'rain100h'?" in wrong.err) == (2, True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Rain 100"}, "'name' is 'Rain 100'"),
        ({"url": "rain.zip"}, "'url' is 'rain.zip'"),
        ({"url": "http://a/b.zip", "sha256": "abc"}, "'sha256' is 'abc'"),
        ({"sha256": "0" * 64}, "the file at 'url', which is missing"),
        ({"sise": "1"}, "unknown key 'sets.*sise'"),
    ],
)
def test_the_file_of_sets_is_read_strictly(change, message):
    entry = {**dict.fromkeys(("name", "title", "what", "size", "licence", "where"), "x"), "traps": []}
    entry |= {"url": None, "sha256": None}
    assert len(from_tree(Catalogue, {"sets": [entry]}).sets) == 1
    with pytest.raises(ConfigError, match=message):
        from_tree(Catalogue, {"sets": [entry | change]})
    with pytest.raises(ConfigError, match="'sets' has x twice"):
        from_tree(Catalogue, {"sets": [entry, entry]})
    assert len(known_sets()) > 10


# --- usage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show"], "'data show' needs a PATH"),
        (["check"], "'data check' needs a PATH"),
        (["check", "a"], "'data check' needs --against TEST"),
        (["get"], "'data get' needs the NAME of a set, or --url URL"),
        (["get", "rain12", "--url", "http://a/b.zip"], "exclude each other"),
        (["get", "--url", "http://a/b.zip"], "needs -o DIR"),
        (["get", "rain12", "--sha256", "0"], "--sha256 belongs to --url"),
        (["list", "--sheet", "a.png"], "--sheet belongs to 'data show'"),
        (["show", "a", "--split", "dev"], "belong to 'data check'"),
        (["show", "a", "-o", "b"], "belong to 'data get'"),
        (["shwo", "a"], "is unknown"),
        (["check", "nowhere", "--against", "a"], "nowhere does not exist"),
    ],
)
def test_wrong_usage_is_one_line(run_cli, arguments, words):
    outcome = run_cli("data", *arguments)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert words in outcome.err
