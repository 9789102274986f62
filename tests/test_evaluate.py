"""Evaluation: scores of known restorers, images that fail, rendered rain, harm to clean photographs, the command."""

from __future__ import annotations

import json
import math
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Outcome
from PIL import Image as Pillow
from skimage import data

from sstl.data import SourceConfig, open_images
from sstl.errors import InputError, SstlError
from sstl.metrics import detection, f1_of_all_ones, rain_map, score
from sstl.networks import Network
from sstl.networks.weights import save_weights
from sstl.report.environment import commit, environment
from sstl.report.evaluation import RenderedPairs, Values, evaluate, evaluate_harm, evaluate_restored

RunCli = Callable[..., Outcome]
PHOTOS = {
    name: np.ascontiguousarray(getattr(data, name)()[60:124, 60:140]) for name in ("astronaut", "coffee", "rocket")
}


def rain_on(clean: np.ndarray, strength: int = 60) -> np.ndarray:
    """Add slanted stripes of light to a photograph."""
    rows, columns = np.indices(clean.shape[:2])
    stripes = ((rows + 3 * columns) % 16 < 3)[..., None]
    return np.clip(clean.astype(int) + strength * stripes, 0, 255).astype(np.uint8)


class Pairs:
    """Pairs in memory; an error in the place of a pair is raised when it is read."""

    def __init__(self, pairs: dict[str, tuple[np.ndarray, np.ndarray] | InputError]) -> None:
        self.pairs = list(pairs.items())

    def __len__(self) -> int:
        return len(self.pairs)

    def key(self, i: int) -> str:
        return self.pairs[i][0]

    def load(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        pair = self.pairs[i][1]
        if isinstance(pair, InputError):
            raise pair
        return pair


class Fixed:
    """A restorer that darkens the image by a fixed amount and sees rain in its top half."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, amount: int = 0) -> None:
        self.amount = amount

    def layers(self, image: np.ndarray) -> dict[str, np.ndarray]:
        mask = np.zeros(image.shape[:2], np.uint8)
        mask[: len(mask) // 2] = 200
        return {"background": np.clip(image.astype(int) - self.amount, 0, 255).astype(np.uint8), "mask": mask}


@pytest.fixture
def pairs() -> Pairs:
    return Pairs({name: (rain_on(clean), clean) for name, clean in PHOTOS.items()})


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """PHOTOS below ``rain`` and ``norain``, in Rain100's names, and a manifest of them with a side-by-side pair."""
    for i, clean in enumerate(PHOTOS.values(), start=1):
        for folder, image in (("rain", rain_on(clean)), ("norain", clean)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Pillow.fromarray(image).save(tmp_path / folder / f"{folder}-{i:03}.png")
    both = np.hstack([PHOTOS["coffee"], rain_on(PHOTOS["coffee"], 30)])
    Pillow.fromarray(both).save(tmp_path / "both.png")
    lines = [
        "kind,key,split,group,rainy,clean",
        "pair,a-1,train,g1,rain/rain-001.png,norain/norain-001.png",
        "pair,a-2,dev,g2,rain/rain-002.png,norain/norain-002.png",
        "pair-side-by-side,b-1,dev,g2,both.png,",
        "clean,c-1,dev,g3,,norain/norain-003.png",
    ]
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture
def weights(tmp_path: Path, tiny_network: Network) -> Path:
    return save_weights(tmp_path / "tiny.safetensors", tiny_network)


def test_the_rows_hold_the_metrics_of_each_pair(pairs: Pairs) -> None:
    evaluation = evaluate(pairs, {"fixed": Fixed(7)}, "rgb")
    assert [row.key for row in evaluation.rows] == list(PHOTOS)
    for row, (rainy, clean) in zip(evaluation.rows, (pairs.load(i) for i in range(3)), strict=True):
        rain, restored = rain_map(rainy, clean), Fixed(7).layers(rainy)["background"]
        before, after = score(rainy, clean, "rgb", rain), score(restored, clean, "rgb", rain)
        assert (row.scores["input"]["psnr"], row.scores["input"]["psnr_rain"]) == (before.psnr, before.psnr_rain)
        found = row.scores["fixed"]
        assert (found["psnr"], found["ssim"], found["psnr_free"]) == (after.psnr, after.ssim, after.psnr_free)
        assert found["gain"] == after.psnr - before.psnr
        top = np.indices(rain.shape)[0] < rain.shape[0] // 2
        assert (found["f1"], found["iou"]) == (detection(top, rain).f1, detection(top, rain).iou)
        assert found["f1_all_ones"] == f1_of_all_ones(rain)
        assert found["seconds"] > 0


def test_the_results_are_means_of_per_image_values_with_the_interval_of_the_gain(pairs: Pairs) -> None:
    evaluation = evaluate(pairs, {"fixed": Fixed(7)})
    psnr = [row.scores["fixed"]["psnr"] for row in evaluation.rows]
    result = evaluation.results["fixed"]
    assert result["psnr"].mean == pytest.approx(np.mean(psnr))
    gains = [row.scores["fixed"]["gain"] for row in evaluation.rows]
    assert min(gains) <= result["gain"].interval[0] <= result["gain"].mean <= result["gain"].interval[1] <= max(gains)


def test_untouched_rain_free_pixels_are_infinite_capped_and_said(pairs: Pairs) -> None:
    evaluation = evaluate(pairs, {"same": Fixed(0)})
    same = evaluation.results["same"]
    assert same["gain"].mean == 0
    assert (same["psnr_free"].infinite, same["psnr_free"].mean) == (3, 100)
    assert (
        "same, rain-free px dB: 3 of 3 values are above 100 dB and count as 100 (3 of them infinite"
        in evaluation.table()
    )
    json.dumps(evaluation.to_dict(), allow_nan=False)
    assert evaluation.to_dict()["images"][0]["scores"]["same"]["psnr_free"] is None


def test_gain_is_finite_where_input_or_output_is_identical_to_the_clean_image() -> None:
    clean = PHOTOS["coffee"]
    rows = evaluate(Pairs({"dry": (clean, clean)}), {"same": Fixed(0), "dark": Fixed(10)}).rows
    assert rows[0].scores["same"]["gain"] == 0
    assert rows[0].scores["dark"]["gain"] == rows[0].scores["dark"]["psnr"] - 100
    assert "psnr_rain" not in rows[0].scores["dark"]


def test_pairs_that_fail_are_listed_and_the_others_done() -> None:
    good = (rain_on(PHOTOS["coffee"]), PHOTOS["coffee"])
    small = (good[0][:10], good[1][:10])
    broken = Pairs({"bad": InputError("bad.png: not an image"), "small": small, "good": good})
    evaluation = evaluate(broken, {"fixed": Fixed()})
    assert [row.key for row in evaluation.rows] == ["good"]
    assert [failure.key for failure in evaluation.failures] == ["bad", "small"]
    assert "80x10" in evaluation.failures[1].error


def test_without_weights_only_the_input_is_scored_and_limit_takes_the_first(pairs: Pairs) -> None:
    evaluation = evaluate(pairs, (), limit=2)
    assert list(evaluation.results) == ["input"]
    assert len(evaluation.rows) == 2
    assert "gain" not in evaluation.table()


def test_one_pair_is_held_at_a_time() -> None:
    living: list[int] = []

    class Counted(Pairs):
        alive = 0

        def load(self, i: int) -> tuple[np.ndarray, np.ndarray]:
            pair = tuple(image.copy() for image in super().load(i))
            Counted.alive += 1
            weakref.finalize(pair[0], lambda: setattr(Counted, "alive", Counted.alive - 1))
            living.append(Counted.alive)
            return pair

    clean = PHOTOS["coffee"]
    evaluate(Counted({str(i): (rain_on(clean), clean) for i in range(6)}), {"fixed": Fixed()})
    assert max(living) <= 2  # the next is read while the last name still holds the one before


def test_what_is_remembered_is_not_measured_and_the_gain_follows(pairs: Pairs) -> None:
    asked: list[tuple[str, int]] = []

    def remember(name: str, images: Sequence[np.ndarray], measure: Callable[[], Values]) -> Values:
        asked.append((name, len(images)))
        return {"psnr": 21.0, "ssim": 0.5} if name == "input" else measure()

    rows = evaluate(pairs, {"fixed": Fixed(7)}, remember=remember, limit=1).rows
    assert asked == [("input", 2), ("fixed", 2)]
    assert rows[0].scores["fixed"]["gain"] == rows[0].scores["fixed"]["psnr"] - 21


def test_names_that_clash_are_refused() -> None:
    with pytest.raises(SstlError, match="twice"):
        evaluate(Pairs({}), ["joint-small", "joint-small"])
    with pytest.raises(SstlError, match="'input'"):
        evaluate(Pairs({}), ["input"])


def test_restored_images_are_scored_as_they_are(pairs: Pairs) -> None:
    restored = Pairs({name: (clean, clean) for name, clean in PHOTOS.items()})
    assert evaluate_restored(restored).results["restored"]["psnr"].infinite == 3
    assert evaluate_restored(pairs, "rgb").results["restored"] == {
        metric: summary
        for metric, summary in evaluate(pairs, (), "rgb").results["input"].items()
        if metric in ("psnr", "ssim")
    }


def test_no_harm_is_capped_at_60_db() -> None:
    images = open_images(SourceConfig("bundled"), "clean")
    evaluation = evaluate_harm(images, {"same": Fixed(0), "dark": Fixed(255)}, limit=2)
    assert (evaluation.protocol, evaluation.cap) == ("rgb", 60)
    assert evaluation.results["same"]["psnr"].mean == 60
    assert evaluation.results["dark"]["psnr"].mean < 15
    assert "input" not in evaluation.results


def test_rendered_pairs_are_a_function_of_seed_and_number() -> None:
    images = open_images(SourceConfig("bundled"), "clean")
    crops = Pairs({images.key(i): images.load(i)[:48, :64] for i in range(2)})
    three, four = RenderedPairs(crops, "heavy", 3, seed=1), RenderedPairs(crops, "heavy", 4, seed=1)
    assert (len(three), three.key(0), three.key(2)) == (3, "astronaut-0", "astronaut-2")
    for i in range(3):
        rainy, clean = three.load(i)
        assert rainy.dtype == np.uint8
        assert np.array_equal(rainy, four.load(i)[0])
        assert np.array_equal(clean, crops.load(i % 2))
        assert rain_map(rainy, clean).mean() > 0.01
    assert not np.array_equal(three.load(0)[0], three.load(2)[0])
    assert not np.array_equal(three.load(0)[0], RenderedPairs(crops, "heavy", 3, seed=2).load(0)[0])
    assert len(RenderedPairs(crops, "light")) == 2


def test_the_command_scores_two_folders(run_cli: RunCli, folders: Path, weights: Path) -> None:
    file = folders / "scores.json"
    done = run_cli(
        "evaluate",
        "--rainy",
        folders / "rain",
        "--clean",
        folders / "norain",
        "--weights",
        weights,
        "--json",
        file,
        "--precision",
        "fp32",
        "--device",
        "cpu",
    )
    assert done.code == 0, done.err
    assert "protocol y-matlab" in done.out
    assert "3 images" in done.out
    tree = json.loads(file.read_text())
    assert list(tree["results"]) == ["input", str(weights)]
    found = tree["results"][str(weights)]
    assert f"{found['psnr']['mean']:.2f} [{found['psnr']['interval'][0]:.2f}" in done.out
    assert f"{found['f1']['mean']:.3f} ({found['f1_all_ones']['mean']:.3f})" in done.out
    clean = PHOTOS["astronaut"]
    assert tree["images"][0]["scores"]["input"]["psnr"] == score(rain_on(clean), clean, "y-matlab").psnr
    assert tree["weights"][str(weights)]["network"] == "joint"
    assert {"sstl", "commit", "python", "torch", "threads", "date"} <= set(tree["environment"])
    assert (tree["environment"]["device"], tree["environment"]["precision"]) == ("cpu", "float32")


def test_the_table_is_aligned(pairs: Pairs) -> None:
    head, *lines = evaluate(pairs, {"a-long-name": Fixed(3)}).table().splitlines()[:3]
    column = head.index("SSIM")
    assert all(line[column - 1] == " " and line[column : column + 2] == "0." for line in lines)


def test_the_command_selects_split_and_set(run_cli: RunCli, folders: Path, weights: Path) -> None:
    def keys(*more: str) -> list[str]:
        file = folders / "scores.json"
        done = run_cli("evaluate", "--data", folders / "manifest.csv", *more, "--weights", weights, "--json", file)
        assert done.code == 0, done.err
        return [image["key"] for image in json.loads(file.read_text())["images"]]

    assert keys("--split", "dev") == ["a-2", "b-1"]
    assert keys("--split", "dev", "--set", "b") == ["b-1"]
    assert keys("--limit", "1") == ["a-1"]
    assert keys("--split", "dev", "--rendered", "light", "--count", "2") == ["c-1-0", "c-1-1"]
    assert keys("--split", "dev", "--do-no-harm") == ["c-1"]


def test_a_manifest_is_found_below_sstl_data(run_cli: RunCli, folders: Path, weights: Path, monkeypatch) -> None:
    monkeypatch.setenv("SSTL_DATA", str(folders))
    monkeypatch.chdir(folders.parent)
    done = run_cli("evaluate", "--data", "manifest.csv", "--split", "dev", "--weights", weights)
    assert done.code == 0, done.err
    (folders.parent / "manifest.csv").write_text("kind,key\n")  # what was typed is first what lies here
    assert run_cli("evaluate", "--data", "manifest.csv", "--split", "dev", "--weights", weights).code == 2
    (folders.parent / "manifest.csv").unlink()


def test_the_default_weights_are_the_shipped_ones(
    run_cli: RunCli, folders: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sstl.networks.weights.DEFAULT", str(weights))
    done = run_cli("evaluate", "--rainy", folders / "rain", "--clean", folders / "norain", "--limit", 1)
    assert done.code == 0
    assert str(weights) in done.out


def test_restored_folders_need_no_weights(run_cli: RunCli, folders: Path) -> None:
    file = folders / "scores.json"
    done = run_cli(
        "evaluate", "--restored", folders / "norain", "--clean", folders / "norain", "--protocol", "rgb", "--json", file
    )
    assert done.code == 0
    assert "protocol rgb" in done.out
    assert "3 of 3 values" in done.out
    tree = json.loads(file.read_text())
    assert tree["images"][0]["scores"]["restored"]["psnr"] is None
    assert tree["results"]["restored"]["psnr"] == {"mean": 100, "interval": [100, 100], "count": 3} | {
        "infinite": 3,
        "capped": 3,
    }


def test_bad_and_unpaired_files_are_listed_and_the_others_done(run_cli: RunCli, folders: Path) -> None:
    (folders / "rain" / "rain-001.png").write_bytes(b"")
    Pillow.fromarray(PHOTOS["coffee"][:-4]).save(folders / "rain" / "rain-002.png")
    Pillow.fromarray(PHOTOS["coffee"]).save(folders / "norain" / "norain-900.png")
    done = run_cli("evaluate", "--restored", folders / "rain", "--clean", folders / "norain")
    assert done.code == 1
    assert "over 1 images" in done.out
    errors = [line for line in done.err.splitlines() if line.startswith("sstl: error: ")]
    assert len(errors) == 3
    for name, line in zip(("rain-001.png", "rain-002.png", "norain-900.png"), errors, strict=True):
        assert name in line
    assert "Traceback" not in done.err


def test_nothing_that_can_be_scored_is_no_crash(run_cli: RunCli, folders: Path) -> None:
    for file in (folders / "rain").iterdir():
        file.write_bytes(b"text")
    file = folders / "scores.json"
    done = run_cli("evaluate", "--restored", folders / "rain", "--clean", folders / "norain", "--json", file)
    assert (done.code, json.loads(file.read_text())["count"]) == (1, 0)
    assert "over 0 images" in done.out


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "--rainy a",
        "--clean a",
        "--rainy a --restored b --clean c",
        "--data m.csv --clean a",
        "--data m.csv --rainy a",
        "--clean a --rainy b --split dev",
        "--clean a --rainy b --seed 1",
        "--clean a --rainy b --rendered heavy",
        "--clean a --rendered heavy --do-no-harm",
        "--clean a --do-no-harm --protocol y-matlab",
        "--clean a --restored b --weights joint-small",
        "--clean a --rainy b --limit 0",
        "--clean a --rainy b --protocol luma",
        "--clean a --rendered heavy --seed -1",
        "--data missing.csv --split dev",
        "--data bundled --rendered drizzle",
    ],
)
def test_wrong_combinations_are_usage_errors(run_cli: RunCli, arguments: str) -> None:
    done = run_cli("evaluate", *arguments.split())
    assert done.code == 2
    assert done.err.startswith("sstl: error: ")
    assert done.err.count("\n") == 1
    assert done.out == ""


def test_the_environment_is_plain_and_knows_no_commit_outside_git(tmp_path: Path) -> None:
    assert json.loads(json.dumps(environment(precision="fp32")))["precision"] == "fp32"
    (tmp_path / "__init__.py").touch()
    assert commit(tmp_path) is None
    assert math.isfinite(environment()["threads"])


def test_to_evaluate_nothing_is_an_error(run_cli, tmp_path):
    for name in ("rainy", "clean"):
        (tmp_path / name).mkdir()
    done = run_cli("evaluate", "--rainy", tmp_path / "rainy", "--clean", tmp_path / "clean", "-o", tmp_path / "out")
    assert done.code == 2
    assert "hold no image" in done.err
    assert not (tmp_path / "out").exists()
