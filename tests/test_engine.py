"""The engine: what a run writes, that an interruption leaves no trace, and what happens when the loss is no number."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import Outcome
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from sstl.compat import import_torchvision_user
from sstl.config import load_config, to_tree
from sstl.data import SourceConfig
from sstl.data.stream import PairedPart
from sstl.engine import (
    DataConfig,
    MethodConfig,
    NetworkConfig,
    OptimizerConfig,
    TrainConfig,
    ValidationConfig,
    build_network,
    read_log,
    train,
)
from sstl.engine.records import RunLog, picture_grid
from sstl.engine.train import _Session
from sstl.errors import ConfigError, DivergenceError, SstlError, WeightsError
from sstl.methods import METHODS
from sstl.methods.supervised import Supervised
from sstl.networks import create_network, load_weights, save_weights
from sstl.rain import render

TINY = NetworkConfig("joint", {"size": "tiny"})


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory, photo: Tensor) -> Path:
    """A data folder: ``pairs`` (two of 40x40), ``one`` (a single pair of 32x32) and ``real`` (two rainy photos)."""
    folder = tmp_path_factory.mktemp("data")

    def put(name: str, image: Tensor) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy()).save(folder / name)

    for i, (top, left) in enumerate([(0, 0), (50, 80)]):
        sample = render(photo[..., top : top + 40, left : left + 40], "heavy", seed=1, indices=[i])
        put(f"pairs/rainy/{i}.png", sample.rainy[0])
        put(f"pairs/clean/{i}.png", sample.clean[0])
        put(f"real/{i}.png", sample.rainy[0].flip(-1))
    for side in ("rainy", "clean"):
        put(f"one/{side}/0.png", getattr(sample, side)[0, :, :32, :32])
    return folder


@pytest.fixture
def config(root: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """Make the configuration of a run of a few steps."""

    def make(name: str = "run", data: dict[str, object] | None = None, **changes: object) -> TrainConfig:
        settings = {"root": root, "crop": 32, "workers": 0, "cache_gb": 0.1, **(data or {})}
        settings.setdefault("paired", (PairedPart("pairs"),))
        defaults = {
            "network": TINY,
            "steps": 6,
            "batch_size": 2,
            "precision": "fp32",
            "checkpoint_every": 3,
            "log_every": 1,
            "picture_every": 0,
        }
        return TrainConfig(output=tmp_path / name, data=DataConfig(**settings), **{**defaults, **changes})

    return make


@pytest.fixture
def every_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sstl.engine.checkpoint.KEEP", 1000)


UNPAIRED = {"unpaired": (SourceConfig("real"),)}
VALIDATION = ValidationConfig((SourceConfig("pairs"),), every=2, limit=1)


def tensors(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)


def assert_same(one: Path, other: Path) -> None:
    """Every tensor of two files is the same, byte for byte."""
    a, b = tensors(one), tensors(other)
    assert a.keys() == b.keys()
    different = [key for key in a if a[key].numpy().tobytes() != b[key].numpy().tobytes()]
    assert not different


def checkpoints(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step-*.safetensors"))


def losses(run: Path) -> dict[int, dict[str, float]]:
    """The numbers of each step, without those of the clock; each step must have been logged once."""
    lines = [line for line in read_log(run / "log.jsonl") if "loss" in line]
    assert len({line["step"] for line in lines}) == len(lines)
    clock = ("seconds", "samples_per_second")
    return {line["step"]: {k: v for k, v in line.items() if k not in clock} for line in lines}


# --- a run -----------------------------------------------------------------------------------------------------------


def test_a_run_writes_what_it_promises(config):
    settings = config(validation=VALIDATION, picture_every=4, checkpoint_every=2)
    weights = train(settings)
    run = settings.output
    assert weights == run / "weights.safetensors"
    assert load_config(TrainConfig, run / "config.yaml") == settings
    assert [path.stem for path in checkpoints(run)] == ["step-00000004", "step-00000006"]  # the last and one before

    lines = read_log(run / "log.jsonl")
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    assert {"lr", "background", "streak", "mask", "seconds", "samples_per_second", "skipped"} <= steps[0].keys()
    checks = [line for line in lines if "validation" in line]
    assert [line["step"] for line in checks] == [2, 4, 6]
    for line in checks:
        assert set(line["validation"]) == {"psnr", "input_psnr", "pairs/psnr", "pairs/input_psnr"}

    with Image.open(run / "pictures/step-00000004.png") as picture:
        assert picture.width > 4 * 40
    assert len(list((run / "pictures").iterdir())) == 1
    last, best = load_weights(weights), load_weights(run / "best.safetensors")
    assert last.info["step"] == 6
    assert best.info["step"] == max(checks, key=lambda line: line["validation"]["psnr"])["step"]
    assert last.network.config == {"size": "tiny"}
    averaged = {
        k.removeprefix("average/module."): t for k, t in tensors(checkpoints(run)[-1]).items() if "average/" in k
    }
    assert all(torch.equal(t, averaged[name]) for name, t in tensors(weights).items())


def test_the_loss_falls_on_one_pair(config):
    settings = config(
        steps=60,
        data={"paired": (PairedPart("one"),)},
        optimizer=OptimizerConfig(lr=3e-3),
        checkpoint_every=100,
        log_every=5,
    )
    train(settings)
    numbers = list(losses(settings.output).values())
    assert numbers[-1]["loss"] < 0.6 * numbers[0]["loss"]
    assert numbers[-1]["background"] < 0.6 * numbers[0]["background"]
    assert numbers[-1]["mask"] < numbers[0]["mask"]


def test_a_run_is_a_function_of_its_configuration(config):
    first, again, other = (train(config(name, seed=seed)) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert_same(first, again)
    assert not all(torch.equal(t, tensors(other)[name]) for name, t in tensors(first).items())


def test_splits_of_one_set_are_validated_each_by_itself(config, root, tmp_path):
    for split, number in (("val", 0), ("test", 1)):
        for side in ("rainy", "clean"):
            (tmp_path / "set" / split / side).mkdir(parents=True)
            shutil.copy(root / "pairs" / side / f"{number}.png", tmp_path / "set" / split / side)
    sources = tuple(SourceConfig(str(tmp_path / "set"), split=split) for split in ("val", "test"))
    settings = config(steps=1, validation=replace(VALIDATION, sources=sources, every=1))
    train(settings)
    (found,) = (line["validation"] for line in read_log(settings.output / "log.jsonl") if "validation" in line)
    psnr = [found[f"{tmp_path / 'set'} {split}/psnr"] for split in ("val", "test")]
    assert psnr[0] != psnr[1]
    assert found["psnr"] == pytest.approx(np.mean(psnr))


def test_pictures_teach_nothing(photo):
    network = create_network("ddn").train()
    before = {name: value.clone() for name, value in network.named_buffers()}
    picture_grid(network, photo, torch.device("cpu"))
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())


def test_accumulation_is_a_larger_batch(config):
    plain = OptimizerConfig(name="sgd", lr=0.1, clip_norm=None)
    whole, parts = (
        train(config(f"by-{n}", batch_size=4, accumulation=n, optimizer=plain, ema_decay=0.0)) for n in (1, 2)
    )
    start = build_network(TINY)
    for name, t in tensors(whole).items():
        torch.testing.assert_close(tensors(parts)[name], t, rtol=1e-4, atol=1e-5)
    assert any((t - start.state_dict()[name]).abs().max() > 1e-3 for name, t in tensors(whole).items())
    one, two = (losses(path.parent) for path in (whole, parts))
    for step in one:
        assert two[step]["loss"] == pytest.approx(one[step]["loss"], rel=1e-4)


def test_without_averaging_the_weights_are_the_network_itself(config):
    settings = config(ema_decay=0.0)
    weights = tensors(train(settings))
    state = tensors(checkpoints(settings.output)[-1])
    assert not any(key.startswith("average") for key in state)
    assert all(torch.equal(t, state[f"method/network.{name}"]) for name, t in weights.items())


@pytest.mark.usefixtures("every_checkpoint")
def test_the_average_follows_the_network_ever_more_slowly(config):
    settings = config(checkpoint_every=1, ema_decay=0.6)
    train(settings)
    states = [tensors(path) for path in checkpoints(settings.output)]
    key = "stem.weight"
    networks, averages = (
        [s[f"{name}.{key}"].double() for s in states] for name in ("method/network", "average/module")
    )
    assert torch.equal(averages[0], networks[0])
    decays = []
    for before, after, new in zip(averages, averages[1:], networks[1:], strict=False):
        decay = float(((after - new) * (before - new)).sum() / (before - new).square().sum())
        torch.testing.assert_close(after, decay * before + (1 - decay) * new, rtol=0, atol=1e-7)
        decays.append(decay)
    assert decays == pytest.approx(sorted(decays), abs=1e-3)
    assert 0 < decays[0] < 0.5
    assert decays[-1] == pytest.approx(0.6, abs=1e-3)


def test_arithmetic_may_change_within_a_process(config):
    for precision in ("fp32", "bf16", "fp32"):
        settings = config(f"{precision}", steps=1, precision=precision)
        train(settings, overwrite=True)
        assert math.isfinite(losses(settings.output)[1]["loss"])


@pytest.mark.parametrize("method", ["sirr", "mean_teacher"])
def test_methods_with_unpaired_photos_train(config, method):
    settings = config(data=UNPAIRED, method=MethodConfig(method), steps=2)
    train(settings)
    assert all(math.isfinite(v) for v in losses(settings.output)[2].values())


def test_cosine_schedule_with_warm_up(config):
    settings = config(steps=12, optimizer=OptimizerConfig(lr=0.01, warmup_steps=4, final=0.1), checkpoint_every=12)
    train(settings)
    rates = [line["lr"] for line in losses(settings.output).values()]
    # Step number t (from 0): linear from lr / 100, then the cosine from lr at 0 to lr * final at the end.
    assert rates[0] == pytest.approx(0.01 / 100)
    assert rates[2] == pytest.approx((0.01 / 100 + 0.01) / 2)
    for t in range(4, 12):
        assert rates[t] == pytest.approx(0.001 + 0.009 * (1 + math.cos(math.pi * t / 12)) / 2)


def test_without_warm_up_the_first_rate_is_the_whole(config):
    settings = config(steps=3, optimizer=OptimizerConfig(lr=0.02))
    train(settings)
    assert losses(settings.output)[1]["lr"] == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ({"milestones": (2, 4), "decay": 0.1}, [1, 1, 0.1, 0.1, 0.01, 0.01]),
        ({"every": 2, "decay": 0.5}, [1, 1, 0.5, 0.5, 0.25, 0.25]),
        ({}, [1, 1, 1, 1, 1, 1]),
    ],
)
def test_stepped_schedules(config, schedule, factors):
    settings = config(steps=6, optimizer=OptimizerConfig(lr=0.01, schedule="steps", **schedule))
    train(settings)
    rates = [line["lr"] for line in losses(settings.output).values()]
    assert rates == pytest.approx([0.01 * factor for factor in factors])


# The discriminator's parameters move at a rate of their own, the network's not at all.
PLAYERS = {
    "method": MethodConfig("adversarial", {"width": 4}),
    "optimizer": OptimizerConfig("momentum", lr=0.0, clip_norm=None),
    "optimizers": {"discriminator": OptimizerConfig("adam", lr=1e-3, betas=(0.5, 0.999), schedule="steps")},
    "ema_decay": 0.0,
}


def test_each_group_has_an_optimiser_of_its_own(config):
    settings = config(steps=2, **PLAYERS)
    train(settings)
    fresh, trained = (state_of(config(name, steps=steps, **PLAYERS)) for name, steps in (("one", 1), ("three", 3)))
    moved = {key.split("/")[1].split(".")[0] for key in fresh if not torch.equal(fresh[key], trained[key])}
    assert moved == {"discriminator"}


def state_of(settings: TrainConfig) -> dict[str, Tensor]:
    """Train, and return the method's trained parameters from the last checkpoint."""
    train(settings)
    (path,) = sorted((settings.output / "checkpoints").glob("*.safetensors"))[-1:]
    with safe_open(path, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith("method/")]  # noqa: SIM118 (not a dict)
        return {name: file.get_tensor(name) for name in names if "running" not in name and "num_batches" not in name}


