"""Score shipped weights on the development data: pairs, rendered heavy rain, clean photographs; a file for each.

SSTL_DATA=/path/to/data python experiments/first-run/evaluate.py [NAME ...]     (some 3 minutes each on two cores)
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from sstl.data import SourceConfig, open_images, open_pairs
from sstl.networks.weights import list_weights, read_info
from sstl.ops.files import write_atomic
from sstl.report.environment import environment
from sstl.report.evaluation import Evaluation, RenderedPairs, evaluate, evaluate_harm
from sstl.restore import load


def main(*names: str) -> None:
    """Evaluate the weights of these names, or `joint` in all its sizes."""
    for name in names or [name for name in list_weights() if name.startswith("joint-")]:
        measure(name)


def measure(weights: str) -> None:
    """Evaluate weights and write the file of their name beside this script."""
    restorers = {"restored": load(weights)}
    clean = open_images(SourceConfig("manifest.csv", split="dev", set="bsds"), "clean")
    sets: dict[str, Evaluation] = {
        name: evaluate(open_pairs(SourceConfig("manifest.csv", split="dev", set=name)), restorers, progress=True)
        for name in ("rain100l", "rain100h", "rain800")
    }
    sets["rendered heavy"] = evaluate(RenderedPairs(clean, "heavy", 20, seed=0), restorers, progress=True)
    harm = evaluate_harm(clean, restorers, progress=True)
    result = {
        "command": f"python experiments/first-run/evaluate.py {weights}",
        "weights": read_info(weights)["info"],
        "sets": {
            name: {
                "protocol": found.protocol,
                "count": len(found.rows),
                **{key: {metric: asdict(s) for metric, s in of_key.items()} for key, of_key in found.results.items()},
            }
            for name, found in sets.items()
        },
        "clean photographs": {"protocol": "rgb, each capped at 60 dB", **asdict(harm.results["restored"]["psnr"])},
        "environment": environment(precision=str(restorers["restored"].dtype).removeprefix("torch.")),
    }
    write_atomic(Path(__file__).with_name(f"scores-{weights}.json"), json.dumps(result, indent=1) + "\n")
    for name, found in sets.items():
        print(f"{name}\n{found.table()}\n")
    print(f"clean photographs\n{harm.table()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
