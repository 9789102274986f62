"""
Add your own method in 40 lines
===============================

A method is the one module that is trained: a network, losses, and whatever state it keeps. Its ``forward`` gets a
labelled batch and, if it asks for them, rainy photos without labels, and returns the loss. Everything else is there:
data, checkpoints, resuming, several devices, the gate, the report.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt

import sstl
from sstl.engine import read_log
from sstl.report.quickstart import make_domain

STEPS = 10 if "SSTL_TUTORIAL_SECONDS" in os.environ else 24
kept = TemporaryDirectory()
folder = Path(kept.name)
make_domain(folder, seed=0)

# %%
# The idea
# --------
#
# Rain adds light. So a restored photo should nowhere be brighter than the photo. That is a loss without a truth: the
# mean of what was added, ``max(B - O, 0)``. Before writing any loss, ask for its cheapest wrong solution. Here it is
# "remove everything": a black image adds nothing. The supervised branch forbids it, which is why the method contains
# it.
#
# The file
# --------
#
# A file of its own, outside of sstl. The last two lines are what lets the command line know the method: run the file as
# you would run ``sstl``.

(folder / "my_method.py").write_text(
    '''\
"""sstl with a method of my own: python my_method.py adapt PHOTOS -o RUN --method no_added_light."""

from sstl.cli.main import main
from sstl.errors import SstlError
from sstl.methods.base import METHODS
from sstl.methods.supervised import Supervised


@METHODS.register("no_added_light")
class NoAddedLight(Supervised):
    """Supervised, and nothing may become brighter in photos.

    Args:
        network: any network.
        added: weight of the light that was added.
        options: of ``Supervised``.
    """

    needs_unpaired = True

    def __init__(self, network, added: float = 1.0, **options):
        super().__init__(network, **options)
        self.added = added

    def forward(self, paired, unpaired=None):
        if unpaired is None:
            raise SstlError("method 'no_added_light' needs unlabelled photos; give data.unpaired.")
        parts = self.supervised(paired)
        restored = self.network(unpaired.rainy).background
        added = (restored - unpaired.rainy).clamp(min=0).mean()
        return {**parts, "added": added, "loss": parts["loss"] + self.added * added}


if __name__ == "__main__":
    raise SystemExit(main())
''',
    encoding="utf-8",
)

# %%
# Four rules, all of which several processes and a resumed run rely on: ``forward`` changes no state, ``after_step``
# may; state lives in buffers; what is drawn at random for each sample is drawn by ``sstl.ops.processes.drawn``; a
# statistic that is no mean over samples goes through ``sstl.ops.processes.averaged``. The types of the options are read
# from ``__init__``, so that YAML and the command line are checked against them.
#
# From Python
# -----------
#
# Importing the file registers the method.

sys.path.insert(0, str(folder))
import my_method  # noqa: F401 (the import is what registers it)

adapted = sstl.adapt(
    folder / "photos",
    folder / "run",
    "quickstart-source",
    "no_added_light",
    STEPS,
    options={"added": 2.0},
    clean=folder / "clean",
    held_out=folder / "held-out",
    recipe="light",
    matched=0.0,  # no matched rain in the labelled pairs: the method on its own
)
print(adapted.outcome)

log = [line for line in read_log(folder / "run" / "log.jsonl") if "added" in line]
figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
for name in ("background", "added"):
    axis.plot([line["step"] for line in log], [line[name] for line in log], "o-", label=name)
axis.set(xlabel="step", ylabel="part of the loss", yscale="log")
axis.legend()
plt.show()

# %%
# From the command line
# ---------------------
#
# The same file is a command with all of sstl's commands. A YAML file of ``sstl train`` reaches the method by
# ``method: {name: no_added_light, options: {added: 2.0}}``, if it is this command that trains it.

listed = subprocess.run(
    [sys.executable, "my_method.py", "methods"], cwd=folder, capture_output=True, text=True, check=True
)
lines = listed.stdout.splitlines()
where = next(i for i, line in enumerate(lines) if line.startswith("no_added_light"))
print("\n".join(lines[where : where + 3]))

# %%
# Is it any good?
# ---------------
#
# The curve of ``added`` says what this idea is worth here: a network that removes rain adds hardly any light to begin
# with, so the term has next to nothing to do. Ask three questions before believing in any: does it beat the *control*,
# the same steps of ``supervised``? Does it do so for several seeds, in rains that no choice was made on? What does it
# do alone, without the supervised branch? The report answers none of them; ``sstl compare RUN RUN -o PAGE.html`` puts
# the runs side by side.

kept.cleanup()
