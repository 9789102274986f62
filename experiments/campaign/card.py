"""The model cards of the campaign's weights, from its log, and a sheet of pictures where they fail.

python experiments/campaign/card.py            (sit.py writes them, too, whenever it ships)
"""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage import data

from sstl.data.manifest import read_manifest
from sstl.networks.weights import SHIPPED, read_info
from sstl.ops.files import write_atomic
from sstl.rain import load_recipe, render
from sstl.report.pictures import grid
from sstl.restore import load

HERE = Path(__file__).resolve().parent
ROWS = read_manifest(HERE.parent / "data" / "manifest.csv")
SIDE, SEED = 256, 5
GROWN = {"base": "small"}  # size -> the smaller one whose weights a first sitting, or one with --grow, begins with
CYCLES = {  # what a sitting's entry has, and how it was trained
    "phases": "cosine cycles at small and then at large crops",
    "branches": "two cosine cycles at crops of 256, by absolute and by squared error, whose ends are averaged",
}
NAMES = {
    "rain100l": "Rain100L", "rain100h": "Rain100H", "rain800": "Rain800", "heavy": "rendered, recipe `heavy`",
    "veil": "rendered, recipe `veil`",
}  # fmt: skip

CARD = """\
# joint-{size}

One set of weights for light, heavy, photographed and veiled rain: `joint` {size} ({parameters:,} parameters, float16,
{megabytes:.1f} MB).{default}

- **Data** (none of it shipped; `experiments/data/manifest.csv`): {rain100l} pairs of Rain100L and {rain100h} of
  Rain100H, of {rain100h_backgrounds} backgrounds (Yang et al., CVPR 2017), {rain800} pairs of Rain800 (Zhang et al.),
  {bsds} BSDS500 photographs (Berkeley) under rain rendered by this project's recipes, Garg and Nayar's
  streak images, and streaks of the pairs on other backgrounds. These sets were published for research and state no
  licence, or a non-commercial one: check their terms before commercial use. Every image whose background occurs in
  Rain100L, Rain100H, Rain12, Test100 or SIRR's test pairs was left out, and so were the recipes and streaks that
  `experiments/shift/reserved.yaml` keeps.
- **Training**: {minutes:.0f} minutes in all on a machine of two cores{distilled}{grown}; averaged weights (EMA),
  {cycles}. The sittings were run by `experiments/campaign/sit.py` and `campaign.yaml` as
  they were at the commits in brackets: {sittings}. All of it:
  {configs}.
- **Figures** (`experiments/campaign/log.json`, last sitting): mean luma PSNR (`y-matlab`) over the development split,
  on which weights were chosen, too; float32 before rounding to float16{half}.

{figures}

- **Limits**: the veil of distant rain is lifted in part and unevenly, on some real photos with a colour cast (a misty
  tree turns brown); drops on the lens, splashes and snow flakes mostly stay; thin bright structures (railings, poles,
  bricks' joints, grass) can be thinned like streaks. What that looks like: `experiments/campaign/failures-{size}.jpg`.
"""


def backgrounds(name: str, split: str) -> int:
    """Return how many backgrounds the images of a set and a split have."""
    return len({row.group for row in ROWS if (row.set, row.split) == (name, split)})


def card(size: str, log: list[dict[str, Any]]) -> str:
    """Return the card of a size from the log's last shipped sitting."""
    own = [entry for entry in log if entry["size"] == size and entry["shipped"]]
    own = own[max((i for i, entry in enumerate(own) if entry.get("anew")), default=0) :]  # the others are no part of it
    last = own[-1]
    path = SHIPPED / f"joint-{size}.safetensors"
    info, parameters = read_info(path)["info"], sum(t.numel() for t in load(path).network.parameters())
    rows = ["| development set | PSNR, dB |", "| --- | ---: |"]
    rows += [f"| {NAMES[name]} | {last['after'][name]:.2f} |" for name in NAMES if name in last["after"]]
    rows += [f"| clean photographs against themselves, RGB, each capped at 60 | {last['after']['clean']:.1f} |"]
    cost = last.get("float16_costs")
    counts = Counter(row.set for row in ROWS if row.split == "train")
    return CARD.format(
        **counts, rain100h_backgrounds=backgrounds("rain100h", "train"), size=size,
        parameters=parameters, megabytes=path.stat().st_size / 1e6, minutes=info["minutes"],
        cycles="; then ".join(text for key, text in CYCLES.items() if any(key in entry for entry in own)),
        default=" The default of `sstl derain` and `sstl adapt`." if size == "small" else "",
        # As in sit.py: the first sitting of tiny has no teacher.
        distilled=", distilled from `joint-small`" if size == "tiny" and last["sitting"] > 1 else "",
        grown=f", begun as a network that computes what `joint-{GROWN[size]}` does" if size in GROWN else "",
        sittings=", ".join(map(_sitting, own)), configs="; ".join(f"`{name}`" for name in info["configs"]),
        half="" if cost is None else f", which costs at most {max(cost, 0):.3f} dB", figures="\n".join(rows),
    )  # fmt: skip


def _sitting(entry: dict[str, Any]) -> str:
    commit, _, changed = entry["environment"]["commit"].partition("-")
    share = entry.get("share", 1.0)
    kept = "" if share == 1 else f"; {share:.0%} of the way from where it began was kept"
    return f"{entry['sitting']} ({commit[:10]}{' with changes' if changed else ''}{kept})"


def failures(weights: str) -> bytes:
    """Draw photographs of scikit-image that the weights fail on: texture taken for rain, veil and dense rain left."""
    restorer, rows = load(weights), []
    texture = np.repeat(data.grass()[:SIDE, :SIDE, None], 3, axis=2)
    cat = data.chelsea()[:SIDE, 100 : 100 + SIDE]
    for clean, recipe in ((texture, "dry"), (cat, "veil"), (cat, "any")):
        rainy = _rained_on(clean, recipe)
        restored = restorer.restore(rainy)
        removed = np.clip(4 * (rainy.astype(int) - restored), 0, 255).astype(np.uint8)
        rows.append([rainy, restored, removed, clean])
    buffer = io.BytesIO()
    captions = ("given", "restored", "removed, four times as bright", "truth")
    grid(rows, captions, ("texture without rain", "veil", "rain of the widest recipe"), height=SIDE).save(
        buffer, "JPEG", quality=88, optimize=True
    )
    return buffer.getvalue()


def _rained_on(clean: NDArray[np.uint8], recipe: str) -> NDArray[np.uint8]:
    image = torch.from_numpy(np.ascontiguousarray(clean)).permute(2, 0, 1)[None] / 255
    rainy = render(image, load_recipe(recipe), SEED, [0]).rainy[0]
    return (rainy.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


def write_cards() -> None:
    """Write the cards of all sizes that the log ships, and the pictures of their failures."""
    log = json.loads((HERE / "log.json").read_text())
    for size in sorted({entry["size"] for entry in log if entry["shipped"]}):
        write_atomic(SHIPPED / f"joint-{size}.md", card(size, log))
        write_atomic(HERE / f"failures-{size}.jpg", failures(f"joint-{size}"))


if __name__ == "__main__":
    write_cards()
