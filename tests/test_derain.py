"""The command ``sstl derain``: what it writes, says and returns."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Outcome
from PIL import Image
from skimage import data

from sstl.networks import create_network, save_weights

RunCli = Callable[..., Outcome]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return save_weights(tmp_path / "w.safetensors", create_network("joint", size="tiny"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.jpg", "sub/b.png"):
        Image.fromarray(data.astronaut()[:60, 180:270]).save(folder / name)
    return folder


def test_folder(run_cli: RunCli, weights: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("derain", photos, "-o", out, "--weights", weights, "--layers", "background,streak,mask")
    done = run_cli(*command, "--json", tmp_path / "f.json")
    assert done.code == 0, done.err
    assert {str(p.relative_to(out)) for p in out.rglob("*.*")} == {
        *("a.jpg", "a.streak.png", "a.mask.png", "sub/b.png", "sub/b.streak.png", "sub/b.mask.png"),
    }
    with Image.open(out / "a.jpg") as image:
        assert (image.size, image.mode) == ((90, 60), "RGB")
    with Image.open(out / "a.mask.png") as image:
        assert (image.size, image.mode) == ((90, 60), "L")
    assert f"derained 2 of 2 photos, written to {out}" in done.out
    assert "next: " in done.out
    assert "photo/s" in done.err
    assert "error" not in done.err
    figures = json.loads((tmp_path / "f.json").read_text())
    assert (figures["written"], figures["kept"], figures["failed"]) == (2, 0, 0)
    assert figures["photos"][0]["written"][0] == str(out / "a.jpg")

    again = run_cli(*command)
    assert again.code == 0
    assert "derained 0 of 2 photos" in again.out
    assert "2 were there already and were kept; --overwrite replaces them" in again.out
    assert "derained 2 of 2" in run_cli(*command, "--overwrite").out


def test_failures_are_listed_at_the_end(run_cli: RunCli, weights: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "empty.jpg").touch()
    done = run_cli("derain", photos, tmp_path / "gone.png", "-o", tmp_path / "out", "--weights", weights)
    assert done.code == 1
    assert "derained 2 of 4 photos" in done.out
    errors = [line for line in re.split("[\r\n]", done.err) if line.startswith("sstl: error: ")]
    assert len(errors) == 2
    assert "empty.jpg: the file is empty" in errors[0]
    assert "gone.png: cannot be read (No such file or directory)" in errors[1]
    assert done.err.rstrip().endswith(errors[1])


def test_notes_are_printed(run_cli: RunCli, weights: Path, tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((9, 9, 3), value, np.uint8)) for value in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    done = run_cli("derain", tmp_path / "a.gif", "-o", tmp_path / "out", "--weights", weights)
    assert done.code == 0
    assert f"note: {tmp_path / 'a.gif'}: it holds several images; only the first was used" in done.out
    assert (tmp_path / "out/a.png").exists()


def test_nothing_to_do(run_cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run_cli("derain", tmp_path / "empty", "-o", tmp_path / "out")
    assert done.code == 1
    assert "sstl: error: " in done.err
    assert "empty: holds no image" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--layers", "background,fog"), "'fog' is no layer; choose from background, streak, mask"),
        (("--tile", "big"), "'big' is not a whole number"),
        (("--tile", "5"), "tile is 5; it must be auto, 0"),
        (("--max-pixels", "-3"), "'-3' is not a whole number"),
        (("--precision", "fp8"), "fp8"),
        (("--device", "gpu"), "device 'gpu' is unknown"),
    ],
)
def test_wrong_usage(
    run_cli: RunCli, weights: Path, photos: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = run_cli("derain", photos, "-o", tmp_path / "out", "--weights", weights, *arguments)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1


def test_weights_that_cannot_be_used(run_cli: RunCli, photos: Path, tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "pickle.safetensors")
    done = run_cli("derain", photos, "-o", tmp_path / "out", "--weights", tmp_path / "pickle.safetensors")
    assert done.code == 2
    assert "pickle.safetensors" in done.err


def test_only_light_packages_are_imported(
    run_process: Callable[..., Outcome], weights: Path, photos: Path, tmp_path: Path
) -> None:
    code = f"""
import sys
from sstl.cli.main import main
assert main(["derain", {str(photos)!r}, "-o", {str(tmp_path / "out")!r}, "--weights", {str(weights)!r}]) == 0
heavy = {{"torchvision", "timm", "kornia", "matplotlib", "datasets", "skimage", "scipy", "pandas", "accelerate"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    outcome = run_process("-c", code)
    assert outcome.code == 0, outcome.err
