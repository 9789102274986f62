"""
Train on pairs
==============

Where there are pairs, a rainy and a clean image of the same scene, a network can be trained on them from scratch. This
page writes a folder of pairs and a training file, trains for a short time, scores, and goes on where it stopped.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
from PIL import Image

import sstl
from sstl.config import load_config
from sstl.data import SourceConfig, open_pairs
from sstl.data.files import BundledImages
from sstl.engine import TrainConfig, read_log
from sstl.report.adaptation import steps_for
from sstl.report.evaluation import RenderedPairs

SECONDS = float(os.environ.get("SSTL_TUTORIAL_SECONDS", "40"))  # of training
kept = TemporaryDirectory()
folder = Path(kept.name)

# %%
# Pairs in a folder
# -----------------
#
# Pairs are found by name, never by order: ``rain/NAME.png`` with ``norain/NAME.png`` here; *Data* has the other
# layouts. ``sstl data show DIR`` says what it sees in a folder, and what has no partner.

for split, photographs in {"train": BundledImages("train"), "dev": BundledImages("dev")}.items():
    pairs = RenderedPairs(photographs, "light", count=6, seed=0)
    for i in range(len(pairs)):
        for layer, image in zip(("rain", "norain"), pairs.load(i), strict=True):
            path = folder / "data" / split / layer / f"{i}-{pairs.key(i).replace('/', '-')}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
print(len(open_pairs(SourceConfig(str(folder / "data" / "train")))), "pairs to train on")

# %%
# The training file
# -----------------
#
# YAML for ``TrainConfig``; a key that does not exist, or a value of the wrong type, is an error that names it. Sources
# are mixed by weight: here, for a third of the samples, rain is rendered on clean photographs as they are needed.

(folder / "train.yaml").write_text(
    f"""\
output: {folder / "run"}
data:
  root: {folder / "data"}
  paired:
    - {{path: train, weight: 2}}
    - {{path: bundled, split: train, recipe: light, weight: 1}}
  crop: 64
  workers: 0
network: {{name: joint, options: {{size: tiny}}}}
method: {{name: supervised}}
optimizer: {{lr: 3.0e-3, warmup_steps: 10}}
steps: 20
batch_size: 8
ema_decay: 0.98
log_every: 5
checkpoint_every: 5
picture_every: 0
""",
    encoding="utf-8",
)
config = load_config(TrainConfig, folder / "train.yaml")
steps = steps_for(SECONDS / 60, config)
print(steps, "steps")

# %%
# Train
# -----
#
# ``sstl train train.yaml steps=...`` does the same from a shell. Any key can be replaced on the command line.

weights = sstl.train(load_config(TrainConfig, folder / "train.yaml", [f"steps={steps}"]))
log = [line for line in read_log(weights.parent / "log.jsonl") if "loss" in line]
figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
axis.plot([line["step"] for line in log], [line["loss"] for line in log])
axis.set(xlabel="step", ylabel="loss", yscale="log")
plt.show()

# %%
# Go on
# -----
#
# A run that was killed goes on with ``resume``, and on one processor to the same bits as if it had not been. A finished
# one goes on if it is given more steps.

weights = sstl.train(load_config(TrainConfig, folder / "train.yaml", [f"steps={steps + 10}"]), resume=True)
print(sorted(path.name for path in weights.parent.iterdir()))

# %%
# Score
# -----
#
# On photographs that were not trained on. Forty seconds of training are a start, no more; compare with the shipped
# weights.

restorers = {"forty seconds": sstl.load(weights), "joint-small": sstl.load("joint-small")}
pairs = open_pairs(SourceConfig(str(folder / "data" / "dev")))
print(sstl.evaluate(pairs, restorers).table())

rainy, clean = pairs.load(0)
shown = {"rainy": rainy, **{name: restorer.restore(rainy) for name, restorer in restorers.items()}, "truth": clean}
figure, axes = plt.subplots(1, 4, figsize=(14, 2.8), layout="constrained")
for axis, (name, image) in zip(axes, shown.items(), strict=True):
    axis.imshow(image)
    axis.set_title(name)
    axis.axis("off")
plt.show()

# %%
# Before you report a figure
# --------------------------
#
# Published training sets share photographs with published test sets. ``sstl data check TRAIN --against TEST`` finds
# them, mirrored and cropped ones too. And rain in a data set is not the rain in your photos: *Adapt to your own
# photos*.

kept.cleanup()
