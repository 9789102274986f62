"""A run that is killed, stopped, starved of disk or started twice loses nothing, leaves no half file, and says so."""

from __future__ import annotations

import errno
import importlib
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from torch.utils.data import Dataset

from sstl.config import to_tree
from sstl.data.stream import GlobalBatches, endless
from sstl.engine import Interrupted, MethodConfig, TrainConfig, train
from sstl.engine.checkpoint import Progress, list_checkpoints, load_checkpoint
from sstl.engine.lock import NAME, only_run
from sstl.errors import ConfigError, WeightsError
from sstl.methods import create_method
from sstl.networks import create_network
from sstl.ops.files import PART, whole_file, write_atomic

HARNESS = ROOT / "experiments/reliability"
sys.path.insert(0, str(HARNESS))
from toy_run import differing, make_data, settings  # noqa: E402 (the harness's folder)

SUPERVISED = MethodConfig("supervised")
ENGINE = sys.modules["sstl.engine.train"]  # its function has the same name


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_data(folder)
    return folder


@pytest.fixture
def config(root: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    def make(name: str = "run", **changes: object) -> TrainConfig:
        shorter = {"steps": 4, "validation": None, "picture_every": 0}
        return settings(root, tmp_path / name, SUPERVISED, **{**shorter, **changes})

    return make


@pytest.fixture
def in_process() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start ``sstl train`` in a process group of its own; what is left of the group is killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def begin(settings: TrainConfig, *arguments: str, **options: object) -> subprocess.Popen[str]:
        path = settings.output.with_suffix(".yaml")
        path.write_text(yaml.safe_dump(to_tree(settings)))
        process = subprocess.Popen(
            [sys.executable, "-m", "sstl", "train", str(path), *arguments],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True, **options,
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(PART) or path.name == NAME]


# --- kills -----------------------------------------------------------------------------------------------------------


def test_a_killed_run_is_resumed_to_the_run_left_alone(run_process, tmp_path):
    arguments = ("--kills", 3, "--methods", "sirr", "-o", tmp_path / "kills.json")
    outcome = run_process(HARNESS / "kills.py", *arguments, timeout=600)
    assert outcome.code == 0, outcome.err
    found = json.loads((tmp_path / "kills.json").read_text())
    assert found["kills"] >= 3
    assert found["different"] == 0
    assert found["environment"]["seed"] == 0


def test_what_a_kill_in_the_middle_of_a_file_leaves_is_removed(config):
    whole, part = config("whole"), config("part")
    train(whole)
    train(replace(part, steps=2))
    half = part.output / "checkpoints" / f".step-00000004.safetensors.x{PART}"
    half.write_bytes(b"half a checkp")
    train(part, resume=True)
    assert leftovers(part.output) == []
    assert [path.name for path in list_checkpoints(part.output / "checkpoints")] == [
        "step-00000002.safetensors",
        "step-00000004.safetensors",
    ]


# --- being asked to stop ---------------------------------------------------------------------------------------------


def test_a_run_says_with_which_command_it_goes_on(in_process, config):
    process = in_process(config(steps=100_000), "log_every=1")
    log = config().output / "log.jsonl"
    while not (log.exists() and log.read_text()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 143, err
    path = config().output.with_suffix(".yaml")
    assert f"Go on with: sstl train {path} log_every=1 --resume" in err
    assert leftovers(config().output) == []


def test_a_signal_before_the_first_step_ends_the_run_at_once(config, monkeypatch):
    monkeypatch.setattr(ENGINE, "_streams", lambda *_: signal.raise_signal(signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="nothing was done yet") as caught:
        train(config())
    assert (caught.value.exit_code, caught.value.resumable) == (143, False)
    assert not config().output.exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_signal_ends_the_step_that_does_not_end(config, monkeypatch):
    def stuck(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # at once: a launcher that sends it twice means it once
        monkeypatch.setattr(ENGINE, "PATIENCE", 0.0)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it went on")

    monkeypatch.setattr("sstl.methods.supervised.Supervised.forward", stuck)
    with pytest.raises(KeyboardInterrupt):
        train(config())


class Slow(Dataset[int]):
    """A stream whose batches take a minute."""

    def __init__(self) -> None:
        self.begun = multiprocessing.Event()

    def __getitem__(self, _: object) -> int:
        self.begun.set()
        time.sleep(60)
        return 0


def test_a_worker_that_is_busy_does_not_hold_up_the_end():
    stream = Slow()
    iterator = endless(stream, GlobalBatches(1), workers=1)
    (worker,) = multiprocessing.active_children()
    assert stream.begun.wait(60)
    start = time.monotonic()
    del iterator
    worker.join(30)
    assert worker.exitcode == -signal.SIGKILL
    assert time.monotonic() - start < 30


# --- disks -----------------------------------------------------------------------------------------------------------


def test_a_full_disk_ends_a_run_with_one_line_and_loses_nothing(config, in_process):
    settings = config()
    train(replace(settings, steps=2))
    saved = list_checkpoints(settings.output / "checkpoints")
    size = saved[-1].stat().st_size // 2

    def fill_up() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    process = in_process(settings, "--resume", preexec_fn=fill_up)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2, err
    assert "Traceback" not in err
    (message,) = [line for line in err.splitlines() if line.startswith("sstl: error: ")]
    assert f"{settings.output / 'checkpoints/step-00000004.safetensors'}: {os.strerror(errno.EFBIG)}" in message
    assert list_checkpoints(settings.output / "checkpoints") == saved
    assert leftovers(settings.output) == []
    # With room again, it is as if nothing had happened.
    train(settings, resume=True)
    whole = config("whole")
    train(replace(whole, steps=2))
    train(whole, resume=True)
    assert differing(settings.output, whole.output) == []


def test_a_log_line_that_does_not_fit_names_the_log(config, monkeypatch):
    real = os.fsync

    def full(handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").resolve().name == "log.jsonl":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        train(config())
    assert caught.value.filename == str(config().output / "log.jsonl")


def test_a_folder_that_cannot_be_written_is_named_before_anything_is_computed(config, monkeypatch, run_cli, tmp_path):
    settings = config()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(settings.output))

    monkeypatch.setattr(Path, "mkdir", refuse)
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(to_tree(settings)))
    outcome = run_cli("train", path)
    assert outcome.code == 2
    assert outcome.err == f"sstl: error: {settings.output}: Read-only file system; check the path and the free space.\n"


def test_of_a_link_the_file_is_replaced_and_a_pipe_is_written_into(tmp_path):
    (tmp_path / "there.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "there.txt")
    write_atomic(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "there.txt").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_atomic(tmp_path / "pipe", "told")
    assert os.read(reader, 9) == b"told"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    path = write_atomic(tmp_path / "there.txt", "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomic(path, "new")
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]


def test_an_error_of_another_file_keeps_its_name(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError) as caught, whole_file(tmp_path / "whole") as part:
        shutil.copyfile(tmp_path / "missing", part)
    assert Path(caught.value.filename).name == "missing"
    assert not any(tmp_path.iterdir())

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / ".hidden.part"))

    monkeypatch.setattr("sstl.ops.files.tempfile.mkstemp", refuse)
    with pytest.raises(PermissionError) as caught, whole_file(tmp_path / "whole"):
        pass
    assert Path(caught.value.filename).name == "whole"


def test_no_damage_to_a_checkpoint_goes_unnoticed(config):
    settings = config(steps=2, ema_decay=0.0)
    train(settings)
    (path,) = list_checkpoints(settings.output / "checkpoints")
    whole = path.read_bytes()
    modules = {"method": create_method("supervised", create_network("joint", size="tiny"))}
    load_checkpoint(path, modules, {})
    draw = np.random.default_rng(0)
    for i in range(60):
        data = bytearray(whole)
        if i % 3:
            # One bit anywhere: header, numbers, random states. Padding of the header is all that does not count.
            data[draw.integers(8, len(data))] ^= 1 << int(draw.integers(8))
        else:
            del data[int(draw.integers(len(data))) :]
        path.write_bytes(data)
        with pytest.raises(WeightsError, match="damaged"):
            load_checkpoint(path, modules, {})


# --- clocks ----------------------------------------------------------------------------------------------------------


def test_a_clock_that_jumps_changes_nothing(config, monkeypatch):
    train(config("steady"))
    jumps = iter([0.0, 1e6, -1e6, 3.6e3, -3.6e3] * 10_000)
    for name in ("time.time", "tqdm.std.time"):
        monkeypatch.setattr(name, lambda: 1.7e9 + next(jumps))
    train(config("jumping"))
    assert differing(config("steady").output, config("jumping").output) == []
    lines = [json.loads(line) for line in (config("jumping").output / "log.jsonl").read_text().splitlines()]
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds)
    assert 0 <= seconds[0] <= seconds[-1] < 600


# --- two runs --------------------------------------------------------------------------------------------------------


def hold(folder: Path, ready: object) -> None:
    with only_run(folder):
        ready.set()  # type: ignore[attr-defined]
        time.sleep(600)


@pytest.fixture
def holder(config) -> Iterator[multiprocessing.process.BaseProcess]:
    """Another process that has a run's folder."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold, args=(config().output, ready))
    process.start()
    assert ready.wait(120)
    yield process
    process.kill()
    process.join()


def test_a_second_run_on_one_folder_is_refused(config, holder):
    settings = config()
    for arguments in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(ConfigError, match=rf"in use by another run \(process {holder.pid} on .*\); wait"):
            train(settings, **arguments)
    assert [path.name for path in settings.output.iterdir()] == [NAME]


def test_the_lock_of_a_dead_process_is_no_obstacle(config, holder):
    holder.kill()
    holder.join()
    assert (config().output / NAME).exists()
    train(config())
    assert leftovers(config().output) == []


def test_a_lock_that_its_owner_removed_meanwhile_is_none(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    real = os.path.samestat
    answers = iter([False])
    monkeypatch.setattr(os.path, "samestat", lambda *stats: next(answers, None) is None and real(*stats))
    with only_run(folder):
        assert re.fullmatch(r"process \d+ on .*", (folder / NAME).read_text())
    assert not folder.exists()


# --- the same run ----------------------------------------------------------------------------------------------------


def test_progress_of_older_checkpoints_is_read():
    assert set(vars(Progress())) == {"step", "skipped", "skipped_in_a_row", "best", "best_step", "seconds"}


def test_every_results_file_says_with_what_it_was_made():
    files = [path for path in (ROOT / "experiments").rglob("*.json") if "environment" not in path.name]
    assert files
    for path in files:
        tree = json.loads(path.read_text(encoding="utf-8"))
        # Results in parts, and logs of several runs, have one for each.
        parts = tree if isinstance(tree, list) else [tree] if "environment" in tree else tree.values()
        found = [part["environment"] for part in parts if isinstance(part, dict)]
        assert found, path
        for environment in found:
            assert {"sstl", "commit", "python", "torch", "threads", "platform", "date"} <= environment.keys(), path


def test_the_pages_show_the_figures_of_the_results_files():
    written = importlib.import_module("figures")
    for name, harnesses in written.PAGES.items():
        assert written.figures(harnesses) in (ROOT / "docs" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("method", ["mean_teacher", "streak_transfer"])
def test_the_same_seed_is_the_same_run(root, tmp_path, method):
    one, two, other = (
        settings(root, tmp_path / name, MethodConfig(method), steps=3, seed=seed, validation=None, picture_every=0)
        for name, seed in (("one", 5), ("two", 5), ("other", 6))
    )
    for each in (one, two, other):
        torch.manual_seed(int(time.time()))  # what was drawn before does not matter
        train(each)
    assert differing(one.output, two.output) == []
    assert "log" in differing(one.output, other.output)