def test_a_resumed_run_of_two_players_is_the_uninterrupted_one(config):
    players = {**PLAYERS, "optimizer": OptimizerConfig(lr=1e-3, schedule="steps")}
    whole = state_of(config("whole", steps=4, **players))
    half = config("half", steps=4, **players)
    train(replace(half, steps=2))
    train(half, resume=True)
    (path,) = sorted((half.output / "checkpoints").glob("*.safetensors"))[-1:]
    with safe_open(path, framework="pt") as file:
        assert all(torch.equal(whole[name], file.get_tensor(name)) for name in whole)


def test_an_optimiser_of_no_group_is_refused(config):
    settings = config(optimizers={"discriminater": OptimizerConfig()})
    with pytest.raises(ConfigError, match="method 'supervised' has no parameters 'discriminater'"):
        train(settings)


def test_a_dropped_step_leaves_no_trace_in_batch_statistics(config, monkeypatch):
    def spoil(self: Supervised, paired: object, _: object = None) -> dict[str, Tensor]:
        parts = self.supervised(paired)
        return {**parts, "loss": parts["loss"] * math.nan}

    monkeypatch.setattr(Supervised, "forward", spoil)
    settings = config(steps=3, network=NetworkConfig("ddn", {"width": 4, "blocks": 1}), ema_decay=0.0)
    train(settings)
    network = load_weights(settings.output / "weights.safetensors").network
    statistics = [value for name, value in network.state_dict().items() if "running_mean" in name]
    assert statistics
    assert all(torch.equal(value, torch.zeros_like(value)) for value in statistics)


