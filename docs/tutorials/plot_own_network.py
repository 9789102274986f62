"""
Add your own network
====================

A network maps a rainy image to a ``Restoration``: the background, the streaks, and, if it detects rain, the logits of
the map. Once it is registered, every command and every method works with it: training, adaptation, tiles, export.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import torch

import sstl
from sstl.data.files import BundledImages
from sstl.data.stream import PairedPart
from sstl.engine import DataConfig, MethodConfig, NetworkConfig, OptimizerConfig, TrainConfig
from sstl.report.evaluation import RenderedPairs
from sstl.report.inspection import receptive_field, structural_support
from sstl.report.plots import receptive_field_plot

STEPS = 100 if "SSTL_TUTORIAL_SECONDS" in os.environ else 800
kept = TemporaryDirectory()
folder = Path(kept.name)

# %%
# The file
# --------
#
# A small network that finds the map first, and removes streaks only where it rains, O - S·R. ``stride`` and
# ``receptive_radius`` are promises: tiles of large photos rely on them. The factory's arguments are the options that
# YAML and the command line may set.

(folder / "my_network.py").write_text(
    '''\
"""sstl with a network of my own: python my_network.py train CONFIG."""

import torch
from torch import nn

from sstl.cli.main import main
from sstl.networks.base import NETWORKS, Network, check_counts
from sstl.types import Restoration


class Stack(Network):
    """Dilated convolutions of rates 1, 2 and 5, then R, then S; B is O - S R.

    Args:
        width: channels.
    """

    stride = 1
    receptive_radius = 1 + 1 + 2 + 5 + 1  # of each layer in turn: the kernel's radius times its dilation

    def __init__(self, width):
        super().__init__()
        check_counts("stack", width=width)
        layers = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU()]
        for rate in (1, 2, 5):
            layers += [nn.Conv2d(width, width, 3, padding=rate, dilation=rate), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.mask = nn.Conv2d(width, 1, 3, padding=1)
        self.streak = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, rainy):
        features = self.features(rainy)
        logits, streak = self.mask(features), self.streak(features)
        return Restoration(rainy - streak * logits.sigmoid(), streak, logits)


@NETWORKS.register("stack")
def stack(width: int = 16) -> Stack:
    """A stack of dilated convolutions with a map."""
    return Stack(width)


if __name__ == "__main__":
    raise SystemExit(main())
''',
    encoding="utf-8",
)
sys.path.insert(0, str(folder))
import my_network  # noqa: F401 (the import is what registers it)

network = sstl.create_network("stack", width=16)
restored = network(torch.rand(1, 3, 40, 56))
print(restored.background.shape, restored.mask.shape, sum(p.numel() for p in network.parameters()), "parameters")

# %%
# Does it keep its promises?
# --------------------------
#
# What an output pixel sees can be enumerated; the promised radius must not be smaller. And there should be no holes in
# it: see *What do holes in a receptive field cost?*

support = structural_support(network)
print(f"promised {2 * network.receptive_radius + 1} pixels, sees {len(support)}, holes {int((~support).sum())}")
(folder / "field.png").write_bytes(
    receptive_field_plot({"stack": receptive_field(network)}, {"stack": support}, {"stack": "untrained"})
)
figure = plt.figure(figsize=(5, 4))
axis = figure.add_axes((0, 0, 1, 1))
axis.imshow(plt.imread(folder / "field.png"))
axis.axis("off")
plt.show()

# %%
# Train it
# --------
#
# By ``supervised``, or by any other method. In YAML this is ``network: {name: stack, options: {width: 16}}``.

weights = sstl.train(
    TrainConfig(
        output=folder / "run",
        data=DataConfig(paired=(PairedPart("bundled", split="train", recipe="light"),), crop=64, workers=0),
        network=NetworkConfig("stack", {"width": 16}),
        method=MethodConfig("supervised", {"distance": "mse", "balance": None}),
        optimizer=OptimizerConfig(lr=5e-3, warmup_steps=10),
        steps=STEPS,
        batch_size=8,
        ema_decay=0.98,
        picture_every=0,
    )
)
restorer = sstl.load(weights)
pairs = RenderedPairs(BundledImages("dev"), "light", count=4, seed=1)
print(sstl.evaluate(pairs, {"stack": restorer}).table())

rainy, clean = pairs.load(0)
layers = restorer.layers(rainy)
figure, axes = plt.subplots(1, 4, figsize=(14, 2.8), layout="constrained")
shown = {"rainy": rainy, "background": layers["background"], "map": layers["mask"].squeeze(), "truth": clean}
for axis, (name, image) in zip(axes, shown.items(), strict=True):
    axis.imshow(image, cmap="gray")
    axis.set_title(name)
    axis.axis("off")
plt.show()

# %%
# From the command line
# ---------------------
#
# The file is a command with all of sstl's commands, and knows the network. So does the weights file: it names its
# network and options, and whatever loads it has to have imported the file that registers them.

shown = subprocess.run(
    [sys.executable, "my_network.py", "networks", "show", "stack", "--weights", "run/weights.safetensors"],
    cwd=folder,
    capture_output=True,
    text=True,
    check=True,
)
print(shown.stdout)

# %%
# A network of several stages returns the earlier ones in ``stages``; one that does not detect returns
# ``sstl.networks.base.undetected(rainy, background)``. One that sees all of an image sets ``receptive_radius = None``.

kept.cleanup()
