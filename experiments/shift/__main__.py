"""Run the whole suite, in the order in which its parts need each other; what is done is not done again.

SSTL_DATA=/path/to/data python experiments/shift [--work FOLDER]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

STEPS = (
    "run.py --judged --work {work}",
    "trust.py measure --work {work}",
    "trust.py fit",
    "run.py --work {work}",  # gates judge by what was calibrated
    "trust.py measure --work {work}",  # what they judged, which is checked and not calibrated on
    "trust.py fit",
    "doubt.py --work {work}",
    "strength.py --work {work}",
    "draw.py --work {work}",
    "table.py",
)

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--work", type=Path, default=Path("runs/shift"))
work = parser.parse_args().work
for step in STEPS:
    script, *arguments = (word.format(work=work) for word in step.split())
    subprocess.run([sys.executable, str(Path(__file__).with_name(script)), *arguments], check=True)