def test_tensorboard_events_by_extra(config):
    settings = config(steps=2, tensorboard=True, validation=VALIDATION)
    train(settings)
    (events,) = (settings.output / "tensorboard").glob("events.*")
    assert b"loss" in events.read_bytes()
    assert b"pairs/psnr" in events.read_bytes()


# --- interruptions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["supervised", "sirr", "mean_teacher"])
def test_a_resumed_run_is_the_uninterrupted_one(config, method):
    whole = config("whole", data=UNPAIRED, method=MethodConfig(method), validation=VALIDATION)
    train(whole)
    part = replace(whole, output=whole.output.with_name("part"))
    shutil.copytree(whole.output, part.output)
    checkpoints(part.output)[-1].unlink()
    (part.output / "weights.safetensors").unlink()
    # Numbers that the interrupted process had drawn since, or another program before: none of it may matter.
    torch.manual_seed(12345)
    np.random.seed(12345)
    random.seed(12345)
    train(part, resume=True)
    for name in ("weights.safetensors", "checkpoints/step-00000006.safetensors"):  # optimiser, state, generators too
        assert_same(whole.output / name, part.output / name)
    assert losses(part.output) == losses(whole.output)
    checks = [
        [line for line in read_log(run / "log.jsonl") if "validation" in line] for run in (whole.output, part.output)
    ]
    assert checks[0] == checks[1]


