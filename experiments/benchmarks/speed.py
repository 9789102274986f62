"""How fast every network restores and how fast `joint` learns, as shares of a matrix product's rate, in one run.

python experiments/benchmarks/speed.py                    (about 12 minutes on two cores)

Writes speed.json, speed.md (its tables) and speed.svg: the quality of ``experiments/systems/rows``, where all networks
were trained for equally much compute, against the time of a restoration in this run.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from tqdm import tqdm

from sstl.networks import NETWORKS, create_network
from sstl.ops.files import write_atomic
from sstl.report.benchmark import Contestant, Timing, benchmark, matrix_rate, training_pace
from sstl.report.environment import environment
from sstl.report.inspection import HEIGHT, WIDTH

HERE = Path(__file__).resolve().parent
ROWS = HERE.parent / "systems" / "rows"
SIZES = ("tiny", "small", "base")
IMAGES = ((256, 256), (512, 512), (1080, 1920), (4000, 6000))
RELEASED = ("prenet", "jorder_e_practical", "jorder_e")  # those whose authors' weights are at hand
SCORED = ("rain100l", "rain100h")
PROTOCOL = "rgb"


def table(timings: list[Timing], against: str | None = None) -> str:
    """Return timings as Markdown; with the speed relative to one of them."""
    slow = {(t.height, t.width): t.seconds for t in timings if t.name == against}
    head = ["network", "image", "parameters", "GFLOP", "arithmetic", "ms", "of the machine", "MB"]
    head += [f"times as fast as {against}"] * bool(against)
    lines = ["| " + " | ".join(head) + " |", "| --- | --- |" + " ---: |" * (len(head) - 2)]
    for t in timings:
        row = [t.name, f"{t.height} × {t.width}", f"{t.parameters:,}", f"{t.gflop:.1f}", t.precision]
        row += [
            f"{1000 * t.seconds:.0f}",
            f"{t.share:.0%}",
            "" if t.peak_bytes is None else f"{t.peak_bytes / 1e6:.0f}",
        ]
        if against:
            row.append(f"{slow[t.height, t.width] / t.seconds:.1f}")
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def quality() -> dict[str, float]:
    """Return the mean PSNR on development pairs of each network that was trained for equally much compute."""
    found = {}
    for path in sorted(ROWS.glob("*.json")):
        row = json.loads(path.read_text())
        if not row["row"]["options"]:
            means = [row["scores"][name][PROTOCOL]["restored"]["psnr"]["mean"] for name in SCORED]
            found[row["row"]["network"]] = float(np.mean(means))
    return found


def plot(timings: list[Timing]) -> bytes:
    """Draw quality against time: each network at its median time, as the loader runs it."""
    seconds, scores = {t.name.removesuffix(" small"): t.seconds for t in timings}, quality()
    figure, axis = plt.subplots(figsize=(7, 4.5))
    ranked = sorted(scores, key=seconds.__getitem__)
    for name, slower in zip(ranked, [*ranked[1:], None], strict=True):
        at = 1000 * seconds[name], scores[name]
        below = slower is not None and scores[slower] > scores[name]  # so that neighbours' names do not meet
        axis.scatter(*at, s=30, color="#D55E00" if name == "joint" else "#0072B2")
        axis.annotate(name, at, (5, -10 if below else 4), textcoords="offset points", fontsize=8)
    axis.set(xscale="log", xlabel=f"ms for one image of {WIDTH}×{HEIGHT}", ylabel="PSNR (dB), RGB, after equal compute")
    axis.grid(color="0.9")
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def main() -> None:
    """Measure and write."""
    ours = [Contestant(f"joint {size}", create_network("joint", size=size)) for size in SIZES]
    plain = [Contestant(f"joint {size}, fp32", create_network("joint", size=size), "fp32") for size in SIZES]
    others = [Contestant(name, create_network(name)) for name in NETWORKS.names() if name != "joint"]
    released = [Contestant(f"{name} as released", create_network(name), as_released=True) for name in RELEASED]
    rates = {dtype: matrix_rate(dtype) for dtype in (torch.float32, torch.bfloat16)}
    everyone = [*ours, *plain, *released, *others]
    with tqdm(total=len(everyone) + len(ours) * len(IMAGES), desc="networks") as bar:
        all_networks = benchmark(everyone, rates=rates, tick=bar.update)
        all_sizes = benchmark(ours, IMAGES, 5, rates, bar.update)
    paces = {one.name: training_pace(one.network) for one in tqdm(ours, desc="train")}
    result: dict[str, Any] = {
        "command": "python experiments/benchmarks/speed.py",
        "gflops_of_matrix_products": {str(t).removeprefix("torch."): rate / 1e9 for t, rate in rates.items()},
        "networks": [asdict(t) for t in all_networks], "sizes": [asdict(t) for t in all_sizes],
        "training": {name: asdict(pace) for name, pace in paces.items()}, "environment": environment(),
    }  # fmt: skip
    write_atomic(HERE / "speed.json", json.dumps(result, indent=1) + "\n")
    write_atomic(HERE / "speed.md", page(result, all_networks, all_sizes))
    write_atomic(HERE / "speed.svg", plot(all_networks))


def page(result: dict[str, Any], all_networks: list[Timing], all_sizes: list[Timing]) -> str:
    """Return speed.md."""
    rates = ", ".join(f"{rate:.0f} GFLOP/s in {name}" for name, rate in result["gflops_of_matrix_products"].items())
    machine = result["environment"]
    lines = [
        f"| {name} | {pace['crops_per_second']:.0f} | {pace['share']:.0%} | {pace['waiting']:.1%} |"
        for name, pace in result["training"].items()
    ]
    return f"""\
# Speed

Written by `speed.py` from its one run on {machine["processors"]} processors ({machine["date"][:10]}, commit
{machine["commit"][:10]}). Times are medians, batch 1, all networks in turns. *Of the machine*: operations a second as a
share of those of a product of two matrices of 2048 × 2048 in the same arithmetic and run ({rates}): a reference, no
bound, since convolutions can be done in fewer operations than are counted.
*As released*: float32, contiguous, whole images, as the code of its authors runs it.

## One image

{table(all_networks, "prenet as released")}
![Quality against time](speed.svg)

The quality is that of [equal compute](../systems/README.md), a few minutes for each network: it tells how soon
networks are good on a machine without a GPU, not how good they can become.

## Sizes of images

{table(all_sizes)}
## Training

Steps of the supervised branch, 16 crops of 96 × 96, their rain rendered by a worker ahead; the operations are taken as
three times those of restoring.

| network | crops a second | of the machine | waits for data |
| --- | ---: | ---: | ---: |
{chr(10).join(lines)}
"""


if __name__ == "__main__":
    main()
