"""Check the rain that was matched to each domain's photos against the domain's own: light, length, density, brightness.

SSTL_DATA=/path/to/data python experiments/shift/strength.py [--work FOLDER]

Renders both on the test backgrounds. Writes strength.json; ``table.py`` shows it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from domains import MANIFEST, Domain, build, reserved
from run import matched

from sstl.data import SourceConfig, open_images
from sstl.ops.files import write_atomic
from sstl.rain import Recipe, load_recipe, render, streaks_alone
from sstl.report.environment import environment

RESULTS = Path(__file__).resolve().with_name("strength.json")
SEED = 40
ROUNDS = 4  # draws for each background


def light(recipes: list[Recipe], domain: Domain, streaks: Any) -> float:
    """Return the mean of the streaks, in [0, 1], over draws of recipes in turn."""
    tests = open_images(SourceConfig(str(domain.root / "test" / "clean")), "clean")
    images = [torch.from_numpy(tests.load(i)).permute(2, 0, 1)[None].float() / 255 for i in range(len(tests))]
    places = range(ROUNDS * len(images))
    found = [render(images[i % len(images)], recipes[i % len(recipes)], SEED, [i], streaks).streak for i in places]
    return float(np.mean([float(streak.mean()) for streak in found]))


def main() -> None:
    """Check all domains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/shift"))
    tree, rows = reserved(), []
    streaks = open_images(SourceConfig(MANIFEST, split=tree["streaks"]), "streak")
    for domain in build(parser.parse_args().work.resolve() / "domains"):
        names = tree["mixture"] if domain.name == "mixture" else [domain.name]
        own = [streaks_alone(tree["recipes"][name]) for name in names]
        found = load_recipe(matched(domain))
        ranges = {
            key: {"own": [list(getattr(recipe, key)) for recipe in own], "matched": list(getattr(found, key))}
            for key in ("angle", "length", "density", "brightness")
        }
        rows.append(
            {
                "domain": domain.name,
                "own": round(light(own, domain, streaks), 4),
                "matched": round(light([found], domain, None), 4),
                "ranges": ranges,
            }
        )
        print(rows[-1], flush=True)
    write_atomic(RESULTS, json.dumps({"rows": rows, "environment": environment()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