def test_a_finished_run_resumes_to_nothing(config):
    settings = config()
    before = tensors(train(settings))
    after = tensors(train(settings, resume=True))
    assert all(torch.equal(t, after[name]) for name, t in before.items())


LONG = {"steps": 80, "checkpoint_every": 2, "log_every": 1}


@pytest.fixture
def start(config) -> Callable[..., tuple[subprocess.Popen[str], TrainConfig]]:
    """Start the run LONG in a process of its own, and return when it has its first checkpoint."""
    started: list[subprocess.Popen[str]] = []

    def begin(name: str, workers: int = 0) -> tuple[subprocess.Popen[str], TrainConfig]:
        settings = config(name, data={"workers": workers}, **LONG)
        path = settings.output.with_suffix(".yaml")
        path.write_text(yaml.safe_dump(to_tree(settings)))
        process = subprocess.Popen(
            [sys.executable, "-m", "sstl", "train", str(path)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a process group, as a terminal makes one
        )
        started.append(process)
        deadline = time.monotonic() + 300
        while not checkpoints(settings.output):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return process, settings

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """The run LONG, without an interruption."""
    output = tmp_path_factory.mktemp("uninterrupted")
    data = DataConfig((PairedPart("pairs"),), root=root, crop=32, workers=0, cache_gb=0.1)
    train(TrainConfig(output, data, TINY, batch_size=2, precision="fp32", picture_every=0, **LONG))
    return output


def test_a_killed_run_resumes_to_the_same_weights(start, run_process, uninterrupted):
    process, settings = start("killed")
    process.kill()
    process.communicate()
    run = settings.output
    assert not (run / "weights.safetensors").exists()
    outcome = run_process("-m", "sstl", "train", run.with_suffix(".yaml"), "--resume")
    assert outcome.code == 0, outcome.err
    assert_same(run / "weights.safetensors", uninterrupted / "weights.safetensors")
    assert_same(checkpoints(run)[-1], checkpoints(uninterrupted)[-1])
    assert losses(run) == losses(uninterrupted)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_that_is_asked_to_stop_saves_and_says_how_to_go_on(start, uninterrupted, number, code):
    process, settings = start("stopped", workers=1)
    os.killpg(process.pid, number)  # Ctrl-C, a scheduler: the worker that loads ahead hears it as well
    _, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    (message,) = [line for line in err.splitlines() if line.startswith("sstl: error: ")]
    assert "--resume" in message
    assert "Traceback" not in err
    run = settings.output
    step = read_log(run / "log.jsonl")[-1]["step"]
    assert f"stopped at step {step};" in message
    assert checkpoints(run)[-1].stem == f"step-{step:08d}"
    assert not (run / "weights.safetensors").exists()
    train(settings, resume=True)
    assert_same(run / "weights.safetensors", uninterrupted / "weights.safetensors")
    assert losses(run) == losses(uninterrupted)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def flip_bits(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for place in np.random.default_rng(0).integers(len(data) // 2, len(data), 5):
        data[place] ^= 1 << 4
    path.write_bytes(data)


def spoil_header(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'\\"step\\": 6', b'\\"step\\": 7'))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flip_bits, spoil_header, empty])
def test_a_damaged_checkpoint_is_passed_over(config, capsys, damage):
    settings = config()
    before = tensors(train(settings))
    newest = checkpoints(settings.output)[-1]
    content = newest.read_bytes()
    damage(newest)
    assert newest.read_bytes() != content
    capsys.readouterr()
    after = tensors(train(settings, resume=True))
    captured = capsys.readouterr()
    assert f"sstl: warning: {newest}: " in captured.err
    assert not captured.out
    assert all(torch.equal(t, after[name]) for name, t in before.items())
    assert set(losses(settings.output)) == set(range(1, 7))


