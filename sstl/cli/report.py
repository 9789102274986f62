"""``sstl report``: write the page of an adaptation again."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder of a finished 'sstl adapt'")
    parser.epilog = "example: sstl report runs/mine"


def run(args: argparse.Namespace) -> int:
    """Write the page and say where it is."""
    from sstl.report.adaptation import report_run

    print(f"report   {report_run(args.run)}")
    print("next: open it in a browser")
    return 0
