"""
Many devices, many machines
===========================

A training file says nothing of devices: the same file trains on one processor, on one GPU, on several, or on several
machines, and ``batch_size`` counts the samples of all of them together. This page trains on one process and on two, and
compares the weights: the number of processes does not matter.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
from safetensors.torch import load_file

from sstl.engine import read_log

kept = TemporaryDirectory()
folder = Path(kept.name)

# %%
# A training of a few steps
# -------------------------

(folder / "train.yaml").write_text(
    """\
output: one
data:
  paired: [{path: bundled, split: train, recipe: light}]
  crop: 32
  workers: 0
network: {name: joint, options: {size: tiny}}
optimizer: {lr: 1.0e-3}
precision: fp32
steps: 4
batch_size: 4
log_every: 1
picture_every: 0
""",
    encoding="utf-8",
)


def run(*command: str) -> None:
    """Run a command in the folder; an error if it fails."""
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True)
    print("$ python", *command)
    print(done.stdout if done.returncode == 0 else done.stderr)


run("-m", "sstl", "train", "train.yaml")

# %%
# Two processes
# -------------
#
# On processors ``torchrun``, which is part of PyTorch, starts the processes; ``accelerate launch`` would need MPI
# there.

run("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "sstl", "train", "train.yaml",
    "output=two")  # fmt: skip

# %%
# The same weights, up to rounding: data are a function of (seed, number of the sample), each process takes its share of
# every batch, and what is drawn at random is drawn for the whole batch.

one, two = (load_file(folder / name / "weights.safetensors") for name in ("one", "two"))
print(f"largest difference of a weight: {max(float((one[key] - two[key]).abs().max()) for key in one):.1e}")

figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
for name, marker in (("one", "o-"), ("two", "x--")):
    log = [line for line in read_log(folder / name / "log.jsonl") if "loss" in line]
    axis.plot([line["step"] for line in log], [line["loss"] for line in log], marker, label=f"{name} process(es)")
axis.set(xlabel="step", ylabel="loss")
axis.legend()
plt.show()

# %%
# Several GPUs
# ------------
#
# Choose a block of ``accelerate_config.yaml``, which lies beside the README, and launch. What matters is the command,
# not the file: its values can be given as options.
#
# .. code-block:: sh
#
#    accelerate launch --config_file accelerate_config.yaml -m sstl train train.yaml
#    accelerate launch --multi_gpu --num_processes 4 --mixed_precision bf16 -m sstl train train.yaml
#
# Several machines
# ----------------
#
# The same command on each of them, with its own rank; all need the same files at the same paths. The first one, whose
# address all are told, writes the run.
#
# .. code-block:: sh
#
#    accelerate launch --multi_gpu --num_machines 2 --num_processes 8 --machine_rank 0 \
#        --main_process_ip 10.0.0.1 --main_process_port 29500 -m sstl train train.yaml
#    accelerate launch --multi_gpu --num_machines 2 --num_processes 8 --machine_rank 1 \
#        --main_process_ip 10.0.0.1 --main_process_port 29500 -m sstl train train.yaml
#
# Without accelerate, ``torchrun --nnodes 2 --node-rank 0 --nproc-per-node 4 --master-addr 10.0.0.1 -m sstl train
# train.yaml`` does it.
#
# When something stops
# --------------------
#
# If one process dies, all end, with one line that says so; ``--resume`` goes on, with another number of processes, too.
# ``sstl derain`` and ``sstl evaluate`` share their images between the processes in the same way. The exceptions to "the
# number does not matter" are networks with batch normalisation: see *Reliability*.

kept.cleanup()
