"""Kill a training at random points and in the middle of writing files, resume it, compare with one left alone.

python experiments/reliability/kills.py        (about ten minutes; Linux and macOS)
python experiments/reliability/kills.py --kills 4 --methods sirr -o FILE        (the light version)

Half of the kills come at a random time, the others after a random share of the bytes of a random file that is written
(checkpoints, above all). Each run is resumed until it is finished, and killed again on the way.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import signal
import tempfile
import time
from multiprocessing import get_context, set_start_method
from pathlib import Path
from typing import Any

import torch
import yaml
from toy_run import differing, make_data, settings, write_results

from sstl.cli.main import main as sstl
from sstl.config import to_tree
from sstl.engine import MethodConfig
from sstl.ops.files import PART

METHODS = ("supervised", "sirr", "mean_teacher", "streak_transfer", "syn2real")
PROCESSES = get_context("forkserver")


class Cut:
    """A file whose process is killed after a share of the bytes that were to be written."""

    def __init__(self, file: Any, share: float) -> None:
        self.file, self.share = file, share

    def __enter__(self) -> Cut:
        return self

    def __exit__(self, *_: object) -> None: ...

    def write(self, data: bytes) -> None:
        """Write a part, and end."""
        self.file.write(data[: int(self.share * len(data))])
        self.file.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def train(run: Path, log: Path, cut: tuple[int, float] | None) -> None:
    """Run ``sstl train`` in this process; ``cut`` is the number of the file in the middle of which it is killed."""
    torch.set_num_threads(1)
    # As outside this harness: a loader's worker must be a child of the training, or it does not see that it died.
    set_start_method("fork", force=True)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    if cut is not None:
        number, whole = itertools.count(), Path.open

        def opened(path: Path, *args: Any, **kwargs: Any) -> Any:
            file = whole(path, *args, **kwargs)
            return Cut(file, cut[1]) if path.suffix == PART and next(number) == cut[0] else file

        Path.open = opened  # type: ignore[method-assign]
    again = any((run / "checkpoints").glob("step-*.safetensors"))
    os._exit(sstl(["train", str(run.with_suffix(".yaml")), *(["--resume"] if again else [])]))


def attempt(run: Path, after: float | None, cut: tuple[int, float] | None) -> int | None:
    """Start or resume a run and kill it after so many seconds; return its exit code, None if it was killed."""
    log = run.with_suffix(".err")
    process = PROCESSES.Process(target=train, args=(run, log, cut))
    process.start()
    process.join(after)
    if process.is_alive():
        process.kill()
        process.join()
    if process.exitcode == -signal.SIGKILL:
        return None
    if process.exitcode or "warning" in log.read_text():
        raise RuntimeError(f"{run} ended with {process.exitcode}: {log.read_text()[-2000:]}")
    return process.exitcode


def begin(folder: Path, name: str, method: str, workers: int) -> Path:
    """Write the configuration of a run."""
    run = folder / name
    config = settings(folder / "data", run, MethodConfig(method), workers)
    run.with_suffix(".yaml").write_text(yaml.safe_dump(to_tree(config)))
    return run


def main() -> None:
    """Kill, resume, compare, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    draw = random.Random(args.seed)
    PROCESSES.set_forkserver_preload(["toy_run"])
    found = {"at_a_random_time": 0, "in_the_middle_of_a_file": 0, "runs": 0, "different": 0}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder / "data")
        references: dict[str, tuple[Path, float]] = {}
        while found["at_a_random_time"] + found["in_the_middle_of_a_file"] < args.kills:
            method = args.methods[found["runs"] % len(args.methods)]
            if method not in references:
                whole, start = begin(folder, f"whole-{method}", method, 0), time.perf_counter()
                attempt(whole, None, None)
                references[method] = whole, time.perf_counter() - start
            whole, seconds = references[method]
            run = begin(folder, f"run-{found['runs']}", method, workers=found["runs"] % 2)
            while True:
                kind = draw.choice(["at_a_random_time", "in_the_middle_of_a_file"])
                if kind == "at_a_random_time":
                    code = attempt(run, draw.uniform(0, seconds), None)
                else:
                    code = attempt(run, None, (draw.randrange(8), draw.random()))
                if code is not None:
                    break
                found[kind] += 1
            found["runs"] += 1
            if names := differing(run, whole):
                found["different"] += 1
                print(f"{run.name}, {method}: not the same: {', '.join(names)}")
            print(found, flush=True)
            kills = found["at_a_random_time"] + found["in_the_middle_of_a_file"]
            write_results(args.output, args.seed, {"methods": list(args.methods), "kills": kills, **found})


if __name__ == "__main__":
    main()