def test_no_checkpoint_that_can_be_read_is_an_error(config):
    settings = config()
    train(settings)
    log = (settings.output / "log.jsonl").read_bytes()
    for path in checkpoints(settings.output):
        cut(path)
    with pytest.raises(WeightsError, match="none of its checkpoints can be read"):
        train(settings, resume=True)
    assert (settings.output / "log.jsonl").read_bytes() == log
    assert len(checkpoints(settings.output)) == 2


def test_a_checkpoint_of_another_network_is_not_loaded(config):
    settings = config(steps=1)
    train(settings)
    with pytest.raises(WeightsError, match="none of its checkpoints can be read"):
        train(replace(settings, network=NetworkConfig("joint", {"size": "tiny", "stages": 2})), resume=True)


def test_a_run_is_not_overwritten_by_accident(config):
    settings = config(steps=1)
    train(settings)
    log = (settings.output / "log.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="already holds a run; give --resume"):
        train(settings)
    # Even if asked to: not before it is certain that the new one can begin.
    wrong = replace(settings, data=replace(settings.data, paired=(PairedPart("gone"),)))
    for broken in (wrong, replace(settings, validation=replace(VALIDATION, sources=(SourceConfig("gone"),)))):
        with pytest.raises(ConfigError, match="gone"):
            train(broken, overwrite=True)
    assert (settings.output / "log.jsonl").read_bytes() == log
    assert len(checkpoints(settings.output)) == 1
    train(replace(settings, steps=2), overwrite=True)
    assert set(losses(settings.output)) == {1, 2}
    assert [path.stem for path in checkpoints(settings.output)] == ["step-00000002"]


def test_nothing_of_a_run_that_is_replaced_is_taken_for_the_new_one(config, monkeypatch):
    settings = config(steps=2, validation=VALIDATION, picture_every=2, snapshot_every=2)
    train(settings)
    (settings.output / "notes.txt").write_text("mine")
    shutil.rmtree(settings.output / "checkpoints")
    with pytest.raises(ConfigError, match="already holds a run"):
        train(settings)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["sstl.engine.train"], "run_loop", stop)
    with pytest.raises(KeyboardInterrupt):
        train(replace(settings, seed=1), overwrite=True)
    left = {path.name for path in settings.output.rglob("*") if path.is_file()}
    assert left == {"config.yaml", "log.jsonl", "notes.txt"}


