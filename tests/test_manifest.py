"""The manifest of the images that the shipped weights know, and the script that lays them out again."""

from __future__ import annotations

import csv
import hashlib
import re
import sys

import pytest
from conftest import ROOT
from PIL import Image

from sstl.data.manifest import groups_across_splits, read_manifest

DATA = ROOT / "experiments" / "data"
sys.path.insert(0, str(DATA))
import gather  # noqa: E402


def test_backgrounds_of_training_and_development_never_meet():
    rows = read_manifest(DATA / "manifest.csv")
    assert {row.split for row in rows} == {"train", "dev"}
    assert groups_across_splits(rows) == []
    for split in ("train", "dev"):
        assert {row.kind for row in rows if row.split == split} >= {"pair", "pair-side-by-side", "clean", "real"}


def test_every_file_is_known_by_its_hash_and_none_is_in_both_splits():
    with (DATA / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    hashes = {split: set() for split in ("train", "dev")}
    for row in rows:
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in gather.wanted(row).values()), row["key"]
        hashes[row["split"]] |= {*gather.wanted(row).values()}
    assert hashes["train"] & hashes["dev"] == set()


@pytest.fixture
def downloaded(tmp_path, monkeypatch):
    """Images under other names than the manifest's, which has a pair, a photograph, and one that is nowhere."""
    folder = tmp_path / "somewhere" / "else"
    folder.mkdir(parents=True)
    digests = {}
    for level, name in enumerate(("rain.png", "dry.png", "photo.png")):
        Image.new("RGB", (9, 7), (40 * level,) * 3).save(folder / name)
        digests[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    lines = [
        "kind,key,split,group,rainy,clean,streak,source,sha256,sha256_clean",
        f"pair,a-1,train,b0,a/rain/1.png,a/norain/1.png,,A,{digests['rain.png']},{digests['dry.png']}",
        f"clean,b-1,dev,b1,,b/1.png,,B,{digests['photo.png']},",
        f"clean,b-2,dev,b2,,b/2.png,,B,{'0' * 64},",
    ]
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(gather, "MANIFEST", tmp_path / "manifest.csv")
    return tmp_path / "somewhere"


def test_images_are_laid_out_whatever_they_are_called(downloaded, tmp_path, capsys):
    out = tmp_path / "data"
    assert gather.main([str(downloaded), "-o", str(out)]) == 1
    assert "    1 of     2  B" in capsys.readouterr().out
    rows = read_manifest(out / "manifest.csv")
    assert [row.key for row in rows] == ["a-1", "b-1"]
    assert (out / "a/norain/1.png").read_bytes() == (downloaded / "else" / "dry.png").read_bytes()
    assert not (out / "b" / "2.png").exists()
