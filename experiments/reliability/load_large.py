"""How much memory `sstl derain` takes at its peak for one photo of 150 megapixels, with the shipped weights.

nice python experiments/reliability/load_large.py            (about a quarter of an hour on one core; Linux)

The photo is made and written strip by strip as PNG; it is far above Pillow's own limit, and half of ours.
"""

from __future__ import annotations

import json
import resource
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np

from sstl.ops.files import write_atomic
from sstl.report.environment import environment

WIDTH, HEIGHT, STRIP = 15_000, 10_000, 50
SEED = 0


def write_photo(path: Path) -> None:
    """Write blocks of random colours that move sideways from strip to strip, holding one strip at a time."""
    colours = np.random.default_rng(SEED).integers(0, 256, (STRIP, WIDTH // 8, 3), dtype=np.uint8).repeat(8, axis=1)
    packer = zlib.compressobj(1)
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.write(_chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)))
        for top in range(0, HEIGHT, STRIP):
            rows = np.roll(colours, top, axis=1).reshape(STRIP, -1)
            unfiltered = np.concatenate([np.zeros((STRIP, 1), np.uint8), rows], axis=1)
            file.write(_chunk(b"IDAT", packer.compress(unfiltered.tobytes())))
        file.write(_chunk(b"IDAT", packer.flush()) + _chunk(b"IEND", b""))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def main() -> None:
    """Restore the photo in a process of its own and write down its high-water mark."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_photo(folder / "large.png")
        start = time.perf_counter()
        command = [sys.executable, "-m", "sstl", "derain", folder / "large.png", "-o", folder / "out"]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        written = (folder / "out" / "large.png").stat().st_size
    figures = {
        "command": "python experiments/reliability/load_large.py",
        "seed": SEED,
        "megapixels": WIDTH * HEIGHT / 1e6,
        "peak_gigabytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9,
        "seconds": seconds,
        "written_bytes": written,
        "environment": environment(),
    }
    print(figures)
    write_atomic(Path(__file__).with_suffix(".json"), json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
