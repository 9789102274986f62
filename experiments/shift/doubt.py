"""Check the doubt map against the true error: do restorations go wrong where mirrored views disagree?

SSTL_DATA=/path/to/data python experiments/shift/doubt.py [--work FOLDER] [--sources NAME ...]

For each domain, the test photos are restored by the frozen sources and, where ``run.py`` left them in FOLDER, by the
weights that the default adapted. In blocks of 16 pixels, doubt is compared with the true absolute error: rank
correlation within a photo, and the share of its whole error that lies in the tenth of its blocks that is doubted most
(a map that knows nothing finds a tenth of it). Writes doubt.json; ``table.py`` shows it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from domains import Domain, build
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sources import SOURCES

from sstl.data import SourceConfig, open_pairs
from sstl.data.images import Photo
from sstl.ops.files import write_atomic
from sstl.report.environment import environment
from sstl.restore import Restorer, load

RESULTS = Path(__file__).resolve().with_name("doubt.json")
BLOCK, MOST = 16, 0.1


def in_blocks(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the means of the whole blocks of a plane (H, W), flat."""
    high, wide = (side // BLOCK for side in plane.shape)
    return plane[: high * BLOCK, : wide * BLOCK].reshape(high, BLOCK, wide, BLOCK).mean(axis=(1, 3)).ravel()


def agreement(doubt: NDArray[np.float64], error: NDArray[np.float64]) -> tuple[float, float]:
    """Return the rank correlation of doubt and error, and the error's share in the most doubted blocks."""
    most = np.argsort(doubt)[::-1][: round(MOST * len(doubt))]
    return float(spearmanr(doubt, error).statistic), float(error[most].sum() / error.sum())


def check(restorer: Restorer, domain: Domain) -> dict[str, float]:
    """Return the means over the test photos of a domain."""
    pairs = open_pairs(SourceConfig(str(domain.root / "test"), rainy="rainy", clean="clean"))
    found = []
    for i in range(len(pairs)):
        rainy, clean = pairs.load(i)
        layers = restorer.restore_photo(Photo(rainy), ("background", "doubt"))
        error = np.abs(layers["background"].pixels.astype(float) - clean).mean(axis=2)
        found.append(agreement(in_blocks(layers["doubt"].pixels[..., 0].astype(float)), in_blocks(error)))
    correlation, share = np.mean(found, axis=0)
    return {"spearman": round(float(correlation), 3), "share": round(float(share), 3)}


def main() -> None:
    """Check all that is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/shift"))
    names = [source.name for source in SOURCES]
    parser.add_argument("--sources", nargs="+", default=names, choices=names)
    args = parser.parse_args()
    work, rows = args.work.resolve(), []
    for domain in build(work / "domains"):
        for source in (one for one in SOURCES if one.name in args.sources):
            adapted = work / "cells" / domain.name / source.name / "default" / "weights.safetensors"
            for name, weights in (("start", source.path), ("default", adapted)):
                if weights.exists():
                    rows.append({"domain": domain.name, "source": source.name, "weights": name})
                    rows[-1] |= check(load(weights), domain)
                    print(rows[-1], flush=True)
    write_atomic(RESULTS, json.dumps({"rows": rows, "environment": environment()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
