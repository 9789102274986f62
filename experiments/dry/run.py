"""How much rain the shipped weights find in photographs without rain and in rainy ones: what tells dry photos apart.

SSTL_DATA=/path/to/data python experiments/dry/run.py

Measures, as ``sstl adapt`` does to decide whether there is anything to adapt to, clean photographs of the development
split and of scikit-image, and the real training photos. Writes results.json.
"""

from __future__ import annotations

import json
from pathlib import Path

from sstl.data import SourceConfig, open_images
from sstl.ops.files import write_atomic
from sstl.report.adaptation import DRY, rain_cover
from sstl.report.environment import environment

SEED = 3
SETS = {
    "clean, development": (SourceConfig("manifest.csv", split="dev"), "clean"),
    "clean, bundled": (SourceConfig("bundled"), "clean"),
    "real, training": (SourceConfig("manifest.csv", split="train"), "rainy"),
}


def main() -> None:
    """Measure and write."""
    cover = {name: round(rain_cover(open_images(config, layer), SEED), 4) for name, (config, layer) in SETS.items()}
    result = {
        "command": "python experiments/dry/run.py", "dry_below": DRY, "cover": cover,
        "environment": environment(seed=SEED),
    }  # fmt: skip
    write_atomic(Path(__file__).with_name("results.json"), json.dumps(result, indent=1) + "\n")
    print(json.dumps(cover, indent=1))


if __name__ == "__main__":
    main()
