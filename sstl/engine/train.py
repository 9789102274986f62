"""Assembling and running a training: from a configuration to weights, log, pictures and checkpoints in a folder."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from torch import nn
from tqdm import tqdm

from sstl.compat import import_torchvision_user
from sstl.config import to_tree
from sstl.data.stream import GlobalBatches, PairedStream, UnpairedStream, endless
from sstl.engine.checkpoint import Progress, list_checkpoints, load_checkpoint, save_checkpoint
from sstl.engine.config import NetworkConfig, TrainConfig
from sstl.engine.folder import WEIGHTS, check_output, clear_run, tell_changes
from sstl.engine.gate import Gate
from sstl.engine.lock import only_run
from sstl.engine.loop import run_loop
from sstl.engine.optimizers import create_groups
from sstl.engine.records import RunLog, picture_grid
from sstl.engine.validation import Validation
from sstl.errors import ConfigError, LostProcessError, SstlError, WeightsError
from sstl.methods import Method, create_method
from sstl.networks import Network, create_network, load_weights, save_weights
from sstl.networks.routed import latest
from sstl.ops.files import read_log, remove_parts, write_atomic
from sstl.ops.precision import resolve_precision
from sstl.ops.progress import hidden

PATIENCE = 2.0  # seconds after which a second request to stop is meant


class Interrupted(SstlError):
    """Training was asked to stop; what was done is saved.

    Attributes:
        resumable: whether there is a checkpoint to go on from.
    """

    def __init__(self, message: str, signum: int, resumable: bool) -> None:
        super().__init__(message)
        self.exit_code = 128 + (signum or signal.SIGTERM)  # 0: another process of the run got the signal
        self.resumable = resumable


def train(config: TrainConfig, resume: bool = False, overwrite: bool = False) -> Path:
    """Run (or go on with) a training.

    Writes into ``config.output``: ``config.yaml``, ``log.jsonl``, ``checkpoints/`` (full state, atomic),
    ``pictures/``, ``snapshots/``, ``best.safetensors`` (the averaged weights that validated best, if there is a
    validation), ``kept.safetensors`` (those that the gate judged best, if there is a gate) and, at the end,
    ``weights.safetensors``: the averaged weights; with a gate, the kept ones, or the start's if they are no better.

    Args:
        config: the run.
        resume: go on from the newest checkpoint that can be read; the result is what it would have been without the
            interruption, bit for bit on one CPU process.
        overwrite: begin anew although the folder holds a run.

    Returns:
        The path of the final weights.

    Raises:
        ConfigError, WeightsError: something in the configuration cannot be used.
        DivergenceError: the loss stayed NaN or infinite.
        Interrupted: SIGINT or SIGTERM came; the step was finished and saved.
        LostProcessError: another process of the run ended.
    """
    with _stop_on_signals(config.output / "checkpoints") as stop:
        accelerator = _accelerator(config)
        with only_run(config.output) if accelerator.is_main_process else nullcontext():
            try:
                return _train(config, accelerator, stop, resume, overwrite)
            except RuntimeError as error:
                if accelerator.num_processes > 1 and _is_of_connection(error):
                    raise LostProcessError(
                        "another process of this run ended; what was saved is whole, go on from it."
                    ) from error
                raise


def _is_of_connection(error: RuntimeError) -> bool:
    """Whether the processes could not reach each other; gloo raises plain errors."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)


def _train(config: TrainConfig, accelerator: Accelerator, stop: _Stop, resume: bool, overwrite: bool) -> Path:
    existing = check_output(config.output, resume, overwrite, config.network.weights)
    set_seed(config.seed)
    start = build_network(config.network)
    start.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
    network = latest(start)
    method = create_method(config.method.name, network, **config.method.options)
    if method.needs_unpaired and not config.data.unpaired:
        raise ConfigError(f"method '{config.method.name}' learns from unlabelled photos; give data.unpaired.")
    # The start is what the gate compares with: it is built before anything is loaded into the network.
    gate = Gate(config, start, accelerator.device) if config.gate and accelerator.is_main_process else None
    groups = create_groups(config, method, accelerator)
    optimizers = {name: group.optimizer for name, group in groups.items()}
    average = _average(config, network)
    progress = Progress()
    modules: dict[str, nn.Module] = {"method": method} | ({"average": average} if average is not None else {})
    if resume:
        progress = _resume(existing, modules, optimizers)
    # Nothing is written or removed before all data have been found.
    paired, unpaired = _streams(config, accelerator, method, progress.step)
    validation = Validation(config, accelerator.device) if config.validation else None
    if accelerator.is_main_process:
        if resume:
            tell_changes(config)
        else:
            clear_run(config.output)
        remove_parts(config.output)
        write_atomic(config.output / "config.yaml", yaml.safe_dump(to_tree(config), sort_keys=False))
    log = RunLog(config.output, progress.step, accelerator.is_main_process, config.tensorboard)
    if gate is not None:
        gate.recall(read_log(config.output / "log.jsonl"))
    prepared = accelerator.prepare_model(method)
    kept: Network = average.module if average is not None else network
    session = _Session(config, accelerator, progress, modules, optimizers, log, kept, validation, gate)
    with session, stop.after_the_step():
        stopped = not session.ended and run_loop(
            config, accelerator, prepared, groups.values(), average, paired, unpaired, progress,
            session.after_step, lambda: bool(stop.received),
        )  # fmt: skip
        if stopped and progress.step < config.steps:
            session.save()
            raise Interrupted(f"stopped at step {progress.step}; saved.", stop.received, resumable=True)
    return session.finish()


