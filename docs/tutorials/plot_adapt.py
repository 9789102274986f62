"""
Adapt to your own photos
========================

A network has learned one kind of rain, your photos show another, and nobody has the same photos without rain. This page
does what sstl is for: it adapts the network to a folder of rainy photos alone, lets the adaptation judge itself, and
looks at the result. The photos are scikit-image's with made rain, so that the true gain can be told at the end; the
adaptation does not see it.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt

import sstl
from sstl.data import SourceConfig, open_pairs
from sstl.data.images import list_images, read_rgb8
from sstl.report.findings import MEASURES, verdict
from sstl.report.quickstart import make_domain

STEPS = 2 if "SSTL_TUTORIAL_SECONDS" in os.environ else 40
kept = TemporaryDirectory()
folder = Path(kept.name)

# %%
# The photos
# ----------
#
# ``make_domain`` writes the folders of a person who wants rid of rain: ``photos``, in slanted dense rain; some dry
# photographs of other places, ``clean``, and a few more, ``held-out``. (With photos of your own, the last two may be
# left out: sstl then takes scikit-image's. Your own are better if they look like your photos.) ``test`` is what you do
# not have: other photos in that rain, with their truth.

make_domain(folder, seed=0)
photos = list_images(folder / "photos")
for name in ("photos", "clean", "held-out"):
    print(f"{name:9} {len(list_images(folder / name))} images")

figure, axes = plt.subplots(1, 4, figsize=(12, 3.1), layout="constrained")
for axis, photo in zip(axes, photos[::3], strict=True):
    axis.imshow(read_rgb8(photo))
    axis.axis("off")
plt.show()

# %%
# Adapt
# -----
#
# The start, ``quickstart-source``, is a small network that has seen thin upright rain only (recipe ``light``), which it
# keeps rehearsing, so as not to forget it. So small a network learns at a higher rate, and forty steps do if three in
# ten clean photographs wear matched rain. For your photos, leave out ``weights``, ``steps``, ``recipe``,
# ``learning_rate`` and ``matched``: the defaults are the shipped weights and what suits them. *Which method when* tells
# of other methods.

adapted = sstl.adapt(
    folder / "photos",
    folder / "run",
    weights="quickstart-source",
    steps=STEPS,
    clean=folder / "clean",
    held_out=folder / "held-out",
    recipe="light",
    learning_rate=2e-3,
    matched=0.3,
)
print(sorted(path.name for path in (folder / "run").iterdir()))

# %%
# The verdict
# -----------
#
# The network was judged every fifty steps and at the end, without truth: on clean photographs under the rain that was
# found in the photos. The best one that neither forgets nor harms clear photographs nor finds much more rain than
# there is was kept. If none is better than the start by more than the judgement's own error, ``accepted`` is False,
# and the weights in the folder are the start's.

outcome = adapted.outcome
print(verdict(adapted.figures, outcome))
print(f"accepted: {outcome.accepted}; photos: {outcome.photos}; share of their pixels with rain: {outcome.cover:.0%}")
if outcome.gain is not None:
    print(f"predicted gain {outcome.gain:+.2f} ± {outcome.error:.2f} dB, forgotten {outcome.forgotten:+.2f} dB")

# %%
# Look
# ----
#
# No figure replaces this. Look for rain that was left, and for texture that was taken for rain: edges, hair, lettering.
# Forty steps at a high rate leave marks, such as tinted lines where a streak was.

before, after = sstl.load("quickstart-source"), sstl.load(adapted.weights)
figure, axes = plt.subplots(3, 4, figsize=(12, 9.2), layout="constrained")
for column, photo in zip(axes.T, photos[::3], strict=True):
    rainy = read_rgb8(photo)
    shown = {"photo": rainy, "before adaptation": before.restore(rainy), "after adaptation": after.restore(rainy)}
    for axis, (title, image) in zip(column, shown.items(), strict=True):
        axis.imshow(image)
        axis.set_title(title, fontsize="medium")
        axis.axis("off")
plt.show()

# %%
# The figures
# -----------
#
# Each is measured before and after. Those of the photos need no truth and prove nothing alone; those of clean
# photographs tell of harm and of what was forgotten.

for name, found in adapted.figures.items():
    print(f"{found['before']:7.2f} -> {found['after']:7.2f}  {MEASURES[name]}")

# %%
# The truth
# ---------
#
# Because this rain is made, it can be told whether the judgement was right. These photos were in none of the folders
# that the adaptation saw.

truth = open_pairs(SourceConfig(str(folder / "test")))
print(sstl.evaluate(truth, {"before": before, "after": after}).table())

# %%
# What to do with it
# ------------------
#
# ``adapted.weights`` is a file like any other: ``sstl.load`` takes it, and so does every command's ``--weights``.
# ``adapted.report`` is the page with all of this for your photos: *Read the report of an adaptation* goes through it.
# To undo everything, remove the run's folder. The same from a shell:
#
# .. code-block:: sh
#
#    sstl adapt my-photos -o runs/mine --minutes 10 --clean my-dry-photos
#    sstl derain my-photos -o derained --weights runs/mine/weights.safetensors

kept.cleanup()
