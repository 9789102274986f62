"""Released weights, imported, against what their authors' code makes of one image.

python experiments/systems/released.py PEERS

PEERS holds the authors' files and golden.npz: an image `rainy` (H, W, 3) in uint8, and by the names below the
backgrounds that the authors' code gave, (H, W, 3) in [0, 1] before they are clipped. Writes released.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

from sstl.networks.released import import_weights
from sstl.ops.files import write_atomic
from sstl.report.environment import environment

# name of the output -> (file, network)
FILES = {
    "prenet_rain100l": ("prenet_rain100l.pth", "prenet"),
    "prenet_rain100h": ("prenet_rain100h.pth", "prenet"),
    "jorder_e_practical": ("jorder_e_practical.pt", "jorder_e_practical"),
    "sirr_released_supervised": ("sirr_released.npz", "sirr_released"),
}


def main(peers: Path) -> None:
    """Compare and write."""
    golden = np.load(peers / "golden.npz")
    rainy = torch.from_numpy(golden["rainy"]).permute(2, 0, 1)[None] / 255
    differences = {}
    for name, (file, network) in FILES.items():
        with torch.inference_mode():
            background = import_weights(peers / file, network).eval()(rainy).background[0].permute(1, 2, 0).numpy()
        differences[name] = float(np.abs(background - golden[name]).max())
    result = {
        "command": "python experiments/systems/released.py PEERS", "largest_difference": differences,
        "environment": environment(),
    }  # fmt: skip
    write_atomic(Path(__file__).with_suffix(".json"), json.dumps(result, indent=1) + "\n")
    print(json.dumps(differences, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