def test_a_run_does_not_replace_what_it_starts_from(config):
    settings = config(steps=1)
    weights = train(settings)
    for start in (weights, settings.output):
        with pytest.raises(ConfigError, match="which is emptied first"):
            train(replace(settings, network=replace(TINY, weights=str(start))), overwrite=True)
    assert weights.exists()


def test_a_run_that_goes_on_with_other_settings_uses_them_and_says_so(config, capsys):
    settings = config(steps=2, optimizer=OptimizerConfig(weight_decay=0.5, betas=(0.5, 0.6)))
    train(settings)
    other = replace(settings, steps=4, optimizer=OptimizerConfig(weight_decay=0.0, betas=(0.9, 0.99)), log_every=2)
    train(other, resume=True)
    said = capsys.readouterr().err
    assert "run goes on, but not the optimizer.betas, optimizer.weight_decay with which it began" in said
    with safe_open(checkpoints(settings.output)[-1], framework="pt") as file:
        (group,) = json.loads(file.metadata()["groups"])["network"]
    assert (group["weight_decay"], group["betas"]) == (0.0, [0.9, 0.99])
    train(replace(other, steps=5, picture_every=7), resume=True)
    assert "goes on, but" not in capsys.readouterr().err


def test_there_must_be_something_to_resume(config):
    settings = config()
    with pytest.raises(ConfigError, match="no checkpoint to resume from"):
        train(settings, resume=True)
    assert not settings.output.exists()


# --- a loss that is no number ----------------------------------------------------------------------------------------


@pytest.fixture
def sick(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], bool]], MethodConfig]:
    """Register a method whose loss is NaN at the steps (from 1) that a predicate names."""

    def register(is_sick: Callable[[int], bool]) -> MethodConfig:
        steps = count(1)

        class Sick(Supervised):
            """Supervised, but for some steps."""

            def forward(self, paired, unpaired=None):
                parts = super().forward(paired, unpaired)
                return {**parts, "loss": parts["loss"] * (math.nan if is_sick(next(steps)) else 1)}

        monkeypatch.setitem(METHODS._entries, "sick", Sick)
        return MethodConfig("sick")

    return register


@pytest.mark.usefixtures("every_checkpoint")
def test_steps_without_a_finite_loss_are_dropped_and_counted(config, sick, monkeypatch):
    after = _Session._main_after_step
    # A run saves nothing after such a step; here its state is to be seen.
    monkeypatch.setattr(_Session, "_main_after_step", lambda run, numbers: (after(run, numbers), run.save()))
    settings = config(method=sick(lambda step: step in (2, 3, 5)), checkpoint_every=1000, ema_decay=0.9)
    weights = train(settings)
    kept = dict(enumerate(map(tensors, checkpoints(settings.output)), start=1))
    lines = losses(settings.output)
    assert [lines[step]["skipped"] for step in range(1, 7)] == [0, 1, 2, 2, 3, 3]
    assert [lines[step]["loss"] is None for step in range(1, 7)] == [False, True, True, False, True, False]
    for step in range(2, 7):
        unchanged = all(torch.equal(t, kept[step - 1][key]) for key, t in kept[step].items())
        assert unchanged == (step in (2, 3, 5)), step
    assert all(t.isfinite().all() for t in tensors(weights).values())


def test_a_gradient_that_is_no_number_drops_the_step_though_the_loss_is_one(config, monkeypatch):
    def spoil(self: Supervised, paired: object, _: object = None) -> dict[str, Tensor]:
        parts = self.supervised(paired)
        root = next(self.network.parameters()).mul(0).sum().sqrt()  # 0, of slope infinity times 0
        return {**parts, "loss": parts["loss"] + root}

    monkeypatch.setattr(Supervised, "forward", spoil)
    settings = config(steps=2, ema_decay=0.0)
    weights = tensors(train(settings))
    lines = losses(settings.output)
    assert [lines[step]["skipped"] for step in (1, 2)] == [1, 2]
    assert all(lines[step]["loss"] > 0 for step in (1, 2))
    assert all(t.isfinite().all() for t in weights.values())


