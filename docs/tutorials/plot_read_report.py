"""
Read the report of an adaptation
================================

Every adaptation ends in ``report.html``, one file that opens in any browser, and leaves a log beside it. This page
makes a short adaptation and goes through both: what each part says, what it does not say, and what to do about it.
"""

from __future__ import annotations

import os
import re
from html import unescape
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt

import sstl
from sstl.engine import read_log
from sstl.report.quickstart import make_domain

STEPS = 2 if "SSTL_TUTORIAL_SECONDS" in os.environ else 40
kept = TemporaryDirectory()
folder = Path(kept.name)

# %%
# A run to read
# -------------
#
# The same as in *Adapt to your own photos*, with another seed.

make_domain(folder, seed=1)
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

# %%
# The page, from top to bottom
# ----------------------------
#
# The title already tells: *Adapted to*, *Not adapted to* (nothing was better than the start, which was returned), or
# *Nothing to adapt to in* (the photos are dry). These are its headings:

page = adapted.report.read_text(encoding="utf-8")
for level, heading in re.findall(r"<h([12])[^>]*>(.*?)</h\1>", page, flags=re.DOTALL):
    print("  " * (int(level) - 1) + unescape(re.sub(r"<[^>]+>", "", heading)).strip())

# %%
# **The verdict** is a few sentences: whether anything was adapted, whether the photos were few, how much more or less
# light is removed, and whether clear photographs suffer. Every sentence that begins with *Warning* is about a way in
# which adaptations fail: less than half as much is removed as before (the weights may have collapsed to "remove
# nothing"), more than twice as much is removed and no truth says that it helped (look whether the photos were
# darkened), clean photographs suffer (texture is taken for rain).
#
# **The photos** come with the one that changed most first. Drag the slider; the buttons show the photo before the
# adaptation, the light that was removed, the rain map, and the doubt. Light that was removed should look like streaks.
# If you recognise the scene in it, texture was removed.
#
# **The judgement** has the predicted gain with its error, and what was forgotten of the rain that was known before.
# Less than 100 % of the way from the start means that the whole way would have forgotten too much.
#
# **Worst cases** are the photos in which the network disagrees with itself about the mirror image. Look at these first.
#
# **How to undo it** has the commands. Nothing but the run's folder was written.
#
# The score
# ---------
#
# Where does a predicted gain come from, if there is no truth? From an exam that is made of the photos: the rain that
# was found in them is laid over clean photographs, whose truth is known. The log has a line for each judgement.

log = read_log(folder / "run" / "log.jsonl")
judged = [line["trust"] for line in log if "trust" in line]
for line in judged:
    print(
        f"step {line['step']:4}: gain {line['gain']:+.2f} ± {line['error']:.2f} dB, "
        f"forgotten {line['forgotten']:+.2f} dB, "
        f"clean photographs {line['clean']:.1f} dB (before {line['clean_before']:.1f}), "
        f"{'admissible' if line['admissible'] else 'not admissible'}, {line['share']:.0%} of the way"
    )

# %%
# ``gain`` and ``error``
#     The predicted change of the luma PSNR, and by how much a small one is told too high. A gain below its error is
#     none. The score *orders* networks; do not rely on its size.
# ``forgotten``
#     Loss on pairs of the rain that is rehearsed; below 0 the network became better there, too.
# ``clean``, ``clean_before``
#     Clean photographs against themselves after restoring: how much harm is done where there is no rain.
# ``admissible``
#     Whether neither too much was forgotten nor clean photographs were harmed, nor much more rain found than there is;
#     only then the network may be kept.
# ``light``
#     Mean of the streaks that the network finds in the photos.
# ``share``
#     How far from the start: 100 % is the network as trained, less is the way back towards the start.
# ``measures``
#     The exam's parts and what is measured on the restored photos alone. Each can be fooled, so none of them decides.

steps = [0, *(line["step"] for line in judged)]
figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
axis.errorbar(steps, [0, *(line["gain"] for line in judged)], [0, *(line["error"] for line in judged)], fmt="o-")
axis.axhline(0, color="#999999", linewidth=1)
axis.set(xlabel="step", ylabel="predicted gain (dB)")
plt.show()

# %%
# The training
# ------------
#
# The other lines of the log are the loss and its parts. A part that falls is not yet a photo that improves: the
# cheapest way to make a part small may be a wrong one. Which part has which wrong solution, and what forbids it, is the
# table in *Rain, network and methods*.

losses = [line for line in log if "loss" in line]
names = ("loss", "background", "mask", "transfer")
print("step" + "".join(f"{name:>13}" for name in names))
for line in losses:
    print(f"{line['step']:4}" + "".join(f"{line[name]:13.5f}" for name in names))

# %%
# Write it again, compare, vote
# -----------------------------
#
# ``sstl report runs/mine`` opens the page, and writes it again if the run went on since. ``sstl compare RUN RUN -o
# PAGE.html`` draws several runs side by side. And to judge by eye without knowing which is which:
#
# .. code-block:: sh
#
#    sstl adapt my-photos -o runs/mine --minutes 10
#    sstl derain my-photos -o before --weights joint-small
#    sstl derain my-photos -o after --weights runs/mine/weights.safetensors
#    sstl compare --blind before after --photos my-photos --votes votes.jsonl

kept.cleanup()
