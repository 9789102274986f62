"""Decide anew which cells keep what they adapted, after the gate's error was given a higher floor; nothing is trained.

python experiments/shift/rejudge.py            (``table.py`` then draws the tables)

What a gate returns follows from the predicted gain and its error, which are in the cells: the start, or the adapted.
"""

from __future__ import annotations

import json
from pathlib import Path

from sstl.methods.trust import FLOOR
from sstl.ops.files import write_atomic


def rejudge(cells: Path) -> None:
    """Raise the errors in a folder of cells to the floor; those that no longer exceed theirs get the start's scores."""
    for file in sorted(cells.glob("*.json")):
        cell = json.loads(file.read_text())
        trust = cell.get("trust") or {}
        if not trust.get("best") or trust["best"]["error"] >= FLOOR:
            continue
        trust["best"]["error"] = FLOOR
        if trust["accepted"] and trust["best"]["gain"] <= FLOOR:
            trust["accepted"] = False
            start = json.loads(file.with_name(f"{cell['domain']}-{cell['source']}-start.json").read_text())
            cell |= {key: start[key] for key in ("test", "source_psnr", "clean_psnr")}
            print(f"{file.stem}: the start")
        write_atomic(file, json.dumps(cell, indent=1) + "\n")


if __name__ == "__main__":
    rejudge(Path(__file__).resolve().with_name("cells"))