def test_a_loss_that_stays_nan_stops_the_run_and_leaves_the_last_good_weights(config, sick):
    settings = config(method=sick(lambda step: step > 3), steps=100, checkpoint_every=2)
    with pytest.raises(DivergenceError, match=r"20 steps in a row, up to step 23; .*Lower optimizer\.lr") as caught:
        train(settings)
    assert str(settings.output) in str(caught.value)
    assert caught.value.exit_code == 1
    assert not (settings.output / "weights.safetensors").exists()
    assert all(t.isfinite().all() for t in tensors(checkpoints(settings.output)[-1]).values() if t.is_floating_point())
    # With the cause removed it goes on.
    cured = replace(settings, method=sick(lambda _: False), steps=24)
    weights = train(cured, resume=True)
    assert all(t.isfinite().all() for t in tensors(weights).values())
    assert losses(settings.output)[24]["loss"] > 0


def test_while_steps_are_dropped_no_checkpoint_takes_the_place_of_an_earlier_one(config, sick):
    settings = config(method=sick(lambda step: step > 6), steps=100, checkpoint_every=2)
    with pytest.raises(DivergenceError):
        train(settings)
    assert [path.stem for path in checkpoints(settings.output)] == ["step-00000004", "step-00000006"]


def test_twenty_dropped_steps_that_are_not_in_a_row_do_not_stop_a_run(config, sick):
    settings = config(method=sick(lambda step: step % 10 != 0), steps=25, checkpoint_every=100, log_every=25)
    train(settings)
    assert losses(settings.output)[25]["skipped"] == 23


# --- configurations that cannot be used ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "named"),
    [
        ({"optimizer": OptimizerConfig(name="adamwx")}, ConfigError, "optimizer.name is 'adamwx'"),
        ({"method": MethodConfig("sirr")}, ConfigError, "'sirr' learns from unlabelled photos; give data.unpaired"),
        ({"method": MethodConfig("supervized")}, SstlError, "Did you mean 'supervised'"),
        ({"method": MethodConfig("supervised", {"maks": 1.0})}, SstlError, "maks"),
        ({"network": NetworkConfig("joint", {"size": "huge"})}, SstlError, "size is 'huge'"),
        ({"network": NetworkConfig("joint", weights="gone.safetensors")}, WeightsError, "gone.safetensors"),
        ({"data": {"paired": (PairedPart("gone"),)}}, ConfigError, "gone"),
        ({"data": {"unpaired": (SourceConfig("gone"),)}, "method": MethodConfig("sirr")}, ConfigError, "gone"),
        ({"validation": ValidationConfig((SourceConfig("gone"),))}, ConfigError, "gone"),
    ],
)
def test_a_run_that_cannot_begin_writes_nothing(config, changes, error, named):
    settings = config(**changes)
    with pytest.raises(error, match=named) as caught:
        train(settings)
    assert "\n" not in str(caught.value)
    assert not settings.output.exists()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ("steps=0", "'steps' is 0"),
        ("batch_size=3 accumulation=2", "'batch_size' 3 is not a multiple of 'accumulation' 2"),
        ("ema_decay=1.0", "'ema_decay' is 1.0"),
        ("data.crop=0", "'data.crop' is 0"),
        ("data.paired=[]", "'data.paired' is empty"),
        ("data.paired=[{path: pairs, weight: 0.0}]", "weighs nothing"),
        ("seed=-1", "'seed' is -1"),
        ("validation={sources: []}", "'sources' must not be empty"),
        ("validation={sources: [{path: pairs}], every: 0}", "'every' and 'limit' must be at least 1"),
        ("optimizer.lr=1e-3", "write 0.001"),
        ("precision=fp16", "precision"),
        ("optimizer.lr=.nan", "'lr' is nan"),
        ("data.workers=-1", "'workers' is -1"),
        ("data.cache_gb=.inf", "'cache_gb' inf"),
        ("snapshot_every=-1", "'snapshot_every' is -1"),
        ("validation={sources: [{path: pairs}, {path: pairs}]}", "'sources' names one twice"),
    ],
)
def test_numbers_that_make_no_run_are_named(config, tmp_path, changes, named):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(to_tree(config())))
    overrides = [changes] if "{" in changes else changes.split()
    with pytest.raises(ConfigError) as caught:
        load_config(TrainConfig, path, overrides)
    assert named in str(caught.value)


