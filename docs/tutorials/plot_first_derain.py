"""
Remove rain from a first photo
==============================

Load shipped weights, restore a photo, and look at what the network says beside the restored picture: the streaks, the
map of where it rains. The photo is one of scikit-image's with rain that is made, so that here, unlike with your own
photos, the truth is known.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
from PIL import Image

import sstl
from sstl.data.files import BundledImages
from sstl.metrics import score
from sstl.report.evaluation import RenderedPairs

# %%
# A rainy photo
# -------------
#
# ``RenderedPairs`` rains on clean photographs by a *recipe*. These two were not trained on.

rainy, clean = RenderedPairs(BundledImages("dev"), "rain100l_like", count=6, seed=1).load(0)
print(rainy.shape, rainy.dtype)

# %%
# Restore it
# ----------
#
# ``sstl.load`` takes the name of shipped weights, a file, or ``hub:ORG/NAME``. ``restore`` gives back what it gets: an
# array for an array, a PIL image for a path or a PIL image, a tensor for a tensor. Large photos are restored in tiles.

restorer = sstl.load("joint-small")
restored = restorer.restore(rainy)

figure, axes = plt.subplots(1, 3, figsize=(12, 2.9), layout="constrained")
for axis, (title, image) in zip(axes, {"photo": rainy, "restored": restored, "truth": clean}.items(), strict=True):
    axis.imshow(image)
    axis.set_title(title)
    axis.axis("off")
plt.show()

# %%
# With the truth at hand it can be scored. There are two protocols, which are never mixed: ``rgb``, and ``y-matlab``, on
# the luma as MATLAB computes it, in which most papers report.

for name, image in {"photo": rainy, "restored": restored}.items():
    for protocol in ("rgb", "y-matlab"):
        found = score(image, clean, protocol)
        print(f"{name:9} {protocol:9} PSNR {found.psnr:.2f} dB, SSIM {found.ssim:.3f}")

# %%
# What it saw
# -----------
#
# The imaging model is O = B + S·R: background, streaks, and a map that is 1 where it rains. ``layers`` returns them.

layers = restorer.layers(rainy)
figure, axes = plt.subplots(1, len(layers), figsize=(4 * len(layers), 2.9), layout="constrained")
for axis, (name, layer) in zip(axes, layers.items(), strict=True):
    axis.imshow(layer.squeeze(), cmap="gray")
    axis.set_title(name)
    axis.axis("off")
plt.show()

# %%
# Files and folders
# -----------------
#
# The same from a shell, for a photo or for a folder of them; names, sizes, orientation and colour profile are kept.
# *Doubt* is a layer, too: how much the restorations of a photo and of its mirror images disagree. Look there first.
#
# .. code-block:: sh
#
#    sstl derain my-photos -o derained --layers background,mask,doubt
#
# and in Python for one file:

with TemporaryDirectory() as folder:
    photo = Path(folder) / "photo.png"
    Image.fromarray(rainy).save(photo)
    picture = restorer.restore(photo)
    print(type(picture).__name__, picture.size)

# %%
# If the rain of your photos stays in place, or the photos get worse: this network has never met that rain. That is what
# *Adapt to your own photos* is about.
