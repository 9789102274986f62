"""``sstl report``: open the page of a run, and write it again where it is older than the run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sstl.cli.output import hint, open_in_browser

EXAMPLES = """examples:
  sstl report runs/mine
  sstl report runs/mine --rebuild --no-browser"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "run", metavar="RUN", type=Path, help="the folder of an 'sstl train', 'sstl adapt' or 'sstl evaluate -o'"
    )
    parser.add_argument("--rebuild", action="store_true", help="write the page again although it is up to date")
    parser.add_argument(
        "--no-browser", action="store_true", help="only write the page (so it is without a terminal or a screen)"
    )
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def run(args: argparse.Namespace) -> int:
    """Write the page if need be, say where it is, and open it."""
    from sstl.report.run_page import page_of

    page = page_of(args.run, args.rebuild)
    print(f"report   {page}")
    if args.no_browser or not sys.stdout.isatty() or not open_in_browser(page.resolve().as_uri()):
        hint("open it in a browser")
    return 0