class _Session:
    """What happens around the steps: progress bar, log, pictures, validation, checkpoints; on the main process."""

    def __init__(
        self,
        config: TrainConfig,
        accelerator: Accelerator,
        progress: Progress,
        modules: dict[str, nn.Module],
        optimizers: dict[str, torch.optim.Optimizer],
        log: RunLog,
        kept: Network,
        validation: Validation | None,
        gate: Gate | None,
    ) -> None:
        self.config, self.accelerator, self.progress = config, accelerator, progress
        self.modules, self.optimizers, self.log, self.kept = modules, optimizers, log, kept
        self.validation, self.gate = validation, gate
        self.main = accelerator.is_main_process
        self.bar = tqdm(
            total=config.steps,
            initial=progress.step,
            unit="step",
            smoothing=0.05,
            desc="train",
            **hidden(not self.main),
        )

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self.bar.close()
        self.log.close()

    def after_step(self, numbers: dict[str, float]) -> bool:
        """Do what is due at this step; return whether to go on."""
        if self.main:
            self._main_after_step(numbers)
        return not (self.config.gate and self.progress.step % self.config.gate.every == 0 and self.ended)

    @property
    def ended(self) -> bool:
        """Whether the gate has given up; it may have done so before the run was resumed. All processes say the same."""
        if self.config.gate is None:
            return False
        tired = torch.tensor(float(self.gate is not None and self.gate.tired), device=self.accelerator.device)
        return bool(self.accelerator.reduce(tired, "sum"))

    def _main_after_step(self, numbers: dict[str, float]) -> None:
        step, config = self.progress.step, self.config
        self.bar.update()
        if step % config.log_every == 0 or step == config.steps:
            self.log.write({"step": step, **numbers, **self._speed()})
            self.bar.set_postfix(loss=f"{numbers['loss']:.4f}", skipped=self.progress.skipped, refresh=False)
        if self.validation is not None and (step % self.validation.every == 0 or step == config.steps):
            self._validate(self.validation)
        if config.picture_every and step % config.picture_every == 0 and self.validation is not None:
            path = config.output / "pictures" / f"step-{step:08d}.png"
            write_atomic(path, picture_grid(self.kept, self.validation.sample(), self.accelerator.device))
        if config.snapshot_every and step % config.snapshot_every == 0:
            save_weights(config.output / "snapshots" / f"step-{step:08d}.safetensors", self.kept, self._info())
        if self.gate is not None and (step % self.gate.gate.every == 0 or step == config.steps):
            judged = self.gate(step, self.kept)
            self.log.write({"step": step, "trust": judged})
            self.bar.set_postfix(gain=f"{judged['gain']:+.2f} dB", refresh=False)
        # While steps are dropped nothing is saved: what is resumed must be from before.
        if step % config.checkpoint_every == 0 and not self.progress.skipped_in_a_row:
            self.save()

    def _speed(self) -> dict[str, float]:
        done = self.progress.seconds
        return {
            "seconds": round(done, 3),
            "samples_per_second": round(self.progress.step * self.config.batch_size / max(done, 1e-9), 2),
            "skipped": self.progress.skipped,
        }

    def _validate(self, validation: Validation) -> None:
        result = validation(self.kept)
        self.log.write({"step": self.progress.step, "validation": result})
        if result["psnr"] > self.progress.best:
            self.progress.best, self.progress.best_step = result["psnr"], self.progress.step
            save_weights(self.config.output / "best.safetensors", self.kept, self._info())

    def _info(self) -> dict[str, Any]:
        return {
            "step": self.progress.step,
            "method": self.config.method.name,
            "seed": self.config.seed,
            "samples": self.progress.step * self.config.batch_size,
            "minutes": round(self.progress.seconds / 60, 1),
        }

    def save(self) -> None:
        """Write a checkpoint now."""
        if self.main:
            save_checkpoint(self.config.output / "checkpoints", self.progress, self.modules, self.optimizers)

    def finish(self) -> Path:
        """Write the last checkpoint and the final weights."""
        self.save()
        path = self.config.output / WEIGHTS
        if self.main and self.gate is None:
            save_weights(path, self.kept, self._info())
        elif self.gate is not None:
            self.gate.choose(path, self._info())
        self.accelerator.wait_for_everyone()
        return path


