"""Train every method on two processes (gloo) and on one with the same global batch, and tell how far they are apart.

python experiments/reliability/processes.py        (about five minutes)
python experiments/reliability/processes.py --methods sirr -o FILE        (the light version)

The largest difference of any number of the last checkpoint: weights, optimiser, averaged weights, mixture, teacher.
Then one process goes on from the first half of what two have trained, and one of two is killed. Plain SGD, because Adam
divides a gradient of rounding errors by its own size.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from toy_run import make_data, settings, state, write_results

from sstl.cli.main import main as sstl
from sstl.config import to_tree
from sstl.engine import MethodConfig, OptimizerConfig, TrainConfig, train
from sstl.methods import list_methods
from sstl.methods.supervised import Supervised

STEPS = 20
# Their networks normalise by the statistics of a batch, which each process has to itself.
EXCEPTIONS = {"adversarial": "its discriminator normalises by the statistics of each process's batch"}
OPTIONS: dict[str, dict[str, Any]] = {
    "mean_teacher": {"likelihood": 1e-4, "kl": 2e-3},  # terms that are off by default
    # A distance without a kink: where a pixel is right but for rounding, as in a pair that was left dry, rounding
    # decides the sign of the gradient of an absolute error.
    "default": {"distance": "charbonnier"},
}


def config(folder: Path, name: str, method: str) -> TrainConfig:
    """Return the run ``name-method`` in a folder."""
    return settings(
        folder / "data", folder / f"{name}-{method}", MethodConfig(method, OPTIONS.get(method, {})),
        steps=STEPS, batch_size=4, checkpoint_every=STEPS // 2, validation=None, picture_every=0,
        optimizer=OptimizerConfig("momentum", lr=0.05),
    )  # fmt: skip


def launch(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run this file on two processes of the CPU, which ``accelerate launch`` starts by MPI alone."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, __file__, *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def apart(run: Path, other: Path) -> float:
    """Return the largest difference of two runs' numbers; infinite if their random states differ."""
    a, b = state(run), state(other)
    if any(not torch.equal(a[key], b[key]) for key in a if key.startswith("random/")):
        return float("inf")
    return max(float((a[key].double() - b[key].double()).abs().max()) for key in a if a[key].is_floating_point())


def lose_a_process(folder: Path) -> dict[str, Any]:
    """Kill one of two processes in its third step; tell how and when the launch ends."""
    start = time.perf_counter()
    ended = launch("--child", folder, "--dying", "supervised")
    said = [line for line in ended.stderr.splitlines() if line.startswith("sstl: error:")]
    return {"code": ended.returncode, "seconds": round(time.perf_counter() - start, 1), "said": said[:1]}


def child(folder: Path, methods: list[str], dying: bool) -> None:
    """Train on one of two processes."""
    if dying and os.environ["RANK"] == "1":
        whole, steps = Supervised.forward, iter(range(3))

        def forward(self: Supervised, *batches: Any) -> Any:
            if next(steps, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return whole(self, *batches)

        Supervised.forward = forward  # type: ignore[method-assign]
    for method in methods:
        run = config(folder, "dying" if dying else "two", method)
        path = folder / f"{run.output.name}-{os.environ['RANK']}.yaml"
        path.write_text(yaml.safe_dump(to_tree(run)))
        if code := sstl(["train", str(path)]):
            sys.exit(code)


def main() -> None:
    """Train, compare, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", default=[name for name in list_methods() if name not in EXCEPTIONS])
    parser.add_argument("--child", type=Path)
    parser.add_argument("--dying", nargs="*")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.child:
        child(args.child, args.dying or args.methods, bool(args.dying))
        return
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder / "data")
        ended = launch("--child", folder, "--methods", *args.methods)
        if ended.returncode:
            raise RuntimeError(ended.stderr[-4000:])
        for method in args.methods:
            one, two, again = (config(folder, of, method) for of in ("one", "two", "again"))
            train(one)
            shutil.copytree(two.output, again.output)
            (again.output / "checkpoints" / f"step-{STEPS:08d}.safetensors").unlink()
            train(again, resume=True)
            found[method] = {
                "two_processes": apart(one.output, two.output),
                "two_then_one": apart(one.output, again.output),
                "files": sorted(path.name for path in two.output.iterdir()),
            }
            print(method, found[method], flush=True)
        lost = lose_a_process(folder)
    print(lost)
    write_results(
        args.output, 0, {"steps": STEPS, "methods": found, "exceptions": EXCEPTIONS, "a_process_was_killed": lost}
    )


if __name__ == "__main__":
    main()