def test_training_goes_on_from_weights(config, tmp_path):
    network = create_network("joint", size="tiny")
    path = save_weights(tmp_path / "begin.safetensors", network)
    for options in ({"size": "tiny"}, {}):
        built = build_network(NetworkConfig("joint", options, str(path)))
        assert built.training
        assert all(torch.equal(t, built.state_dict()[name]) for name, t in network.state_dict().items())
    for wrong in (NetworkConfig("joint", {"size": "small"}, str(path)), NetworkConfig("other", {}, str(path))):
        with pytest.raises(WeightsError, match=r"begin\.safetensors holds a joint"):
            train(config(network=wrong))


# --- records ---------------------------------------------------------------------------------------------------------


def test_the_log_drops_what_a_resumed_run_will_do_again(tmp_path):
    path = tmp_path / "log.jsonl"
    log = RunLog(tmp_path, 0, enabled=True, tensorboard=False)
    for step in range(1, 6):
        log.write({"step": step, "loss": step / 10})
    log.close()
    with path.open("a") as file:
        file.write('{"step": 6, "lo')  # a kill in the middle of a line
    assert [line["step"] for line in read_log(path)] == [1, 2, 3, 4, 5]
    log = RunLog(tmp_path, 3, enabled=True, tensorboard=False)
    log.write({"step": 4, "loss": 0.9})
    log.close()
    assert [(line["step"], line["loss"]) for line in read_log(path)] == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.9)]
    assert path.read_text().endswith("\n")
    assert read_log(tmp_path / "gone.jsonl") == []


def test_the_log_is_json_of_everyone(tmp_path):
    log = RunLog(tmp_path, 0, enabled=True, tensorboard=False)
    log.write({"step": 1, "loss": math.nan, "norm": math.inf})
    log.write({"step": 2, "validation": {"psnr": math.inf, "input_psnr": 20.0}})  # a perfect image has no finite PSNR
    log.close()

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    lines = [json.loads(line, parse_constant=refuse) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[0] == {"step": 1, "loss": None, "norm": None}
    assert lines[1] == {"step": 2, "validation": {"psnr": None, "input_psnr": 20.0}}


def test_only_the_main_process_writes_a_log(tmp_path):
    log = RunLog(tmp_path / "run", 0, enabled=False, tensorboard=True)
    log.write({"step": 1})
    log.close()
    assert not (tmp_path / "run").exists()


# --- other people's packages -----------------------------------------------------------------------------------------


def test_users_of_torchvision_can_be_imported():
    assert callable(import_torchvision_user("timm.utils").ModelEmaV3)
    assert callable(import_torchvision_user("torchvision.utils").save_image)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        import_torchvision_user("no_such_module")


def test_a_torchvision_that_does_not_fit_torch_gets_its_operators_declared(run_process, tmp_path):
    # As torchvision's wheel for CUDA beside a torch without: the first import fails for want of an operator.
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import torch\n"
        "if not hasattr(torch.ops.torchvision, 'nms') or not hasattr(torch.ops.torchvision, 'qnms'):\n"
        "    raise RuntimeError('operator torchvision::nms does not exist')\n"
    )
    (tmp_path / "user.py").write_text("import torchvision\nready = True\n")
    code = "from sstl.compat import import_torchvision_user as use; print(use('user').ready, use('user').ready)"
    outcome: Outcome = run_process("-c", code)
    assert (outcome.code, outcome.out) == (0, "True True\n"), outcome.err


def test_another_failure_of_torchvision_is_not_hidden(run_process, tmp_path):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('broken')\n")
    outcome = run_process("-c", "from sstl.compat import import_torchvision_user as use; use('json')")
    assert outcome.code == 1
    assert outcome.err.strip().endswith("RuntimeError: broken")
