"""Several processes: they train as one would, share photos without loss or repeat, and fall together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
import torch
from conftest import ROOT, Outcome
from PIL import Image
from torch import Tensor

from sstl.networks import Network, save_weights
from sstl.ops.processes import ALONE, Crew, averaged, drawn, gathered

HARNESS = ROOT / "experiments/reliability"


def launch(*arguments: object, cwd: Path) -> Outcome:
    """Run ``python -m sstl ARGUMENTS`` on two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "sstl"]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        cwd=cwd, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def photos(tmp_path: Path, photo: Tensor, tiny_network: Network) -> Path:
    """A folder with five pairs of 32x32, one rainy file that is no image, and weights beside it."""
    for i in range(5):
        crop = (photo[0, :, : 32 + i, :32].permute(1, 2, 0) * 255).round().byte().numpy()
        for side in ("rainy", "clean"):
            (tmp_path / side).mkdir(exist_ok=True)
            Image.fromarray(crop).save(tmp_path / side / f"{i}.png")
    for side in ("rainy", "clean"):
        (tmp_path / side / "broken.png").write_text("no image")
    save_weights(tmp_path / "tiny.safetensors", tiny_network)
    return tmp_path


def test_methods_train_on_two_processes_as_on_one(run_process, tmp_path):
    # The mixture with a gradient through it, a teacher, random draws of each sample.
    arguments = ("--methods", "mean_teacher", "streak_transfer", "-o", tmp_path / "found.json")
    outcome = run_process(HARNESS / "processes.py", *arguments, timeout=900)
    assert outcome.code == 0, outcome.err
    found = json.loads((tmp_path / "found.json").read_text())
    for of_method in found["methods"].values():
        assert 0 < of_method["two_processes"] < 1e-5  # not the same additions, so not the same bits
        assert of_method["two_then_one"] < 1e-5
        assert of_method["files"] == ["checkpoints", "config.yaml", "log.jsonl", "weights.safetensors"]
    lost = found["a_process_was_killed"]
    assert lost["code"] != 0
    assert lost["seconds"] < 300
    # What is left notices the broken connection, or the launcher stops it first, at times before it can speak.
    assert all("another process of this run ended" in line or "stopped; " in line for line in lost["said"])


def test_derain_shares_photos_without_loss_or_repeat(photos, run_cli, monkeypatch):
    # A PNG file under another name: its result is called as that of the other, which one process must see.
    (photos / "rainy" / "0.jpg").write_bytes((photos / "rainy" / "0.png").read_bytes())
    arguments = ("derain", "rainy", "--weights", "tiny.safetensors", "--json")
    outcome = launch(*arguments, "two.json", "-o", "two", cwd=photos)
    monkeypatch.chdir(photos)
    run_cli(*arguments, "one.json", "-o", "one")
    one, two = (json.loads((photos / f"{name}.json").read_text()) for name in ("one", "two"))

    def became(report: dict) -> list[tuple]:
        return [
            (row["input"], [Path(path).name for path in row["written"]], bool(row["error"])) for row in report["photos"]
        ]

    assert became(two) == became(one)
    assert len(became(two)) == 7
    assert {path.name for path in (photos / "two").iterdir()} == {path.name for path in (photos / "one").iterdir()}
    assert outcome.out.count("derained") == 1


def test_evaluate_shares_images_and_gives_the_figures_of_one_process(photos, run_cli, monkeypatch):
    arguments = ("evaluate", "--rainy", "rainy", "--clean", "clean", "--weights", "tiny.safetensors", "--json")
    outcome = launch(*arguments, "two.json", "-o", "page", cwd=photos)
    monkeypatch.chdir(photos)
    run_cli(*arguments, "one.json")
    one, two = (json.loads((photos / f"{name}.json").read_text()) for name in ("one", "two"))

    def without_times(rows: list[dict]) -> list[dict]:
        for row in rows:
            row["scores"]["tiny.safetensors"].pop("seconds")
        return rows

    assert without_times(two["images"]) == without_times(one["images"])
    assert [failure["key"] for failure in two["failures"]] == [failure["key"] for failure in one["failures"]]
    assert outcome.out.count("mean over 5 images") == 1
    lines = [json.loads(line) for line in (photos / "page/images.jsonl").read_text().splitlines()]
    fingerprints = [line["fingerprint"] for line in lines[1:]]
    assert len(fingerprints) == len(set(fingerprints)) == 2 * 5


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_jobs_are_shared_without_loss_or_repeat(world):
    jobs = ["a.jpg", "b.jpg", "a.png", "c.jpg", "d.jpg", "c.tif"]
    shares = [Crew(rank, world).share(jobs, lambda job: job[0]) for rank in range(world)]
    assert sorted(chain(*shares)) == list(range(len(jobs)))
    for name in "ac":
        assert sum(any(jobs[i].startswith(name) for i in share) for share in shares) == 1


def test_a_process_alone_draws_and_averages_for_itself():
    value = torch.ones(3, requires_grad=True)
    assert averaged(value) is value
    assert torch.equal(gathered(value), value)
    torch.manual_seed(1)
    found = drawn(4, torch.rand)
    torch.manual_seed(1)
    assert torch.equal(found, torch.rand(4))
    assert ALONE.gather({1: "b", 0: "a"}) == ["a", "b"]


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path):
    (tmp_path / "run.yaml").write_text("output: run\ndata: {paired: [{path: bundled, recipe: light}]}\nbatch_size: 3\n")
    outcome = launch("train", "run.yaml", cwd=tmp_path)
    assert outcome.code != 0
    assert "'batch_size' 3 in 1 parts cannot be shared evenly by 2 processes; make it a multiple of 2." in outcome.err


def test_of_two_processes_that_train_one_says_what_was_written(tmp_path):
    (tmp_path / "run.yaml").write_text(
        "{output: run, steps: 1, batch_size: 2, picture_every: 0, network: {name: joint, options: {size: tiny}},"
        " data: {crop: 32, workers: 0, paired: [{path: bundled, recipe: light}]}}"
    )
    outcome = launch("train", "run.yaml", cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("weights.safetensors") == 1 + outcome.out.count("sstl derain")


def test_bfloat16_stays_within_a_twentieth_of_a_decibel(run_process, tmp_path):
    arguments = ("--weights", "joint-small", "--count", 2, "--steps", 0, "-o", tmp_path / "found.json")
    outcome = run_process(HARNESS / "precision.py", *arguments)
    assert outcome.code == 0, outcome.err
    found = json.loads((tmp_path / "found.json").read_text())["weights"]["joint-small"]
    assert found["fp32"] != found["bf16"]
    assert abs(found["difference"]) < 0.05
