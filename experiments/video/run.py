"""Flicker of derained videos: frame by frame, and steadied, on made clips whose truth is known.

python experiments/video/run.py        (about a minute on two cores)
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from skimage import data
from torch import Tensor

import sstl
from sstl.ops.files import write_atomic
from sstl.ops.motion import warp
from sstl.rain import Recipe, render
from sstl.report.environment import environment
from sstl.restore.steady import Frame, steadied

FRAMES, HEIGHT, WIDTH = 12, 192, 256
# The rain of one clip falls in one direction; where, is drawn anew for each frame.
RAIN = {
    "light": Recipe(angle=(10, 14), length=(8, 16), density=(4, 6), brightness=(0.2, 0.4)),
    "heavy": Recipe(angle=(-16, -12), length=(12, 30), density=(14, 18), brightness=(0.3, 0.6), width=(1, 2)),
    "none": None,
}


def clip(motion: str) -> Tensor:
    """Return the clean frames, (N, 3, H, W): a still camera, one that pans, one in a hand, a thing that moves by."""
    photo = torch.from_numpy(data.astronaut()).movedim(-1, 0)[None].float() / 255
    photo = F.interpolate(photo, (410, 410), mode="area")
    y, x = torch.meshgrid(torch.arange(410.0), torch.arange(410.0), indexing="ij")
    thing = F.interpolate(torch.from_numpy(data.chelsea()[:200, 100:300]).movedim(-1, 0)[None] / 255.0, (60, 60))
    frames = []
    for i in range(FRAMES):
        flow = torch.tensor([60.0, 60.0]).view(1, 2, 1, 1).expand(-1, -1, 410, 410)
        if motion == "pan":
            flow = flow + torch.tensor([1.7 * i, 0.6 * i]).view(1, 2, 1, 1)
        elif motion == "hand":
            turn, shift = 0.02 * math.sin(i / 4), torch.tensor([3 * math.sin(2.1 * i), 2 * math.cos(1.3 * i)])
            flow = flow + torch.stack([-turn * (y - 150), turn * (x - 150)])[None] + shift.view(1, 2, 1, 1)
        frame = warp(photo, flow, "bicubic")[..., :HEIGHT, :WIDTH].clamp(0, 1)
        if motion == "thing":
            frame[..., 70:130, 10 + 4 * i : 70 + 4 * i] = thing
        frames.append(frame)
    return torch.cat(frames)


def figures(images: Tensor, truth: Tensor) -> dict[str, float]:
    """PSNR in dB, and the temporal difference error in grey values of 255."""
    psnr = -10 * (images - truth).square().mean((1, 2, 3)).clamp(min=1e-10).log10().mean()
    return {"psnr": float(psnr), "flicker": 255 * float((images.diff(dim=0) - truth.diff(dim=0)).abs().mean())}


def main() -> None:
    """Measure every motion under every rain."""
    restorer = sstl.load("joint-small", device="cpu", precision="fp32")
    rows: list[dict[str, Any]] = []
    for motion in ("still", "pan", "hand", "thing"):
        clean = clip(motion)
        for name, recipe in RAIN.items():
            rainy = clean if recipe is None else render(clean, recipe, 0, range(FRAMES)).rainy
            restored = restorer.restore((rainy * 255).round() / 255)
            pairs = (Frame(one[None], other[None]) for one, other in zip(rainy, restored, strict=True))
            made = {"rainy": rainy, "frame by frame": restored, "steadied": torch.cat([*steadied(pairs)])}
            rows.append({"motion": motion, "rain": name, **{key: figures(made[key], clean) for key in made}})
            print(json.dumps(rows[-1]), flush=True)
    tree = {"command": "python experiments/video/run.py", "weights": "joint-small", "frames": FRAMES, "clips": rows}
    tree["environment"] = environment(seed=0)
    write_atomic(Path(__file__).with_name("results.json"), json.dumps(tree, indent=1) + "\n")
    write_atomic(Path(__file__).with_name("README.md"), readme(rows))


def readme(rows: list[dict[str, Any]]) -> str:
    """Return the table as Markdown."""
    lines = [
        "# Flicker of derained videos",
        "",
        "Clips made of photographs, with rain drawn anew for each frame, restored by `joint-small` frame by frame and",
        "steadied (what `sstl derain` does). Flicker: mean |change from frame to frame - that of the truth|, in grey",
        "values of 255. Written by `python experiments/video/run.py`. The constants of the steadying were chosen on",
        "clips of the same photographs: other clips may gain less.",
        "",
        "| camera | rain | PSNR dB, frame by frame | steadied | flicker, rainy | frame by frame | steadied |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        rainy, alone, steady = (row[key] for key in ("rainy", "frame by frame", "steadied"))
        lines.append(
            f"| {row['motion']} | {row['rain']} | {alone['psnr']:.2f} | {steady['psnr']:.2f} | "
            f"{rainy['flicker']:.2f} | {alone['flicker']:.2f} | {steady['flicker']:.2f} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