def build_network(config: NetworkConfig) -> Network:
    """Return the network of a configuration: fresh, or with the weights that it names."""
    if config.weights is None:
        return create_network(config.name, **config.options)
    network = load_weights(config.weights).network
    if network.name != config.name or (config.options and network.config != config.options):
        raise WeightsError(
            f"{config.weights} holds a {network.name} {network.config}, not a {config.name} {config.options}; "
            "make network.name and network.options those of the weights."
        )
    return network.train()


def _accelerator(config: TrainConfig) -> Accelerator:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bf16 = resolve_precision(config.precision, device) == torch.bfloat16
    AcceleratorState._reset_state()  # a process-wide record; it would refuse a second training of another precision
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="bf16" if bf16 else "no",
        gradient_accumulation_steps=config.accumulation,
        step_scheduler_with_optimizer=False,
    )


def _average(config: TrainConfig, network: Network) -> Any:
    if not config.ema_decay:
        return None
    utils = import_torchvision_user("timm.utils")
    # The warm-up needs step= at every update; the loop gives it.
    return utils.ModelEmaV3(network, decay=config.ema_decay, use_warmup=True, foreach=False)


def _resume(
    existing: list[Path], modules: dict[str, nn.Module], optimizers: dict[str, torch.optim.Optimizer]
) -> Progress:
    """Load the newest checkpoint that can be read; a damaged one is named and passed over."""
    for path in reversed(existing):
        try:
            return load_checkpoint(path, modules, optimizers)
        except WeightsError as error:
            tqdm.write(f"sstl: warning: {error}", file=sys.stderr)
    raise WeightsError(f"{existing[-1].parent}: none of its checkpoints can be read; begin anew with another output.")


def _streams(
    config: TrainConfig, accelerator: Accelerator, method: Method, step: int
) -> tuple[Iterator[Any], Iterator[Any] | None]:
    data = config.data
    size = config.batch_size // config.accumulation
    if size % accelerator.num_processes:
        raise ConfigError(
            f"'batch_size' {config.batch_size} in {config.accumulation} parts cannot be shared evenly by "
            f"{accelerator.num_processes} processes; make it a multiple of "
            f"{config.accumulation * accelerator.num_processes}."
        )
    batches = GlobalBatches(size, step * config.accumulation, accelerator.process_index, accelerator.num_processes)
    budget = int(data.cache_gb * 1e9)
    paired = PairedStream(data.paired, data.crop, config.seed, data.root, budget)
    if not method.needs_unpaired:
        return endless(paired, batches, data.workers), None
    unpaired = UnpairedStream(data.unpaired, data.crop, config.seed, data.root, budget)
    return endless(paired, batches, data.workers), endless(unpaired, batches, data.workers)


class _Stop:
    """What SIGINT and SIGTERM do: end a run that has not begun, else let the step be finished; end it if repeated."""

    def __init__(self, checkpoints: Path) -> None:
        self.checkpoints = checkpoints
        self.received = 0
        self.since = 0.0
        self.gentle = False
        self.previous: dict[int, Any] = {}

    def receive(self, signum: int, _: FrameType | None) -> None:
        if not self.gentle:
            resumable = bool(list_checkpoints(self.checkpoints))
            saved = "what was done is saved" if resumable else "nothing was done yet"
            raise Interrupted(f"stopped; {saved}.", signum, resumable)
        if not self.received:
            self.received, self.since = signum, time.monotonic()
            # Not print: the signal may have come in the middle of one.
            os.write(2, b"\nsstl: stopping after this step; ask again to stop at once, without saving\n")
        elif time.monotonic() - self.since > PATIENCE:  # some launchers send a signal twice
            handler = self.previous[signum]
            if handler is signal.SIG_IGN:  # of a process in the background, which was told all the same
                handler = signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL
            signal.signal(signum, handler)
            signal.raise_signal(signum)

    @contextmanager
    def after_the_step(self) -> Iterator[None]:
        self.gentle = True
        try:
            yield
        finally:
            self.gentle = False


@contextmanager
def _stop_on_signals(checkpoints: Path) -> Iterator[_Stop]:
    """Yield what SIGINT and SIGTERM are told to; they are left alone outside of the main thread."""
    stop = _Stop(checkpoints)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    stop.previous = {s: signal.signal(s, stop.receive) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for signum, handler in stop.previous.items():
            signal.signal(signum, handler)
