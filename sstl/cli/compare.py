"""``sstl compare``: runs side by side on a page, or blind votes between two folders of restorations."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sstl.cli.output import hint, open_in_browser, print_error, whole, write_json
from sstl.errors import SstlError

if TYPE_CHECKING:
    from sstl.report.blind import Ballot

EXAMPLES = """examples:
  sstl compare runs/mine runs/control -o compared.html
  sstl compare --blind derained-a derained-b --photos my-rainy-photos
  sstl compare --blind derained-a derained-b --votes mine.jsonl --report"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "runs", metavar="RUN", nargs="*", type=Path, help="folders of 'sstl train', 'sstl adapt' or 'sstl evaluate -o'"
    )
    parser.add_argument(
        "-o", "--output", metavar="PAGE", type=Path, help="the page of the runs (default: compared.html)"
    )
    parser.add_argument(
        "--photos",
        metavar="DIR",
        type=Path,
        help="rainy photos: restored by each run (default: those that all learnt from), or shown beside A and B",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace PAGE if it exists")
    blind = parser.add_argument_group("blind votes, instead of runs")
    blind.add_argument("--blind", metavar=("A", "B"), nargs=2, type=Path, help="two restorations of the same photos")
    blind.add_argument("--votes", metavar="FILE", type=Path, help="where to keep the votes (default: A-B-votes.jsonl)")
    blind.add_argument("--seed", metavar="N", type=int, help="of the order and the sides (default: nobody knows it)")
    blind.add_argument(
        "--port", metavar="N", type=whole(0, 65535), default=0, help="of 127.0.0.1 (default: any free one)"
    )
    blind.add_argument("--no-browser", action="store_true", help="only print the address")
    blind.add_argument("--report", action="store_true", help="print the count so far and end")
    blind.add_argument("--json", metavar="FILE", type=Path, help="also write the count as JSON")
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def run(args: argparse.Namespace) -> int:
    """Write the page of the runs, or hold the vote."""
    _check(args)
    return _vote(args) if args.blind else _page(args)


def _check(args: argparse.Namespace) -> None:
    of_votes = args.votes or args.seed is not None or args.port or args.no_browser or args.report or args.json
    wrong = {
        "give two or more runs, or --blind A B": not args.runs and not args.blind,
        "--blind compares two folders; leave out the runs": args.runs and args.blind,
        "--blind writes no page; leave out -o and --overwrite": args.blind and (args.output or args.overwrite),
        "--votes, --seed, --port, --no-browser, --report and --json are of --blind": args.runs and of_votes,
    }
    for message, holds in wrong.items():
        if holds:
            raise SstlError(f"{message} (see 'sstl compare --help').")


def _page(args: argparse.Namespace) -> int:
    from sstl.report.page import write_page
    from sstl.report.runs import read_runs
    from sstl.report.runs_page import runs_page

    output = args.output or Path("compared.html")
    if output.exists() and not args.overwrite:
        raise SstlError(f"{output} exists; give --overwrite, or another name by -o.")
    page = runs_page(read_runs(args.runs), args.photos)
    print(page.verdict)
    print(f"wrote {write_page(output, page)}")
    hint("open it in a browser")
    return 0


def _vote(args: argparse.Namespace) -> int:
    from sstl.report.blind import Ballot, find_trials

    a, b = args.blind
    votes = args.votes or Path(f"{a.resolve().name}-{b.resolve().name}-votes.jsonl")
    trials, failures = find_trials(a, b, args.photos)
    ballot = Ballot(a, b, trials, votes, args.seed)
    for failure in failures:
        print_error(failure)
    if not args.report:
        _serve(ballot, args.port, not args.no_browser)
    if args.report or ballot.position is None:
        print(ballot.text())
        write_json(args.json, ballot.result(), seed=args.seed)
    else:
        print(f"{len(ballot.votes)} of {len(trials)} photos are voted on; the same command goes on, --report counts.")
    print(f"votes    {votes}")
    return 1 if failures else 0


def _serve(ballot: Ballot, port: int, browser: bool) -> None:
    from sstl.report.blind_server import BlindServer

    with BlindServer(ballot, port) as server:
        print(f"vote at  {server.address}")
        hint("open it in a browser of this machine; Ctrl-C ends, and all votes are saved")
        sys.stdout.flush()
        if browser:
            open_in_browser(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:  # the usual way to end
            print(file=sys.stderr)
