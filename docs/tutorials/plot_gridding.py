"""What do holes in a receptive field cost?
==========================================

A dilated convolution of rate r looks at every r-th pixel. A stack of them sees far with few weights, but if all rates
are equal there are pixels that it never sees, however many layers it has: *gridding*. This page draws the holes, shows
the check that refuses them, and trains the same small network with and without them.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.patches import Rectangle
from torch import Tensor

from sstl.data.files import BundledImages, Image
from sstl.data.stream import PairedPart
from sstl.engine import DataConfig, MethodConfig, NetworkConfig, OptimizerConfig, TrainConfig, train
from sstl.errors import SstlError
from sstl.metrics import matlab_luma, psnr
from sstl.networks import create_network
from sstl.ops.dilation import hdc_gap
from sstl.report.adaptation import steps_for
from sstl.report.evaluation import RenderedPairs, evaluate
from sstl.report.inspection import holes_of, receptive_field, structural_support
from sstl.report.plots import receptive_field_plot
from sstl.restore import Restorer, load

SECONDS = float(os.environ.get("SSTL_TUTORIAL_SECONDS", "20"))  # of training, for each network


# %%
# The holes
# ---------
#
# Three stacks of three layers, each between two layers of 1 × 1 that see no neighbours. [2, 2, 2] and [1, 2, 3] have
# the same number of weights and reach equally far. The colour is the gradient of the output pixel in the middle with
# respect to the input; the network is untrained.

torch.manual_seed(0)
RATES = ([2, 2, 2], [1, 2, 3], [1, 2, 5])
networks = {str(r): create_network("hdc", rates=r, width=16, repeats=1, allow_holes=True) for r in RATES}
fields = {name: receptive_field(network) for name, network in networks.items()}
supports = {name: structural_support(network) for name, network in networks.items()}
holes = {name: int(holes_of(support).sum()) for name, support in supports.items()}
captions = {name: f"{len(seen)} × {len(seen)} pixels, {holes[name]} of them holes" for name, seen in supports.items()}

picture = plt.imread(io.BytesIO(receptive_field_plot(fields, supports, captions)))
figure = plt.figure(figsize=(picture.shape[1] / 200, picture.shape[0] / 200))
axis = figure.add_axes((0, 0, 1, 1))
axis.imshow(picture)
axis.axis("off")
plt.show()

# %%
# The rule for hybrid dilated convolutions (HDC, Wang et al., WACV 2018) looks for such holes. It follows the largest
# distance between two pixels that a layer sees, from the last layer back to the second, and asks that this distance,
# M_2, is not larger than the kernel, here 3. The rule alone is not enough: compare its verdict with the holes.

for rates in RATES:
    verdict = "passes the rule" if hdc_gap(rates) <= 3 else "fails the rule"
    print(f"{rates}: M_2 = {hdc_gap(rates)}, {verdict}; {holes[str(rates)]} holes")

# %%
# So sstl asks for both: the rule, and an enumerated receptive field without a hole. Lists that violate either are
# refused (``allow_holes=True`` is there for pages like this one). The second list below has the rates of [1, 2, 5] in
# another order: as a whole it sees the same pixels, but the rule looks at the order too.

for rates in ([2, 2, 2], [1, 5, 2]):
    try:
        create_network("hdc", rates=rates)
    except SstlError as error:
        print(error)

# %%
# Four pictures instead of one
# ----------------------------
#
# What the holes mean for [2, 2, 2]: a pixel in an even row and an even column never meets one in an odd row or an odd
# column. The network takes the picture apart into four of half the size, restores each one alone, without dilation, and
# interleaves the results. That can be computed: both ways must agree, whatever the weights, up to rounding.


def in_four(image: Tensor) -> Tensor:
    """(1, 3, H, W) -> (4, 3, H/2, W/2): the pixels of even and odd rows and columns apart."""
    return F.pixel_unshuffle(image.transpose(0, 1), 2).transpose(0, 1)


gridded, dense = networks["[2, 2, 2]"], create_network("hdc", rates=[1, 1, 1], width=16, repeats=1)
dense.load_state_dict(gridded.state_dict())
image = torch.rand(1, 3, 64, 64)
with torch.inference_mode():
    as_one, as_four = in_four(gridded(image).background), dense(in_four(image)).background
print(f"largest change of a pixel: {(as_one - in_four(image)).abs().max():.1e}")
print(f"largest difference between the two ways: {(as_one - as_four).abs().max():.1e}")

# %%
# What it does to rain
# --------------------
#
# Both stacks of the same size are now trained alike, with one seed and as many steps as fit into twenty seconds, on
# three photographs from scikit-image with rain of the recipe ``light``. The loss is the squared error: the absolute
# one, which sstl uses by default, tends to keep so small a network at "remove nothing" for long.


def recipe(rates: list[int], output: Path, steps: int = 1) -> TrainConfig:
    """Return the training of a stack."""
    return TrainConfig(
        output=output,
        data=DataConfig(paired=(PairedPart("bundled", split="train", recipe="light"),), crop=64, workers=0),
        network=NetworkConfig("hdc", {"rates": rates, "width": 16, "repeats": 1, "allow_holes": True}),
        method=MethodConfig("supervised", {"distance": "mse", "balance": None}),
        optimizer=OptimizerConfig(lr=5e-3, warmup_steps=10),
        steps=steps,
        batch_size=8,
        ema_decay=0.98,
        picture_every=0,
    )


pairs = RenderedPairs(BundledImages("dev"), "light", count=6, seed=1)
with TemporaryDirectory() as folder:
    steps = steps_for(SECONDS / 60, recipe([2, 2, 2], Path(folder)))
    print(f"{steps} steps")
    restorers: dict[str, Restorer] = {
        str(rates): load(train(recipe(rates, Path(folder) / str(rates), steps))) for rates in RATES[:2]
    }
evaluation = evaluate(pairs, restorers)
print(evaluation.table())

# %%
# A picture that is restored in four parts can show it by a fine pattern: neighbouring pixels know nothing of each
# other. The lower row shows the error of the luma; red is too bright.

rainy, clean = pairs.load(0)
restored = {name: restorer.restore(rainy) for name, restorer in restorers.items()}
TOP, LEFT, SIDE, LARGEST = 100, 176, 80, 25  # the enlarged part, and the grey levels of 255 at the ends of the colours


def luma_error(image: Image, clean: Image) -> np.ndarray:
    """Return the error of the luma in grey levels."""
    return matlab_luma(image).astype(float) - matlab_luma(clean)


def cut(image: np.ndarray) -> np.ndarray:
    """Return the part of an image that is shown enlarged."""
    return image[TOP : TOP + SIDE, LEFT : LEFT + SIDE]


figure, axes = plt.subplots(2, 4, figsize=(11, 5.9), layout="constrained")
shown = {"rainy": rainy, **restored, "truth": clean}
for axis, (name, image) in zip(axes[0], shown.items(), strict=True):
    axis.imshow(cut(image), interpolation="nearest")
    decibels = "" if image is clean else f"\n{psnr(matlab_luma(image), matlab_luma(clean)):.2f} dB on the whole picture"
    axis.set_title(f"{name}{decibels}", fontsize="medium")
axes[1, 0].imshow(rainy)
axes[1, 0].add_patch(Rectangle((LEFT, TOP), SIDE, SIDE, fill=False, color="white", linewidth=1.5))
for axis, (name, image) in zip(axes[1, 1:], restored.items(), strict=False):
    drawn = axis.imshow(cut(luma_error(image, clean)), "RdBu_r", vmin=-LARGEST, vmax=LARGEST, interpolation="nearest")
    axis.set_title(f"error of {name}", fontsize="medium")
scale = axes[1, 3].inset_axes((0, 0, 0.08, 1))
figure.colorbar(drawn, cax=scale, label="grey levels of 255", extend="both")
for axis in axes.flat:
    axis.axis("off")
plt.show()

# %%
# How much of the error is such a pattern? The Fourier transform tells: a grid of every second pixel has a period of two
# pixels. Counted as *fine* is the part of the mean squared error whose period, across or down, is below 8/3 pixels.


def fine_error(image: Image, clean: Image) -> float:
    """Return the part of the mean squared luma error that has a period below 8/3 pixels."""
    error = luma_error(image, clean)
    power = np.abs(np.fft.fft2(error, norm="forward")) ** 2  # its sum is the mean squared error
    rows, columns = (np.abs(np.fft.fftfreq(side)) > 3 / 8 for side in error.shape)
    return float(power[rows[:, None] | columns].sum())


fine: dict[str, list[float]] = {name: [] for name in restorers}
for i in range(len(pairs)):
    rainy, clean = pairs.load(i)
    for name, restorer in restorers.items():
        fine[name].append(fine_error(restorer.restore(rainy), clean))
print("pair       " + "".join(f"{name:>12}" for name in fine) + "   fine mean squared error")
for i, values in enumerate(zip(*fine.values(), strict=True)):
    print(f"{pairs.key(i):11}" + "".join(f"{value:12.2f}" for value in values))

holed, whole = restorers
better = sum(row.scores[whole]["psnr"] > row.scores[holed]["psnr"] for row in evaluation.rows)
gain = np.mean([row.scores[whole]["psnr"] - row.scores[holed]["psnr"] for row in evaluation.rows])
smoother = sum(a > b for a, b in zip(*fine.values(), strict=True))
print(f"\n{whole} has the higher PSNR on {better} of {len(pairs)} pairs ({gain:+.2f} dB in the mean),")
print(f"and less fine error on {smoother} of {len(pairs)}.")

# %%
# What this can show, and what not
# --------------------------------
#
# That [2, 2, 2] works on four separate pictures is exact and does not depend on training. What that costs does: it
# depends on the rain. A streak that is long, and two pixels wide, is still a streak in each of the four pictures, and a
# small network that looks at fewer pixels may even learn faster. After twenty seconds of training with one seed a
# difference of some tenths of a decibel may have either sign: repeat it with other seeds and for longer
# (``SSTL_TUTORIAL_SECONDS=300``) before you believe it. And where a path of rate 1 lies beside the dilated ones, as in
# JORDER, the network as a whole has no holes.
