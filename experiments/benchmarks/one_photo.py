"""How long `sstl derain` takes for one photo of 481x321 from a cold start, and what of it is sstl's own.

python experiments/benchmarks/one_photo.py

Runs the command five times with a warm file cache. Own is what Python spends on importing sstl's modules, without those
of its dependencies, and on everything between the parsed command line and the written file, without the restoration
itself. Writes one_photo.json.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from PIL import Image
from skimage import data

from sstl.ops.files import write_atomic
from sstl.report.environment import environment
from sstl.restore import load, plan, restore_files

RESULTS = Path(__file__).with_suffix(".json")
RUNS = 5
IMPORT = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)")


def command(photo: Path, output: Path, *python: str) -> subprocess.CompletedProcess[str]:
    """Run ``sstl derain`` in a fresh Python."""
    arguments = (sys.executable, *python, "-m", "sstl", "derain", str(photo), "-o", str(output), "--overwrite", "-q")
    return subprocess.run(arguments, check=True, capture_output=True, text=True)


def own_imports(told: str) -> float:
    """Return the seconds that ``-X importtime`` counts for sstl's modules themselves."""
    found = [(name, int(microseconds)) for microseconds, name in IMPORT.findall(told)]
    return sum(microseconds for name, microseconds in found if name.split(".")[0] == "sstl") / 1e6


def around(photo: Path, output: Path) -> float:
    """Return the seconds of loading weights, reading and writing, beside the restoration, in a warm process."""
    restorer = load()
    image = Image.open(photo).convert("RGB")
    for _ in range(2):
        start = time.perf_counter()
        restorer.restore(image)
        restoration = time.perf_counter() - start
    start = time.perf_counter()
    restorer = load()
    for _ in restore_files(restorer, plan([photo], output)[0], overwrite=True):
        pass
    return time.perf_counter() - start - restoration


def main() -> None:
    """Measure and write."""
    with TemporaryDirectory() as folder:
        photo, output = Path(folder) / "photo.png", Path(folder) / "out"
        Image.fromarray(data.astronaut()[:321, :481]).save(photo)
        command(photo, output)
        seconds = []
        for _ in range(RUNS):
            start = time.perf_counter()
            command(photo, output)
            seconds.append(time.perf_counter() - start)
        imports = own_imports(command(photo, output, "-X", "importtime").stderr)
        rest = around(photo, output)
    result = {
        "command": "python experiments/benchmarks/one_photo.py", "seconds": [round(s, 3) for s in seconds],
        "median": round(median(seconds), 3), "own_imports": round(imports, 3), "own_around": round(rest, 3),
        "own": round(imports + rest, 3), "environment": environment(),
    }  # fmt: skip
    write_atomic(RESULTS, json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
